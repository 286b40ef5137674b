"""The task OHSD: is a tweet hate speech (OSACT4, subtask B)? One tweet in twenty is."""

from pathlib import Path

from alue_bench import Labels, Submission, Task
from alue_bench_tasks import osact4

TASK = Task(
    name="ohsd",
    title="Hate speech detection",
    languages=("ar",),
    labels=Labels.binary(negative="NOT_HS", positive="HS"),
    splits=osact4.splits(target=2),
    source=osact4.SOURCE,
    licence=osact4.LICENCE,
    citation=osact4.CITATION,
    primary="f1_macro",
    official_metric=osact4.OFFICIAL_METRIC,
    companions={"mlma-hateful": {"NOT_HS": "not_hateful", "HS": "hateful"}},
    submission=Submission(file="hate.tsv"),
    sample=Path(__file__).parent / "sample",
)
