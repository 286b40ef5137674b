"""One encoder layer of the BERT family, with hand-written forward and backward passes.

BERT, RoBERTa, XLM-R and ELECTRA share this layer (Devlin et al. 2019, section 3.1; Vaswani et al. 2017, section 3):

    a = attention(x)         m = norm(x + dropout(a Wo + bo))
    u = gelu(m Wi + bi)      y = norm(m + dropout(u Wd + bd))

Outputs and gradients equal those of transformers' modules up to rounding (tested), with less work around the matrix
products: query, key and value are one product, dropout masks are drawn in bulk, tensors that the backward pass does not
read are neither kept nor copied, and the backward pass computes only the gradients that trainable parameters need, in
the layer and below it.

The number formats are those of autocast: matrix products in `dtype` (fp32, bf16 or fp16); residual sums, layer norms
and softmax in fp32.

Notation for shapes: b examples per batch, s tokens per example, n = b s, d hidden size, h attention heads, e = d / h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from alue_bench.training.bert.dropout import DropoutMasks

FLASH_FROM = 128
"""The smallest number of tokens per example for which inference uses torch's fused attention kernel. For shorter texts,
separate matrix products are faster (measured on a CPU: with 26 tokens the kernel takes twice as long)."""

Grads = tuple[Tensor | None, ...]

FAMILY = ("Bert", "Roberta", "XLMRoberta", "Electra")
"""The prefixes of the names of transformers' classes that implement this layer."""
TORCH_MODULES = ("torch.nn.modules.linear", "torch.nn.modules.normalization", "torch.nn.modules.dropout")
"""The Python modules of torch whose classes may occur inside an unmodified encoder layer of the BERT family."""


def is_bert_layer(layer: nn.Module) -> bool:
    """Return whether a module is an unmodified encoder layer of the BERT family.

    The result is False for a layer with added, wrapped or replaced parts, with hooks or with an approximate GELU, and
    for the layer of a decoder.
    """
    family = type(layer).__name__.removesuffix("Layer")
    if family not in FAMILY or not type(layer).__module__.startswith("transformers."):
        return False
    any_layer: Any = layer
    attention, output = any_layer.attention.self, any_layer.attention.output
    expected = {
        f"{family}Attention": [any_layer.attention],
        f"{family}SelfAttention": [attention],
        f"{family}SelfOutput": [output],
        f"{family}Intermediate": [any_layer.intermediate],
        f"{family}Output": [any_layer.output],
        "Linear": [attention.query, attention.key, attention.value],
        "LayerNorm": [output.LayerNorm, any_layer.output.LayerNorm],
        "Dropout": [attention.dropout, output.dropout, any_layer.output.dropout],
    }
    expected["Linear"] += [output.dense, any_layer.intermediate.dense, any_layer.output.dense]
    family_module = type(layer).__module__
    return (
        all(
            type(module).__name__ == name and type(module).__module__ in (family_module, *TORCH_MODULES)
            for name, modules in expected.items()
            for module in modules
        )
        and all(module.bias is not None for module in expected["Linear"])
        and not any(module._forward_hooks or module._forward_pre_hooks for module in layer.modules())
        and _is_exact_gelu(any_layer.intermediate.intermediate_act_fn)
        and not any_layer.is_decoder
    )


def _is_exact_gelu(activation: Any) -> bool:
    """Return whether an activation function is the exact GELU and not an approximation."""
    probe = torch.linspace(-100, 100, 2001)
    return bool(torch.equal(activation(probe), functional.gelu(probe)))


