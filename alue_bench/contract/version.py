"""The version of alue-bench.

It is part of every run's fingerprint (the digest of everything that determines a result), because alue-bench's own code
affects the result of every run.
"""

__version__ = "0.1.0"
