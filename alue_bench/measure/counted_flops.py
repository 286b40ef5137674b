"""FLOPs counted by torch's FLOP counter, for architectures that the formulas in `flops` do not fit.

The counter runs a training step of the model itself on the CPU, but skips the matrix products, since only their shapes
matter. So counting takes little time and no memory for weights, even for a large model.

Counts are made for texts of a few lengths in batches of two sizes. Operations per token are interpolated linearly
between these lengths, which is exact for attention over all tokens. Comparing the two batch sizes separates the cost
per text from the cost per batch, such as the projections of DeBERTa's relative positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from alue_bench.contract.spec import digest_of
from alue_bench.contract.strategy import FreezePlan
from alue_bench.training.architecture.anatomy import architecture_fields, text_of
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.forward import StopForward, replaced_forward_methods
from alue_bench.training.freezing import trainable_parameters

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SIZES = (2, 3)
"""The numbers of texts in the two batches for which FLOPs are counted."""


@dataclass(frozen=True)
class Cost:
    """The FLOPs of one batch of texts of equal length, divided into a part per batch and a part per text."""

    batch: float
    """The FLOPs that do not depend on the number of texts."""
    text: float
    """The FLOPs for each text."""


_known_counts: dict[str, int] = {}
"""The FLOPs that were counted in this process, for reuse. A key is a digest of everything that determines a count."""


def counted_step(
    stack: EncoderStack, plan: FreezePlan, lengths: np.ndarray[Any, Any], batch_size: int, *, start: int = 0
) -> float:
    """Count the FLOPs of training on each text once (one epoch), without dev evaluation.

    Args:
        stack: The model, possibly on the meta device. It is not changed.
        plan: The freeze plan.
        lengths: The number of tokens of each text, int64 `[texts]`.
        batch_size: The number of texts in a batch.
        start: The number of layers that are not computed because their outputs are cached.
    """
    trained = frozenset(id(parameter) for parameter in trainable_parameters(stack, plan))
    names = frozenset(name for name, p in stack.model.named_parameters() if id(p) in trained)
    total = _interpolated(lengths, batch_size, lambda texts, tokens: _count(stack, names, texts, tokens))
    return total - counted_prefix(stack, start, lengths, batch_size)


def counted_prefix(stack: EncoderStack, depth: int, lengths: np.ndarray[Any, Any], batch_size: int) -> float:
    """Count the FLOPs of a forward pass of the embeddings and the lowest `depth` layers.

    Args:
        stack: The model, possibly on the meta device.
        depth: The number of layers; 0 counts nothing.
        lengths: The number of tokens of each text, int64 `[texts]`.
        batch_size: The number of texts in a batch.
    """
    if depth == 0:
        return 0.0
    return _interpolated(lengths, batch_size, lambda texts, tokens: _count(stack, frozenset(), texts, tokens, depth))


def counted_forward(stack: EncoderStack, lengths: np.ndarray[Any, Any], batch_size: int) -> float:
    """Count the FLOPs of a forward pass of the whole model.

    Args:
        stack: The model, possibly on the meta device.
        lengths: The number of tokens of each text, int64 `[texts]`.
        batch_size: The number of texts in a batch.
    """
    return _interpolated(lengths, batch_size, lambda texts, tokens: _count(stack, frozenset(), texts, tokens))


def _interpolated(lengths: np.ndarray[Any, Any], batch_size: int, count: Any) -> float:
    """Return the FLOPs of all texts, interpolated between counts for the shortest, a middle and the longest length.

    Args:
        lengths: The number of tokens of each text, int64 `[texts]`.
        batch_size: The number of texts in a batch.
        count: A function that takes the number of texts and the number of tokens per text, and returns the FLOPs.
    """
    import numpy as np

    if len(lengths) == 0:
        return 0.0
    shortest, longest = int(lengths.min()), int(lengths.max())
    middle = round((shortest * longest) ** 0.5)
    nodes = sorted({shortest, middle, longest})
    costs = [_cost(count, tokens) for tokens in nodes]
    per_token = np.interp(lengths, nodes, [cost.text / tokens for cost, tokens in zip(costs, nodes, strict=True)])
    texts = float((per_token * lengths).sum())
    batches = -(-len(lengths) // batch_size)
    return texts + batches * float(np.interp(lengths.mean(), nodes, [cost.batch for cost in costs]))


def _cost(count: Any, tokens: int) -> Cost:
    """Return the FLOPs of batches whose texts have `tokens` tokens each, divided into parts per batch and per text.

    Args:
        count: A function that takes the number of texts and the number of tokens per text, and returns the FLOPs.
        tokens: The number of tokens of each text.
    """
    few, more = (count(texts, tokens) for texts in SIZES)
    text = (more - few) / (SIZES[1] - SIZES[0])
    return Cost(batch=few - SIZES[0] * text, text=text)


def _count(stack: EncoderStack, trained: frozenset[str], texts: int, tokens: int, depth: int | None = None) -> int:
    """Return the FLOPs of one training step, or of a forward pass if nothing trains.

    Args:
        stack: The model.
        trained: The names of the parameters that train.
        texts: The number of texts in the batch.
        tokens: The number of tokens of each text.
        depth: The number of layers to compute; None computes all layers and the head.
    """
    model: Any = stack.model
    shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    key = digest_of(
        [architecture_fields(model.config), type(model).__name__, shapes, sorted(trained), texts, tokens, depth]
    )
    if key not in _known_counts:
        _known_counts[key] = _count_flops(stack, trained, texts, tokens, depth)
    return _known_counts[key]


def _count_flops(stack: EncoderStack, trained: frozenset[str], texts: int, tokens: int, depth: int | None) -> int:
    """Count the FLOPs of a training step or a forward pass, without reusing earlier counts; see `_count`."""
    import torch
    from torch.func import functional_call
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model: Any = stack.model
    weights = {
        name: torch.empty(p.shape, requires_grad=name in trained)  # untouched memory is never allocated by the system
        for name, p in model.named_parameters()
    }
    inputs = text_of(model, texts=texts, tokens=tokens)
    with (
        torch.random.fork_rng(devices=[]),
        _eval_mode(model),
        _stopped_after(stack, depth),
        sdpa_kernel(SDPBackend.MATH),  # attention as single products: the counter does not know the CPU's fused kernel
        _Counting() as counting,
        torch.set_grad_enabled(bool(trained)),
    ):
        try:
            logits: Tensor = functional_call(model, {**weights, **_buffers(model)}, (), inputs).logits
            if trained:
                learnt = [weights[name] for name in sorted(trained)]
                torch.autograd.grad(logits.float().sum(), learnt, allow_unused=True)  # unlike backward(): no copies
        except StopForward:
            pass
    return counting.flops


@contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    """Put a model into eval mode inside the `with` block, with a padding token id and without key-value cache."""
    modes = [(module, module.training) for module in model.modules()]
    config: Any = model.config
    before = {name: getattr(config, name, None) for name in ("use_cache", "pad_token_id")}
    model.eval()
    if before["use_cache"]:
        config.use_cache = False
    if before["pad_token_id"] is None:
        config.pad_token_id = 0  # some decoders refuse batches without a padding id
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        if before["use_cache"]:
            config.use_cache = before["use_cache"]
        if before["pad_token_id"] is None:
            config.pad_token_id = None


@contextmanager
def _stopped_after(stack: EncoderStack, depth: int | None) -> Iterator[None]:
    """Make each forward pass inside the `with` block stop after the lowest `depth` layers, by raising `StopForward`.

    If `depth` is None, forward passes run to the end.
    """
    if depth is None:
        yield
        return

    def stop(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
        forward(*args, **options)
        raise StopForward

    with replaced_forward_methods({stack.entries[depth - 1]: stop}):
        yield


_known_buffers: dict[str, dict[str, Tensor]] = {}
"""The buffers (tensors that are not parameters) of models created on the CPU, by a digest of the configuration."""


def _buffers(model: Any) -> dict[str, Tensor]:
    """Return a model's buffers on the CPU, by name.

    Buffers on the meta device, which have no values, are replaced by those of a new model with the same configuration.
    """
    from transformers.initialization import no_init_weights

    buffers = dict(model.named_buffers())
    if any(buffer.is_meta for buffer in buffers.values()):
        key = digest_of([type(model).__name__, architecture_fields(model.config)])
        if key not in _known_buffers:
            with no_init_weights():
                _known_buffers[key] = dict(type(model)(model.config).named_buffers())
        buffers = {
            name: _known_buffers[key].get(name.replace(".base_layer.", "."), buffer) for name, buffer in buffers.items()
        }
    return {name: buffer.cpu() if not buffer.is_meta else buffer for name, buffer in buffers.items()}


class FlopCount:
    """A running count of the FLOPs of matrix products, which can be paused; see `counting_flops`."""

    def __init__(self) -> None:
        """Start with a count of zero FLOPs; nothing is counted yet."""
        self._earlier = 0
        self._contexts = ExitStack()
        self._mode: Any = None

    @property
    def total(self) -> int:
        """The FLOPs counted so far."""
        return self._earlier + (0 if self._mode is None else int(self._mode.get_total_flops()))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause counting inside the `with` block, so that work there uses its usual kernels, at its usual speed."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def start(self) -> None:
        """Start or resume counting."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        self._contexts.enter_context(sdpa_kernel(SDPBackend.MATH))
        self._mode = self._contexts.enter_context(FlopCounterMode(display=False))

    def stop(self) -> None:
        """Stop counting; `start` resumes it."""
        self._earlier, self._mode = self.total, None
        self._contexts.close()


