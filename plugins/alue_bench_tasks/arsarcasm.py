"""The task ArSarcasm: is a tweet sarcastic (ArSarcasm-v2)?

Models of the irony task FID can be tested on it too.
"""

from pathlib import Path

from alue_bench import DataFile, Delimited, HeldOut, Labels, Splits, Task

READ = Delimited(
    header=True,
    delimiter=",",
    quoted=True,
    text="tweet",
    target="sarcasm",
    decode={"FALSE": "not_sarcastic", "TRUE": "sarcastic"},
)

TASK = Task(
    name="arsarcasm",
    title="Sarcasm detection",
    languages=("ar",),
    labels=Labels.binary(negative="not_sarcastic", positive="sarcastic"),
    splits=Splits(
        train=DataFile("arsarcasm-v2/training_data.csv", READ),
        dev=HeldOut(0.1),
        test=DataFile("arsarcasm-v2/testing_data.csv", READ),
        protocol="official train and test files; dev is a fixed 10 % of train",
    ),
    source="ArSarcasm-v2, shared task of WANLP 2021, from its authors' repository",
    licence="MIT",
    citation="Ibrahim Abu Farha, Wajdi Zaghouani and Walid Magdy. 2021. Overview of the WANLP 2021 Shared Task on "
    "Sarcasm and Sentiment Detection in Arabic. In Proceedings of the Sixth Arabic Natural Language Processing "
    "Workshop, pages 296-305.",
    primary="f1_macro",
    official_metric="F1 of the sarcastic class",
    companions={"fid": {"not_sarcastic": "not_ironic", "sarcastic": "ironic"}},
    only_by_name=True,
    sample=Path(__file__).parent / "sample",
)
