"""Optimiser, learning-rate schedule and loss: AdamW, linear warm-up and decay, layer-wise learning-rate decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.data.spans import ENDS, MAY_END, MAY_START, STARTS
from alue_bench.data.words import IGNORED
from alue_bench.training.architecture.encoder_stack import EncoderStack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn


def build_optimiser(stack: EncoderStack, hyper: HyperParameters, before: Any = None) -> Any:
    """Return an AdamW optimiser over the trainable parameters only.

    Weight decay is not applied to biases and norm weights (Devlin et al. 2019), nor to the scaling factors of IA3
    adapters, whose neutral value is one and not zero. Build the optimiser after freezing, because a frozen parameter in
    it would still decay. Each parameter group has an entry `rate`: the fraction of the learning rate that the group
    gets.

    Args:
        stack: The model, to which the freeze plan has been applied.
        hyper: The hyper-parameters: learning rate, layer-wise decay of the learning rate, weight decay, and AdamW's
            beta2 and epsilon.
        before: An earlier optimiser of the same model, whose state is taken over for the parameters that still train;
            None for the first optimiser.
    """
    import torch

    rates = _rates(stack, hyper.llrd)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    trainable = [parameter for parameter in stack.model.parameters() if parameter.requires_grad]
    ia3_vectors = _ia3_vectors(stack)
    for decays in (True, False):
        for parameter in trainable:
            if (parameter.ndim > 1 and id(parameter) not in ia3_vectors) == decays:
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
    """Return the optimiser's state for each parameter (moments and step), by the parameter's name in the model.

    The optimiser's own `state_dict` numbers the parameters, so it cannot be loaded into an optimiser for another freeze
    plan.
    """
    names = {id(parameter): name for name, parameter in stack.model.named_parameters()}
    return {names[id(parameter)]: dict(state) for parameter, state in optimiser.state.items()}


def load_optimiser_state(optimiser: Any, stack: EncoderStack, state: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Load a state that `optimiser_state` returned into an optimiser."""
    parameters = dict(stack.model.named_parameters())
    optimiser.state.clear()
    for name, values in state.items():
        parameter = parameters[name]
        optimiser.state[parameter].update({part: value.to(parameter.device) for part, value in values.items()})


def _ia3_vectors(stack: EncoderStack) -> set[int]:
    """Return the `id()` of each IA3 scaling vector in the model; these vectors get no weight decay.

    IA3 adapters scale the input or output of a module by a vector. `peft` stores it as a matrix with one row or column
    in an `nn.ParameterDict`.
    """
    from torch import nn

    dictionaries = (module for module in stack.model.modules() if isinstance(module, nn.ParameterDict))
    return {id(p) for dictionary in dictionaries for p in dictionary.parameters() if p.numel() == max(p.shape)}


class LearningRates:
    """The learning rates of an optimiser's parameter groups: fixed fractions (`rate`) of a common learning rate."""

    def __init__(self, optimiser: Any, *, on_device: bool) -> None:
        """Take control of the learning rates of an optimiser that `build_optimiser` returned.

        Args:
            optimiser: The optimiser.
            on_device: Whether the rates are kept in a tensor on the parameters' device, from which the optimiser reads
                them, so that a step captured as a CUDA graph uses the current rate. The tensor is fp32.
        """
        self._groups = optimiser.param_groups
        self._on_device: tuple[Tensor, Tensor] | None = None
        if on_device:
            import torch

            device = self._groups[0]["params"][0].device
            fractions = torch.tensor([group["rate"] for group in self._groups], device=device)
            rates = torch.zeros_like(fractions)
            for group, rate in zip(self._groups, rates.unbind(), strict=True):
                group["lr"], group["capturable"] = rate, True
            self._on_device = fractions, rates

    def set(self, lr: float) -> None:
        """Set the common learning rate for the next step, without waiting for the device."""
        if self._on_device is None:
            for group in self._groups:
                group["lr"] = lr * group["rate"]
        else:
            import torch

            fractions, rates = self._on_device
            torch.mul(fractions, lr, out=rates)  # one kernel; `lr` is its argument, so that nothing is copied


def allocate_state(optimiser: Any) -> None:
    """Allocate AdamW's state for parameters that have none, by a step with gradients of zero.

    The learning rates must be 0: otherwise the weight decay of this step would change weights.
    """
    import torch

    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    new = [parameter for parameter in parameters if parameter not in optimiser.state]
    if not new:
        return
    for parameter in new:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for parameter in new:
        optimiser.state[parameter]["step"].zero_()
    optimiser.zero_grad(set_to_none=True)


