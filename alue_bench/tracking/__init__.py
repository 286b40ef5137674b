"""MLflow: where results are kept. Written at the edge, never inside a timed region."""
