"""Programs for maintainers: the bundled model's pre-training, the embedded sample, and a comparison of results."""