def forget_state(optimiser: Any) -> None:
    """Reset the optimiser's state to the values before the first step, in the same tensors."""
    for state in optimiser.state.values():
        for value in state.values():
            value.zero_()


def _rates(stack: EncoderStack, factor: float) -> dict[int, float]:
    """Return the fraction of the learning rate for each parameter of embeddings and layers, keyed by `id()`.

    The fraction is 1 in the top layer, and is multiplied by `factor` from each layer to the layer below; the embeddings
    count as the layer below layer 0. A parameter that several layers share gets the fraction of the lowest of them. If
    `factor` is 1, the result is empty, which means a fraction of 1 for all parameters.
    """
    if factor == 1:
        return {}
    blocks = [stack.embeddings, *((layer,) for layer in stack.layers)]  # from the bottom up
    rates: dict[int, float] = {}
    for below_top, block in enumerate(reversed(blocks)):
        rates |= {id(parameter): factor**below_top for module in block for parameter in module.parameters()}
    return rates


def learning_rate(step: int, total_steps: int, hyper: HyperParameters) -> float:
    """Return the learning rate of a step: linear warm-up, then linear decay to zero.

    Args:
        step: The number of the step, from 0 to `total_steps` - 1.
        total_steps: The number of steps of the whole training.
        hyper: The hyper-parameters, with the peak learning rate `lr` and the fraction of steps for warm-up, `warmup`.
    """
    warmup_steps = hyper.warmup * total_steps
    if step < warmup_steps:
        return hyper.lr * (step + 1) / (warmup_steps + 1)
    return hyper.lr * (total_steps - step) / max(1.0, total_steps - warmup_steps)


def loss_function(labels: Labels, weights: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss function of a task: it computes the mean loss from logits [batch, outputs] and targets.

    The loss is cross-entropy, binary cross-entropy for multi-label tasks, or squared error for regression. If words are
    tagged, it is the mean cross-entropy over the words of the batch, from logits [batch, tokens, outputs], and 0 for a
    batch without words. For span extraction, it is the mean of two cross-entropies: of the answer's first token among
    all tokens of the example that may begin an answer, and of its last token among all tokens that may end one (Devlin
    et al. 2019, section 4.2).

    Args:
        labels: The label space of the task.
        weights: The weight of each label, float32 [labels], on the device of the logits; None for no weighting.
            The sum of weighted losses is divided by the number of examples, not by the sum of their weights, so that
            the gradients of the parts of a batch add up to the gradient of the batch.
    """
    from torch.nn import functional

    if labels.kind is TargetKind.REGRESSION:
        return lambda logits, targets: functional.mse_loss(logits.float().squeeze(-1), targets)
    if labels.kind is TargetKind.MULTILABEL:
        return lambda logits, targets: functional.binary_cross_entropy_with_logits(
            logits.float(), targets, pos_weight=weights
        )
    if labels.tags_words:
        return lambda logits, targets: (
            functional.cross_entropy(
                logits.float().flatten(0, 1), targets.flatten(), weight=weights, ignore_index=IGNORED, reduction="sum"
            )
            / (targets != IGNORED).sum().clamp(min=1)
        )
    if labels.extracts_spans:
        return _loss_of_spans
    if weights is None:
        return lambda logits, targets: functional.cross_entropy(logits.float(), targets)
    return lambda logits, targets: functional.cross_entropy(
        logits.float(), targets, weight=weights, reduction="none"
    ).mean()


def _loss_of_spans(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss of span extraction, over examples and over both ends of the answer; see `loss_function`.

    Args:
        logits: The logits of each token for beginning and for ending the answer, [batch, tokens, 2].
        targets: The marks of each token, int64 [batch, tokens]: a sum of the flags `MAY_START`, `MAY_END`, `STARTS` and
            `ENDS` of `data.spans`, or `IGNORED`.
    """
    marks = targets.clamp(min=0)  # `IGNORED` is negative; 0 has no flag
    losses = []
    for scores, may, gold in zip(logits.float().unbind(-1), (MAY_START, MAY_END), (STARTS, ENDS), strict=True):
        among = scores.masked_fill((marks & may) == 0, -float("inf")).log_softmax(dim=1)
        losses.append(-among.masked_fill((marks & gold) == 0, 0.0).sum(dim=1).mean())
    return (losses[0] + losses[1]) / 2
