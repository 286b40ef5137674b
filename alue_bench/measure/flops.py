"""Floating-point operations of fine-tuning: by formulas from a model's shapes, or, where those do not hold, counted.

Counted are matrix products, a multiply-add as two operations, tokens without padding. The formulas are compared with
torch's counter once for each architecture, on a few plans and lengths; where they are off by more than a hundredth, the
counter's numbers are taken (`counted_flops`). Which of them a run's numbers are is recorded with it.

The formulas: a product with a weight matrix costs as much again for the gradient of its input, where something below it
trains, and for that of the matrix, where it trains itself. So for a layer of forward cost F:

- trained: 3 F (forward, gradient of its inputs, gradient of its weights);
- frozen, above something that trains: 2 F; its attention, which multiplies no weights, 3 times its part of F;
- frozen, with nothing below it that trains: 1 F;
- only its biases trained, above something that trains: 2 F, as if it were frozen;
- the lowest trained layer above frozen embeddings needs no gradient of its own input: the product that would carry it
  through the query, key and value projections is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.contract.spec import digest_of
from alue_bench.contract.strategy import FreezePlan
from alue_bench.measure.counted_flops import counted_forward, counted_prefix, counted_step
from alue_bench.training.architecture.anatomy import described
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.forward import reads_first_only
from alue_bench.training.freezing import trainable_parameters
from alue_bench.training.pretrained.loading import empty_model

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

TOLERANCE = 0.01
"""How far the formulas may be from torch's counter."""
COMPARED = (3, 64)
"""Texts of the batches, and at most how many tokens of each, for which both are compared."""


@dataclass(frozen=True)
class Method:
    """How the operations of an architecture are found."""

    name: Literal["formula", "counter"]
    largest_gap: float | None = None
    """How far the formulas were from torch's counter, at most; None where tests compare them."""
    problem: str = ""
    """Why they could not be compared."""


_methods: dict[str, Method] = {}


def method_of(stack: EncoderStack) -> Method:
    """Return how operations are found for the architecture of a model, perhaps on the meta device."""
    model: Any = stack.model
    if reads_first_only(stack):
        return Method("formula")
    key = digest_of([type(model).__name__, described(model.config)])
    if key not in _methods:
        _methods[key] = _compared(view_as_stack(empty_model(model.config)))
    return _methods[key]


