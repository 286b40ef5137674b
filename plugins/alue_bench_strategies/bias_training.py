"""BitFit: only the biases of the layers are trained, with pooler and head.

Source: Ben Zaken, Goldberg & Ravfogel 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based
Masked Language-models", section 3. The biases are those of query, key and value, of the attention output and the
feed-forward block, and of the layer norms. The embeddings are frozen. The authors train only the head besides the
biases. Here the pooler is trained too, as with every other strategy, because a checkpoint that was pre-trained without
next-sentence prediction has no weights for the pooler.

Cost: 0.1 % of the parameters of BERT-base's layers are trained, so that little has to be stored for each task and in
the optimiser. But the gradient passes through every layer. If the forward pass of a layer costs F, a layer costs 2 F
per step instead of 3 F, so that at most a third of the compute is saved. There is no frozen prefix (frozen bottom
layers whose output can be computed once). Biases need a far higher learning rate than full fine-tuning: 1e-4 to 1e-3.

When it does not help: with much training data, where the paper finds BitFit worse than full fine-tuning; and if time
matters more than storage. Models without biases, such as ModernBERT, are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from alue_bench import EncoderShape, FreezePlan, Strategy, StrategyFamily


@dataclass(frozen=True)
class BitFit(Strategy):
    """A strategy that trains the biases of all layers, with pooler and head."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, "bitfit"."""
        return "bitfit"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a freeze plan in which only the layers' biases, the pooler and the head train."""
        return FreezePlan(shape, embeddings=True, trained="biases")


FAMILIES = (
    StrategyFamily(
        grammar="bitfit",
        title="Only the biases of the layers train, with pooler and head",
        source="Ben Zaken, Goldberg & Ravfogel 2022, BitFit, section 3",
        examples=("bitfit",),
        parse=lambda name: BitFit() if name == "bitfit" else None,
    ),
)
