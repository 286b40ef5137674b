"""The entry point of `python -m benchmarks.gpu`, which checks and measures alue-bench on a GPU."""

import sys

from benchmarks.gpu.bare_machine import stand_in_for_missing_packages

if __name__ == "__main__":
    stand_in_for_missing_packages()  # before anything imports alue_bench
    from benchmarks.gpu.command import main

    sys.exit(main())
