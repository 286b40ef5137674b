"""A hand-written forward and backward pass for the layers of the BERT family, faster than transformers' modules."""
