"""GradES: each weight matrix is frozen once its gradient has ceased to change much.

Source: Wen et al. 2025, "GradES: Significantly Faster Training in Transformers with Gradient-Based Early Stopping",
arXiv 2509.01842, abstract of version 3, and the authors' published code. For each weight matrix of attention and
feed-forward parts, the L1 norm of the change of its gradient is measured. After a grace period, a matrix whose change
is below a threshold is frozen, and stays frozen; the gradient still passes through it. (The authors' code measures the
change of the weights instead, by the same norm; the text of the paper beyond its abstract was not available.)

Choices made here:

- The change is measured five times per epoch, between the average gradients of successive intervals. Between single
  steps, as in the source, it consists mainly of the noise of small batches.
- The threshold is relative: 50 % of the largest change of the same matrix so far, or P % with `grades-pP`. The source
  has absolute thresholds, tuned for each model and method (from 0.001 to 9), which mean nothing for another model.
- The grace period is the first 30 % of the steps, the default of the authors' code.
- Biases and norms are not measured. They train until all matrices of their layer are frozen; then the whole layer is
  frozen, and the embeddings with layer 0, so that there is a frozen prefix. In the source, embeddings are not frozen,
  and the training ends when all matrices are frozen; here, pooler and head train to the end.
- A frozen matrix loses its optimiser state.

Cost: a step costs as much as in full fine-tuning at first, and one forward product less for each frozen matrix. If the
forward pass of a layer costs F, a layer whose matrices are all frozen costs 2 F instead of 3 F, and 1 F, computed once,
if everything below it is frozen too. Measuring costs one more pass over the weights at each step, and memory for two
copies of the gradients. On a GPU, each change of the frozen matrices costs the time for capturing CUDA graphs again.

When it does not help: in short trainings, in which the grace period is most of what could be saved. As long as
gradients are mostly noise, their change says little about convergence. With a learning rate that decays to zero, all
gradients settle in the end, whether the model has learnt the task or not. The backward pass stays as deep as the lowest
layer that trains. `freezing.csv` has the change of each matrix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from alue_bench import EncoderShape, FreezePlan, Revisions, Strategy, StrategyFamily, TrainingProgress, UsageError

HALF = 50
GRACE = 0.3
"""The share of the training's steps before which no matrix is frozen."""


@dataclass(frozen=True)
class Grades(Strategy):
    """A strategy that freezes each weight matrix once its gradient changes much less than before."""

    percent: int = HALF
    """The threshold of a matrix's change, in percent of its largest change so far, from 1 to 99."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "grades" or "grades-p75"."""
        return "grades" + (f"-p{self.percent}" if self.percent != HALF else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return the freeze plan for the start of training, in which everything is trained."""
        return FreezePlan(shape)

    def revisions(self) -> Revisions:
        """Return the points at which the freeze plan may change: five per epoch, with the changes of gradients."""
        return Revisions(per_epoch=5, matrix_changes=True, prefix_only_grows=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """Return the freeze plan after an evaluation point: settled matrices are frozen, and layers of such alone."""
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
        """Return whether the last change of a matrix is below the threshold.

        Args:
            name: The name of the matrix.
            points: The changes of the matrices of its layer, by name, at each evaluation point so far.
        """
        *earlier, last = [changes[name] for changes in points if name in changes]
        finite = [change for change in earlier if math.isfinite(change)]
        return bool(finite) and last < self.percent / 100 * max(finite)


def parse(name: str) -> Grades | None:
    """Return the strategy that `grades` or `grades-p<P>` stands for, or None for any other name."""
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
