"""Finding, checking and loading pre-trained weights and tokenizers."""
