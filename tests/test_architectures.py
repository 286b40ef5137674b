"""The table of architectures in docs/models.md is what a model of each does; nothing in it is wrong, or silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from architectures import Row, row_of
from gallery import GALLERY

# One architecture for each path through the harness and each reason for a refusal, and the most used ones. The others
# are built like one of these; the stress campaign reads all rows.
ALWAYS = {
    *("albert", "bart", "bert", "canine", "deberta-v3", "distilbert", "electra", "flaubert", "fnet", "funnel", "gpt2"),
    *("llama", "longformer", "modernbert", "mpnet", "nomic_bert", "nystromformer", "reformer", "roberta"),
    *("roberta-pad0", "squeezebert", "t5", "xlm", "xlm-roberta"),
}
PAGE = Path(__file__).parents[1] / "docs" / "models.md"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.stress) for name in GALLERY]
)
def test_an_architecture_does_what_the_table_says(name: str) -> None:
    written = next(
        (line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {name} |")), None
    )
    row: Row = row_of(name)
    assert written == f"| {' | '.join(row.cells())} |", "regenerate the table: python tests/architectures.py"
    assert not any(cell.isupper() or "OFF BY" in cell for cell in row.cells())


def test_at_least_forty_are_here() -> None:
    assert len(GALLERY) >= 40
    assert set(GALLERY) >= ALWAYS
