"""The table of architectures in docs/models.md is what a model of each does; nothing in it is wrong, or silent.

What the plan accepts runs to its end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from architectures import Row, row_of
from gallery import GALLERY, save_encoder

from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute

# One architecture for each path through the harness and each reason for a refusal, and the most used ones. The others
# are built like one of these; the stress campaign reads all rows.
ALWAYS = {
    *("albert", "bart", "bert", "canine", "deberta-v3", "distilbert", "electra", "flaubert", "fnet", "funnel", "gpt2"),
    *("llama", "longformer", "modernbert", "mpnet", "nomic_bert", "nystromformer", "reformer", "roberta"),
    *("roberta-pad0", "squeezebert", "t5", "xlm", "xlm-roberta"),
}
RUN = {"albert", "canine", "deberta-v3", "gemma2", "longformer", "nomic_bert", "t5", "xlnet"}
"""Architectures that are trained in the ordinary suite; the stress campaign trains all."""
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
    assert set(GALLERY) >= ALWAYS | RUN


@pytest.mark.parametrize(
    "name",
    # transformers cannot save Funnel's encoder alone
    [pytest.param(name, marks=() if name in RUN else pytest.mark.stress) for name in GALLERY if name != "funnel"],
)
def test_what_the_plan_accepts_runs_to_its_end(
    name: str, registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All texts are cut to one length, a multiple of Longformer's window; batches of other lengths come later."""
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))
    request = PlanRequest(
        tasks=("anger", "arabicner"), models=(str(save_encoder(name, tmp_path / name)),), strategies=("bottom2",),
        overrides=(("test", {"epochs": 1, "max_length": 24, "batch_size": 8}),), precision="fp32", device="cpu",
        sample=True, limit_train=12, limit_eval=6,
    )  # fmt: skip
    plan = build_plan(request, registry)
    row = row_of(name)
    expected = [] if row.refused else ["anger", *(["arabicner"] if row.tags.startswith("yes") else [])]
    assert [run.spec.task for run in plan.runs] == expected
    assert all(skipped.reason for skipped in plan.skipped)
    assert bool(plan.skipped) == (len(expected) < 2)
    for run in plan.runs:
        result, trained = execute(run.spec, run.inputs)
        starts_from_states = {"anger": row.cached, "arabicner": row.tags}[run.spec.task] == "yes"
        assert trained.prefixes["train"].depth == (2 if starts_from_states else 0)
        assert starts_from_states or result.notes
