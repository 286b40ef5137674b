"""``python -m tools.sampledata``: write the embedded sample, or check that the committed files are up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.sampledata import (
    affect,
    banking,
    diagnostics,
    dialects,
    entities,
    inference,
    irony,
    offence,
    out_of_domain,
    questions,
    reading,
)

DEFAULT_OUTPUT = Path("plugins/alue_bench_tasks/sample")
_FAMILIES = (
    dialects,
    questions,
    offence,
    affect,
    inference,
    irony,
    diagnostics,
    out_of_domain,
    banking,
    entities,
    reading,
)


def sample_files() -> dict[str, bytes]:
    """Return the content of every file of the sample, by its path relative to the output folder."""
    return {path: content for family in _FAMILIES for path, content in family.files().items()}


def differences(folder: Path) -> list[str]:
    """Compare a folder with the sample, and return a line for each file that is missing, changed or unknown."""
    expected = sample_files()
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    lines = []
    for path, content in expected.items():
        if path not in present:
            lines.append(f"missing: {path}")
        elif (folder / path).read_bytes() != content:
            lines.append(f"changed: {path}")
    lines += [f"unknown: {path}" for path in sorted(present - expected.keys())]
    return lines


def main() -> int:
    """Run the command line and return the exit code: 1 if ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m tools.sampledata", description=__doc__)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder of the sample (%(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the folder differs")
    options = parser.parse_args()
    if options.check:
        lines = differences(options.output)
        for line in lines:
            print(line, file=sys.stderr)
        if lines:
            print(f"run: python -m tools.sampledata --output {options.output}", file=sys.stderr)
        return 1 if lines else 0
    for path, content in sample_files().items():
        target = options.output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
