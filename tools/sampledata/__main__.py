"""``python -m tools.sampledata``: writes the sample, or checks that what is there is what would be written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.sampledata import affect, diagnostics, dialects, inference, irony, offence, questions

DEFAULT_OUTPUT = Path("plugins/alue_bench_tasks/sample")
_FAMILIES = (dialects, questions, offence, affect, inference, irony, diagnostics)


def sample_files() -> dict[str, bytes]:
    """The content of every file of the sample by its path below the output folder."""
    return {path: content for family in _FAMILIES for path, content in family.files().items()}


def differences(folder: Path) -> list[str]:
    """What keeps ``folder`` from being the sample: one line a file that is missing, changed or unknown."""
    expected = sample_files()
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    found = []
    for path, content in expected.items():
        if path not in present:
            found.append(f"missing: {path}")
        elif (folder / path).read_bytes() != content:
            found.append(f"changed: {path}")
    found += [f"unknown: {path}" for path in sorted(present - expected.keys())]
    return found


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.sampledata", description=__doc__)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder of the sample (%(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the folder differs")
    options = parser.parse_args()
    if options.check:
        found = differences(options.output)
        for line in found:
            print(line, file=sys.stderr)
        if found:
            print(f"run: python -m tools.sampledata --output {options.output}", file=sys.stderr)
        return 1 if found else 0
    for path, content in sample_files().items():
        target = options.output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
