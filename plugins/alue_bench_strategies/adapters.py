"""Adapters: small modules that train while the pre-trained weights stay frozen (LoRA and (IA)³, from package `peft`).

- `lora-rR`: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4. The product of two
  matrices of rank R is added to the query and value projections of each layer; one of the matrices is zero at the
  start. The hyper-parameter alpha equals R, so that the product is added with the factor alpha / R = 1 for every rank.
  There is no LoRA dropout.
- `ia3`: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
  section 3.3. Vectors scale the keys, the values and the inner activations of the feed-forward block; they are one at
  the start.

The embeddings and the pre-trained weights of the layers stay bitwise unchanged. Pooler and head are trained, as with
every strategy.

Cost: few parameters train. Compared with the number of parameters in BERT-base's layers, they are 0.3 % for LoRA with
R = 8, and 0.07 % for (IA)³. But as with `bitfit`, the gradient passes through every layer, and there is no frozen
prefix (frozen bottom layers whose output can be computed once). The model also uses the forward pass of transformers
instead of alue-bench's faster one. At best a third of the compute is saved, and a smaller share of the time. Adapters
need a far higher learning rate than full fine-tuning: 1e-4 to 1e-3.

When it does not help: if time matters more than storage, and on models so narrow that rank R is close to their hidden
size. Architectures without separate query, key and value projections, such as ModernBERT, are skipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import Adapter, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError

# Regular expressions that match whole module names in BERT and related architectures, DeBERTa-v2 and DistilBERT. The
# defaults of `peft` differ between architectures, and for IA3 they would scale the attention's output too.
QUERY_VALUE = r".*\.(query|value|query_proj|value_proj|q_lin|v_lin)"
KEY_VALUE = r".*\.(key|value|key_proj|value_proj|k_lin|v_lin)"
INNER = r".*\.layer\.\d+\.(output\.dense|ffn\.lin2)"


@dataclass(frozen=True)
class LoRA(Strategy):
    """A strategy that trains LoRA matrices of rank `rank` on the query and value projections of each layer."""

    rank: int
    """The rank of the matrices that are added to the projections, at least 1."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "lora-r8"."""
        return f"lora-r{self.rank}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a freeze plan in which only the adapters, the pooler and the head train."""
        return FreezePlan(shape, embeddings=True, trained="adapters")

    def adapter(self) -> Adapter:
        """Return the description of the LoRA modules for the query and value projections."""
        options = {"r": self.rank, "lora_alpha": self.rank, "lora_dropout": 0.0, "target_modules": QUERY_VALUE}
        return Adapter("LORA", options)


@dataclass(frozen=True)
class IA3(Strategy):
    """A strategy that trains vectors which scale the keys, values and inner feed-forward activations of each layer."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, "ia3"."""
        return "ia3"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a freeze plan in which only the adapters, the pooler and the head train."""
        return FreezePlan(shape, embeddings=True, trained="adapters")

    def adapter(self) -> Adapter:
        """Return the description of the (IA)³ vectors for keys, values and inner activations."""
        return Adapter("IA3", {"target_modules": f"{KEY_VALUE}|{INNER}", "feedforward_modules": INNER})


def parse_lora(name: str) -> LoRA | None:
    """Return the strategy for a name such as `lora-r8`, or None for a name of another form.

    Raises:
        UsageError: The rank is 0 or has leading zeros.
    """
    match = re.fullmatch(r"lora-r(\d{1,4})", name)
    if match is None:
        return None
    strategy = LoRA(int(match[1]))
    if strategy.rank == 0:
        raise UsageError(
            f"strategy {name!r}: a rank of 0 changes nothing; use head-only, or a larger rank such as lora-r8"
        )
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="lora-r<R>",
        title="Low-rank updates (rank R) of query and value projections train, with pooler and head (needs peft)",
        source="Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models, section 4",
        examples=("lora-r8",),
        parse=parse_lora,
    ),
    StrategyFamily(
        grammar="ia3",
        title="Vectors that scale keys, values and feed-forward activations train, with pooler and head (needs peft)",
        source="Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper, section 3.3",
        examples=("ia3",),
        parse=lambda name: IA3() if name == "ia3" else None,
    ),
)
