"""`python -m benchmarks.sweep.whole`."""

import sys

from benchmarks.sweep.whole.command import main

if __name__ == "__main__":
    sys.exit(main())
