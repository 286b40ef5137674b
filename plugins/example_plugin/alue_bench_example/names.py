"""A task with a tag for each word: which words of a hotel guest's report are names of guests or hotels?"""

from pathlib import Path

from alue_bench import DataFile, Labels, Splits, TaggedColumns, Task

TRAIN, DEV, TEST = (DataFile(f"visits/{name}.txt", TaggedColumns()) for name in ("train", "dev", "test"))

TASK = Task(
    name="example-names",
    title="Names in reports of guests",
    languages=("ar",),
    labels=Labels.tokens("O", "B-GUEST", "I-GUEST", "B-HOTEL", "I-HOTEL", scheme="IOB2"),
    splits=Splits(train=TRAIN, dev=DEV, test=TEST),
    source="written for this plugin; the whole data set is its sample",
    licence="Apache-2.0",
    citation="Part of the plugin alue-bench-example.",
    sample=Path(__file__).parent / "sample",
)
