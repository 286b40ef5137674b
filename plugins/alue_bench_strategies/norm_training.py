"""LayerNorm tuning: only the normalisation layers are trained, with pooler and head.

Source: ValizadehAslani & Liang 2024, "LayerNorm: A key component in parameter-efficient fine-tuning", arXiv 2403.20284.
They find that LayerNorm changes more than any other component when BERT is fine-tuned, and that training it alone comes
close to full fine-tuning on GLUE. Only the abstract of the paper was available, so that these details are choices made
here, the same as for `bitfit`: both norms of every layer train, weights and biases; the norm of the embeddings is
frozen with the embeddings; pooler and head train. The paper's smaller subsets, chosen by Fisher information, are not
built.

Cost: as for `bitfit`. If the forward pass of a layer costs F, a layer costs 2 F per step instead of 3 F, because the
gradient passes through every layer, so that at most a third of the compute is saved. There is no frozen prefix. In
BERT-base, 36,864 parameters of the layers train, a third of the number of biases. They need a far higher learning rate
than full fine-tuning, 1e-4 to 1e-2.

When it does not help: if time matters rather than storage; if there is much training data; and for tasks far from the
pre-training, since a norm scales and shifts features, but does not mix them.
"""

from __future__ import annotations

from dataclasses import dataclass

from alue_bench import EncoderShape, FreezePlan, Strategy, StrategyFamily


@dataclass(frozen=True)
class NormTraining(Strategy):
    """A strategy that trains the norms of all layers, with pooler and head."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, "lntune"."""
        return "lntune"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a freeze plan in which only the layers' norms, the pooler and the head train."""
        return FreezePlan(shape, embeddings=True, trained="norms")


FAMILIES = (
    StrategyFamily(
        grammar="lntune",
        title="Only the normalisation layers train, with pooler and head",
        source="ValizadehAslani & Liang 2024, LayerNorm: A key component in PEFT, arXiv 2403.20284",
        examples=("lntune",),
        parse=lambda name: NormTraining() if name == "lntune" else None,
    ),
)
