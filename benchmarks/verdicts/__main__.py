"""The command line of `python -m benchmarks.verdicts`: the first word is the part to simulate."""

from benchmarks.verdicts.command import main

raise SystemExit(main())
