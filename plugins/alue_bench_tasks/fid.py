"""The task FID: is a tweet ironic (IDAT at FIRE 2019)?"""

from pathlib import Path

from alue_bench import DataFile, Delimited, HeldOut, Labels, Splits, Submission, Task

READ = Delimited(
    header=True,
    delimiter=",",
    quoted=True,
    id="id",
    text="text",
    target="label",
    decode={"0": "not_ironic", "1": "ironic"},
)

TASK = Task(
    name="fid",
    title="Irony detection",
    languages=("ar",),
    labels=Labels.binary(negative="not_ironic", positive="ironic"),
    splits=Splits(
        train=DataFile("idat/IDAT_training_text.csv", READ),
        dev=HeldOut(0.1),
        test=DataFile("idat/IDAT_test_text.csv", READ),
        protocol="official train and test files; dev is a fixed 10 % of train",
    ),
    source="IDAT at FIRE 2019, from the track's organisers",
    licence="not stated by the publishers; on request, the tweets may not be redistributed",
    citation="Bilal Ghanem, Jihen Karoui, Farah Benamara, Véronique Moriceau and Paolo Rosso. 2019. "
    "IDAT@FIRE2019: Overview of the Track on Irony Detection in Arabic Tweets. In Working Notes of FIRE "
    "2019, CEUR Workshop Proceedings 2517.",
    primary="f1_macro",
    official_metric="F1",
    companions={"arsarcasm": {"not_ironic": "not_sarcastic", "ironic": "sarcastic"}},
    submission=Submission(
        file="irony.tsv", header=("id", "prediction"), id="row", encode={"not_ironic": "0", "ironic": "1"}
    ),
    sample=Path(__file__).parent / "sample",
)
