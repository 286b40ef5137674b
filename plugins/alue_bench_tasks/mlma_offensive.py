"""The task MLMA, offensive: is a post offensive or hateful, or is it normal? A test set for models of other tasks."""

from pathlib import Path

from alue_bench import Labels, Task
from alue_bench_tasks import mlma

OFFENSIVE = {"offensive", "hateful"}


def _label(combination: str) -> str | None:
    kinds = set(combination.split("_"))
    if kinds == {"normal"}:
        return "normal"
    return "offensive" if kinds & OFFENSIVE and "normal" not in kinds else None


TASK = Task(
    name="mlma-offensive",
    title="Offensive posts (MLMA)",
    languages=("ar",),
    labels=Labels.binary(negative="normal", positive="offensive"),
    splits=mlma.splits(
        {code: label for code in mlma.COMBINATIONS if (label := _label(code))},
        "the whole file is a test split; of its 3,353 rows, 282 are left out that are labelled as normal and as "
        "something else, and 404 that are labelled neither as normal nor as offensive or hateful",
    ),
    source=mlma.SOURCE,
    licence=mlma.LICENCE,
    citation=mlma.CITATION,
    primary="f1_macro",
    official_metric=mlma.OFFICIAL_METRIC,
    only_by_name=True,
    sample=Path(__file__).parent / "sample",
)
