"""The version of alue-bench, which is part of every run's fingerprint because its code runs in every training."""

__version__ = "0.1.0"
