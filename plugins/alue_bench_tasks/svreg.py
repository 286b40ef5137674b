"""The task SVREG: how positive is the sentiment of a tweet, from 0 (negative) to 1 (SemEval-2018 task 1, V-reg)?"""

from pathlib import Path

from alue_bench import Delimited, Labels, Submission, Task
from alue_bench_tasks import semeval2018

TASK = Task(
    name="svreg",
    title="Sentiment valence regression",
    languages=("ar",),
    labels=Labels.regression(0.0, 1.0),
    splits=semeval2018.splits("Valence-reg", Delimited(header=True, id="ID", text="Tweet", target="Intensity Score")),
    source=semeval2018.SOURCE,
    licence=semeval2018.LICENCE,
    citation=semeval2018.CITATION,
    primary="pearson",
    official_metric="Pearson correlation",
    submission=Submission(file="v_reg.tsv", header=("ID", "prediction"), id="given"),
    sample=Path(__file__).parent / "sample",
)
