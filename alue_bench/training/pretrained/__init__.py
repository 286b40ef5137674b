"""Pre-trained weights and tokenizers: found, verified and loaded."""
