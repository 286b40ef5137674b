"""The implementation of `run`, `sweep` and `search`, from options and study files to results."""
