"""The bundled mini model, small enough to fine-tune in seconds on a CPU, for demonstrations and tests.

The model card is `mini/README.md`.
"""

from pathlib import Path

from alue_bench import Model

MODEL = Model(
    name="mini",
    title="Mini Arabic BERT (bundled, 12 layers, 8.1 M parameters)",
    checkpoint=Path(__file__).parent / "mini",
    languages=("ar",),
    licence="Apache-2.0",
    citation="Part of alue-bench; see the model card beside its weights.",
    normalisation="inside the tokenizer: diacritics and tatweel removed, alef forms and alef maqsura folded, "
    "repeats cut to two, tokens for links and mentions",
    # A model this small needs a far higher learning rate than one of base size; the model card has the measurements.
    defaults={"lr": 3e-4, "warmup": 0.1, "epochs": 3, "batch_size": 32},
)
