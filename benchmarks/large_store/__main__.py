"""`python -m benchmarks.large_store`."""

import sys

from benchmarks.large_store.command import main

if __name__ == "__main__":
    sys.exit(main())
