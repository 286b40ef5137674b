"""The entry point of `python -m benchmarks.large_store`, which times commands on a store of many runs."""

import sys

from benchmarks.large_store.command import main

if __name__ == "__main__":
    sys.exit(main())
