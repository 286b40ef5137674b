"""docs/cli.md is what --help says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "typer", "alue_bench.cli.main", "utils", "docs", "--name", "alue-bench"]


def test_the_command_reference_is_generated_from_the_commands() -> None:
    generated = subprocess.run(COMMAND, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    regenerate = f"python {' '.join(COMMAND[1:])} --output docs/cli.md"
    assert written.strip() == generated.strip(), f"out of date; regenerate it with: {regenerate}"
