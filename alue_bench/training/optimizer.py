"""How weights are updated: AdamW, linear warm-up and decay, rates that fall from layer to layer; and the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.training.architecture.encoder_stack import EncoderStack

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


def build_optimiser(stack: EncoderStack, hyper: HyperParameters, before: Any = None) -> Any:
    """AdamW over the trainable parameters only; biases and norm weights do not decay (Devlin et al. 2019), nor do the
    factors of adapters: one, and not zero, is where they change nothing.

    Built after freezing: a frozen parameter in an optimiser would still decay. Each group's `rate` is the part of the
    learning rate that it gets. before: an optimiser of the same model; what it knows of parameters that still train is
    taken over.
    """
    import torch

    rates = _rates(stack, hyper.llrd)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    trainable = [parameter for parameter in stack.model.parameters() if parameter.requires_grad]
    factors = _factors(stack)
    for decays in (True, False):
        for parameter in trainable:
            if (parameter.ndim > 1 and id(parameter) not in factors) == decays:
                groups.setdefault((rates.get(id(parameter), 1.0), decays), []).append(parameter)
    optimiser = torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": hyper.weight_decay if decays else 0.0, "rate": rate}
            for (rate, decays), parameters in groups.items()
        ],
        lr=hyper.lr,
        betas=(0.9, hyper.adam_beta2),
        eps=hyper.adam_eps,
        fused=True,
    )
    if before is not None:
        optimiser.state.update({p: state for p, state in before.state.items() if p.requires_grad})
    return optimiser


def _factors(stack: EncoderStack) -> set[int]:
    """Vectors that scale what a module reads or gives (IA3). `peft` writes them as matrices of one row or column, and
    keeps them outside of any module that multiplies matrices."""
    from torch import nn

    dictionaries = (module for module in stack.model.modules() if isinstance(module, nn.ParameterDict))
    return {id(p) for dictionary in dictionaries for p in dictionary.parameters() if p.numel() == max(p.shape)}


def set_rate(optimiser: Any, lr: float) -> None:
    """The learning rate of the next step; of it each group has its part."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["rate"]


def _rates(stack: EncoderStack, factor: float) -> dict[int, float]:
    """By parameter, where it is not 1; a parameter that several layers share has the rate of the lowest."""
    if factor == 1:
        return {}
    blocks = [stack.embeddings, *((layer,) for layer in stack.layers)]  # the embeddings are one below layer 0
    rates: dict[int, float] = {}
    for below_top, block in enumerate(reversed(blocks)):
        rates |= {id(parameter): factor**below_top for module in block for parameter in module.parameters()}
    return rates


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
