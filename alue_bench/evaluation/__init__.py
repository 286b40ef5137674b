"""The evaluation of models: predictions and metrics from logits, statistics of scores, and submission files."""
