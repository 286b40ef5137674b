"""BERT's layers and their gradients, written out for speed."""
