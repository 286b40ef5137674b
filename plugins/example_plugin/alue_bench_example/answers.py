"""A task with questions about texts: which part of a hotel's description answers a guest's question?"""

from pathlib import Path

from alue_bench import DataFile, Labels, Splits, SquadJson, Task

TRAIN, DEV, TEST = (DataFile(f"desk/{name}.json", SquadJson()) for name in ("train", "dev", "test"))

TASK = Task(
    name="example-answers",
    title="Answers in descriptions of hotels",
    languages=("ar",),
    labels=Labels.span(),
    splits=Splits(train=TRAIN, dev=DEV, test=TEST),
    source="written for this plugin; the whole data set is its sample",
    licence="Apache-2.0",
    citation="Part of the plugin alue-bench-example.",
    sample=Path(__file__).parent / "sample",
)
