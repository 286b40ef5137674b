"""Between the search and the runs of a plan: candidates from planned runs, a run for a step, a score from a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alue_bench.contract.cells import Cell, cell_of
from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.spec import RunSpec
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.cost.flops import forecast_flops
from alue_bench.evaluation.additive import additive
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import targets_of
from alue_bench.planning.build import PlannedRun
from alue_bench.planning.request import LARGEST_SEED
from alue_bench.search.candidates import Candidate
from alue_bench.search.observations import Evaluation, defined, left_out_by_sums, left_out_scores
from alue_bench.search.policy import Step
from alue_bench.tracking.recording import FIRST_LOOK

if TYPE_CHECKING:
    import pandas as pd

SHORT_PART = 3
"""Short runs have a third of the epochs, and at least one."""


@dataclass(frozen=True)
class SearchGrid:
    """The candidates of one task and model, and the run that each stands for."""

    candidates: tuple[Candidate, ...]
    """Full fine-tuning first."""
    runs: dict[str, PlannedRun]
    """By candidate, with the first seed."""
    layers: int
    full_flops: float
    """Of one full fine-tuning."""
    short_epochs: int | None
    """Of short runs; None where there is no shorter run, as of one epoch."""

    @property
    def cost(self) -> float:
        """Of running every candidate once, in full fine-tunings."""
        return sum(candidate.cost for candidate in self.candidates)

    def run_of(self, step: Step) -> PlannedRun:
        """The run that a step asks for. Raises UsageError where there are no more seeds."""
        run = self.runs[step.candidate.name]
        seed = run.spec.seed + step.replicate
        if seed > LARGEST_SEED:
            raise UsageError(f"seeds count up from --seed {run.spec.seed}, and there is none above {LARGEST_SEED}")
        spec = replace(run.spec, seed=seed, init_seed=seed, data_seed=seed)
        if not step.short:
            return replace(run, spec=spec)
        return _with_epochs(replace(run, spec=spec, tags={**run.tags, FIRST_LOOK: "yes"}), self.short_epochs)


def grid_of(runs: Sequence[PlannedRun]) -> SearchGrid:
    """`runs` are those of the grid's cells for one task, model and seed.

    Cells that freeze the same parts, as do all that leave nothing but the head to train, are one candidate.
    Raises UsageError where nothing can be searched: no run that trains everything, or nothing beside it.
    """
    distinct: dict[object, PlannedRun] = {}
    for run in runs:
        known = distinct.get(run.spec.freeze_plan)
        if known is None or _written_simpler(run.spec, known.spec):
            distinct[run.spec.freeze_plan] = run
    chosen = list(distinct.values())
    full = next((run for run in chosen if not run.spec.freeze_plan.frozen_layers), None)
    if full is None or len(chosen) < 2:
        raise UsageError("--grid leaves nothing to search: it must have cells besides full fine-tuning")
    chosen.sort(key=lambda run: run is not full)
    epochs = full.spec.hyper.epochs
    short = max(1, epochs // SHORT_PART) if epochs > 1 else None
    costs = forecast_flops(chosen)
    short_costs = forecast_flops([_with_epochs(run, short) for run in chosen])
    candidates = tuple(
        Candidate(run.spec.strategy, *_cell(run.spec), cost / costs[0], short_cost / costs[0])
        for run, cost, short_cost in zip(chosen, costs, short_costs, strict=True)
    )
    return SearchGrid(
        candidates,
        {run.spec.strategy: run for run in chosen},
        full.spec.freeze_plan.shape.layers,
        costs[0],
        short,
    )


def _cell(spec: RunSpec) -> Cell:
    cell = cell_of(spec.strategy)
    assert cell is not None, f"{spec.strategy} is no cell of a grid"
    return cell


def _written_simpler(spec: RunSpec, than: RunSpec) -> bool:
    return (len(spec.strategy), spec.strategy) < (len(than.strategy), than.strategy)


def _with_epochs(run: PlannedRun, epochs: int | None) -> PlannedRun:
    if epochs is None:
        return run
    hyper = replace(run.spec.hyper, epochs=epochs)
    return replace(run, spec=replace(run.spec, hyper=hyper), hyper=replace(run.hyper, values=hyper))


def evaluation_of(step: Step, table: pd.DataFrame, labels: Labels, primary: str, recorded: float) -> Evaluation:
    """A run's score, and the scores without each group of examples, from its predictions.

    `recorded` is the score that the run told. Raises UnavailableError where the predictions give another one: they are
    then not those of this run.
    """
    targets = targets_of(table, multilabel=labels.kind is TargetKind.MULTILABEL)
    gold, predicted = targets.gold, targets.predicted
    again = metrics(gold, predicted, labels)[primary]
    if not math.isclose(defined(again), defined(recorded), rel_tol=1e-4, abs_tol=1e-6):
        raise UnavailableError(
            f"the recorded predictions of {step.candidate.name} are not those of its run: their {primary} is "
            f"{again:.6f}, but the run tells {recorded:.6f}; do it again with --rerun"
        )
    sums = additive(primary, gold, predicted, labels)
    if sums is not None:
        left_out = left_out_by_sums(sums.parts, sums.value)
    else:
        left_out = left_out_scores(len(gold), lambda kept: metrics(gold[kept], predicted[kept], labels)[primary])
    return Evaluation(step.candidate.name, step.replicate, defined(again), left_out, step.short)