@contextmanager
def counting_flops() -> Iterator[FlopCount]:
    """Count the FLOPs of the matrix products that are computed inside the `with` block.

    Inside the block, attention is computed as separate matrix products, because torch's counter does not know the CPU's
    fused kernel. Matrix decompositions are not counted.

    Yields:
        The count, which grows while the block runs.
    """
    count = FlopCount()
    count.start()
    try:
        yield count
    finally:
        count.stop()


class _Counting:
    """A context in which matrix products are counted but not computed.

    Inside the `with` block, matrix products and gradients of embedding tables return an uninitialised tensor of the
    right shape. The FLOPs of a product are computed from its shapes by the formulas of torch's own counter.
    """

    def __init__(self) -> None:
        """Start with a count of zero FLOPs."""
        self.flops = 0
        self._mode: Any = None

    def __enter__(self) -> Self:
        """Start counting matrix products instead of computing them."""
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_map
        from torch.utils.flop_counter import flop_registry

        counting = self
        tables = torch.ops.aten.embedding_dense_backward

        def shape(value: Any) -> Any:
            return value.to("meta") if isinstance(value, torch.Tensor) else value

        def empty(value: Any) -> Any:
            return torch.empty(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value

        class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                operation, kwargs = func._overloadpacket, kwargs or {}
                if operation not in flop_registry and operation is not tables:
                    return func(*args, **kwargs)
                result = tree_map(empty, func(*tree_map(shape, args), **tree_map(shape, kwargs)))
                if operation is not tables:
                    counting.flops += int(flop_registry[operation](*args, **kwargs, out_val=result))
                return result

        self._mode = Mode()  # type: ignore[no-untyped-call]
        self._mode.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        """Stop counting: torch computes matrix products again."""
        self._mode.__exit__(*raised)
