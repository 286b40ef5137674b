"""The benchmark of quality: the bundled pre-trained encoder, compared with random weights and with a linear model."""
