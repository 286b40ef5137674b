"""The entry point of `python -m benchmarks.quality`, which measures what the bundled encoder's pre-training gives."""

import sys

from benchmarks.quality.command import main

if __name__ == "__main__":
    sys.exit(main())
