"""A model: the checkpoint `mini`, which is bundled with alue-bench, with an additional text normalisation."""

import re
from pathlib import Path

import alue_bench_models

from alue_bench import Model

_DIGIT = re.compile(r"\d")


def normalise(text: str) -> str:
    """Return the text with every digit replaced by 1, Arabic digits too.

    The exact numbers in a review hardly matter for its opinion. alue-bench calls this function for every text before it
    is tokenised.
    """
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
    # A small model needs a higher learning rate than a model of base size.
    defaults={"lr": 5e-4, "warmup": 0.1, "epochs": 4, "batch_size": 16},
)
