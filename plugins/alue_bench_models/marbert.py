"""The model MARBERT, pre-trained on a billion tweets."""

import re

from alue_bench import Model
from alue_bench_models.diacritics import without_diacritics
from alue_bench_models.shapes import BERT_BASE

# Links are replaced first, because a link may contain @ and #. Some data sets already have placeholders such as @USER
# and URL; these become the same tokens. A link ends before the placeholder <LF>, which stands for a line break.
_TOKENS = (
    (re.compile(r"(?:https?://|www\.)[^\s<]+"), " URL "),
    (re.compile(r"@\w+"), " USER "),
    (re.compile(r"#\w+"), " HASHTAG "),
)


def normalise(text: str) -> str:
    """Return the text with diacritics removed, links, mentions and hashtags replaced by tokens, and single spaces."""
    text = without_diacritics(text)  # first, because a vowel sign would end a hashtag in the middle of a word
    for pattern, token in _TOKENS:
        text = pattern.sub(token, text)
    return " ".join(text.split())


MODEL = Model(
    name="marbert",
    title="MARBERT (base)",
    checkpoint="UBC-NLP/MARBERT",
    architecture=BERT_BASE,
    languages=("ar",),
    licence="not stated on the model's page",
    citation="Muhammad Abdul-Mageed, AbdelRahim Elmadany and El Moatez Billah Nagoudi. 2021. ARBERT & "
    "MARBERT: Deep Bidirectional Transformers for Arabic. In Proceedings of ACL-IJCNLP 2021, pages "
    "7088-7105.",
    normalise=normalise,
    normalisation="diacritics removed; links, user mentions and hashtags replaced by URL, USER and HASHTAG "
    "(Abdul-Mageed et al. 2021, preprocessing)",
    requires=("pyarabic",),
)
