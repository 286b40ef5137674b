"""The task MLMA, offensive: is a post offensive or hateful, or is it normal?

It has only a test split, for models of other tasks.
"""

from collections.abc import Set
from pathlib import Path

from alue_bench import Labels, Task
from alue_bench_tasks import mlma

OFFENSIVE = {"offensive", "hateful"}


def _label(kinds: Set[str]) -> str | None:
    return "normal" if "normal" in kinds else "offensive" if kinds & OFFENSIVE else None


TASK = Task(
    name="mlma-offensive",
    title="Offensive posts (MLMA)",
    languages=("ar",),
    labels=Labels.binary(negative="normal", positive="offensive"),
    splits=mlma.splits(
        _label,
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
