"""The OSACT4 shared task: tweets labelled as offensive or not (subtask A), and as hate speech or not (subtask B).

The texts contain `<LF>` for line breaks, `@USER` for mentions and `URL` for links. The test file is published without
gold labels.
"""

from alue_bench import DataFile, Delimited, HeldOut, Splits

SOURCE = "OSACT4 shared task on offensive language detection, from the shared task's page"
LICENCE = "not stated by the publishers"
CITATION = (
    "Hamdy Mubarak, Kareem Darwish, Walid Magdy, Tamer Elsayed and Hend Al-Khalifa. 2020. Overview of OSACT4 "
    "Arabic Offensive Language Detection Shared Task. In Proceedings of the 4th Workshop on Open-Source "
    "Arabic Corpora and Processing Tools (OSACT4), pages 48-52."
)
OFFICIAL_METRIC = "macro-averaged F1"


def splits(target: int) -> Splits:
    """Return the train, dev and test splits of a subtask; `target` is the column of its gold label, counted from 0."""
    labelled = Delimited(columns=3, text=0, target=target)
    return Splits(
        train=DataFile("osact4/OSACT2020-sharedTask-train.txt", labelled),
        dev=HeldOut(0.1),
        test=DataFile("osact4/OSACT2020-sharedTask-dev.txt", labelled),
        submission=DataFile("osact4/OSACT2020-sharedTask-test-tweets.txt", Delimited(columns=1, text=0)),
        protocol="the official dev file is the test split, since the official test labels are not public; "
        "dev is a fixed 10 % of train",
    )
