"""The task OOLD: is a tweet offensive (OSACT4, subtask A)?"""

from pathlib import Path

from alue_bench import Labels, Submission, Task
from alue_bench_tasks import osact4

TASK = Task(
    name="oold",
    title="Offensive language detection",
    languages=("ar",),
    labels=Labels.binary(negative="NOT_OFF", positive="OFF"),
    splits=osact4.splits(target=1),
    source=osact4.SOURCE,
    licence=osact4.LICENCE,
    citation=osact4.CITATION,
    primary="f1_macro",
    official_metric=osact4.OFFICIAL_METRIC,
    companions={"mlma-offensive": {"NOT_OFF": "normal", "OFF": "offensive"}},
    submission=Submission(file="offensive.tsv"),
    sample=Path(__file__).parent / "sample",
)
