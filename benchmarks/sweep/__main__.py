"""The entry point of `python -m benchmarks.sweep`, which times a sweep whose runs share outputs of frozen layers."""

import sys

from benchmarks.sweep.command import main

if __name__ == "__main__":
    sys.exit(main())
