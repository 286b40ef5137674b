"""The entry point of `python -m benchmarks.quality`, which measures the gain by the bundled encoder's pre-training."""

import sys

from benchmarks.quality.command import main

if __name__ == "__main__":
    sys.exit(main())
