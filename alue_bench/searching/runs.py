"""The conversions between a search and its runs.

Planned runs are converted to the candidates (freezing settings) of the search, and the predictions of finished runs to
scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alue_bench.contract.cells import Cell, cell_of
from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.spec import RunSpec, digest_of
from alue_bench.contract.strategy import FreezePlan
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.cost.flops import forecast_flops
from alue_bench.evaluation.additive import additive
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import targets_of
from alue_bench.planning.build import PlannedRun
from alue_bench.planning.request import LARGEST_SEED
from alue_bench.searching.candidates import Candidate
from alue_bench.searching.observations import (
    Evaluation,
    jackknife_scores,
    jackknife_scores_by_sums,
    or_zero,
)
from alue_bench.searching.policy import Step
from alue_bench.tracking.recording import LOW_FIDELITY

if TYPE_CHECKING:
    import pandas as pd

SHORT_PART = 3
"""The divisor of the number of epochs for a low-fidelity run: it has a third of the usual epochs, but at least one."""


@dataclass(frozen=True)
class SearchGrid:
    """The candidates (freezing settings) of the search for one task and model, with their planned runs."""

    candidates: tuple[Candidate, ...]
    """The freezing settings to choose from, full fine-tuning first."""
    runs: dict[str, PlannedRun]
    """The planned run of each freezing setting with the first seed, by the name of the candidate."""
    layers: int
    """The model's number of layers."""
    full_flops: float
    """The FLOPs of one full fine-tuning."""
    short_epochs: int | None
    """The reduced number of epochs of a low-fidelity run; None if normal runs have one epoch, so that no run can be
    shorter."""

    @property
    def cost(self) -> float:
        """The cost of running every freezing setting once, in units of the cost of one full fine-tuning."""
        return sum(candidate.cost for candidate in self.candidates)

    def run_of(self, step: Step) -> PlannedRun:
        """Return the planned run for a step of the search, with the step's seed and number of epochs.

        Raises:
            UsageError: The step's seed would be above `LARGEST_SEED`.
        """
        run = self.runs[step.candidate.name]
        seed = run.spec.seed + step.replicate
        if seed > LARGEST_SEED:
            raise UsageError(f"seeds count up from --seed {run.spec.seed}, and there is none above {LARGEST_SEED}")
        spec = replace(run.spec, seed=seed, init_seed=seed, data_seed=seed)
        if not step.short:
            return replace(run, spec=spec)
        return _with_epochs(replace(run, spec=spec, tags={**run.tags, LOW_FIDELITY: "yes"}), self.short_epochs)


