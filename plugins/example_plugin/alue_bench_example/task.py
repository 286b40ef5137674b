"""A task: is a hotel review negative or positive?"""

from pathlib import Path

from alue_bench import DataFile, Delimited, Labels, Splits, Task

READ = Delimited(columns=2, text=0, target=1)

TASK = Task(
    name="example-reviews",
    title="Hotel reviews",
    languages=("ar",),
    labels=Labels.binary(negative="negative", positive="positive"),
    splits=Splits(
        train=DataFile("hotels/train.tsv", READ),
        dev=DataFile("hotels/dev.tsv", READ),
        test=DataFile("hotels/test.tsv", READ),
    ),
    source="written for this plugin; the whole data set is its sample",
    licence="Apache-2.0",
    citation="Part of the plugin alue-bench-example.",
    sample=Path(__file__).parent / "sample",
)
