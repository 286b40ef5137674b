"""The task SEC: which of eleven emotions, none or several, does a tweet express (SemEval-2018 task 1, E-c)?"""

from pathlib import Path

from alue_bench import Delimited, Labels, Submission, Task
from alue_bench_tasks import semeval2018

TASK = Task(
    name="sec",
    title="Emotion classification",
    languages=("ar",),
    # 0.25 is the threshold of ALUE's baselines (Seelawi et al. 2021).
    labels=Labels.multilabel(*semeval2018.EMOTIONS, threshold=0.25),
    splits=semeval2018.splits("E-c", Delimited(header=True, id="ID", text="Tweet", target=semeval2018.EMOTIONS)),
    source=semeval2018.SOURCE,
    licence=semeval2018.LICENCE,
    citation=semeval2018.CITATION,
    primary="jaccard_samples",
    official_metric="Jaccard index over samples (multi-label accuracy)",
    submission=Submission(file="E_c.tsv", header=("ID", *semeval2018.EMOTIONS), id="given"),
    sample=Path(__file__).parent / "sample",
)
