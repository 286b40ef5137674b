"""Operations that are one kernel on a GPU and that torch's CPU build lacks: fused attention, products that widen.

On the CPU, torch composes attention with dropout of a dozen operations, which a count of kernels would include. A GPU
multiplies low-precision matrices into an fp32 result.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_plain = torch.nn.functional.scaled_dot_product_attention
_library = torch.library.Library("simulated_cuda", "DEF")
_library.define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor? bias, float p, float scale) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.nondeterministic_seeded,),
)
_library.define(
    "attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor probs, Tensor mask, float scale) "
    "-> (Tensor, Tensor, Tensor)"
)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    probs = torch.softmax(scores if bias is None else scores + bias.float(), -1)
    mask = torch.empty_like(probs).bernoulli_(1 - p).div_(1 - p) if p else torch.ones_like(probs)
    attended = ((probs * mask).to(value.dtype) @ value).transpose(1, 2).contiguous().transpose(1, 2)
    return attended, probs, mask


def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, probs: Tensor, mask: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    dvalue = (probs * mask).to(grad.dtype).transpose(-1, -2) @ grad
    dprobs = (grad @ value.transpose(-1, -2)).float() * mask
    dscores = (probs * (dprobs - (dprobs * probs).sum(-1, keepdim=True)) * scale).to(grad.dtype)
    return dscores @ key, dscores.transpose(-1, -2) @ query, dvalue


def _widening_product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    return left.to(dtype) @ right.to(dtype)


_of_torch = torch.library.Library("aten", "IMPL")
_of_torch.impl("mm.dtype", _widening_product, "CPU")
_library.impl("attention", _attention, "CPU")
_library.impl("attention_backward", _backward, "CPU")


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float, scale: float
    ) -> Tensor:
        attended, probs, mask = torch.ops.simulated_cuda.attention(query, key, value, bias, p, scale)
        ctx.save_for_backward(query, key, value, probs, mask)
        ctx.scale = scale
        result: Tensor = attended
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grads = torch.ops.simulated_cuda.attention_backward(grad, *ctx.saved_tensors, ctx.scale)
        return (*grads, None, None, None)


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention; on the device, as one kernel if it is without features."""
    from simulated_cuda.tensors import DeviceTensor

    boolean = attn_mask is not None and attn_mask.dtype == torch.bool
    if not isinstance(query, DeviceTensor) or is_causal or enable_gqa or boolean:
        options = {"scale": scale, "enable_gqa": enable_gqa}
        return _plain(query, key, value, attn_mask, dropout_p, is_causal, **options)  # type: ignore[arg-type]
    if attn_mask is not None and attn_mask.dtype != query.dtype:
        raise RuntimeError(f"Expected attn_mask dtype to match query dtype, {attn_mask.dtype} and {query.dtype}")
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    result: Tensor = _Attention.apply(query, key, value, attn_mask, dropout_p, factor)  # type: ignore[no-untyped-call]
    return result