def _compared(stack: EncoderStack) -> Method:
    import numpy as np

    shape = stack.shape
    low = frozenset(range(shape.layers // 2))
    plans = (
        FreezePlan(shape),
        FreezePlan(shape, low, embeddings=True),
        FreezePlan(shape, frozenset(range(shape.layers)) - low),
    )
    texts, tokens = COMPARED
    positions = getattr(stack.model.config, "max_position_embeddings", None)
    lengths = np.full(texts, min(tokens, positions - 2) if isinstance(positions, int) and positions > 4 else tokens)
    try:
        gaps = [abs(_formula(stack, plan, lengths) / counted_step(stack, plan, lengths, texts) - 1) for plan in plans]
    except Exception as error:  # whatever a stranger's architecture does with what it does not expect
        return Method("formula", problem=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:200])
    return Method("formula" if max(gaps) <= TOLERANCE else "counter", max(gaps))


@dataclass(frozen=True)
class Product:
    """A product with a weight matrix, one of those that a layer is made of."""

    size: int
    """Entries of the matrix."""
    trained: bool
    """Whether the matrix trains."""
    follows_trained: bool
    """Whether something of the same layer that trains comes before it."""
    behind_query: bool
    """Whether, where the head reads the first token only, it reads what the first token's query, or the attention
    weights, have made of the tokens, and not the tokens: keys and values (see `bert_layer.first_token_layer`)."""

    def cost(self, tokens: int, *, backward: bool, trains_below: bool) -> int:
        passes = 1
        if backward:
            passes += (trains_below or self.follows_trained) + self.trained
        return 2 * self.size * tokens * passes


@dataclass(frozen=True)
class Layer:
    """What one encoder layer computes."""

    products: tuple[Product, ...]
    trains: bool
    """Whether anything of it does."""
    width: int
    """Of attention over all heads."""
    heads: int
    attended: tuple[bool, bool, bool]
    """Whether something of the layer that trains comes before query, key and value."""

    def cost(self, lengths: np.ndarray[Any, Any], *, backward: bool, trains_below: bool, first_only: bool) -> int:
        """Over examples of these lengths (int64 [n])."""
        tokens = len(lengths) if first_only else int(lengths.sum())
        query_trains = any(self.attended[:2])
        found = sum(
            product.cost(
                tokens,
                backward=backward,
                trains_below=trains_below or (first_only and product.behind_query and query_trains),
            )
            for product in self.products
        )
        # Each head's query, taken back through the keys' matrix, meets whole tokens.
        width = self.width * self.heads if first_only else self.width
        return found + 2 * width * self._pairs(lengths, first_only) * self._attention_products(
            backward, trains_below, first_only
        )

    def _pairs(self, lengths: np.ndarray[Any, Any], first_only: bool) -> int:
        """Pairs of tokens; with `first_only`, those of each example's first token.

        Local attention is computed over all pairs, too, most of them masked.
        """
        return int(lengths.sum()) if first_only else int((lengths * lengths).sum())

    def _attention_products(self, backward: bool, trains_below: bool, first_only: bool) -> int:
        """Scores, and their product with the values; backward, the gradients of both factors of each."""
        if not backward:
            return 2
        query, key, value = (trains_below or before for before in self.attended)
        if first_only:  # the one factor of either is the layer's input
            key = value = trains_below
        return 2 + query + key + value + (query or key)


def layers_of(stack: EncoderStack, trained: set[int]) -> list[Layer]:
    """From the linear modules of each layer and the width of its attention. The model may be on the meta device.

    trained: the ids of the parameters that train; for the cost of forward passes there may as well be none.
    """
    config: Any = stack.model.config
    hidden = int(config.hidden_size)
    found = []
    for module in stack.layers:
        products: list[Product] = []
        attended: list[bool] = []
        # The queries, keys and values are what a layer computes first, side by side: three matrices, or one of three
        # times the size. Attention as wide as the hidden size, which holds for every architecture we test.
        before = before_projections = False
        projected = 0
        for part in _parts(module):
            own = any(id(parameter) in trained for parameter in part.parameters())
            linear = _linear(part)
            if linear is None:
                before = before or own
                continue
            is_projection = projected < 3 * hidden * hidden
            if is_projection and not products:
                before_projections = before
            follows = before_projections if is_projection else before
            if is_projection:
                projected += linear.weight.numel()
                matrices = max(1, round(linear.weight.numel() / (hidden * hidden)))
                attended += [before_projections or own] * min(matrices, 3 - len(attended))
            behind_query = is_projection and len(attended) > 1
            products += _products(part, trained, follows, behind_query)
            before = before or own
        attended += [before] * (3 - len(attended))
        query, key, value = attended
        found.append(
            Layer(
                products=tuple(products),
                trains=any(id(parameter) in trained for parameter in module.parameters()),
                width=hidden,
                heads=int(getattr(config, "num_attention_heads", 1)),  # some architectures have no attention
                attended=(query, key, value),
            )
        )
    return found


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that hold parameters, in the order in which they are registered, which is that of their use. A linear
    module counts as one with the adapter around it."""
    if _linear(module) is not None or not any(True for _ in module.children()):
        yield module
        return
    for child in module.children():
        yield from _parts(child)


def _linear(module: nn.Module) -> nn.Linear | None:
    """The module itself, or the one within its adapter, where it is linear."""
    from torch import nn

    inner = getattr(module, "base_layer", module)
    return inner if isinstance(inner, nn.Linear) else None


def _products(part: nn.Module, trained: set[int], follows: bool, behind_query: bool) -> Iterator[Product]:
    """Of a linear module, and of the adapter around it: a pair of thin matrices, one behind the other (LoRA)."""
    from torch import nn

    base = _linear(part)
    # An adapter that scales the input (IA3 in the feed-forward) comes before the product.
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
        yield Product(module.weight.numel(), id(module.weight) in trained, before, behind_query)


def head_flops(stack: EncoderStack, trained: set[int], examples: int, *, trains_below: bool) -> int:
    """FLOPs of training steps of pooler and head, which read one vector of each example."""
    from torch import nn

    found, before = 0, trains_below
    for module in _behind_layers(stack):
        if isinstance(module, nn.Linear):
            found += 2 * examples * module.weight.numel() * (1 + before + (id(module.weight) in trained))
        before = before or any(id(parameter) in trained for parameter in module.parameters(recurse=False))
    return found


def head_forward(stack: EncoderStack, examples: int) -> int:
    """FLOPs of pooler and head, forward."""
    from torch import nn

    linear = (module for module in _behind_layers(stack) if isinstance(module, nn.Linear))
    return 2 * examples * sum(module.weight.numel() for module in linear)


def _behind_layers(stack: EncoderStack) -> Iterator[nn.Module]:
    """Each module that is neither in the embeddings nor in a layer, in the order of their use."""
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
    head_reads_first: bool = False,
    batch_size: int | None = None,
) -> float:
    """Return the FLOPs of training steps over examples of these lengths (int64 [n]), without dev evaluation.

    Args:
        stack: The model, perhaps on the meta device.
        plan: What is frozen.
        lengths: Tokens of each example.
        start: How many layers are not computed, since their outputs are at hand.
        head_reads_first: Whether the last layer is computed for the first token of each example alone.
        batch_size: Examples in a batch; by default all of them. It matters where an architecture computes something
            once for each batch, such as projections of relative positions.
    """
    if method_of(stack).name == "counter":
        return counted_step(stack, plan, lengths, batch_size or max(1, len(lengths)), start=start)
    return _formula(stack, plan, lengths, start=start, head_reads_first=head_reads_first)


def _formula(
    stack: EncoderStack,
    plan: FreezePlan,
    lengths: np.ndarray[Any, Any],
    *,
    start: int = 0,
    head_reads_first: bool = False,
) -> float:
    """Embeddings are looked up, not multiplied; the small projection that some architectures put behind them is left
    out."""
    found = 0
    trained = {id(parameter) for parameter in trainable_parameters(stack, plan)}
    # Of embeddings that are not frozen, biases or adapters may train as well as weights.
    trains_below = any(id(parameter) in trained for part in stack.embeddings for parameter in part.parameters())
    layers = layers_of(stack, trained)
    for index, layer in enumerate(layers):
        if index >= start:
            found += layer.cost(
                lengths,
                backward=layer.trains or trains_below,
                trains_below=trains_below,
                first_only=head_reads_first and index == len(layers) - 1,
            )
        trains_below = trains_below or layer.trains
    return float(found + head_flops(stack, trained, len(lengths), trains_below=trains_below))


def prefix_flops(
    stack: EncoderStack,
    depth: int,
    lengths: np.ndarray[Any, Any],
    *,
    head_reads_first: bool = False,
    batch_size: int | None = None,
) -> float:
    """Return the FLOPs of the lowest `depth` layers over examples of these lengths (int64 [n]), forward."""
    if method_of(stack).name == "counter":
        return counted_prefix(stack, depth, lengths, batch_size or max(1, len(lengths)))
    layers = layers_of(stack, trained=set())
    return float(
        sum(
            layer.cost(
                lengths,
                backward=False,
                trains_below=False,
                first_only=head_reads_first and index == len(layers) - 1,
            )
            for index, layer in enumerate(layers[:depth])
        )
    )


def forward_flops(stack: EncoderStack, lengths: np.ndarray[Any, Any], *, head_reads_first: bool = False) -> float:
    """Return the FLOPs of a forward pass of the whole model over examples of these lengths (int64 [n])."""
    if method_of(stack).name == "counter":
        return counted_forward(stack, lengths, max(1, len(lengths)))
    layers = prefix_flops(stack, len(stack.layers), lengths, head_reads_first=head_reads_first)
    return layers + head_forward(stack, len(lengths))


def training_flops(
    stack: EncoderStack,
    plan: FreezePlan,
    lengths: np.ndarray[Any, Any],
    epochs: int,
    *,
    prefix_cached: bool = False,
    head_reads_first: bool = False,
    batch_size: int | None = None,
) -> float:
    """Return the FLOPs of a training in which the plan stays the same: see `step_flops`.

    Args:
        stack: The model, perhaps on the meta device.
        plan: What is frozen.
        lengths: Tokens of each example: int64 [n].
        epochs: How often each example is trained on.
        prefix_cached: Whether the frozen prefix is computed once, not in every epoch. Its cost counts, whoever
            computed it.
        head_reads_first: Whether the last layer is computed for the first token of each example alone.
        batch_size: As in `step_flops`.
    """
    start = (plan.prefix_layers or 0) if prefix_cached else 0
    first = head_reads_first
    each_epoch = step_flops(stack, plan, lengths, start=start, head_reads_first=first, batch_size=batch_size)
    return prefix_flops(stack, start, lengths, head_reads_first=first, batch_size=batch_size) + each_epoch * epochs
