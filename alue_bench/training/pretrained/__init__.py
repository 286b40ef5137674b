"""Pre-trained weights and tokenizers: locating, verifying and loading them."""
