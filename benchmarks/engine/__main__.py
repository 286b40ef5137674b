"""The entry point of `python -m benchmarks.engine`, which times fine-tuning by alue-bench and by `Trainer`."""

import sys

from benchmarks.engine.command import main

if __name__ == "__main__":
    sys.exit(main())
