"""The task XNLI: does a premise entail a hypothesis, contradict it, or neither (the Arabic part of XNLI)?

As in ALUE (Seelawi et al. 2021), models are trained on XNLI's test file and tested on its dev file. XNLI's train file,
which is translated from English, is not used.
"""

from pathlib import Path

from alue_bench import DataFile, Delimited, HeldOut, Labels, Splits, Submission, Task

READ = Delimited(columns=3, text=0, text_pair=1, target=2)

TASK = Task(
    name="xnli",
    title="Natural language inference",
    languages=("ar",),
    labels=Labels.multiclass("entailment", "neutral", "contradiction"),
    splits=Splits(
        train=DataFile("xnli/test-ar.tsv", READ),
        dev=HeldOut(0.1),
        test=DataFile("xnli/dev-ar.tsv", READ),
        protocol="as in ALUE, XNLI's test file is the train split and its dev file the test split; "
        "dev is a fixed 10 % of train, whole premises",
    ),
    source="XNLI 1.0, from its authors' page; the Arabic rows of its test and dev files",
    licence="CC BY-NC 4.0",
    citation="Alexis Conneau, Ruty Rinott, Guillaume Lample, Adina Williams, Samuel Bowman, Holger Schwenk "
    "and Veselin Stoyanov. 2018. XNLI: Evaluating Cross-lingual Sentence Representations. In Proceedings of "
    "EMNLP 2018, pages 2475-2485.",
    # XNLI and the ALUE leaderboard report accuracy. The classes are balanced, so that macro-F1 would be similar.
    primary="accuracy",
    official_metric="accuracy",
    # The published file has no column pairID, which the leaderboard expects; pairs are numbered from 0 instead.
    submission=Submission(file="xnli.tsv", header=("pairID", "prediction"), id="row"),
    sample=Path(__file__).parent / "sample",
)
