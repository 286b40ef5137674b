"""The task arabicner: named entities in the sample of the corpus Wojood.

In this corpus a word may be inside several nested entities. Only the outermost entity of each word is used.
"""

from pathlib import Path

from alue_bench import DataFile, Labels, Splits, TaggedColumns, Task

TYPES = "CARDINAL CURR DATE EVENT FAC GPE LANGUAGE LAW LOC MONEY NORP OCC ORDINAL ORG PERCENT PERS PRODUCT QUANTITY"
TAGS = [f"{prefix}-{name}" for name in (*TYPES.split(), "TIME", "UNIT", "WEBSITE") for prefix in "BI"]
TRAIN, DEV, TEST = (DataFile(f"arabicner/{name}.txt", TaggedColumns()) for name in ("train", "val", "test"))
TASK = Task(
    name="arabicner",
    title="Named entity recognition (sample of Wojood)",
    languages=("ar",),
    labels=Labels.tokens("O", *TAGS, scheme="IOB2"),
    splits=Splits(train=TRAIN, dev=DEV, test=TEST),
    source="SinaLab, Birzeit University: https://github.com/SinaLab/ArabicNER (the folder data)",
    licence="MIT",
    citation="Jarrar, Khalilia & Ghanem 2022, Wojood: Nested Arabic Named Entity Corpus and Recognition, LREC 2022.",
    official_metric="micro F1 of entities",
    only_by_name=True,
    sample=Path(__file__).parent / "sample",
)
