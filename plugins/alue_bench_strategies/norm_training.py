"""LayerNorm tuning: only the normalisation layers are trained, with pooler and head.

Source: ValizadehAslani & Liang 2024, "LayerNorm: A key component in parameter-efficient fine-tuning", arXiv 2403.20284.
They find that LayerNorm changes more than any other component when BERT is fine-tuned, and that training it alone comes
close to full fine-tuning on GLUE. The paper also trains smaller subsets, chosen by Fisher information; these are not
implemented. Only the abstract of the paper was available. The following details are therefore choices made here, the
same as for `bitfit`: the weights and biases of all norms in the layers train; the norm of the embeddings is frozen with
the embeddings; pooler and head train.

Cost: as for `bitfit`. The gradient passes through every layer. If the forward pass of a layer costs F, a layer costs
2 F per step instead of 3 F, so that at most a third of the compute is saved. There is no frozen prefix (frozen bottom
layers whose output can be computed once). In BERT-base, 36,864 parameters of the layers train, about a third as many as
with `bitfit`. They need a far higher learning rate than full fine-tuning: 1e-4 to 1e-2.

When it does not help: if time matters more than storage; with much training data; and for tasks that differ much from
the pre-training, since a norm scales and shifts features but does not combine them.
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