def grid_of(runs: Sequence[PlannedRun]) -> SearchGrid:
    """Return the candidates of a search with their costs, given the planned runs of a grid and of further strategies.

    The settings of the grid are pairs of a number of frozen bottom layers and a number of frozen top layers. Settings
    and strategies that train the same parameters become one candidate. For example, all settings that freeze every
    layer train only the head, and so does the strategy `head-only`.

    Args:
        runs: The planned runs of the grid's settings and of the strategies, for one task, model and seed.

    Raises:
        UsageError: There is nothing to search, because full fine-tuning, or everything else, is missing from the runs.
    """
    distinct: dict[tuple[object, float], PlannedRun] = {}
    for run in runs:
        trained = _trained_parameters_key(run.spec), run.spec.hyper.lr
        known = distinct.get(trained)
        if known is None or _has_simpler_name(run.spec, known.spec):
            distinct[trained] = run
    chosen = list(distinct.values())
    full = next((run for run in chosen if cell_of(run.spec.strategy) == (0, 0)), None)
    if full is None or all(cell_of(run.spec.strategy) == (0, 0) for run in chosen):
        raise UsageError("--grid leaves nothing to search: it must have settings besides full fine-tuning")
    chosen.sort(key=lambda run: run is not full)
    epochs = full.spec.hyper.epochs
    short = max(1, epochs // SHORT_PART) if epochs > 1 else None
    costs = forecast_flops(chosen)
    short_costs = forecast_flops([_with_epochs(run, short) for run in chosen])
    several = len({run.spec.hyper.lr for run in chosen}) > 1
    names = [run.spec.strategy + (f" lr={_short_rate(run.spec.hyper.lr)}" if several else "") for run in chosen]
    candidates = tuple(
        Candidate(
            name,
            *(_cell(run.spec) or (0, 0)),
            cost / costs[0],
            short_cost / costs[0],
            has_cell=_cell(run.spec) is not None,
            rate=run.spec.hyper.lr if several else None,
        )
        for name, run, cost, short_cost in zip(names, chosen, costs, short_costs, strict=True)
    )
    return SearchGrid(
        candidates,
        dict(zip(names, chosen, strict=True)),
        full.spec.freeze_plan.shape.layers,
        costs[0],
        short,
    )


def _short_rate(rate: float) -> str:
    """Return a learning rate in the notation that options usually have, such as "3e-4"."""
    mantissa, exponent = f"{rate:.5e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _trained_parameters_key(spec: RunSpec) -> object:
    """Return a key that is equal for runs that train the same parameters of the same model."""
    adapter = digest_of([spec.adapter.kind, spec.adapter.options]) if spec.adapter else None
    return spec.freeze_plan, spec.kept_layers, adapter


def _cell(spec: RunSpec) -> Cell | None:
    """Return the numbers of frozen bottom and top layers of a run, such as (12, 0) for `head-only` with 12 layers.

    The result is None if these two numbers do not describe the strategy, because it uses an adapter, removes layers, or
    freezes other parts.
    """
    plan = spec.freeze_plan
    cell = plan.bottom, plan.top
    static = plan == FreezePlan(plan.shape, plan.frozen_layers, embeddings=plan.bottom > 0)
    whole = spec.kept_layers is None and spec.adapter is None
    return cell_of(spec.strategy) or (cell if static and whole and sum(cell) == len(plan.frozen_layers) else None)


def _has_simpler_name(spec: RunSpec, than: RunSpec) -> bool:
    """Return whether `spec` has a simpler strategy name than `than`.

    Names such as bottom3top4 are simpler than all other names; otherwise the shorter name is simpler.
    """

    def key(each: RunSpec) -> tuple[bool, int, str]:
        return cell_of(each.strategy) is None, len(each.strategy), each.strategy

    return key(spec) < key(than)


def _with_epochs(run: PlannedRun, epochs: int | None) -> PlannedRun:
    if epochs is None:
        return run
    hyper = replace(run.spec.hyper, epochs=epochs)
    return replace(run, spec=replace(run.spec, hyper=hyper), hyper=replace(run.hyper, values=hyper))


def evaluation_of(step: Step, table: pd.DataFrame, labels: Labels, primary: str, recorded: float) -> Evaluation:
    """Compute a run's score from its predictions, and the scores for the jackknife (`Evaluation.jackknife_scores`).

    Args:
        step: The step of the search for which the run was made.
        table: The run's predictions on the dev split, as returned by `tracking.reading.read_dev_predictions`.
        labels: The label space of the task.
        primary: The name of the primary metric.
        recorded: The score that was recorded with the run.

    Raises:
        UnavailableError: The score of the predictions differs from the recorded score, so that the predictions must be
            those of another run.
    """
    targets = targets_of(table, multilabel=labels.kind is TargetKind.MULTILABEL)
    gold, predicted = targets.gold, targets.predicted
    recomputed = metrics(gold, predicted, labels)[primary]
    if not math.isclose(or_zero(recomputed), or_zero(recorded), rel_tol=1e-4, abs_tol=1e-6):
        raise UnavailableError(
            f"the recorded predictions of {step.candidate.name} do not belong to its run: their {primary} is "
            f"{recomputed:.6f}, but the run recorded {recorded:.6f}; repeat it with --rerun"
        )
    sums = additive(primary, gold, predicted, labels)
    if sums is not None:
        left_out = jackknife_scores_by_sums(sums.parts, sums.value)
    else:
        left_out = jackknife_scores(len(gold), lambda kept: metrics(gold[kept], predicted[kept], labels)[primary])
    return Evaluation(step.candidate.name, step.replicate, or_zero(recomputed), left_out, step.short)
