"""SemEval-2018 task 1, Affect in Tweets: the Arabic files of its subtasks E-c and V-reg."""

from alue_bench import DataFile, Delimited, Splits

SOURCE = "SemEval-2018 task 1, Affect in Tweets, from the competition's page"
LICENCE = "not stated in the files; the competition's terms of use apply"
CITATION = (
    "Saif M. Mohammad, Felipe Bravo-Marquez, Mohammad Salameh and Svetlana Kiritchenko. 2018. SemEval-2018 "
    "Task 1: Affect in Tweets. In Proceedings of the 12th International Workshop on Semantic Evaluation, "
    "pages 1-17."
)
EMOTIONS = (
    "anger",
    "anticipation",
    "disgust",
    "fear",
    "joy",
    "love",
    "optimism",
    "pessimism",
    "sadness",
    "surprise",
    "trust",
)


def splits(subtask: str, read: Delimited) -> Splits:
    """Return the declaration of a task's splits: the official files for train, dev and test.

    Args:
        subtask: The name of the subtask in the names of its files, such as "E-c".
        read: The format of the files and the columns to read.
    """

    def file(split: str) -> DataFile:
        return DataFile(f"semeval2018/2018-{subtask}-Ar-{split}.txt", read)

    return Splits(train=file("train"), dev=file("dev"), test=file("test-gold"))
