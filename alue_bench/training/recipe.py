"""How weights are updated: AdamW, linear warm-up and decay, clipping of the global gradient norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alue_bench.spec import HyperParameters
from alue_bench.task import Labels, TargetKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


def build_optimiser(model: nn.Module, hyper: HyperParameters) -> Any:
    """AdamW over the trainable parameters only; biases and norm weights do not decay (Devlin et al. 2019).

    Built after freezing: a frozen parameter in an optimiser would still decay.
    """
    import torch

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": hyper.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=hyper.lr, eps=hyper.adam_eps, fused=True)


def learning_rate(step: int, total_steps: int, hyper: HyperParameters) -> float:
    """The rate of step 0 ≤ `step` < `total_steps`: linear rise over the warm-up, linear fall to zero after it."""
    warmup_steps = hyper.warmup * total_steps
    if step < warmup_steps:
        return hyper.lr * (step + 1) / (warmup_steps + 1)
    return hyper.lr * (total_steps - step) / max(1.0, total_steps - warmup_steps)


def loss_function(labels: Labels) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean loss of logits [b, outputs] against targets: cross-entropy, binary cross-entropy, or squared error."""
    from torch.nn import functional

    if labels.kind is TargetKind.REGRESSION:
        return lambda logits, targets: functional.mse_loss(logits.float().squeeze(-1), targets)
    if labels.kind is TargetKind.MULTILABEL:
        return lambda logits, targets: functional.binary_cross_entropy_with_logits(logits.float(), targets)
    return lambda logits, targets: functional.cross_entropy(logits.float(), targets)
