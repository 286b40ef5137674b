"""The task arabicner: named entities in the sample of the corpus Wojood, read flat (the outermost entity of a word)."""

from pathlib import Path

from alue_bench import DataFile, Labels, Splits, TaggedColumns, Task

TYPES = "CARDINAL CURR DATE EVENT FAC GPE LANGUAGE LAW LOC MONEY NORP OCC ORDINAL ORG PERCENT PERS PRODUCT QUANTITY "
TYPES += "TIME UNIT WEBSITE"
TAGS = [f"{place}-{kind}" for kind in TYPES.split() for place in "BI"]
FILES = {"train": "train", "dev": "val", "test": "test"}

TASK = Task(
    name="arabicner",
    title="Named entity recognition (Wojood sample)",
    languages=("ar",),
    labels=Labels.tokens("O", *TAGS, scheme="IOB2"),
    splits=Splits(**{split: DataFile(f"arabicner/{file}.txt", TaggedColumns()) for split, file in FILES.items()}),
    source="SinaLab, Birzeit University: https://github.com/SinaLab/ArabicNER (the folder data)",
    licence="MIT",
    citation="Jarrar, Khalilia & Ghanem 2022, Wojood: Nested Arabic Named Entity Corpus and Recognition using BERT, LREC.",
    official_metric="micro F1 of entities",
    only_by_name=True,
    sample=Path(__file__).parent / "sample",
)
