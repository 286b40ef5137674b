"""The model CAMeLBERT-Mix, pre-trained on Modern Standard, dialectal and classical Arabic.

Its authors remove diacritics with the package CAMeL Tools. CAMeL Tools and `arabert`, which another built-in model
needs, cannot be installed together, because they need different versions of `emoji`. Here the package PyArabic removes
the same characters.
"""

from alue_bench import Model
from alue_bench_models.diacritics import without_diacritics
from alue_bench_models.shapes import BERT_BASE


def normalise(text: str) -> str:
    """Return the text without diacritics and without tatweel (kashida)."""
    from pyarabic.araby import strip_tatweel

    normalised: str = strip_tatweel(without_diacritics(text))
    return normalised


MODEL = Model(
    name="camelbert",
    title="CAMeLBERT-Mix (base)",
    checkpoint="CAMeL-Lab/bert-base-arabic-camelbert-mix",
    architecture=BERT_BASE,
    languages=("ar",),
    licence="Apache-2.0",
    citation="Go Inoue, Bashar Alhafni, Nurpeiis Baimukan, Houda Bouamor and Nizar Habash. 2021. The "
    "Interplay of Variant, Size, and Task Type in Arabic Pre-trained Language Models. In Proceedings of the "
    "Sixth Arabic Natural Language Processing Workshop, pages 92-104.",
    normalise=normalise,
    normalisation="diacritics and kashida removed, as the authors do with CAMeL Tools",
    requires=("pyarabic",),
)
