"""The entry point of `python -m benchmarks.search`, which compares a search with a finished sweep."""

import sys

from benchmarks.search.command import main

if __name__ == "__main__":
    sys.exit(main())
