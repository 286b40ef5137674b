"""The freeze plans of a fine-tuning run, which define the frozen parts of the model.

A run begins with one plan. An adaptive strategy may replace it by another one during training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import FreezeEvent
from alue_bench.contract.strategy import (
    BlockNorms,
    FreezePlan,
    MatrixChanges,
    Revisions,
    Strategy,
    TrainingProgress,
)
from alue_bench.training.architecture.encoder_stack import EncoderStack

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


class GradientWatch:
    """The gradients of the embeddings and of each layer, summed over steps.

    Adaptive strategies may use the norms of these sums (`take`), or the changes of the average gradients (`changes`),
    to decide what to freeze.
    """

    def __init__(self, stack: EncoderStack) -> None:
        """Start with zero sums for the embeddings and layers of a model."""
        self._names = {parameter: name for name, parameter in stack.model.named_parameters()}
        self._blocks = [[p for m in stack.embeddings for p in m.parameters()]]
        self._blocks += [list(layer.parameters()) for layer in stack.layers]
        self.sums: dict[nn.Parameter, Tensor] = {}
        """The sum of each parameter's gradients since the last call of `take`."""
        self.steps = 0
        """The number of steps whose gradients were added since the last call of `take`."""
        self.averages: dict[nn.Parameter, Tensor] = {}
        """The average gradient of each weight matrix of the layers, as computed by the last call of `changes`."""

    def add(self, *, skipping_overflows: bool = False) -> None:
        """Add the current gradients to the sums. Frozen parameters have no gradient, which counts as zero.

        Args:
            skipping_overflows: Whether to add nothing if any gradient is not finite, because the optimiser then skips
                the update (fp16).
        """
        import torch

        gradients = {p: p.grad.detach() for block in self._blocks for p in block if p.grad is not None}
        if skipping_overflows and gradients:
            overflow = torch.isfinite(torch.stack(torch._foreach_norm(list(gradients.values())))).all().logical_not()
            gradients = {p: gradient.masked_fill(overflow, 0.0) for p, gradient in gradients.items()}  # without waiting
        known = [p for p in gradients if p in self.sums]
        if known:
            torch._foreach_add_([self.sums[p] for p in known], [gradients[p] for p in known])
        self.sums |= {p: gradient.clone() for p, gradient in gradients.items() if p not in self.sums}
        self.steps += 1

    def changes(self) -> MatrixChanges:
        """Return how much the average gradient of each weight matrix of the layers has changed since the last call.

        The change is the L1 norm of the difference between the average over the steps since the last call and the
        average that the last call computed. A matrix is included only if it has both averages. Call this before `take`,
        which resets the sums. The call waits until a GPU has finished its work.
        """
        import torch

        layers: list[dict[str, float]] = []
        averages: dict[nn.Parameter, Tensor] = {}
        for block in self._blocks[1:]:
            averages |= {p: self.sums[p] / self.steps for p in block if p.ndim > 1 and p in self.sums}
            pairs = [(p, self.averages[p]) for p in block if p in averages and p in self.averages]
            norms = [torch.linalg.vector_norm(averages[p] - before, 1) for p, before in pairs]
            values = torch.stack(norms).tolist() if norms else []
            layers.append({self._names[p]: value for (p, _), value in zip(pairs, values, strict=True)})
        self.averages = averages
        return MatrixChanges(tuple(layers))

    def take(self) -> BlockNorms:
        """Return the L2 norm of the summed gradients of the embeddings and of each layer, and reset the sums.

        A norm is None if no gradient was added since the last call. The call waits until a GPU has finished its work.
        """
        import torch

        norms: list[Tensor | None] = []
        for block in self._blocks:
            sums = [self.sums[p] for p in block if p in self.sums]
            norms.append(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(sums))) if sums else None)
        self.reset()
        embeddings, *layers = (None if norm is None else float(norm) for norm in norms)
        return BlockNorms(embeddings, tuple(layers))

    def reset(self) -> None:
        """Reset the sums and the number of steps to zero, but keep the averages that `changes` computed."""
        self.sums.clear()
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, the number of steps and the averages, as tensors and JSON values."""
        sums, averages = (
            {self._names[parameter]: value for parameter, value in kept.items()} for kept in (self.sums, self.averages)
        )
        return {"sums": sums, "steps": self.steps, "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        parameters = {name: parameter for parameter, name in self._names.items()}
        self.sums, self.averages = (
            {parameters[name]: value.to(parameters[name].device) for name, value in state[kept].items()}
            for kept in ("sums", "averages")
        )
        self.steps = state["steps"]


@dataclass
class Segment:
    """A period of training during which the freeze plan did not change."""

    plan: FreezePlan
    depth: int
    """The number of lowest layers that were not computed in this period, because their outputs were stored."""
    batches: list[np.ndarray[Any, Any]] = field(default_factory=list)
    """For each batch, the indices of its examples in the train split, int64 [batch]."""

    @property
    def indices(self) -> np.ndarray[Any, Any]:
        """The indices of the examples of all batches, concatenated: int64 [n].

        An index occurs as often as its example was trained on.
        """
        import numpy as np

        return np.concatenate(self.batches) if self.batches else np.zeros(0, dtype=np.int64)


@dataclass
class FreezeSchedule:
    """The freeze plan in effect, all earlier plans of the run, and the strategy that may change the plan.

    If the strategy is None, or its `revisions()` returns None, the plan never changes.
    """

    stack: EncoderStack
    plan: FreezePlan
    """The freeze plan in effect."""
    strategy: Strategy | None = None
    segments: list[Segment] = field(default_factory=list)
    """The periods of training with an unchanged freeze plan so far; the current one is last."""
    events: list[FreezeEvent] = field(default_factory=list)
    """The state of the embeddings and of each layer (frozen or not, gradient norm) at the start of training and
    whenever the strategy was asked for a new plan; also the state of each weight matrix (frozen or not, change of its
    gradient) if the strategy asks for changes of gradients. Empty unless the strategy is adaptive."""
    norms: list[BlockNorms] = field(default_factory=list)
    """The gradient norms at each request for a new plan; empty unless the strategy asks for them."""
    changes: list[MatrixChanges] = field(default_factory=list)
    """The changes of gradients at each request for a new plan; empty unless the strategy asks for them."""
    data_seed: int = 0
    """The run's seed for the order of the training data. A strategy that freezes random parts uses it, too."""

    def __post_init__(self) -> None:
        """Ask the strategy whether and when it may change the plan; if it may, record the initial plan in `events`."""
        self.revisions: Revisions | None = self.strategy.revisions() if self.strategy else None
        watches = self.revisions is not None and (self.revisions.gradient_norms or self.revisions.matrix_changes)
        self.watch = GradientWatch(self.stack) if watches else None
        if self.revisions:
            self._log(0, 1, None)

    @property
    def adaptive(self) -> bool:
        """True if the strategy may change the plan while the model trains."""
        return self.revisions is not None

    def begin_segment(self, depth: int) -> None:
        """Begin a segment, that is, a period of training with an unchanged freeze plan.

        Args:
            depth: The number of lowest layers that are not computed in this segment, because their outputs are stored.
        """
        self.segments.append(Segment(self.plan, depth))

    def add_batch(self, indices: Any) -> None:
        """Add a batch to the current segment.

        Args:
            indices: The indices of the batch's examples in the train split, int64 [batch] on the CPU.
        """
        self.segments[-1].batches.append(indices.numpy())

    def is_due(self, step: int, steps: int) -> bool:
        """Return whether the strategy is to be asked for a new freeze plan after this step of an epoch.

        Args:
            step: The step within the epoch, from 1.
            steps: The number of steps of the epoch.
        """
        if self.revisions is None:
            return False
        times = self.revisions.per_epoch
        return any(step == math.ceil(part * steps / times) for part in range(1, times + 1))

    def ask_strategy(self, *, epoch: int, epochs: int, step: int, steps: int, dev_scores: list[float]) -> bool:
        """Ask the strategy for a new freeze plan (`Strategy.revise`), and return whether the plan has changed.

        The new plan is not applied to the model; see `apply_plan`.

        Args:
            epoch: The current epoch, from 1.
            epochs: The number of epochs of the training.
            step: The number of steps done since the start of the training.
            steps: The number of steps of the training.
            dev_scores: The dev score at the end of each epoch that has ended.

        Raises:
            TrainingError: The strategy's plan is invalid, or contradicts the declaration in `Strategy.revisions`.
        """
        assert self.strategy is not None
        assert self.revisions is not None
        if self.watch is not None:
            self.changes += [self.watch.changes()] if self.revisions.matrix_changes else []
            self.norms += [self.watch.take()] if self.revisions.gradient_norms else []
            self.watch.reset()
        progress = TrainingProgress(
            epoch, epochs, step, steps, tuple(dev_scores), tuple(self.norms), tuple(self.changes), self.data_seed
        )
        revised = _revised(self.strategy, self.revisions, self.plan, progress)
        changed = revised != self.plan
        self.plan = revised
        self._log(step, epoch, self.norms[-1] if self.norms else None)
        return changed

    def state_dict(self) -> dict[str, Any]:
        """Return the plan in effect and the recorded segments, events and gradient sums, as tensors and JSON values."""
        import torch

        return {
            "plan": plan_as_json(self.plan),
            "segments": [
                {
                    "plan": plan_as_json(segment.plan),
                    "depth": segment.depth,
                    "sizes": [len(batch) for batch in segment.batches],
                    "indices": torch.from_numpy(segment.indices),
                }
                for segment in self.segments
            ],
            "events": [asdict(event) for event in self.events],
            "norms": [[norms.embeddings, list(norms.layers)] for norms in self.norms],
            "changes": [[dict(layer) for layer in changes.layers] for changes in self.changes],
            "watch": {} if self.watch is None else self.watch.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned. The plan is not applied to the model."""
        first = self.plan
        self.plan = plan_from_json(state["plan"], first)
        self.segments = [
            Segment(
                plan_from_json(segment["plan"], first),
                segment["depth"],
                _batches(segment["indices"].numpy(), segment["sizes"]),
            )
            for segment in state["segments"]
        ]
        self.events = [FreezeEvent(**event) for event in state["events"]]
        self.norms = [BlockNorms(embeddings, tuple(layers)) for embeddings, layers in state["norms"]]
        self.changes = [MatrixChanges(tuple(layers)) for layers in state["changes"]]
        if self.watch is not None:
            self.watch.load_state_dict(state["watch"])

    def _log(self, step: int, epoch: int, norms: BlockNorms | None) -> None:
        """Append the state of the embeddings and of each layer (frozen or not, norm of the gradients) to `events`.

        For each weight matrix with a value in the last entry of `changes`, append this value and whether the matrix is
        frozen.
        """
        self.events.append(
            FreezeEvent(step, epoch, "embeddings", norms.embeddings if norms else None, self.plan.embeddings)
        )
        for layer in range(self.plan.shape.layers):
            norm = norms.layers[layer] if norms else None
            frozen = layer in self.plan.frozen_layers
            self.events.append(FreezeEvent(step, epoch, f"layer {layer}", norm, frozen))
            for name, change in self.changes[-1].layers[layer].items() if self.changes else ():
                matrix_frozen = frozen or name in self.plan.frozen_parameters
                self.events.append(FreezeEvent(step, epoch, name, change, matrix_frozen))


def first_plan(strategy: Strategy, plan: FreezePlan, *, epochs: int, steps: int, data_seed: int) -> FreezePlan:
    """Return the freeze plan in effect at the first step: `plan`, unless the strategy replaces it before that step.

    Args:
        strategy: The strategy.
        plan: The plan that `Strategy.freeze_plan` returned.
        epochs: The number of epochs of the training.
        steps: The number of steps of the training.
        data_seed: The run's seed for the order of the training data.

    Raises:
        TrainingError: The strategy's plan is invalid, or contradicts the declaration in `Strategy.revisions`.
    """
    revisions = strategy.revisions()
    if revisions is None or not revisions.at_start:
        return plan
    return _revised(strategy, revisions, plan, TrainingProgress(1, epochs, 0, steps, data_seed=data_seed))


def _revised(strategy: Strategy, revisions: Revisions, before: FreezePlan, progress: TrainingProgress) -> FreezePlan:
    """Ask an adaptive strategy for the freeze plan that follows the plan `before`, and return it after checking it.

    Raises:
        TrainingError: The strategy's plan is invalid, or contradicts the declaration in `Strategy.revisions`.
    """
    revised = strategy.revise(before, progress)
    start = f"strategy {strategy.name!r}: revise returned"
    if not isinstance(revised, FreezePlan) or not revised.revises(before):
        raise TrainingError(f"{start} {revised!r:.120}; it must be a FreezePlan like the one that it was given")
    if revisions.prefix_only_grows and (revised.prefix_layers or 0) < (before.prefix_layers or 0):
        raise TrainingError(
            f"{start} a frozen prefix of {revised.prefix_layers or 0} layers after one of {before.prefix_layers}, "
            "but its revisions promise that it only grows"
        )
    return revised


def plan_as_json(plan: FreezePlan) -> dict[str, Any]:
    """Return the fields of a freeze plan that may change during training, as JSON values."""
    return {
        "frozen_layers": sorted(plan.frozen_layers),
        "embeddings": plan.embeddings,
        "pooler": plan.pooler,
        "frozen_parameters": sorted(plan.frozen_parameters),
    }


def plan_from_json(content: Mapping[str, Any], like: FreezePlan) -> FreezePlan:
    """Return the freeze plan from which `plan_as_json` made `content`.

    The fields that `content` lacks, because they never change during training, are copied from the plan `like`.
    """
    return replace(
        like,
        frozen_layers=frozenset(content["frozen_layers"]),
        embeddings=content["embeddings"],
        pooler=content["pooler"],
        frozen_parameters=frozenset(content["frozen_parameters"]),
    )


def _batches(indices: np.ndarray[Any, Any], sizes: list[int]) -> list[np.ndarray[Any, Any]]:
    """Split a segment's concatenated example indices into batches of the given sizes."""
    import numpy as np

    return np.split(indices, np.cumsum(sizes)[:-1]) if sizes else []
