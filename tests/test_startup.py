"""Packages that take seconds to import are imported where they are used, so that help answers at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch", "transformers", "mlflow", "datasets", "sklearn", "scipy", "numpy", "pandas", "pydantic", "matplotlib",
    "huggingface_hub", "sqlalchemy",
}  # fmt: skip

CODE = """
import json, sys
sys.argv = ["alue-bench", *{arguments!r}]
try:
    {statement}
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


MAIN = "from alue_bench.cli.main import main; main()"


@pytest.mark.parametrize(
    ("statement", "arguments", "allowed"),
    [
        ("import alue_bench", [], set()),
        (MAIN, ["--help"], set()),
        (MAIN, ["--version"], set()),
        (MAIN, ["run", "--help"], {"pydantic"}),  # newer releases of typer read a command's options with it
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_heavy_is_imported(statement: str, arguments: list[str], allowed: set[str]) -> None:
    code = CODE.format(statement=statement, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}
    assert "alue_bench" in loaded
    assert not loaded & (HEAVY - allowed)
