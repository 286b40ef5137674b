"""The task arcd: reading comprehension on passages of the Arabic Wikipedia, in the format of SQuAD 1.1."""

from pathlib import Path

from alue_bench import DataFile, HeldOut, Labels, Splits, SquadJson, Task

TRAIN, TEST = (DataFile(f"arcd/arcd-{name}.json", SquadJson()) for name in ("train", "test"))
TASK = Task(
    name="arcd",
    title="Reading comprehension (ARCD)",
    languages=("ar",),
    labels=Labels.span(),
    splits=Splits(
        train=TRAIN, dev=HeldOut(0.1), test=TEST, protocol="official train and test files; dev is a fixed 10 % of train"
    ),
    source="Hussein Mozannar and colleagues: https://github.com/husseinmozannar/SOQAL (the folder data)",
    licence="MIT",
    citation="Mozannar, Maamary, El Hajal & Hajj 2019, Neural Arabic Question Answering, WANLP 2019, arXiv 1906.05394.",
    official_metric="exact match and F1 of SQuAD's script",
    only_by_name=True,
    sample=Path(__file__).parent / "sample",
)
