"""The benchmark of quality: the bundled encoder compared with random weights and with a linear model."""
