"""The table of architectures in docs/models.md is what a model of each does; nothing in it is wrong, or silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from architectures import Row, row_of
from gallery import GALLERY

PAGE = Path(__file__).parents[1] / "docs" / "models.md"


@pytest.mark.parametrize("name", GALLERY)
def test_an_architecture_does_what_the_table_says(name: str) -> None:
    written = next(
        (line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {name} |")), None
    )
    row: Row = row_of(name)
    assert written == f"| {' | '.join(row.cells())} |", "regenerate the table: python tests/architectures.py"
    assert not any(cell.isupper() or "OFF BY" in cell for cell in row.cells())


def test_at_least_forty_are_here() -> None:
    assert len(GALLERY) >= 40
