"""The task QADI: identify the dialect of a post.

The labels are 18 Arab countries and Modern Standard Arabic. The task has only a test split, for models of the task MDD.
"""

from pathlib import Path

from alue_bench import DataFile, Delimited, Labels, Splits, Task

# The BCP 47 code of the Arabic that each label stands for; PL is Palestine.
VARIETIES = {
    "AE": "ar-AE", "BH": "ar-BH", "DZ": "ar-DZ", "EG": "ar-EG", "IQ": "ar-IQ", "JO": "ar-JO", "KW": "ar-KW",
    "LB": "ar-LB", "LY": "ar-LY", "MA": "ar-MA", "MSA": "arb", "OM": "ar-OM", "PL": "ar-PS", "QA": "ar-QA",
    "SA": "ar-SA", "SD": "ar-SD", "SY": "ar-SY", "TN": "ar-TN", "YE": "ar-YE",
}  # fmt: skip

TASK = Task(
    name="qadi",
    title="Country of a post (QADI)",
    languages=tuple(sorted(VARIETIES.values())),
    labels=Labels.multiclass(*VARIETIES),
    splits=Splits(
        test=DataFile("qadi/QADI_test.txt", Delimited(columns=2, text=0, target=1)),
        protocol="the official test file",
    ),
    source="QADI, from its authors' page",
    licence="not stated by the publishers",
    citation="Ahmed Abdelali, Hamdy Mubarak, Younes Samih, Sabit Hassan and Kareem Darwish. 2021. QADI: Arabic "
    "Dialect Identification in the Wild. In Proceedings of the Sixth Arabic Natural Language Processing Workshop, "
    "pages 1-10.",
    primary="f1_macro",
    official_metric="macro-averaged F1",
    only_by_name=True,
    sample=Path(__file__).parent / "sample",
)
