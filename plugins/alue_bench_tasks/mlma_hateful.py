"""The task MLMA, hateful: is a post hateful? It has only a test split, for models of other tasks."""

from pathlib import Path

from alue_bench import Labels, Task
from alue_bench_tasks import mlma

TASK = Task(
    name="mlma-hateful",
    title="Hateful posts (MLMA)",
    languages=("ar",),
    labels=Labels.binary(negative="not_hateful", positive="hateful"),
    splits=mlma.splits(
        lambda kinds: "hateful" if "hateful" in kinds else "not_hateful",
        "the whole file is a test split; of its 3,353 rows, 282 are left out that are labelled as normal and as "
        "something else",
    ),
    source=mlma.SOURCE,
    licence=mlma.LICENCE,
    citation=mlma.CITATION,
    primary="f1_macro",
    official_metric=mlma.OFFICIAL_METRIC,
    only_by_name=True,
    sample=Path(__file__).parent / "sample",
)
