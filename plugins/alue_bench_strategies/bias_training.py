"""Only the biases of the layers train.

Source: Ben Zaken, Goldberg & Ravfogel 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based
Masked Language-models", section 3: the biases of query, key and value, of attention output and feed-forward, and of the
layer norms. The embeddings stay. Pooler and head train as a whole here, as with every other strategy: a checkpoint that
was pre-trained without next-sentence prediction has no weights for the pooler. The authors count the head alone.

Cost: of BERT-base's layers 0.1 % of the parameters, so that a task's weights and the optimiser's state are tiny. But
the gradient crosses every layer: 2 F a layer instead of 3 F, a third of the compute and no more, and no frozen prefix.
Biases want a learning rate far above that of weights, 1e-4 to 1e-3.

When it does not help: with much data, where the paper sees it fall behind full fine-tuning; where time counts rather
than storage; and for a model without biases (ModernBERT), which is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from alue_bench import EncoderShape, FreezePlan, Strategy, StrategyFamily


@dataclass(frozen=True)
class BitFit(Strategy):
    """The biases of all layers train, with pooler and head."""

    @property
    def name(self) -> str:
        return "bitfit"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
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
