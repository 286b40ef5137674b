"""GradES: each weight matrix is frozen when its gradient no longer changes much.

Source: Wen et al. 2025, "GradES: Significantly Faster Training in Transformers with Gradient-Based Early Stopping",
arXiv 2509.01842, abstract of version 3, and the authors' published code. For each weight matrix of attention and
feed-forward parts, the L1 norm of the change of its gradient is measured. After a grace period, a matrix whose change
is below a threshold is frozen, and stays frozen; the gradient still passes through it. (Of the paper, only the abstract
was available. The authors' code differs from the abstract: the code measures the change of the weights, by the same
norm.)

Choices made here:

- The change is measured five times per epoch: the average gradient since the last measurement is compared with the
  average gradient of the interval before it. The source compares single steps, whose gradients differ mainly because
  of the noise of small batches.
- The threshold is relative: 50 % of the largest change of the same matrix so far, or P % with `grades-pP`. The source
  has absolute thresholds, tuned for each model and method (from 0.001 to 9), which mean nothing for another model.
- The grace period is the first 30 % of the steps, the default of the authors' code.
- Biases and norms are not measured. They train until all matrices of their layer are frozen; then the whole layer is
  frozen, and the embeddings with layer 0. Bottom layers that are frozen in this way form a frozen prefix, whose outputs
  can be cached. In the source, embeddings are not frozen, and training ends when all matrices are frozen; here, pooler
  and head train to the end.
- A frozen matrix loses its optimiser state.

Cost: at first a step costs as much as in full fine-tuning. Each frozen matrix saves one matrix product per step, that
of its weight gradient. If the forward pass of a layer costs F, a layer whose matrices are all frozen costs 2 F instead
of 3 F. If everything below the layer is frozen too, it costs 1 F, and its output is computed once. Measuring costs one
more pass over the weights at each step, and memory for two copies of the gradients. On a GPU, CUDA graphs have to be
captured again each time the set of frozen matrices changes.

When it does not help: in short fine-tuning runs, in which few steps remain after the grace period. As long as gradients
are mostly noise, their change is no evidence of convergence. With a learning rate that decays to zero, all gradients
settle in the end, whether the model has learnt the task or not. The backward pass still goes down to the lowest layer
that trains. The file `freezing.csv` of a run has the change of each matrix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from alue_bench import EncoderShape, FreezePlan, Revisions, Strategy, StrategyFamily, TrainingProgress, UsageError

HALF = 50
"""The default threshold, in percent; see `Grades.percent`."""
GRACE = 0.3
"""The grace period: the share of the training steps, from the first on, in which no matrix is frozen."""


@dataclass(frozen=True)
class Grades(Strategy):
    """A strategy that freezes each weight matrix when its gradient changes much less than earlier in the training."""

    percent: int = HALF
    """The threshold, from 1 to 99: a matrix is frozen if the change of its gradient is below this percentage of its
    largest change so far."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "grades" or "grades-p75"."""
        return "grades" + (f"-p{self.percent}" if self.percent != HALF else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return the freeze plan for the start of training, in which everything is trained."""
        return FreezePlan(shape)

    def revisions(self) -> Revisions:
        """Return the points of training at which `revise` is called: five per epoch, with the gradients' changes."""
        return Revisions(per_epoch=5, matrix_changes=True, prefix_only_grows=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """Return the freeze plan after an evaluation point.

        Once the grace period is over, the returned plan also freezes the matrices whose gradients have settled, and the
        layers in which all matrices are frozen.
        """
        if progress.step < GRACE * progress.steps:
            return plan
        layers = range(plan.shape.layers)
        series = [[changes.layers[layer] for changes in progress.changes] for layer in layers]
        settled = {name for of_layer in series for name in of_layer[-1] if self._is_settled(name, of_layer)}
        frozen = plan.frozen_parameters | settled
        whole = {layer for layer in layers if frozen.issuperset(known := set().union(*series[layer])) and known}
        frozen_layers = plan.frozen_layers | whole
        return replace(
            plan, frozen_parameters=frozen, frozen_layers=frozen_layers, embeddings=plan.embeddings or 0 in whole
        )

    def _is_settled(self, name: str, points: list[Mapping[str, float]]) -> bool:
        """Return whether the last change of a matrix's gradient is below the threshold; see `percent`.

        The result is False if the matrix has no earlier change, or none that is finite.

        Args:
            name: The name of the matrix.
            points: The changes of all matrices of the same layer, by name, at each evaluation point so far.
        """
        *earlier, last = [changes[name] for changes in points if name in changes]
        finite = [change for change in earlier if math.isfinite(change)]
        return bool(finite) and last < self.percent / 100 * max(finite)


def parse(name: str) -> Grades | None:
    """Return the strategy for a name such as `grades` or `grades-p75`, or None for a name of another form.

    Raises:
        UsageError: The percentage is not from 1 to 99, is 50 (written `grades`) or has leading zeros.
    """
    match = re.fullmatch(r"grades(?:-p(\d{1,4}))?", name, re.ASCII)
    if match is None:
        return None
    strategy = Grades(HALF if match[1] is None else int(match[1]))
    if not 0 < strategy.percent < 100:
        raise UsageError(f"strategy {name!r}: the threshold must be 1 to 99 percent")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="grades, grades-p<P>",
        title="Each matrix is frozen once its gradient changes less than half (or P percent) as much as it did at most",
        source="Wen et al. 2025, GradES: Gradient-Based Early Stopping, arXiv 2509.01842",
        examples=("grades", "grades-p75"),
        parse=parse,
    ),
)
