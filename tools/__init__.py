"""Programs for maintainers: pre-training of the bundled model, the embedded sample, and a comparison of results."""
