"""The entry point of `python -m benchmarks.sweep.whole`, which times a complete sweep."""

import sys

from benchmarks.sweep.whole.command import main

if __name__ == "__main__":
    sys.exit(main())
