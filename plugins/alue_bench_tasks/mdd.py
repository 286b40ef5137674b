"""The task MDD: identify the dialect of a phrase (MADAR, subtask 1).

The labels are 25 Arab cities, whose dialects differ, and Modern Standard Arabic.
"""

from pathlib import Path

from alue_bench import Labels, Submission, Task
from alue_bench_tasks import madar

TASK = Task(
    name="mdd",
    title="Dialect identification, 26 classes",
    languages=madar.languages(*madar.VARIETIES),
    labels=Labels.multiclass(*madar.VARIETIES),
    splits=madar.splits(),
    source=madar.SOURCE,
    licence=madar.LICENCE,
    citation=madar.CITATION,
    primary="f1_macro",
    official_metric=madar.OFFICIAL_METRIC,
    companions={"qadi": madar.COUNTRIES},
    submission=Submission(file="madar.tsv"),
    sample=Path(__file__).parent / "sample",
)
