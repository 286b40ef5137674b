"""A strategy that changes its mind while the model trains: when it is asked, what it is told, what it said."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import FreezeEvent
from alue_bench.contract.strategy import BlockNorms, FreezePlan, Revisions, Strategy, TrainingProgress
from alue_bench.training.architecture.encoder_stack import EncoderStack

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


class GradientWatch:
    """Adds up the gradients of embeddings and layers from step to step, for the norms of the sums."""

    def __init__(self, stack: EncoderStack) -> None:
        self._blocks = [[p for m in stack.embeddings for p in m.parameters()]]
        self._blocks += [list(layer.parameters()) for layer in stack.layers]
        self.sums: dict[nn.Parameter, Tensor] = {}
        """Since the last time they were taken."""

    def add(self, *, skipping_overflows: bool = False) -> None:
        """The gradients at hand. Those of frozen parameters are not there, and count as nothing.

        skipping_overflows: where one of them is not finite, none counts, since the update is left out (fp16).
        """
        import torch

        found = {p: p.grad.detach() for block in self._blocks for p in block if p.grad is not None}
        if skipping_overflows and found:
            finite = torch.isfinite(torch.stack(torch._foreach_norm(list(found.values())))).all()
            found = {p: torch.where(finite, gradient, 0.0) for p, gradient in found.items()}
        known = [p for p in found if p in self.sums]
        if known:
            torch._foreach_add_([self.sums[p] for p in known], [found[p] for p in known])
        self.sums |= {p: gradient.clone() for p, gradient in found.items() if p not in self.sums}

    def take(self) -> BlockNorms:
        """The norms since the last time, and begin again. Waits for the device."""
        import torch

        norms: list[Tensor | None] = []
        for block in self._blocks:
            sums = [self.sums[p] for p in block if p in self.sums]
            norms.append(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(sums))) if sums else None)
        self.sums.clear()
        embeddings, *layers = (None if norm is None else float(norm) for norm in norms)
        return BlockNorms(embeddings, tuple(layers))


@dataclass
class Segment:
    """A stretch of training in which the same things were frozen."""

    plan: FreezePlan
    depth: int
    """How many layers were not computed, since their outputs were at hand."""
    batches: list[np.ndarray[Any, Any]] = field(default_factory=list)
    """The examples trained on, batch by batch."""

    @property
    def indices(self) -> np.ndarray[Any, Any]:
        """int64 [n]; an example counts as often as it was trained on."""
        import numpy as np

        return np.concatenate(self.batches) if self.batches else np.zeros(0, dtype=np.int64)


@dataclass
class FreezeSchedule:
    """What is frozen as a training goes along. A strategy that is None, or has no revisions, is never asked."""

    stack: EncoderStack
    plan: FreezePlan
    strategy: Strategy | None = None
    segments: list[Segment] = field(default_factory=list)
    events: list[FreezeEvent] = field(default_factory=list)
    norms: list[BlockNorms] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.revisions: Revisions | None = self.strategy.revisions() if self.strategy else None
        self.watch = GradientWatch(self.stack) if self.revisions and self.revisions.gradient_norms else None
        if self.revisions:
            self._log(0, 1, None)

    def begin_segment(self, depth: int) -> None:
        self.segments.append(Segment(self.plan, depth))

    def trained_on(self, indices: Any) -> None:
        """A batch's examples: a tensor of int64 [b] on the CPU."""
        self.segments[-1].batches.append(indices.numpy())

    def is_due(self, step: int, steps: int) -> bool:
        """Whether the strategy is to be asked after `step` (from 1) of the `steps` of an epoch."""
        if self.revisions is None:
            return False
        times = self.revisions.per_epoch
        return any(step == math.ceil(part * steps / times) for part in range(1, times + 1))

    def ask(self, *, epoch: int, epochs: int, step: int, steps: int, dev_scores: list[float]) -> bool:
        """Ask the strategy; whether `plan` has changed.

        Raises TrainingError where the answer breaks the strategy's own promise.
        """
        assert self.strategy is not None
        if self.watch is not None:
            self.norms.append(self.watch.take())
        progress = TrainingProgress(epoch, epochs, step, steps, tuple(dev_scores), tuple(self.norms))
        revised = self.strategy.revise(self.plan, progress)
        self._check(revised)
        changed = revised != self.plan
        self.plan = revised
        self._log(step, epoch, self.norms[-1] if self.norms else None)
        return changed

    def _check(self, revised: object) -> None:
        assert self.strategy is not None
        assert self.revisions is not None
        said = f"strategy {self.strategy.name!r}: revise returned"
        before = self.plan
        if not isinstance(revised, FreezePlan) or revised.shape != before.shape or revised.trained != before.trained:
            raise TrainingError(f"{said} {revised!r:.120}; it must be a FreezePlan like the one that it was given")
        if self.revisions.prefix_only_grows and (revised.prefix_layers or 0) < (before.prefix_layers or 0):
            raise TrainingError(
                f"{said} a frozen prefix of {revised.prefix_layers or 0} layers after one of {before.prefix_layers}, "
                "but its revisions promise that it only grows"
            )

    def _log(self, step: int, epoch: int, norms: BlockNorms | None) -> None:
        """A row for each block."""
        self.events.append(
            FreezeEvent(step, epoch, "embeddings", norms.embeddings if norms else None, self.plan.embeddings)
        )
        for layer in range(self.plan.shape.layers):
            norm = norms.layers[layer] if norms else None
            frozen = layer in self.plan.frozen_layers
            self.events.append(FreezeEvent(step, epoch, f"layer {layer}", norm, frozen))
