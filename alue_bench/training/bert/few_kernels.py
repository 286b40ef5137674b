"""The encoder layer of the BERT family for accelerators: the layer of `layer.py`, computed with fewer kernels.

On an accelerator, a training step of a small batch takes as long as launching its kernels takes, whatever they compute.
A layer of `layer.py` launches more than 70 kernels, forward and backward together; a layer of this module launches
about 35:

- attention is torch's fused kernel, which draws its dropout itself and needs no rearrangement of the heads;
- dropout, the addition of the residual and the conversion to fp32 are one kernel, and so are their gradients;
- the dropout masks of all layers are drawn at once, a byte for each value;
- the hidden states are kept in two formats, fp32 for sums and norms (`fp32`) and the format of matrix products, such as
  bf16 (`for_products`), so that they are converted only once; their two gradients are added by one kernel;
- the gradients of weights come out of the product in fp32, if the device can do that;
- the last layer computes keys and values for all tokens, because the reordered products of `layer.first_token_layer`
  would take more kernels.

The shapes are those of `layer.py`. The parts are joined by autograd, not by one hand-written backward pass, because the
backward pass of the fused attention belongs to torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from alue_bench.training.bert.dropout import StepDropout
from alue_bench.training.bert.layer import BatchShape, Grads, LayerWeights


@dataclass(frozen=True)
class HiddenStates:
    """The hidden states of a batch, in fp32 and in the format of matrix products (`for_products`), such as bf16."""

    fp32: Tensor  # fp32 [n, d]
    for_products: Tensor  # [n, d] in the format of matrix products; the same tensor as `fp32` if that is fp32

    @classmethod
    def of(cls, states: Tensor, dtype: torch.dtype) -> HiddenStates:
        """Return fp32 hidden states, `[n, d]`, together with a copy in `dtype`, the format of matrix products."""
        return cls(states, states.to(dtype))


def masks_needed(shape: BatchShape, weights: LayerWeights, *, first_only: bool) -> dict[float, int]:
    """Return the number of mask values that a layer's dropout needs in a training step, by dropout probability.

    The dropout of attention weights is not counted, because the fused attention kernel draws its own mask.

    Args:
        shape: The shape of the batch.
        weights: The parameters and dropout probabilities of the layer.
        first_only: Whether the layer is computed for the first token of each example only.
    """
    _, drop_attended, drop_fed = weights.dropout
    rows = shape.examples if first_only else shape.examples * shape.tokens
    needed: dict[float, int] = {}
    for p in (drop_attended, drop_fed):
        if p:
            needed[p] = needed.get(p, 0) + rows * weights.norms[0].normalized_shape[0]
    return needed


def encoder_layer(hidden: HiddenStates, weights: LayerWeights, shape: BatchShape, masks: StepDropout) -> HiddenStates:
    """Compute the output of one encoder layer from its input; see `layer.encoder_layer` for the arguments."""
    size = (shape.examples, shape.tokens, 3, weights.heads, -1)
    mixed = _product(hidden.for_products, weights, 0, slice(0, 3))
    query, key, value = mixed.view(size).unbind(2)  # [b, s, h, e] each
    return _after_attention(hidden.fp32, _attended(query, key, value, weights, shape), weights, masks)


def first_token_layer(hidden: HiddenStates, weights: LayerWeights, shape: BatchShape, masks: StepDropout) -> Tensor:
    """Compute the output of one encoder layer for the first token of each example only, fp32 [b, d]."""
    b, s, h = shape.examples, shape.tokens, weights.heads
    first = HiddenStates(*(states.view(b, s, -1)[:, 0] for states in (hidden.fp32, hidden.for_products)))
    query = _product(first.for_products, weights, 0, slice(0, 1)).view(b, 1, h, -1)
    key, value = _product(hidden.for_products, weights, 0, slice(1, 3)).view(b, s, 2, h, -1).unbind(2)
    return _after_attention(first.fp32, _attended(query, key, value, weights, shape), weights, masks).fp32


def _attended(query: Tensor, key: Tensor, value: Tensor, weights: LayerWeights, shape: BatchShape) -> Tensor:
    """Compute multi-head attention.

    Shapes: b examples, s tokens, q queries per example (s or 1), h heads, e values per head, d = h e.

    Args:
        query: The queries, [b, q, h, e].
        key: The keys, [b, s, h, e].
        value: The values, [b, s, h, e].
        weights: The layer, which gives the dropout probability and the scale of the scores.
        shape: The shape and padding of the batch.

    Returns:
        The heads' outputs, [b q, d].
    """
    attended = functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=shape.padding,
        dropout_p=weights.dropout[0],
        scale=weights.scale,
    )
    return attended.transpose(1, 2).reshape(query.shape[0] * query.shape[1], -1)


def _after_attention(residual: Tensor, attended: Tensor, weights: LayerWeights, masks: StepDropout) -> HiddenStates:
    """Compute the part of an encoder layer after attention: output projection, feed-forward part, both layer norms.

    Args:
        residual: The layer's input, fp32 [rows, d], which is the residual of the first addition.
        attended: The output of multi-head attention, [rows, d], before the output projection.
        weights: The parameters of the layer.
        masks: The source of dropout masks.
    """
    _, drop_attended, drop_fed = weights.dropout
    middle = _add_and_norm(residual, _product(attended, weights, 2, 6), drop_attended, weights.norms[0], masks)
    up = functional.gelu(_product(middle.for_products, weights, 4, 10))
    return _add_and_norm(middle.fp32, _product(up, weights, 6, 12), drop_fed, weights.norms[1], masks)


def _product(inputs: Tensor, weights: LayerWeights, index: int, parameters: int | slice) -> Tensor:
    """Return the inputs multiplied by a weight matrix of the layer, plus its bias, [rows, out].

    Args:
        inputs: The input, `[rows, in]`.
        weights: The layer.
        index: The index of the matrix in `LayerWeights.products`; the next index is that of its bias.
        parameters: The index of the matrix in `LayerWeights.parameters`. For the joint matrix of query (0), key (1) and
            value (2), the slice of these three to use: `slice(1, 3)` multiplies only by the rows for key and value.
    """
    weight, bias = weights.products[index], weights.products[index + 1]
    if isinstance(parameters, int):
        masters = weights.parameters[parameters : parameters + 2]
    else:
        rows = slice(parameters.start * len(weight) // 3, parameters.stop * len(weight) // 3)
        weight, bias = weight[rows], bias[rows]
        masters = (*weights.parameters[:3][parameters], *weights.parameters[3:6][parameters])
    result: Tensor = _Product.apply(inputs, weight, bias, *masters)  # type: ignore[no-untyped-call]
    return result


def _add_and_norm(residual: Tensor, update: Tensor, p: float, norm: nn.LayerNorm, masks: StepDropout) -> HiddenStates:
    """Return `norm(residual + dropout(update))`, [rows, d], in fp32 and in the format of matrix products.

    Args:
        residual: The residual, fp32.
        update: The tensor that is added to the residual, in the format of matrix products.
        p: The dropout probability.
        norm: The layer norm.
        masks: The source of dropout masks.
    """
    dropout = _Dropout(masks.take(residual.shape, p) if p else None, masks.factor(p), masks.zero)
    result = _AddAndNorm.apply(residual, update, dropout, norm, norm.weight, norm.bias)  # type: ignore[no-untyped-call]
    return HiddenStates(*result) if isinstance(result, tuple) else HiddenStates(result, result)


class _Product(torch.autograd.Function):
    """The autograd function of a linear layer that multiplies by a copy of its weights, such as a bf16 copy.

    Its backward pass returns the gradients of the fp32 parameters that were copied.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, *parameters: Tensor) -> Tensor:
        """Compute `inputs @ weight.t() + bias`, [rows, out].

        Args:
            ctx: Autograd's context.
            inputs: The input, [rows, in].
            weight: The matrix, [out, in], in the format of the input.
            bias: The bias, [out].
            *parameters: The weights whose concatenation along the rows is `weight`, followed by their biases.
        """
        needs = ctx.needs_input_grad[3:]
        ctx.weight, ctx.count = weight, len(parameters) // 2
        ctx.save_for_backward(inputs if any(needs[: ctx.count]) else None)
        return torch.addmm(bias, inputs, weight.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        """Compute the gradients of the layer's input and of its trainable parameters.

        Args:
            ctx: Autograd's context.
            grad: The gradient of the output, [rows, out].

        Returns:
            The gradients in the order of `forward`'s arguments; None for an argument that needs no gradient.
        """
        (inputs,) = ctx.saved_tensors
        count, needs = ctx.count, ctx.needs_input_grad[3:]
        grads: list[Tensor | None] = [None] * (2 * count)
        if all(needs[:count]):
            grads[:count] = _product_in_fp32(grad.t(), inputs).chunk(count)
        elif any(needs[:count]):
            parts = zip(grad.chunk(count, dim=1), needs[:count], strict=True)
            grads[:count] = [_product_in_fp32(part.t(), inputs) if needed else None for part, needed in parts]
        if any(needs[count:]):
            grads[count:] = grad.sum(0, dtype=torch.float32).chunk(count)
        return (grad @ ctx.weight if ctx.needs_input_grad[0] else None, None, None, *grads)


@dataclass(frozen=True)
class _Dropout:
    """The dropout mask of one residual addition in a layer, and its scaling factor."""

    mask: Tensor | None
    """The mask, bool: True for values that dropout keeps. None if all values are kept."""
    factor: float
    """The factor 1 / (1 - p) by which kept values are multiplied."""
    zero: Tensor
    """A scalar fp32 zero on the device, a placeholder for kernels that need a tensor to add to."""


class _AddAndNorm(torch.autograd.Function):
    """The autograd function of `norm(residual + dropout(update))`: dropout, residual addition and layer norm."""

    @staticmethod
    def forward(
        ctx: Any,
        residual: Tensor,
        update: Tensor,
        dropout: _Dropout,
        norm: nn.LayerNorm,
        weight: Tensor,
        bias: Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Compute `norm(residual + dropout(update))`, [rows, d], in fp32 and in the format of `update`.

        If both formats are the same, the result is a single tensor.

        Args:
            ctx: Autograd's context.
            residual: The residual, fp32.
            update: The tensor that is added to the residual, in the format of matrix products.
            dropout: The mask and factor of the dropout that is applied to `update`.
            norm: The layer norm.
            weight: The weight of the layer norm, passed separately so that autograd tracks it.
            bias: The bias of the layer norm, passed separately so that autograd tracks it.
        """
        mask = dropout.mask
        total = (
            residual + update if mask is None else torch.addcmul(residual, update, mask, value=dropout.factor)
        )  # fp32
        wide, mean, scale = torch.native_layer_norm(total, norm.normalized_shape, weight, bias, norm.eps)
        ctx.save_for_backward(total, mean, scale, mask)
        ctx.norm, ctx.factor, ctx.zero, ctx.dtype = norm, dropout.factor, dropout.zero, update.dtype
        ctx.set_materialize_grads(False)
        return wide if update.dtype == torch.float32 else (wide, wide.to(update.dtype))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> Grads:
        """Compute the gradients of the residual, of the tensor added to it, and of the layer norm's weight and bias.

        Args:
            ctx: Autograd's context.
            *outer: The gradient of each output of `forward` ([rows, d]; one or two tensors).

        Returns:
            The gradients in the order of `forward`'s arguments; None for an argument that needs no gradient.
        """
        total, mean, scale, mask = ctx.saved_tensors
        grads = [grad for grad in outer if grad is not None]
        if not grads:
            return (None,) * 6
        # One kernel adds the fp32 gradient and the low-precision one in fp32.
        grad = grads[0].float() if len(grads) == 1 else grads[0] + grads[1]
        dtotal, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
            grad.contiguous(),
            total,
            ctx.norm.normalized_shape,
            mean,
            scale,
            ctx.norm.weight,
            ctx.norm.bias,
            [True, *ctx.needs_input_grad[4:6]],
        )
        dadded: Tensor | None = None
        if ctx.needs_input_grad[1] and mask is None:
            dadded = dtotal.to(ctx.dtype)
        elif ctx.needs_input_grad[1]:
            narrow = torch.empty_like(dtotal, dtype=ctx.dtype)
            dadded = torch.addcmul(ctx.zero, dtotal, mask, value=ctx.factor, out=narrow)
        return (dtotal, dadded, None, None, dweight, dbias)


def _product_in_fp32(left: Tensor, right: Tensor) -> Tensor:
    """Multiply two matrices of the same number format, such as bf16, and return the product in fp32."""
    if left.dtype == torch.float32:
        return left @ right
    if product_widens(left.device.type, left.dtype):
        widened: Tensor = torch.mm(left, right, out_dtype=torch.float32)
        return widened
    return (left @ right).float()


@cache
def product_widens(device: str, dtype: torch.dtype) -> bool:
    """Return whether torch can multiply two matrices in a low-precision format and write the product in fp32.

    This is tried on the device, once per process and format. Call this before a CUDA graph is captured.
    """
    small = torch.zeros(16, 16, dtype=dtype, device=device)
    try:
        torch.mm(small, small, out_dtype=torch.float32)
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return False
    return True
