"""The Arabic part of MLMA: posts labelled as normal or with one or several kinds of hostility.

It is used only to test models of other tasks. A label such as `offensive_hateful` stands for several kinds. Rows that
are labelled both as normal and as something else are ambiguous, and are left out.
"""

from collections.abc import Callable, Set

from alue_bench import DataFile, Delimited, Splits

SOURCE = "MLMA, from its authors' repository"
LICENCE = "MIT"
CITATION = (
    "Nedjma Ousidhoum, Zizheng Lin, Hongming Zhang, Yangqiu Song and Dit-Yan Yeung. 2019. Multilingual and "
    "Multi-Aspect Hate Speech Analysis. In Proceedings of EMNLP-IJCNLP 2019, pages 4675-4684."
)
OFFICIAL_METRIC = "micro- and macro-averaged F1"

# The combinations of labels that the file contains.
COMBINATIONS = (
    "abusive", "abusive_disrespectful", "abusive_disrespectful_hateful_normal", "abusive_hateful", "abusive_normal",
    "abusive_offensive", "abusive_offensive_disrespectful_hateful_normal", "abusive_offensive_disrespectful_normal",
    "abusive_offensive_hateful_disrespectful", "abusive_offensive_hateful_disrespectful_normal",
    "abusive_offensive_hateful_normal", "disrespectful", "disrespectful_hateful", "disrespectful_normal", "fearful",
    "fearful_abusive_disrespectful_hateful_normal", "fearful_abusive_hateful_disrespectful_normal",
    "fearful_abusive_offensive_disrespectful_normal", "fearful_abusive_offensive_hateful",
    "fearful_abusive_offensive_hateful_disrespectful", "fearful_abusive_offensive_hateful_disrespectful_normal",
    "fearful_abusive_offensive_hateful_normal", "fearful_disrespectful", "fearful_disrespectful_hateful_normal",
    "fearful_normal", "fearful_offensive_disrespectful_hateful_normal",
    "fearful_offensive_hateful_disrespectful_normal", "fearful_offensive_hateful_normal", "hateful",
    "hateful_disrespectful", "hateful_disrespectful_normal", "hateful_normal", "normal", "offensive",
    "offensive_disrespectful", "offensive_hateful", "offensive_hateful_disrespectful_normal", "offensive_normal",
)  # fmt: skip


def splits(label_of: Callable[[Set[str]], str | None], protocol: str) -> Splits:
    """Return the splits of a task on the data file of MLMA: only a test split, with the rows that the task uses.

    Args:
        label_of: A function that gets the set of kinds that a row is labelled with, such as {"offensive", "hateful"},
            and returns the task's label for the row, or None to leave the row out.
        protocol: The sentence about the origin of the split and the rows that are left out. It is recorded with each
            run, and `alue-bench list tasks --json` shows it.
    """
    kinds = {combination: set(combination.split("_")) for combination in COMBINATIONS}
    clear = {combination: of_row for combination, of_row in kinds.items() if "normal" not in of_row or len(of_row) == 1}
    decode = {combination: label for combination, of_row in clear.items() if (label := label_of(of_row))}
    read = Delimited(
        header=True,
        delimiter=",",
        quoted=True,
        text="tweet",
        target="sentiment",
        decode=decode,
        ignore=frozenset(set(COMBINATIONS) - decode.keys()),
    )
    return Splits(test=DataFile("mlma/ar_dataset.csv", read), protocol=protocol)
