"""A model: the mini checkpoint that comes with alue-bench, with another text normalisation."""

import re
from pathlib import Path

import alue_bench_models

from alue_bench import Model

_DIGIT = re.compile(r"\d")


def normalise(text: str) -> str:
    """`text` with every digit, Arabic ones included, made a 1: which number it is says little about an opinion."""
    return _DIGIT.sub("1", text)


MODEL = Model(
    name="example-mini",
    title="Mini Arabic BERT, blind to which number it reads",
    checkpoint=Path(alue_bench_models.__file__).parent / "mini",
    languages=("ar",),
    licence="Apache-2.0",
    citation="Part of alue-bench; see the model card beside its weights.",
    normalise=normalise,
    normalisation="every digit becomes 1",
    # A small model takes a larger learning rate than one of base size.
    defaults={"lr": 5e-4, "warmup": 0.1, "epochs": 4, "batch_size": 16},
)
