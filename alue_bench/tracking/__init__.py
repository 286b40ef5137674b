"""The MLflow store, in which results are kept. It is written to outside of timed regions only."""
