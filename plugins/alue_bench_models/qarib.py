"""The model QARiB, pre-trained on tweets and formal text.

The text normalisation is that of the authors' script `prepare_vocab.py` (repository qcri/QARiB), which prepares the
text from which the vocabulary is made. In this script, vowel signs are not word characters, so that a word with vowel
signs is split at them. Tatweel is a word character.
"""

import re

from alue_bench import Model
from alue_bench_models.shapes import BERT_BASE

_EMOJI = "\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\u2600-\u27bf"
_ONE_EMOJI = re.compile(f"([{_EMOJI}])")
_NEITHER_WORD_NOR_EMOJI = re.compile(rf"(?:[^\w{_EMOJI}]|_)+")


def normalise(text: str) -> str:
    """Return the text in lower case, with spaces around emoji; other non-word characters become single spaces."""
    spaced = _ONE_EMOJI.sub(r" \1 ", text.lower())
    return _NEITHER_WORD_NOR_EMOJI.sub(" ", spaced).strip()


MODEL = Model(
    name="qarib",
    title="QARiB (base)",
    checkpoint="qarib/bert-base-qarib",
    architecture=BERT_BASE,
    languages=("ar",),
    licence="research use; other use on request from QCRI",
    citation="Ahmed Abdelali, Sabit Hassan, Hamdy Mubarak, Kareem Darwish and Younes Samih. 2021. Pre-"
    "Training BERT on Arabic Tweets: Practical Considerations. arXiv:2102.10684.",
    normalise=normalise,
    normalisation="lower case; emoji set apart; other runs of non-word characters and underscores replaced "
    "by a space, as in the authors' prepare_vocab.py",
)
