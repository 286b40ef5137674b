"""The MLflow store, in which runs and results are recorded.

While training time is measured, nothing is written to the store except heartbeats (see `liveness`).
"""
