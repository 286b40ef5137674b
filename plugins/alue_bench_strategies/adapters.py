"""Small trainable modules in a model whose own weights stay: LoRA and (IA)³, from the package `peft`.

- `lora-rR`: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4: a product of two thin
  matrices of rank R beside the query and value projections of each layer, one of them zero at the start. The scaling
  alpha is as large as R, so that R changes the capacity and not the size of the change; no dropout of its own.
- `ia3`: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
  section 3.3: vectors that scale keys, values and the inner activation of the feed-forward, one at the start.

Embeddings and the layers' weights stay as they were to the last bit; pooler and head train, as with every strategy.

Cost: of BERT-base's layers 0.3 % as many parameters (LoRA, R = 8), or 0.07 % (IA3). But as with BitFit the gradient
crosses every layer, there is no frozen prefix, and the model takes the library's way through it instead of ours: of the
compute a third is saved at best, of the time less. Such modules want a learning rate far above that of weights, 1e-4 to
1e-3.

When it does not help: where time counts rather than storage; on models so small that R is no longer thin beside them.
An architecture without separate projections (ModernBERT) is skipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import Adapter, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError

# Regular expressions for whole names of modules, as BERT and its kin, DeBERTa-v2 and DistilBERT call them. The
# package's own choice would differ from one architecture to the next, and for IA3 scale the attention's output too.
QUERY_VALUE = r".*\.(query|value|query_proj|value_proj|q_lin|v_lin)"
KEY_VALUE = r".*\.(key|value|key_proj|value_proj|k_lin|v_lin)"
INNER = r".*\.layer\.\d+\.(output\.dense|ffn\.lin2)"


@dataclass(frozen=True)
class LoRA(Strategy):
    """Query and value projections are changed by a product of rank `rank`."""

    rank: int

    @property
    def name(self) -> str:
        return f"lora-r{self.rank}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, embeddings=True, trained="adapters")

    def adapter(self) -> Adapter:
        options = {"r": self.rank, "lora_alpha": self.rank, "lora_dropout": 0.0, "target_modules": QUERY_VALUE}
        return Adapter("LORA", options)


@dataclass(frozen=True)
class IA3(Strategy):
    """Keys, values and inner activations are scaled."""

    @property
    def name(self) -> str:
        return "ia3"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, embeddings=True, trained="adapters")

    def adapter(self) -> Adapter:
        return Adapter("IA3", {"target_modules": f"{KEY_VALUE}|{INNER}", "feedforward_modules": INNER})


def parse_lora(name: str) -> LoRA | None:
    match = re.fullmatch(r"lora-r(\d{1,4})", name)
    if match is None:
        return None
    strategy = LoRA(int(match[1]))
    if strategy.rank == 0:
        raise UsageError(f"strategy {name!r}: a rank of 0 changes nothing; say head-only, or lora-r8")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} is written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="lora-r<R>",
        title="Products of rank R beside query and value projections train, with pooler and head (needs peft)",
        source="Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models, section 4",
        examples=("lora-r8",),
        parse=parse_lora,
    ),
    StrategyFamily(
        grammar="ia3",
        title="Vectors that scale keys, values and inner activations train, with pooler and head (needs peft)",
        source="Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper, section 3.3",
        examples=("ia3",),
        parse=lambda name: IA3() if name == "ia3" else None,
    ),
)