class LayerWeights:
    """The parameters of an encoder layer, arranged so that query, key and value need one matrix product.

    The weights of query, key and value become views of one matrix; each keeps its values, name and gradient. If `dtype`
    is not fp32, the weights and biases of matrix products are also kept as copies in `dtype`.
    """

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        """Merge the layer's query, key and value weights in place, and copy weights to `dtype` if it is not fp32.

        Args:
            layer: A transformers layer of the BERT family.
            dtype: The number format of matrix products.
        """
        any_layer: Any = layer
        attention, output = any_layer.attention.self, any_layer.attention.output
        up, down = any_layer.intermediate.dense, any_layer.output.dense
        projections = (attention.query, attention.key, attention.value)
        self.layer = layer
        self.dtype = dtype
        self.heads = int(attention.num_attention_heads)
        self.scale = float(attention.scaling)
        self.norms: tuple[nn.LayerNorm, nn.LayerNorm] = (output.LayerNorm, any_layer.output.LayerNorm)
        self._dropouts = (attention.dropout, output.dropout, any_layer.output.dropout)
        self.parameters: tuple[nn.Parameter, ...] = (
            *(p.weight for p in projections),
            *(p.bias for p in projections),
            *(output.dense.weight, output.dense.bias, *self.norms[0].parameters()),
            *(up.weight, up.bias, down.weight, down.bias, *self.norms[1].parameters()),
        )
        with torch.no_grad():
            weight = torch.cat([p.weight for p in projections])
            bias = torch.cat([p.bias for p in projections])
            for index, projection in enumerate(projections):
                rows = slice(index * len(weight) // 3, (index + 1) * len(weight) // 3)
                projection.weight.data, projection.bias.data = weight[rows], bias[rows]
        self._masters = [t.detach() for t in (weight, bias, *self.parameters[6:8], *self.parameters[10:14])]
        self._computed = self._masters if dtype == torch.float32 else [t.to(dtype) for t in self._masters]
        self._trains = any(parameter.requires_grad for parameter in self.parameters)

    def refresh_if_changed(self) -> None:
        """Update the low-precision copies of weights.

        Call this after parameters have changed, or after other parameters have become trainable.
        """
        self._trains = True
        self.refresh()
        self._trains = any(parameter.requires_grad for parameter in self.parameters)

    def refresh(self) -> None:
        """Copy the current weights to their low-precision copies; do nothing if no parameter of the layer trains."""
        if self._trains and self.dtype != torch.float32:
            torch._foreach_copy_(self._computed, self._masters)

    @property
    def copies(self) -> tuple[list[Tensor], list[Tensor]]:
        """The low-precision copies of weights, and the fp32 weights that they copy.

        Both lists are empty if no parameter of the layer trains, or if products are computed in fp32.
        """
        return (self._computed, self._masters) if self._trains and self.dtype != torch.float32 else ([], [])

    @property
    def products(self) -> list[Tensor]:
        """The weights and biases of the matrix products, in the products' number format; each weight precedes its bias.

        The weights are: query, key and value `[3 d, d]`, attention output `[d, d]`, up projection `[4 d, d]`, down
        projection `[d, 4 d]`.
        """
        return self._computed

    @property
    def dropout(self) -> tuple[float, float, float]:
        """The dropout probabilities for attention weights, attention output and feed-forward output; 0 in eval mode."""
        return tuple(float(module.p) if self.layer.training else 0.0 for module in self._dropouts)  # type: ignore[return-value]


@dataclass(frozen=True)
class BatchShape:
    """The number of tokens and the padding of a batch, which a layer needs in addition to the hidden states."""

    examples: int
    tokens: int
    """The number of tokens per example, with padding."""
    padding: Tensor | None
    """The values added to attention scores, `[b, 1, 1, s]`: 0 for tokens, and for padding the lowest finite number of
    fp32, which becomes minus infinity in bf16 and fp16. They are in fp32, but for `few_kernels.py` in the format of
    matrix products. None if nothing is padded."""

    def bias(self, heads: int) -> Tensor | None:
        """Return `padding`, the values added to attention scores, repeated for each head: fp32 `[b h, 1, s]`.

        The result is None if nothing is padded.
        """
        if self.padding is None:
            return None
        spread = self.padding.expand(-1, heads, -1, -1)
        return spread.reshape(self.examples * heads, 1, self.tokens)


def encoder_layer(states: Tensor, weights: LayerWeights, shape: BatchShape, masks: DropoutMasks) -> Tensor:
    """Compute the output of one encoder layer.

    Args:
        states: The layer's input, fp32 `[n, d]`.
        weights: The layer's parameters.
        shape: The shape and padding of the batch.
        masks: The source of dropout masks.

    Returns:
        The layer's output, fp32 `[n, d]`.
    """
    if not torch.is_grad_enabled():
        return _inference(states, weights, shape)
    result: Tensor = _EncoderLayer.apply(states, weights, shape, masks, *weights.parameters)  # type: ignore[no-untyped-call]
    return result


def first_token_layer(states: Tensor, weights: LayerWeights, shape: BatchShape, masks: DropoutMasks) -> Tensor:
    """Compute the output of one encoder layer for the first token of each example only.

    If the head reads only the first token, the other tokens need no query and no computation after attention. Even
    their keys and values need not be computed, because products with a single query can be reordered in each head:

        q . (Wk x + bk) = (q Wk) . x + q . bk        sum of p (Wv x + bv) = Wv (sum of p x) + bv (sum of p)

    so that Wk and Wv are multiplied by one vector per example and head. The backward pass is left to autograd, since
    this layer is a small part of the work.

    Args:
        states: The layer's input, fp32 `[n, d]`.
        weights: The layer's parameters.
        shape: The shape and padding of the batch.
        masks: The source of dropout masks.

    Returns:
        The layer's output for the first tokens, fp32 `[b, d]`.
    """
    b, s, d = shape.examples, shape.tokens, states.shape[1]
    h = weights.heads
    e = d // h
    dtype = weights.dtype
    wq, wk, wv, bq, bk, bv, wo, bo, g1, c1, wi, bi, wd, bd, g2, c2 = weights.parameters
    drop_probs, drop_attended, drop_fed = weights.dropout

    def dropped(tensor: Tensor, p: float) -> Tensor:
        return tensor * masks.draw(tuple(tensor.shape), p) if p else tensor

    def product(tensor: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.linear(tensor.to(dtype), weight.to(dtype), bias.to(dtype))

    def by_head(vectors: Tensor, matrices: Tensor) -> Tensor:
        """Return each head's vectors, `[b, h, i]`, multiplied by its matrix, `[h, i, j]`: `[b, h, j]`."""
        return torch.bmm(vectors.transpose(0, 1), matrices.to(dtype)).transpose(0, 1)

    seen = states.to(dtype).view(b, s, d)
    first = states.view(b, s, d)[:, 0]
    query = product(first, wq, bq).view(b, h, e)
    scores = torch.bmm(by_head(query, wk.view(h, e, d)), seen.transpose(1, 2)).float()  # [b, h, s]
    # The bias of the keys adds the same value to all scores of a query, which does not change the softmax. It is
    # computed for the sake of its gradient, which is rounding noise around zero.
    scores = (scores + (query.float() * bk.view(h, e)).sum(-1, keepdim=True)) * weights.scale
    probs = torch.softmax(scores if shape.padding is None else scores + shape.padding.view(b, 1, s), -1)
    used = dropped(probs, drop_probs)
    value = by_head(torch.bmm(used.to(dtype), seen), wv.view(h, e, d).transpose(1, 2))  # [b, h, e]
    attended = (value.float() + used.sum(-1, keepdim=True) * bv.view(h, e)).reshape(b, d)
    middle = dropped(product(attended, wo, bo).float(), drop_attended) + first
    middle = functional.layer_norm(middle, (d,), g1, c1, weights.norms[0].eps)
    fed = product(functional.gelu(product(middle, wi, bi)), wd, bd)
    return functional.layer_norm(dropped(fed.float(), drop_fed) + middle, (d,), g2, c2, weights.norms[1].eps)


def _split_heads(mixed: Tensor, shape: BatchShape, heads: int) -> Tensor:
    """Split concatenated query, key and value, `[n, 3 d]`, into attention heads: `[3, b h, s, e]`."""
    b, s = shape.examples, shape.tokens
    parts = mixed.view(b, s, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return parts.reshape(3, b * heads, s, -1)


def _merge_heads(parts: Tensor, shape: BatchShape, heads: int) -> Tensor:
    """Concatenate the outputs of the attention heads, `[b h, s, e]`, for each token: `[n, d]`."""
    b, s = shape.examples, shape.tokens
    return parts.view(b, heads, s, -1).transpose(1, 2).reshape(b * s, -1)


def _probabilities(query: Tensor, key: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """Compute the attention weights (softmax of the scores), fp32 `[b h, s, s]`.

    Args:
        query: The queries, `[b h, s, e]`.
        key: The keys, `[b h, s, e]`.
        scale: The factor of the scores, normally 1 / sqrt(e).
        bias: The values added to the scores, fp32 `[b h, 1, s]`, or None.
    """
    if query.dtype == torch.float32:  # the product also applies scale and padding
        added = query.new_zeros(1, 1, 1) if bias is None else bias
        return torch.softmax(torch.baddbmm(added, query, key.transpose(1, 2), alpha=scale), -1)
    scores = torch.bmm(query, key.transpose(1, 2)).float().mul_(scale)
    return torch.softmax(scores if bias is None else scores.add_(bias), -1)


def _inference(states: Tensor, weights: LayerWeights, shape: BatchShape) -> Tensor:
    """Compute an encoder layer's output from its input `states`, both fp32 `[n, d]`, without gradients and dropout."""
    wqkv, bqkv, wo, bo, wi, bi, wd, bd = weights.products
    norm1, norm2 = weights.norms
    d, h, dtype = states.shape[1], weights.heads, weights.dtype
    query, key, value = _split_heads(functional.linear(states.to(dtype), wqkv, bqkv), shape, h).unbind(0)
    if shape.tokens < FLASH_FROM:
        probs = _probabilities(query, key, weights.scale, shape.bias(h))
        attended = torch.bmm(probs.to(dtype), value)
    else:
        by_head = (shape.examples, h, shape.tokens, d // h)
        padding = None if shape.padding is None else shape.padding.to(dtype)
        attended = functional.scaled_dot_product_attention(
            query.view(by_head), key.view(by_head), value.view(by_head), attn_mask=padding, scale=weights.scale
        ).reshape(shape.examples * h, shape.tokens, d // h)
    middle = functional.linear(_merge_heads(attended, shape, h), wo, bo).add(states)
    middle = functional.layer_norm(middle, (d,), norm1.weight, norm1.bias, norm1.eps)
    fed = functional.linear(functional.gelu(functional.linear(middle.to(dtype), wi, bi)), wd, bd)
    return functional.layer_norm(fed.add(middle), (d,), norm2.weight, norm2.bias, norm2.eps)


class _EncoderLayer(torch.autograd.Function):
    """The autograd function of a whole encoder layer, which is a single node of autograd's graph."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weights: LayerWeights, shape: BatchShape, masks: DropoutMasks, *_: Tensor
    ) -> Tensor:
        """Compute the output of the layer, fp32 `[n, d]`, and save the tensors that the backward pass needs.

        Args:
            ctx: Autograd's context.
            states: The layer's input, fp32 `[n, d]`.
            weights: The layer's parameters.
            shape: The shape and padding of the batch.
            masks: The source of dropout masks.
            *_: The layer's parameters again, passed as arguments so that autograd tracks them.
        """
        wqkv, bqkv, wo, bo, wi, bi, wd, bd = weights.products
        norm1, norm2 = weights.norms
        h, dtype, size = weights.heads, weights.dtype, [states.shape[1]]
        drop_probs, drop_attended, drop_fed = weights.dropout

        inputs = states.to(dtype)
        query, key, value = _split_heads(torch.addmm(bqkv, inputs, wqkv.t()), shape, h).unbind(0)
        probs = _probabilities(query, key, weights.scale, shape.bias(h))
        mask_probs = masks.draw(tuple(probs.shape), drop_probs) if drop_probs else None
        used = (probs if mask_probs is None else probs * mask_probs).to(dtype)
        attended = _merge_heads(torch.bmm(used, value), shape, h)  # [n, d]
        mask_attended = masks.draw(tuple(states.shape), drop_attended) if drop_attended else None
        sum1 = _add_dropped(states, torch.addmm(bo, attended, wo.t()), mask_attended)
        middle, mean1, scale1 = torch.native_layer_norm(sum1, size, norm1.weight, norm1.bias, norm1.eps)
        narrow = middle.to(dtype)
        before = torch.addmm(bi, narrow, wi.t())  # [n, 4 d]
        after = functional.gelu(before)
        mask_fed = masks.draw(tuple(states.shape), drop_fed) if drop_fed else None
        sum2 = _add_dropped(middle, torch.addmm(bd, after, wd.t()), mask_fed)
        result, mean2, scale2 = torch.native_layer_norm(sum2, size, norm2.weight, norm2.bias, norm2.eps)

        # The backward pass needs the input of a product only for the gradient of the weight matrix. So the input is
        # kept only if this matrix trains.
        needs = ctx.needs_input_grad[4:]
        ctx.weights, ctx.shape = weights, shape
        ctx.save_for_backward(
            *(query, key, value, probs, used, mask_probs, mask_attended, mask_fed),
            *(sum1, mean1, scale1, before, sum2, mean2, scale2),
            *(inputs if any(needs[:3]) else None, attended if needs[6] else None),
            *(narrow if needs[10] else None, after if needs[12] else None),
        )
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        """Compute the gradients of the input, fp32 `[n, d]`, and of the parameters that train.

        Args:
            ctx: Autograd's context.
            grad: The gradient of the output, fp32 `[n, d]`.

        Returns:
            The gradients in the order of `forward`'s arguments; None for an argument that needs no gradient.
        """
        *for_attention, mask_attended, mask_fed, sum1, mean1, scale1 = (saved := ctx.saved_tensors)[:11]
        before, sum2, mean2, scale2, inputs, attended, narrow, after = saved[11:]
        weights, shape = ctx.weights, ctx.shape
        wqkv, _, wo, _, wi, _, wd, _ = weights.products
        dtype, below = weights.dtype, ctx.needs_input_grad[0]
        needs = ctx.needs_input_grad[4:]
        grads: list[Tensor | None] = [None] * 16

        def ends_at(index: int) -> bool:
            """Return whether the backward pass can end once it has reached this index of `LayerWeights.parameters`.

            The gradients are computed from the highest index to the lowest. The backward pass can end if neither a
            parameter with a smaller index nor the layer's input needs a gradient.
            """
            return not below and not any(needs[:index])

        def store_grads(index: int, outer: Tensor, inner: Tensor) -> None:
            """Compute the gradients of one linear layer's weight and bias, and store them in `grads`.

            Args:
                index: The index of the weight in `LayerWeights.parameters`; the bias has the next index.
                outer: The gradient of the linear layer's output, `[n, out]`.
                inner: The input of the linear layer, `[n, in]`.
            """
            if needs[index]:
                grads[index] = (outer.t() @ inner).float()
            if needs[index + 1]:
                grads[index + 1] = outer.sum(0, dtype=torch.float32)

        dsum2, grads[14], grads[15] = _norm_backward(grad, sum2, mean2, scale2, weights.norms[1], needs[14:16])
        if ends_at(14):
            return (None, None, None, None, *grads)
        dfed = (dsum2 if mask_fed is None else dsum2 * mask_fed).to(dtype)
        store_grads(12, dfed, after)
        if ends_at(12):
            return (None, None, None, None, *grads)
        dbefore = dfed @ wd
        torch.ops.aten.gelu_backward.grad_input(dbefore, before, grad_input=dbefore)  # in place
        store_grads(10, dbefore, narrow)
        if ends_at(10):
            return (None, None, None, None, *grads)
        dmiddle = _add_product(dsum2, dbefore, wi)
        dsum1, grads[8], grads[9] = _norm_backward(dmiddle, sum1, mean1, scale1, weights.norms[0], needs[8:10])
        if ends_at(8):
            return (None, None, None, None, *grads)
        dout = (dsum1 if mask_attended is None else dsum1 * mask_attended).to(dtype)
        store_grads(6, dout, attended)
        if ends_at(6):
            return (None, None, None, None, *grads)
        needed = [below or needs[index] or needs[index + 3] for index in range(3)]
        dmixed = _attention_backward(dout @ wo, for_attention, weights, shape, needed)

        if all(needs[:3]):
            grads[0], grads[1], grads[2] = (dmixed.t() @ inputs).float().chunk(3)
        else:
            parts = dmixed.chunk(3, dim=1)
            grads[:3] = [(parts[index].t() @ inputs).float() if needs[index] else None for index in range(3)]
        if any(needs[3:6]):
            grads[3], grads[4], grads[5] = dmixed.sum(0, dtype=torch.float32).chunk(3)
        return (_add_product(dsum1, dmixed, wqkv) if below else None, None, None, None, *grads)


def _attention_backward(
    dattended: Tensor, saved: list[Tensor], weights: LayerWeights, shape: BatchShape, needed: list[bool]
) -> Tensor:
    """Compute the gradients of queries, keys and values, side by side for each token: `[n, 3 d]`.

    Args:
        dattended: The gradient of the heads' outputs, `[n, d]`.
        saved: Queries, keys, values, attention weights before and after dropout, and the dropout mask or None, all from
            the forward pass.
        weights: The layer.
        shape: The shape of the batch.
        needed: Whether the gradients of queries, of keys and of values are needed. A gradient that is not needed is
            zero.
    """
    query, key, value, probs, used, mask = saved
    b, s, h, dtype = shape.examples, shape.tokens, weights.heads, weights.dtype
    dattended = dattended.view(b, s, h, -1).transpose(1, 2).reshape(b * h, s, -1)
    allocate = torch.empty if all(needed) else torch.zeros
    mixed = allocate((3, *query.shape), dtype=dtype, device=query.device)  # [3, b h, s, e]
    if needed[2]:
        torch.bmm(used.transpose(1, 2), dattended, out=mixed[2])
    if needed[0] or needed[1]:
        dused = torch.bmm(dattended, value.transpose(1, 2)).float()
        dprobs = dused if mask is None else dused.mul_(mask)
        dscores = torch.ops.aten._softmax_backward_data(dprobs, probs, -1, torch.float32).mul_(weights.scale).to(dtype)
        if needed[0]:
            torch.bmm(dscores, key, out=mixed[0])
        if needed[1]:
            torch.bmm(dscores.transpose(1, 2), query, out=mixed[1])
    return mixed.view(3, b, h, s, -1).permute(1, 3, 0, 2, 4).reshape(b * s, -1)


def _add_dropped(residual: Tensor, update: Tensor, mask: Tensor | None) -> Tensor:
    """Return the residual sum `residual + update * mask` in fp32, all `[n, d]`.

    Args:
        residual: The residual.
        update: The tensor that is added to the residual.
        mask: The dropout factors (0 or 1 / (1 - p)); None means no dropout.
    """
    update = update.float()
    return update.add_(residual) if mask is None else torch.addcmul(residual, update, mask, out=update)


def _add_product(residual: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return `residual + left @ right` in fp32, where `left` and `right` are matrices.

    If both are fp32, the result overwrites `residual`.
    """
    if left.dtype == torch.float32:
        return torch.addmm(residual, left, right, out=residual)
    return (left @ right).float().add_(residual)


def _norm_backward(
    grad: Tensor, inputs: Tensor, mean: Tensor, scale: Tensor, norm: nn.LayerNorm, needs: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute the gradients of a layer norm.

    Args:
        grad: The gradient of the output, `[n, d]`.
        inputs: The input, `[n, d]`.
        mean: The mean of each row, from the forward pass.
        scale: The reciprocal standard deviation of each row, from the forward pass.
        norm: The layer norm.
        needs: Whether the gradient of the norm's weight, and that of its bias, are needed.

    Returns:
        The gradients of the input, `[n, d]`, and of weight and bias, `[d]`, or None if not needed.
    """
    grads: tuple[Tensor, Tensor | None, Tensor | None] = torch.ops.aten.native_layer_norm_backward(
        grad.contiguous(), inputs, norm.normalized_shape, mean, scale, norm.weight, norm.bias, [True, *needs]
    )
    return grads
