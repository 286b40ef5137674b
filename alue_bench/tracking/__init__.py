"""The MLflow store, in which runs and results are recorded. It is never written to while training time is measured."""
