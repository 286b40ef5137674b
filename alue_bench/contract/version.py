"""The version of alue-bench, which is part of every fingerprint: the harness takes part in every training."""

__version__ = "0.1.0"
