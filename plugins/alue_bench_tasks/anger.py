"""The task anger: does a tweet express anger? Its labels are the column `anger` in the data files of the task SEC.

This task is not part of ALUE; Betka et al. report it as "anger detection".
"""

from pathlib import Path

from alue_bench import Delimited, Labels, Task
from alue_bench_tasks import semeval2018

TASK = Task(
    name="anger",
    title="Anger detection",
    languages=("ar",),
    labels=Labels.binary(negative="no_anger", positive="anger"),
    splits=semeval2018.splits(
        "E-c",
        Delimited(header=True, id="ID", text="Tweet", target="anger", decode={"0": "no_anger", "1": "anger"}),
    ),
    source=semeval2018.SOURCE,
    licence=semeval2018.LICENCE,
    citation=semeval2018.CITATION,
    primary="f1_macro",
    official_metric="F1 (Betka et al.; the averaging is not stated)",
    sample=Path(__file__).parent / "sample",
)
