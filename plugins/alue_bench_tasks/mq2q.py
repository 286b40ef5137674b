"""The task MQ2Q: do two questions have the same meaning (NSURL-2019, task 8)?

The official test file has no gold labels; it is used only for submissions to ALUE's leaderboard.
"""

from pathlib import Path

from alue_bench import DataFile, Delimited, HeldOut, Labels, Splits, Submission, Task

TASK = Task(
    name="mq2q",
    title="Question similarity",
    languages=("ar",),
    labels=Labels.binary(negative="different", positive="similar"),
    splits=Splits(
        train=DataFile(
            "mq2q/train.csv",
            Delimited(
                header=True,
                delimiter=",",
                quoted=True,
                text="question1",
                text_pair="question2",
                target="label",
                decode={"0": "different", "1": "similar"},
            ),
        ),
        dev=HeldOut(0.1),
        test=HeldOut(0.2),
        submission=DataFile(
            "mq2q/test.csv",
            Delimited(
                header=True,
                delimiter=",",
                quoted=True,
                text="question1",
                text_pair="question2",
                id="QuestionPairID",
            ),
        ),
        protocol="test is a fixed 20 % of the official train file, since the official test labels are not "
        "public; dev is a fixed 10 % of the remainder",
    ),
    source="NSURL-2019 task 8 (Mawdoo3 question pairs), from the shared task's page",
    licence="not stated by the publishers",
    citation="Haitham Seelawi, Ahmad Mustafa, Hesham Al-Bataineh, Wael Farhan and Hussein T. Al-Natsheh. "
    "2019. NSURL-2019 Task 8: Semantic Question Similarity in Arabic. In Proceedings of the First "
    "International Workshop on NLP Solutions for Under Resourced Languages (NSURL 2019), pages 1-8.",
    primary="f1_macro",
    official_metric="F1",
    submission=Submission(
        file="q2q.tsv",
        header=("QuestionPairID", "prediction"),
        id="given",
        encode={"different": "0", "similar": "1"},
    ),
    sample=Path(__file__).parent / "sample",
)
