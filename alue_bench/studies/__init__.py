"""Studies: the questions that `run`, `sweep` and `search` answer, from options and study files to results."""
