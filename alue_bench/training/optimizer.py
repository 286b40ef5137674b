"""Optimiser, learning rates and loss: AdamW, linear warm-up and decay, layer-wise decay of the rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.training.architecture.encoder_stack import EncoderStack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn


def build_optimiser(stack: EncoderStack, hyper: HyperParameters, before: Any = None) -> Any:
    """Return AdamW over the trainable parameters only.

    Weight decay leaves out biases and norm weights (Devlin et al. 2019), and the factors of IA3 adapters: they change
    nothing at one, not at zero. Build the optimiser after freezing: a frozen parameter in it would still decay. Each
    group's `rate` is the fraction of the learning rate that the group gets.

    Args:
        stack: The model, with the plan in effect.
        hyper: The learning rate, weight decay, `adam_eps` and layer-wise decay of the rate.
        before: An earlier optimiser of the same model. Its state of parameters that still train is taken over.
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


def optimiser_state(optimiser: Any, stack: EncoderStack) -> dict[str, dict[str, Tensor]]:
    """Return the optimiser's state of each parameter, by the parameter's name in the model.

    The library's own `state_dict` numbers the parameters, so that it fits no optimiser of another plan.
    """
    names = {id(parameter): name for name, parameter in stack.model.named_parameters()}
    return {names[id(parameter)]: dict(state) for parameter, state in optimiser.state.items()}


def load_optimiser_state(optimiser: Any, stack: EncoderStack, state: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Replace the optimiser's state by what `optimiser_state` returned."""
    parameters = dict(stack.model.named_parameters())
    optimiser.state.clear()
    for name, values in state.items():
        parameter = parameters[name]
        optimiser.state[parameter].update({part: value.to(parameter.device) for part, value in values.items()})


def _factors(stack: EncoderStack) -> set[int]:
    """Return the ids of vectors that scale the input or output of a module (IA3).

    `peft` stores them as matrices of one row or column, and keeps them outside of any module that multiplies matrices.
    """
    from torch import nn

    dictionaries = (module for module in stack.model.modules() if isinstance(module, nn.ParameterDict))
    return {id(p) for dictionary in dictionaries for p in dictionary.parameters() if p.numel() == max(p.shape)}


def set_rate(optimiser: Any, lr: float) -> None:
    """Set the learning rate of the next step; each group gets its own fraction of it."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["rate"]


def _rates(stack: EncoderStack, factor: float) -> dict[int, float]:
    """Return the fraction of the learning rate by the id of each parameter of embeddings and layers.

    The fraction is multiplied by `factor` from each layer to the one below it. The result is empty for a factor of 1.
    A parameter that several layers share has the rate of the lowest one.
    """
    if factor == 1:
        return {}
    blocks = [stack.embeddings, *((layer,) for layer in stack.layers)]  # the embeddings are one below layer 0
    rates: dict[int, float] = {}
    for below_top, block in enumerate(reversed(blocks)):
        rates |= {id(parameter): factor**below_top for module in block for parameter in module.parameters()}
    return rates


def learning_rate(step: int, total_steps: int, hyper: HyperParameters) -> float:
    """Return the learning rate of a step: a linear rise over the warm-up, then a linear fall to zero.

    Args:
        step: The number of the step, from 0 to below `total_steps`.
        total_steps: The number of steps of the training.
        hyper: The highest rate, and the fraction of all steps that is warm-up.
    """
    warmup_steps = hyper.warmup * total_steps
    if step < warmup_steps:
        return hyper.lr * (step + 1) / (warmup_steps + 1)
    return hyper.lr * (total_steps - step) / max(1.0, total_steps - warmup_steps)


def loss_function(labels: Labels, weights: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the mean loss of logits [batch, outputs] against targets.

    It is cross-entropy, binary cross-entropy for several labels, or squared error for a regression.

    Args:
        labels: The label space.
        weights: The weight of each label, float32 [labels], on the device of the logits; None if all examples count the
            same. The sum of weighted losses is divided by the number of examples, not by the sum of their weights, so
            that the gradients of the parts of a batch add up to the batch's.
    """
    from torch.nn import functional

    if labels.kind is TargetKind.REGRESSION:
        return lambda logits, targets: functional.mse_loss(logits.float().squeeze(-1), targets)
    if labels.kind is TargetKind.MULTILABEL:
        return lambda logits, targets: functional.binary_cross_entropy_with_logits(
            logits.float(), targets, pos_weight=weights
        )
    if weights is None:
        return lambda logits, targets: functional.cross_entropy(logits.float(), targets)
    return lambda logits, targets: functional.cross_entropy(
        logits.float(), targets, weight=weights, reduction="none"
    ).mean()
