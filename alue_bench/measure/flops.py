"""FLOPs of fine-tuning, from formulas over a model's shapes, or counted for architectures that the formulas do not fit.

Only the FLOPs of matrix products count; a multiply-add counts as two, and padding tokens do not count. For each
architecture outside the BERT family, the formulas are compared once with torch's FLOP counter, for three freeze plans
and texts of up to 64 tokens. If a plan trains only a part of each layer, such as attention, they are compared again for
this part. If the results of formulas and counter differ by more than 1 %, the counter's result is used
(`counted_flops`). The method is recorded with each run. The fused attention of an accelerator always computes the
gradients of queries, keys and values. If the lowest trained layer needs only some of these gradients, the FLOPs of the
others are not counted.

The formulas: in the backward pass, a product with a weight matrix costs its forward FLOPs once for the gradient of its
input, if something below it trains, and once for the gradient of the matrix, if the matrix trains. Let F be the FLOPs
of a layer's forward pass. The FLOPs of the layer in a training step are then:

- trained, above something that trains: 3 F (forward, gradient of its input, gradient of its weights);
- frozen, above something that trains: 2 F; its attention scores and their product with the values, which involve no
  weights, cost 3 times their share of F;
- frozen, with nothing below it that trains: 1 F;
- only its biases or norms trained, above something that trains: 2 F, as if it were frozen;
- only some of its matrices trained, such as those of attention: 2 F and the forward FLOPs of these matrices;
- trained, with nothing below it that trains: less than 3 F, because the gradient of its own input is not needed, so
  that the query, key and value projections need no product for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.contract.spec import digest_of
from alue_bench.contract.strategy import FreezePlan
from alue_bench.measure.counted_flops import counted_forward, counted_prefix, counted_step
from alue_bench.training.architecture.anatomy import architecture_fields
from alue_bench.training.architecture.encoder_stack import EncoderStack, LastLayer, view_as_stack
from alue_bench.training.forward import has_lean_forward
from alue_bench.training.freezing import trainable_parameters
from alue_bench.training.pretrained.loading import BINARY, TAGS, empty_model

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

TOLERANCE = 0.01
"""The largest relative difference between formulas and torch's FLOP counter at which the formulas are still used."""
COMPARED_SIZES = (3, 64)
"""The number of texts, and the largest number of tokens per text, for which the FLOP formulas are compared with torch's
counter."""


@dataclass(frozen=True)
class FlopsMethod:
    """The method that determines the FLOPs of an architecture: formulas or torch's FLOP counter."""

    name: Literal["formula", "counter"]
    largest_gap: float | None = None
    """The largest relative difference between the formulas and torch's counter. None if the comparison failed, and for
    the BERT family, whose formulas are compared with the counter in the project's tests only."""
    problem: str = ""
    """The reason for which the comparison of the formulas with torch's counter failed; empty if it did not fail."""


_methods: dict[str, FlopsMethod] = {}
"""The methods that were determined in this process, for reuse, by a digest of architecture and trained parts."""
COMPARED_PARTS = ("norms", "attention", "feed-forward", "names")
"""The values of `FreezePlan.trained` for which the formulas are compared with torch's counter again."""


def flops_method_of(stack: EncoderStack, plan: FreezePlan | None = None) -> FlopsMethod:
    """Return the method for determining the FLOPs of a model.

    Args:
        stack: The model, possibly on the meta device.
        plan: The freeze plan, for the FLOPs of training; None for those of a forward pass.
    """
    model: Any = stack.model
    if has_lean_forward(stack):
        return FlopsMethod("formula")
    only = {"trained": plan.trained, "names": plan.names} if plan is not None and plan.trained in COMPARED_PARTS else {}
    key = digest_of([type(model).__name__, architecture_fields(model.config), only])
    if key not in _methods:
        empty_stack = view_as_stack(empty_model(model.config, TAGS if stack.reads_tokens else BINARY))
        _methods[key] = _compared(empty_stack, only)
    return _methods[key]


