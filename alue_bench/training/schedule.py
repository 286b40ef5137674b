"""The freeze plans of a training: each says which parts of the model are frozen; a strategy may change the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import FreezeEvent
from alue_bench.contract.strategy import BlockNorms, FreezePlan, Revisions, Strategy, TrainingProgress
from alue_bench.training.architecture.encoder_stack import EncoderStack

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


class GradientWatch:
    """The gradients of the embeddings and of each layer, summed over steps.

    Adaptive strategies may use the norms of these sums to decide what to freeze.
    """

    def __init__(self, stack: EncoderStack) -> None:
        """Start with zero sums for the embeddings and layers of a model."""
        self._blocks = [[p for m in stack.embeddings for p in m.parameters()]]
        self._blocks += [list(layer.parameters()) for layer in stack.layers]
        self.sums: dict[nn.Parameter, Tensor] = {}
        """The sum of each parameter's gradients since the last call of `take`."""

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

    def take(self) -> BlockNorms:
        """Return the L2 norm of the summed gradients of the embeddings and of each layer, and reset the sums.

        A norm is None if no gradient was added since the last call. The call waits until a GPU has finished its work.
        """
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
    """A period of training during which the freeze plan did not change."""

    plan: FreezePlan
    depth: int
    """The number of lowest layers whose stored outputs were used, so that they were not computed."""
    batches: list[np.ndarray[Any, Any]] = field(default_factory=list)
    """The indices, in the train split, of the examples of each batch: int64 [batch] per batch."""

    @property
    def indices(self) -> np.ndarray[Any, Any]:
        """The indices of the examples of all batches, concatenated: int64 [n].

        An index occurs as often as its example was trained on.
        """
        import numpy as np

        return np.concatenate(self.batches) if self.batches else np.zeros(0, dtype=np.int64)


@dataclass
class FreezeSchedule:
    """A training's freeze plan in effect, its earlier plans, and the strategy that may change the plan.

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
    whenever the strategy was asked for a new plan; empty unless the strategy is adaptive."""
    norms: list[BlockNorms] = field(default_factory=list)
    """The gradient norms at each request for a new plan; empty unless the strategy asks for them."""

    def __post_init__(self) -> None:
        """Ask the strategy at which steps it may change the plan, and record the initial plan if it is adaptive."""
        self.revisions: Revisions | None = self.strategy.revisions() if self.strategy else None
        self.watch = GradientWatch(self.stack) if self.revisions and self.revisions.gradient_norms else None
        if self.revisions:
            self._log(0, 1, None)

    @property
    def adaptive(self) -> bool:
        """True if the strategy may change the plan while the model trains."""
        return self.revisions is not None

    def begin_segment(self, depth: int) -> None:
        """Begin a segment, that is, a period of training with an unchanged freeze plan.

        Args:
            depth: The number of lowest layers whose outputs are taken from a cache in this segment.
        """
        self.segments.append(Segment(self.plan, depth))

    def trained_on(self, indices: Any) -> None:
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

    def ask(self, *, epoch: int, epochs: int, step: int, steps: int, dev_scores: list[float]) -> bool:
        """Ask the strategy for a new freeze plan (`Strategy.revise`), and return whether the plan has changed.

        The new plan is not applied to the model; see `apply_plan`.

        Args:
            epoch: The current epoch, from 1.
            epochs: The number of epochs of the training.
            step: The number of steps done since the start of the training.
            steps: The number of steps of the training.
            dev_scores: The dev score at the end of each epoch that has ended.

        Raises:
            TrainingError: The returned plan is invalid, or contradicts the declaration in `Strategy.revisions`.
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

    def state_dict(self) -> dict[str, Any]:
        """Return the plan in effect and the recorded segments, events and gradient sums, as tensors and JSON values."""
        import torch

        names = {id(parameter): name for name, parameter in self.stack.model.named_parameters()}
        sums = {} if self.watch is None else self.watch.sums
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
            "gradients": {names[id(parameter)]: value for parameter, value in sums.items()},
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
        if self.watch is not None:
            parameters = dict(self.stack.model.named_parameters())
            sums = {parameters[name]: value for name, value in state["gradients"].items()}
            self.watch.sums = {parameter: value.to(parameter.device) for parameter, value in sums.items()}

    def _check(self, revised: object) -> None:
        """Raise TrainingError if the plan that a strategy returned is invalid, or contradicts its `revisions()`."""
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
        """Append the state of the embeddings and of each layer (frozen or not, norm of the gradients) to `events`."""
        self.events.append(
            FreezeEvent(step, epoch, "embeddings", norms.embeddings if norms else None, self.plan.embeddings)
        )
        for layer in range(self.plan.shape.layers):
            norm = norms.layers[layer] if norms else None
            frozen = layer in self.plan.frozen_layers
            self.events.append(FreezeEvent(step, epoch, f"layer {layer}", norm, frozen))


def plan_as_json(plan: FreezePlan) -> dict[str, Any]:
    """Return the parts of a freeze plan that may change in a training, as JSON values."""
    return {"frozen_layers": sorted(plan.frozen_layers), "embeddings": plan.embeddings, "pooler": plan.pooler}


def plan_from_json(content: Mapping[str, Any], like: FreezePlan) -> FreezePlan:
    """Return the freeze plan that `plan_as_json` wrote; the parts that never change are those of the plan `like`."""
    return replace(
        like,
        frozen_layers=frozenset(content["frozen_layers"]),
        embeddings=content["embeddings"],
        pooler=content["pooler"],
    )


def _batches(indices: np.ndarray[Any, Any], sizes: list[int]) -> list[np.ndarray[Any, Any]]:
    """Split a segment's concatenated example indices into batches of the given sizes."""
    import numpy as np

    return np.split(indices, np.cumsum(sizes)[:-1]) if sizes else []
