"""The version of alue-bench.

The version is part of every run's fingerprint (a digest of everything that determines the result), because
alue-bench's own code affects every result.
"""

__version__ = "0.1.0"