def _compared(stack: EncoderStack, only: dict[str, Any]) -> FlopsMethod:
    """Compare the FLOP formulas with torch's counter for three freeze plans, and return the method to use.

    Args:
        stack: The model, on the meta device.
        only: The fields of `FreezePlan`, with their values, that select the part of the layers that trains; empty if
            whole layers train.
    """
    import numpy as np

    shape = stack.shape
    low = frozenset(range(shape.layers // 2))
    plans = (
        FreezePlan(shape, **only),
        FreezePlan(shape, low, embeddings=True, **only),
        FreezePlan(shape, frozenset(range(shape.layers)) - low, **only),
    )
    texts, tokens = COMPARED_SIZES
    positions = getattr(stack.model.config, "max_position_embeddings", None)
    lengths = np.full(texts, min(tokens, positions - 2) if isinstance(positions, int) and positions > 4 else tokens)
    try:
        gaps = [abs(_formula(stack, plan, lengths) / counted_step(stack, plan, lengths, texts) - 1) for plan in plans]
    except Exception as error:  # a third-party architecture may raise any error on unexpected inputs
        return FlopsMethod(
            "formula", problem=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:200]
        )
    return FlopsMethod("formula" if max(gaps) <= TOLERANCE else "counter", max(gaps))


@dataclass(frozen=True)
class Product:
    """A matrix product inside an encoder layer, of token vectors with a weight matrix."""

    size: int
    """The number of entries of the weight matrix."""
    trained: bool
    """True if the weight matrix is trainable."""
    follows_trained: bool
    """True if trainable parameters of the same layer come before the product. The backward pass then computes the
    gradient of the product's input."""
    is_key_or_value: bool
    """True for the key and value projections. If the products of the last layer are reordered, these two matrices
    multiply one vector for each example instead of one for each token (see `first_token_layer` in
    `training/bert/layer.py`)."""

    def cost(self, tokens: int, *, backward: bool, trains_below: bool) -> int:
        """Return the FLOPs of the matrix product for a number of tokens.

        Args:
            tokens: The number of vectors that the matrix multiplies.
            backward: Whether there is a backward pass through the product.
            trains_below: Whether any parameter below the layer is trainable.
        """
        passes = 1
        if backward:
            passes += (trains_below or self.follows_trained) + self.trained
        return 2 * self.size * tokens * passes


@dataclass(frozen=True)
class Layer:
    """The matrix products of one encoder layer, from which its FLOPs are computed."""

    products: tuple[Product, ...]
    trains: bool
    """True if any parameter of the layer is trainable."""
    width: int
    """The width of attention: the size of a head times the number of heads."""
    heads: int
    attended: tuple[bool, bool, bool]
    """Flags for the projections of query, key and value: True if the projection, or a part of the same layer that is
    computed before it, has a trainable parameter."""

    def cost(self, lengths: np.ndarray[Any, Any], *, backward: bool, trains_below: bool, computed: LastLayer) -> int:
        """Return the FLOPs of the layer for the given examples.

        Args:
            lengths: The number of tokens of each example, int64 `[examples]`.
            backward: Whether there is a backward pass through the layer.
            trains_below: Whether any parameter below the layer is trainable.
            computed: The tokens for which the layer is computed, such as "whole" for all of them; see `LastLayer`.
        """
        first_only, reordered = computed != "whole", computed == "reordered"
        every = int(lengths.sum())
        tokens = len(lengths) if first_only else every
        query_trains = any(self.attended[:2])
        in_products = sum(
            product.cost(
                every if product.is_key_or_value and not reordered else tokens,
                backward=backward,
                trains_below=trains_below or (reordered and product.is_key_or_value and query_trains),
            )
            for product in self.products
        )
        # With reordered products, each head multiplies vectors of the full hidden size with all tokens.
        width = self.width * self.heads if reordered else self.width
        return in_products + 2 * width * self._pairs(lengths, first_only) * self._attention_products(
            backward, trains_below, reordered
        )

    def _pairs(self, lengths: np.ndarray[Any, Any], first_only: bool) -> int:
        """Return the number of (query, key) token pairs in attention, over examples with these numbers of tokens.

        With `first_only`, only the first token of each example is a query. Local attention has the same number of
        pairs, because it is computed for all pairs, most of them masked.
        """
        return int(lengths.sum()) if first_only else int((lengths * lengths).sum())

    def _attention_products(self, backward: bool, trains_below: bool, reordered: bool) -> int:
        """Return the number of matrix products in attention that do not involve a weight matrix.

        The forward pass has two: queries with keys, and the resulting scores with values. The backward pass adds a
        product for the gradient of each factor (queries, keys, scores, values) that needs one.
        """
        if not backward:
            return 2
        query, key, value = (trains_below or before for before in self.attended)
        if reordered:  # keys and values are not computed: the layer's input is the factor instead
            key = value = trains_below
        return 2 + query + key + value + (query or key)


def layers_of(stack: EncoderStack, trained: set[int]) -> list[Layer]:
    """Return a `Layer` for each encoder layer of a model, which describes the layer's matrix products.

    Args:
        stack: The model, possibly on the meta device.
        trained: The `id()`s of the parameters that train. It may be empty for the FLOPs of a forward pass.
    """
    config: Any = stack.model.config
    hidden = int(config.hidden_size)
    layers = []
    for module in stack.layers:
        products: list[Product] = []
        attended: list[bool] = []
        # A layer first computes queries, keys and values, side by side: with three matrices, or one of three times the
        # size. Attention is assumed to be as wide as the hidden size, which holds for every tested architecture.
        before = before_projections = False
        projected = 0
        for part in _parts(module):
            part_trains = any(id(parameter) in trained for parameter in part.parameters())
            linear = _linear(part)
            if linear is None:
                before = before or part_trains
                continue
            is_projection = projected < 3 * hidden * hidden
            if is_projection and not products:
                before_projections = before
            follows = before_projections if is_projection else before
            if is_projection:
                projected += linear.weight.numel()
                matrices = max(1, round(linear.weight.numel() / (hidden * hidden)))
                attended += [before_projections or part_trains] * min(matrices, 3 - len(attended))
            is_key_or_value = is_projection and len(attended) > 1
            products += _products(part, trained, follows, is_key_or_value)
            before = before or part_trains
        attended += [before] * (3 - len(attended))
        query, key, value = attended
        layers.append(
            Layer(
                products=tuple(products),
                trains=any(id(parameter) in trained for parameter in module.parameters()),
                width=hidden,
                heads=int(getattr(config, "num_attention_heads", 1)),  # some architectures have no attention
                attended=(query, key, value),
            )
        )
    return layers


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of a layer that hold parameters, in the order in which they are registered and used.

    A linear module and the adapter around it count as one module.
    """
    if _linear(module) is not None or not any(True for _ in module.children()):
        yield module
        return
    for child in module.children():
        yield from _parts(child)


def _linear(module: nn.Module) -> nn.Linear | None:
    """Return the module itself if it is linear, or the linear module inside an adapter; None for other modules."""
    from torch import nn

    inner = getattr(module, "base_layer", module)
    return inner if isinstance(inner, nn.Linear) else None


def _products(part: nn.Module, trained: set[int], follows: bool, is_key_or_value: bool) -> Iterator[Product]:
    """Yield the matrix products of a linear module and of the adapter around it, if any.

    A LoRA adapter is a pair of thin matrices, applied one after the other.

    Args:
        part: The linear module or the adapter around it.
        trained: The `id()`s of the parameters that train.
        follows: Whether trainable parameters of the layer come before the linear module.
        is_key_or_value: Whether this is a key or value projection; see `Product.is_key_or_value`.
    """
    from torch import nn

    base = _linear(part)
    # An adapter that scales the input (IA3 in feed-forward layers) comes before the product.
    scaled = bool(getattr(part, "is_feedforward", False))
    for module in part.modules():
        if not isinstance(module, nn.Linear):
            continue
        if module is base:
            before = follows or scaled
            first = False
        else:
            first = module.in_features == base.in_features and module.out_features != base.out_features  # type: ignore[union-attr]
            before = follows or not first
        yield Product(module.weight.numel(), id(module.weight) in trained, before, is_key_or_value)


def head_vectors(stack: EncoderStack, lengths: np.ndarray[Any, Any]) -> int:
    """Return the number of vectors that pooler and head read: one for each example, or one for each token.

    Args:
        stack: The model, possibly on the meta device.
        lengths: The number of tokens of each example, int64 `[examples]`.
    """
    return int(lengths.sum()) if stack.reads_tokens else len(lengths)


def head_flops(stack: EncoderStack, trained: set[int], vectors: int, *, trains_below: bool) -> int:
    """Return the FLOPs of pooler and head for training on a number of vectors once (forward and backward pass).

    Args:
        stack: The model, possibly on the meta device.
        trained: The `id()`s of the parameters that train.
        vectors: The number of vectors; see `head_vectors`.
        trains_below: Whether any parameter below pooler and head is trainable.
    """
    from torch import nn

    flops, before = 0, trains_below
    for module in _modules_after_layers(stack):
        if isinstance(module, nn.Linear):
            flops += 2 * vectors * module.weight.numel() * (1 + before + (id(module.weight) in trained))
        before = before or any(id(parameter) in trained for parameter in module.parameters(recurse=False))
    return flops


def head_forward(stack: EncoderStack, vectors: int) -> int:
    """Return the FLOPs of a forward pass through pooler and head for a number of vectors; see `head_vectors`."""
    from torch import nn

    linear = (module for module in _modules_after_layers(stack) if isinstance(module, nn.Linear))
    return 2 * vectors * sum(module.weight.numel() for module in linear)


def _modules_after_layers(stack: EncoderStack) -> Iterator[nn.Module]:
    """Yield the modules outside embeddings and layers (pooler and head), in the order of their use."""
    inside = {id(m) for part in (*stack.embeddings, *stack.layers) for m in part.modules()}
    for module in stack.model.modules():
        if id(module) not in inside:
            yield module


def step_flops(
    stack: EncoderStack,
    plan: FreezePlan,
    lengths: np.ndarray[Any, Any],
    *,
    start: int = 0,
    last_layer: LastLayer = "whole",
    batch_size: int | None = None,
) -> float:
    """Return the FLOPs of training on each example once (one epoch), without dev evaluation.

    Args:
        stack: The model, possibly on the meta device.
        plan: The freeze plan.
        lengths: The number of tokens of each example, int64 `[examples]`.
        start: The number of layers that are not computed because their outputs are cached.
        last_layer: The tokens for which the last layer is computed, such as "whole" for all of them; see `LastLayer`.
        batch_size: The number of examples in a batch; None for a single batch. It matters if an architecture computes
            something once per batch, such as projections of relative positions.
    """
    if flops_method_of(stack, plan).name == "counter":
        return counted_step(stack, plan, lengths, batch_size or max(1, len(lengths)), start=start)
    return _formula(stack, plan, lengths, start=start, last_layer=last_layer)


def _formula(
    stack: EncoderStack,
    plan: FreezePlan,
    lengths: np.ndarray[Any, Any],
    *,
    start: int = 0,
    last_layer: LastLayer = "whole",
) -> float:
    """Return the FLOPs of training on each example once, computed by the formulas; for the arguments, see `step_flops`.

    Embeddings cost nothing, since they are looked up; the small projection after them in some architectures is ignored.
    """
    flops = 0
    trained = {id(parameter) for parameter in trainable_parameters(stack, plan)}
    # In embeddings that are not frozen, only biases or only adapters may train.
    trains_below = any(id(parameter) in trained for part in stack.embeddings for parameter in part.parameters())
    layers = layers_of(stack, trained)
    for index, layer in enumerate(layers):
        if index >= start:
            flops += layer.cost(
                lengths,
                backward=layer.trains or trains_below,
                trains_below=trains_below,
                computed=last_layer if index == len(layers) - 1 else "whole",
            )
        trains_below = trains_below or layer.trains
    return float(flops + head_flops(stack, trained, head_vectors(stack, lengths), trains_below=trains_below))


def prefix_flops(
    stack: EncoderStack,
    depth: int,
    lengths: np.ndarray[Any, Any],
    *,
    last_layer: LastLayer = "whole",
    batch_size: int | None = None,
) -> float:
    """Return the FLOPs of a forward pass through the lowest `depth` layers.

    Args:
        stack: The model, possibly on the meta device.
        depth: The number of layers.
        lengths: The number of tokens of each example, int64 `[examples]`.
        last_layer: The tokens for which the last layer is computed, such as "whole" for all of them; see `LastLayer`.
        batch_size: The number of examples in a batch; None for a single batch. See `step_flops`.
    """
    if flops_method_of(stack).name == "counter":
        return counted_prefix(stack, depth, lengths, batch_size or max(1, len(lengths)))
    layers = layers_of(stack, trained=set())
    return float(
        sum(
            layer.cost(
                lengths,
                backward=False,
                trains_below=False,
                computed=last_layer if index == len(layers) - 1 else "whole",
            )
            for index, layer in enumerate(layers[:depth])
        )
    )


def forward_flops(stack: EncoderStack, lengths: np.ndarray[Any, Any], *, last_layer: LastLayer = "whole") -> float:
    """Return the FLOPs of a forward pass through the whole model.

    Args:
        stack: The model, possibly on the meta device.
        lengths: The number of tokens of each example, int64 `[examples]`.
        last_layer: The tokens for which the last layer is computed, such as "whole" for all of them; see `LastLayer`.
    """
    if flops_method_of(stack).name == "counter":
        return counted_forward(stack, lengths, max(1, len(lengths)))
    layers = prefix_flops(stack, len(stack.layers), lengths, last_layer=last_layer)
    return layers + head_forward(stack, head_vectors(stack, lengths))


def training_flops(
    stack: EncoderStack,
    plan: FreezePlan,
    lengths: np.ndarray[Any, Any],
    epochs: int,
    *,
    prefix_cached: bool = False,
    last_layer: LastLayer = "whole",
    batch_size: int | None = None,
) -> float:
    """Return the FLOPs of training with a constant freeze plan, without dev evaluation.

    Args:
        stack: The model, possibly on the meta device.
        plan: The freeze plan.
        lengths: The number of tokens of each example, int64 `[examples]`.
        epochs: The number of times that each example is trained on.
        prefix_cached: Whether the frozen lowest layers are computed once instead of in every epoch. Their cost is
            included even if another run computed them.
        last_layer: The tokens for which the last layer is computed, such as "whole" for all of them; see `LastLayer`.
        batch_size: The number of examples in a batch; None for a single batch. See `step_flops`.
    """
    once, each_epoch = training_parts(
        stack, plan, lengths, prefix_cached=prefix_cached, last_layer=last_layer, batch_size=batch_size
    )
    return once + each_epoch * epochs


def training_parts(
    stack: EncoderStack,
    plan: FreezePlan,
    lengths: np.ndarray[Any, Any],
    *,
    prefix_cached: bool = False,
    last_layer: LastLayer = "whole",
    batch_size: int | None = None,
) -> tuple[float, float]:
    """Return the FLOPs that training needs once, for its cached prefix, and the FLOPs that it needs in each epoch.

    The arguments are the same as for `training_flops`.
    """
    start = (plan.prefix_layers or 0) if prefix_cached else 0
    once = prefix_flops(stack, start, lengths, last_layer=last_layer, batch_size=batch_size)
    return once, step_flops(stack, plan, lengths, start=start, last_layer=last_layer, batch_size=batch_size)
