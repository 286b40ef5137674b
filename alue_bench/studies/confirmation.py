"""Runs with fresh seeds, which confirm the settings that a sweep recommends.

The recommended setting and the reference, usually `full` (full fine-tuning), are run with seeds that were not used to
choose the setting. These seeds count up from the largest seed of the sweep, so that a repeated sweep can reuse its
confirming runs.

In a cross-validation, both settings are run with each fresh seed on every fold. Fresh seeds remove the bias from lucky
seeds, but not the bias from lucky examples: the dev rows of a fold, which were used to choose the setting, are train or
test rows of other folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.evaluation.margins import Margins
from alue_bench.executors.outcome import Outcome
from alue_bench.planning.build import PlannedRun
from alue_bench.planning.request import LARGEST_SEED
from alue_bench.planning.sweep_order import POSITION_TAG
from alue_bench.reporting.choosing_runs import REFERENCE
from alue_bench.reporting.confirmation import Confirmation, confirm_setting
from alue_bench.reporting.grid import GridResults, Recommendation
from alue_bench.reporting.numbers import number_with_noun
from alue_bench.studies.results import is_of
from alue_bench.tracking.connection import Connection
from alue_bench.tracking.reading import read_choices, read_runs, read_targets
from alue_bench.tracking.spool import SPOOLED

if TYPE_CHECKING:
    from alue_bench.cost.time import CostEstimate, RunEstimate

CONFIRMS = "sweep.confirms"
"""The tag of a run that confirms a recommended setting; its value is the name of the setting."""

FIXED_SEEDS_MESSAGE = (
    "--init-seed and --data-seed fix both random seeds, so that there are no fresh ones; leave one of them out"
)
"""The message that explains why a sweep with both `--init-seed` and `--data-seed` has no confirming runs."""


@dataclass(frozen=True)
class ConfirmingSeeds:
    """The seeds with which recommended settings will be confirmed, and the largest number of runs that this takes."""

    seeds: tuple[int, ...]
    """The fresh seeds; empty if nothing is confirmed."""
    most_runs: int
    """The number of confirming runs if every grid recommends a setting other than its reference. A grid that recommends
    its reference has no confirming runs."""
    why_none: str = ""
    """The reason why there are no fresh seeds, although the user asked for some; empty if there is no such reason."""

    def explained(self, recommendation: Recommendation) -> Recommendation:
        """Return the recommendation; if it cannot be confirmed, add the reason to it."""
        if not self.why_none or recommendation.is_reference:
            return recommendation
        strategy, reference = recommendation.strategy, recommendation.reference
        unconfirmed = Confirmation(strategy=strategy, reference=reference, seeds=(), reason=self.why_none)
        return replace(recommendation, confirmation=unconfirmed)

    def describe(self) -> str:
        """Return a sentence about the confirming runs, to be shown with the plan."""
        if not self.seeds:
            why = f" ({self.why_none})" if self.why_none else ""
            return f"confirmation: none{why}, so that the loss to expect will not be known"
        return (
            f"confirmation: at most {number_with_noun(self.most_runs, 'further run')}, of each recommended setting and "
            f"of {REFERENCE} with {_number_of_seeds(self.seeds)} that take no part in the choice (--confirm)"
        )

    def cost_at_most(self, estimate: CostEstimate) -> tuple[float | None, float | None]:
        """Return the largest possible training FLOPs and seconds of all confirming runs.

        They are reached if each grid recommends its costliest setting. Either value is None if it is unknown for a
        planned run.

        Args:
            estimate: The estimated cost of each run of the sweep.
        """
        grids: dict[tuple[Any, ...], list[RunEstimate]] = {}
        for run in estimate.runs:
            grids.setdefault((run.task, run.model, *sorted(run.settings.items())), []).append(run)
        flops, seconds = ([_costliest_pair(runs, name) for runs in grids.values()] for name in ("flops", "seconds"))
        total_flops, total_seconds = (
            None if None in costs else len(self.seeds) * sum(cost or 0.0 for cost in costs)
            for costs in (flops, seconds)
        )
        return total_flops, total_seconds


def confirming_seeds(runs: Sequence[PlannedRun], number: int) -> ConfirmingSeeds:
    """Return the fresh seeds for confirming the recommendations of a sweep.

    Args:
        runs: The planned runs of the sweep.
        number: The number of fresh seeds; 0 for no confirmation.

    Raises:
        UsageError: Fewer than `number` valid seeds are larger than the largest seed of the sweep.
    """
    if not runs or not number:
        return ConfirmingSeeds((), 0)
    if _seeds_are_fixed(runs[0]):
        return ConfirmingSeeds((), 0, FIXED_SEEDS_MESSAGE)
    last = max(run.spec.seed for run in runs)
    if last + number > LARGEST_SEED:
        raise UsageError(
            f"--confirm {number}: fresh seeds count up from {last}, and there is none above {LARGEST_SEED}; use "
            "smaller seeds, or --confirm 0"
        )
    grids: dict[tuple[Any, ...], set[Any]] = {}
    for run in runs:
        spec = run.spec
        grids.setdefault((spec.task, spec.model, spec.hyper), set()).add((spec.strategy, spec.fold))
    most = 0
    for settings in grids.values():
        if len({strategy for strategy, _ in settings}) > 1:
            most += 2 * number * len({fold for _, fold in settings})
    return ConfirmingSeeds(tuple(range(last + 1, last + 1 + number)) if most else (), most)


def confirming_runs(
    runs: Sequence[PlannedRun], group: GridResults, recommendation: Recommendation, seeds: Sequence[int]
) -> list[PlannedRun]:
    """Return the runs that confirm a recommendation: those of the recommended setting and of its reference.

    With the first seed, the reference is run first; with the second seed, the recommended setting; and so on in turn.

    Args:
        runs: The planned runs of the sweep.
        group: The grid for which the setting is recommended.
        recommendation: The recommendation; its setting is not the reference.
        seeds: The fresh seeds.
    """
    pair = (recommendation.reference, recommendation.strategy)
    by_strategy = {name: {run.spec.fold: run for run in runs if is_of(run.spec, group, name)}.values() for name in pair}
    return [
        _with_seed(run, seed, recommendation.strategy)
        for index, seed in enumerate(seeds)
        for name in (pair if index % 2 == 0 else pair[::-1])
        for run in by_strategy[name]
    ]


def unused_seeds(
    connection: Connection,
    runs: Sequence[PlannedRun],
    group: GridResults,
    recommendation: Recommendation,
    seeds: Sequence[int],
) -> tuple[int, ...]:
    """Return the planned seeds, with later seeds in place of those that are no longer fresh.

    A seed is not fresh if one of the confirming runs with this seed has been used by an earlier sweep or search to
    choose a setting.

    Args:
        connection: The open store.
        runs: The planned runs of the sweep.
        group: The grid for which the setting is recommended.
        recommendation: The recommendation; its setting is not the reference.
        seeds: The planned seeds, which count up.
    """
    try:
        chosen_in = read_choices(connection)
    except UnavailableError:  # the confirmation will report that the store is unavailable
        return tuple(seeds)
    fresh = (
        seed
        for seed in range(seeds[0], min(seeds[-1] + len(chosen_in), LARGEST_SEED) + 1)
        if not any(run.spec.fingerprint in chosen_in for run in confirming_runs(runs, group, recommendation, (seed,)))
    )
    return tuple(islice(fresh, len(seeds)))


def confirmation_of(
    connection: Connection,
    recommendation: Recommendation,
    runs: Sequence[PlannedRun],
    outcomes: Mapping[str, Outcome],
    margins: Margins,
) -> Confirmation:
    """Return the confirmation of a recommendation, computed from its confirming runs after their execution.

    Args:
        connection: The open store, from which the test predictions are read.
        recommendation: The recommendation.
        runs: The confirming runs.
        outcomes: The outcomes of runs by fingerprint.
        margins: The largest acceptable loss of score, for each metric.
    """
    seeds = tuple(dict.fromkeys(run.spec.seed for run in runs))
    done = [outcomes[run.spec.fingerprint] for run in runs if run.spec.fingerprint in outcomes]
    ids = [one.run_id for one in done if one.status != "failed"]
    return confirmation_by(connection, (recommendation.strategy, recommendation.reference), ids, margins, seeds)


def confirmation_by(
    connection: Connection, pair: tuple[str, str], run_ids: Sequence[str], margins: Margins, seeds: Sequence[int]
) -> Confirmation:
    """Return the confirmation of a setting, computed from recorded runs.

    If the MLflow store does not answer, the confirmation has no result, and its `reason` is the error.

    Args:
        connection: The open store, from which the test predictions are read.
        pair: The setting, and the reference with which it is compared.
        run_ids: The MLflow ids of the finished runs of setting and reference with the fresh seeds.
        margins: The largest acceptable loss of score, for each metric.
        seeds: The planned fresh seeds, including those whose runs failed.
    """
    strategy, reference = pair
    try:
        results = read_runs(connection, [run_id for run_id in run_ids if not run_id.startswith(SPOOLED)])
        # A search may have chosen different learning rates for setting and reference. `confirm_setting` compares only
        # runs of the same learning rate, so the column is made constant.
        frame = results.frame.assign(lr=results.frame["lr"].iloc[0]) if len(results.frame) else results.frame
        return confirm_setting(frame, partial(read_targets, results), strategy, reference, margins=margins, seeds=seeds)
    except UnavailableError as error:
        reason = f"{error}; run the same command again once the store answers, no run is lost"
        return Confirmation(strategy=strategy, reference=reference, seeds=tuple(seeds), reason=reason)


def _with_seed(run: PlannedRun, seed: int, confirmed_strategy: str) -> PlannedRun:
    spec, request = run.spec, run.request
    spec = replace(
        spec,
        seed=seed,
        init_seed=seed if request.init_seed is None else spec.init_seed,
        data_seed=seed if request.data_seed is None else spec.data_seed,
    )
    tags = {name: value for name, value in run.tags.items() if name != POSITION_TAG} | {CONFIRMS: confirmed_strategy}
    return replace(run, spec=spec, tags=tags)


def _seeds_are_fixed(run: PlannedRun) -> bool:
    """Return whether options fix both random seeds, so that --seed would have no effect on a run."""
    return run.request.init_seed is not None and run.request.data_seed is not None


def _costliest_pair(runs: Sequence[RunEstimate], kind: str) -> float | None:
    """Return the cost of running `full` and the costliest other setting, with one seed on all folds; None if unknown.

    If `full` is not in the grid, return the cost of the two costliest settings.

    Args:
        runs: The estimates of all runs of one grid.
        kind: The kind of cost, "flops" or "seconds".
    """
    costs: dict[str, float] = {}
    seeds = len({run.seed for run in runs})
    for run in runs:
        cost = getattr(run, kind)
        if cost is None:
            return None
        costs[run.strategy] = costs.get(run.strategy, 0.0) + cost / seeds
    reference = costs.pop(REFERENCE, None)
    highest = sorted(costs.values(), reverse=True)
    if reference is not None:
        return reference + highest[0] if highest else 0.0
    return sum(highest[:2]) if len(highest) > 1 else 0.0


def _number_of_seeds(seeds: Sequence[int]) -> str:
    return number_with_noun(len(seeds), "seed") + f" ({', '.join(map(str, seeds))})"
