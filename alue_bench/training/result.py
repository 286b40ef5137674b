"""The counts, times, curves and dev scores of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import CurvePoint
from alue_bench.data.batches import Batch
from alue_bench.training.device.cuda_graphs import GraphUse
from alue_bench.training.device.resident import ResidentBatch
from alue_bench.training.schedule import FreezeSchedule

if TYPE_CHECKING:
    import numpy as np

CURVE_POINTS = 50
"""The approximate number of points per epoch in the recorded curves of loss and gradient norm. Each point is the mean
of several steps."""
STORED_FIELDS = (
    "loop_s", "dev_s", "steps", "samples", "tokens", "padded_tokens", "skipped_updates", "dev_scores", "evaluated_at",
)  # fmt: skip
"""The fields of a `TrainingResult` that a checkpoint stores unchanged, as JSON."""


@dataclass
class TrainingResult:
    """The counts, times, curves and dev scores of a training run, updated during the run."""

    schedule: FreezeSchedule
    """The freeze plans that were in effect, and the examples that were trained on under each plan."""
    steps_per_epoch: int = 1
    loop_s: float = 0.0
    """The seconds of all training steps: forward pass, backward pass, update and batch assembly, and the work of an
    adaptive strategy; without dev evaluations."""
    dev_s: float = 0.0
    """The seconds of all evaluations on the dev split."""
    steps: int = 0
    samples: int = 0
    tokens: int = 0
    """The number of tokens in all training steps, without padding."""
    padded_tokens: int = 0
    """The number of tokens in all training steps, with padding."""
    micro_batch: int = 0
    """The largest number of examples in one forward pass: the batch size, or less if a whole batch did not fit into
    memory."""
    recorded_shapes: int = 0
    """The number of batch shapes for which a training step was captured as a CUDA graph and replayed."""
    graph_use: GraphUse | None = None
    """The decision whether training steps are replayed as CUDA graphs; None if the device or the model does not support
    this, or if the user turned it off."""
    skipped_updates: int = 0
    """The number of optimiser updates that were skipped because a gradient was not finite, which happens in fp16."""
    curves: list[CurvePoint] = field(default_factory=list)
    dev_scores: list[float] = field(default_factory=list)
    """The dev score at each evaluation; these scores decide which weights are selected."""
    evaluated_at: list[int] = field(default_factory=list)
    """For each dev evaluation, the number of training steps done before it."""
    dev_logits: list[np.ndarray[Any, Any]] = field(default_factory=list)
    """The dev logits of each evaluation, in the shape that `predict_logits` returns."""
    selected: int = 0
    """The number, counted from 1, of the evaluation whose weights the trained model has."""
    stopped_early: bool = False
    """True if the training stopped before its last step because the dev score had stopped improving."""
    resumed_at: int | None = None
    """The number of steps in the checkpoint from which this process resumed; None if it did not resume."""
    earlier_s: float = 0.0
    """The wall-clock seconds that earlier, interrupted processes spent on this run; see `CheckpointFile.earlier_s`."""

    @property
    def selected_epoch(self) -> float:
        """The number of epochs, possibly fractional, after which the model had the selected weights."""
        return self.evaluated_at[self.selected - 1] / self.steps_per_epoch

    @property
    def selected_dev_score(self) -> float:
        """The dev score of the selected weights."""
        return self.dev_scores[self.selected - 1]

    @property
    def selected_dev_logits(self) -> np.ndarray[Any, Any]:
        """The dev logits of the selected weights, in the shape that `predict_logits` returns."""
        return self.dev_logits[self.selected - 1]

    @property
    def epoch_scores(self) -> list[float]:
        """The dev score at the end of each epoch, without evaluations within an epoch."""
        scored = zip(self.evaluated_at, self.dev_scores, strict=True)
        return [score for step, score in scored if step % self.steps_per_epoch == 0]

    def count(self, batch: Batch | ResidentBatch) -> None:
        """Count a training step: add the examples and tokens of its batch."""
        self.steps += 1
        self.samples += len(batch.indices)
        self.tokens += batch.tokens
        self.padded_tokens += batch.padded_tokens
        self.schedule.add_batch(batch.indices)

    def add_losses(self, losses: Sequence[float], norms: Sequence[float]) -> None:
        """Add an epoch's losses and gradient norms to the recorded curves, when the epoch ends or is stopped early.

        Args:
            losses: The loss of each step of the epoch, all of them finite.
            norms: The gradient norm of each step before clipping; not finite for an update that was skipped (fp16).
        """
        first_step = self.steps - len(losses)
        stride = max(1, len(losses) // CURVE_POINTS)
        for start in range(0, len(losses), stride):
            end = min(start + stride, len(losses))
            for name, values in (("train/loss", losses), ("train/gradient_norm", norms)):
                # In fp16 the gradient scaler skips updates whose gradients overflow; their norm is not finite.
                if part := [value for value in values[start:end] if math.isfinite(value)]:
                    self.curves.append(CurvePoint(name, sum(part) / len(part), first_step + end))
        self.skipped_updates += sum(not math.isfinite(norm) for norm in norms)
        self.curves.append(CurvePoint("train/epoch_loss", sum(losses) / len(losses), self.steps))

    def add_evaluation(self, logits: np.ndarray[Any, Any], metrics: Mapping[str, float], seconds: float) -> None:
        """Add the results of an evaluation of the dev split after the latest step.

        Args:
            logits: The dev logits that `predict_logits` returned.
            metrics: The dev metrics by name, among them "score".
            seconds: The time that the evaluation took.
        """
        self.dev_s += seconds
        self.dev_logits.append(logits)
        self.dev_scores.append(metrics["score"])
        self.evaluated_at.append(self.steps)
        self.curves += [CurvePoint(f"dev/{name}", value, self.steps) for name, value in metrics.items()]

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, times, curves and dev logits as tensors and JSON values, for a checkpoint."""
        import torch

        return {
            "counted": {name: getattr(self, name) for name in STORED_FIELDS},
            "curves": [[point.metric, point.value, point.step] for point in self.curves],
            "dev_logits": [torch.from_numpy(logits) for logits in self.dev_logits],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned, and set `resumed_at`."""
        for name in STORED_FIELDS:
            setattr(self, name, state["counted"][name])
        self.curves = [CurvePoint(*point) for point in state["curves"]]
        self.dev_logits = [logits.numpy() for logits in state["dev_logits"]]
        self.resumed_at = self.steps
