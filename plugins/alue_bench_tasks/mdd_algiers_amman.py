"""The task Algiers or Amman: the two-class subset of MDD that Betka et al. mention, without the other 24 varieties."""

from pathlib import Path

from alue_bench import Labels, Task
from alue_bench_tasks import madar

CITIES = ("ALG", "AMM")

TASK = Task(
    name="mdd-algiers-amman",
    title="Dialect identification, Algiers or Amman",
    languages=madar.languages(*CITIES),
    labels=Labels.binary(*CITIES),
    splits=madar.splits(
        ignore=madar.VARIETIES.keys() - set(CITIES),
        protocol="the Algiers and Amman rows of the official train, dev and test files",
    ),
    source=madar.SOURCE,
    licence=madar.LICENCE,
    citation=madar.CITATION,
    primary="f1_macro",
    official_metric="F1 (Betka et al.; the averaging is not stated)",
    sample=Path(__file__).parent / "sample",
)
