"""The model AraBERTv0.2, with the preprocessor that its authors publish as the package `arabert`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from alue_bench import Model
from alue_bench_models.shapes import BERT_BASE

if TYPE_CHECKING:
    from arabert import ArabertPreprocessor


@cache
def _preprocessor() -> ArabertPreprocessor:
    from arabert import ArabertPreprocessor

    return ArabertPreprocessor("bert-base-arabertv02")


def normalise(text: str) -> str:
    """Return the text after AraBERT's preprocessing, as its authors publish it."""
    normalised: str = _preprocessor().preprocess(text)
    return normalised


MODEL = Model(
    name="arabertv02",
    title="AraBERTv0.2 (base)",
    checkpoint="aubmindlab/bert-base-arabertv02",
    architecture=BERT_BASE,
    languages=("ar",),
    licence="AraBERT software licence agreement (American University of Beirut), in the authors' repository",
    citation="Wissam Antoun, Fady Baly and Hazem Hajj. 2020. AraBERT: Transformer-based Model for Arabic "
    "Language Understanding. In Proceedings of the 4th Workshop on Open-Source Arabic Corpora and Processing "
    "Tools (OSACT4), pages 9-15.",
    normalise=normalise,
    normalisation="the authors' ArabertPreprocessor for bert-base-arabertv02: diacritics, tatweel and emoji "
    "removed; tokens for links, addresses and mentions; repeats cut to two; digits and punctuation set apart",
    requires=("arabert",),
)
