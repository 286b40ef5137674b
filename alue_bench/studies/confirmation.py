"""The runs with fresh seeds that confirm the settings recommended by a sweep.

The recommended setting and the reference, usually `full` (full fine-tuning), are run with seeds that took no part in
the choice. The seeds count up from the largest one of the sweep, so that a repeated sweep finds its confirming runs
finished.

In a cross-validation, both are run with each fresh seed on every fold. Fresh seeds remove the bias by lucky seeds. They
do not remove the bias by lucky examples: the dev rows of a fold, which were used to choose the setting, are train or
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
from alue_bench.planning.sweep_order import TAG
from alue_bench.reporting.confirmation import Confirmation, confirmed
from alue_bench.reporting.grid import REFERENCE, GridResults, Recommendation
from alue_bench.reporting.numbers import several
from alue_bench.studies.results import is_of
from alue_bench.tracking.connection import Connection
from alue_bench.tracking.reading import read_choices, read_runs, read_targets
from alue_bench.tracking.spool import SPOOLED

if TYPE_CHECKING:
    from alue_bench.cost.time import CostEstimate, RunEstimate

CONFIRMS = "sweep.confirms"
"""The tag of a run that confirms a recommended setting; its value is the name of the setting."""

FIXED_SEEDS = (
    "--init-seed and --data-seed fix both random seeds, so that there are no fresh ones; leave one of them out"
)
"""The reason why a sweep with both options confirms nothing."""


@dataclass(frozen=True)
class ConfirmingSeeds:
    """The seeds with which recommended settings will be confirmed, and the largest number of runs that this takes."""

    seeds: tuple[int, ...]
    """The fresh seeds; empty if nothing is confirmed."""
    most_runs: int
    why_none: str = ""
    """The reason why there are no fresh seeds, although the user asked for some; empty if there is no such reason."""

    def explained(self, recommendation: Recommendation) -> Recommendation:
        """Return a recommendation with the reason why it cannot be confirmed, if there is one."""
        if not self.why_none or recommendation.is_reference:
            return recommendation
        strategy, reference = recommendation.strategy, recommendation.reference
        unconfirmed = Confirmation(strategy=strategy, reference=reference, seeds=(), reason=self.why_none)
        return replace(recommendation, confirmation=unconfirmed)

    def describe(self) -> str:
        """Return a sentence for the plan."""
        if not self.seeds:
            why = f" ({self.why_none})" if self.why_none else ""
            return f"confirmation: none{why}, so that the loss to expect will not be known"
        return (
            f"confirmation: at most {several(self.most_runs, 'further run')}, of each recommended setting and of "
            f"{REFERENCE} with {_number_of_seeds(self.seeds)} that take no part in the choice (--confirm)"
        )

    def cost_at_most(self, estimate: CostEstimate) -> tuple[float | None, float | None]:
        """Return the largest FLOPs and seconds of the confirming runs; None if the cost of a planned run is unknown.

        In the costliest case, the recommended setting of each grid is the one that costs most, apart from the
        reference.

        Args:
            estimate: The estimated cost of the sweep's runs.
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
    """Return the fresh seeds for the grids of a sweep.

    Args:
        runs: The planned runs of the sweep.
        number: The number of fresh seeds.

    Raises:
        UsageError: There are not as many seeds above the largest one of the sweep.
    """
    if not runs or not number:
        return ConfirmingSeeds((), 0)
    if _seeds_are_fixed(runs[0]):
        return ConfirmingSeeds((), 0, FIXED_SEEDS)
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
    for cells in grids.values():
        if len({strategy for strategy, _ in cells}) > 1:
            most += 2 * number * len({fold for _, fold in cells})
    return ConfirmingSeeds(tuple(range(last + 1, last + 1 + number)) if most else (), most)


def confirming_runs(
    runs: Sequence[PlannedRun], group: GridResults, recommendation: Recommendation, seeds: Sequence[int]
) -> list[PlannedRun]:
    """Return the runs that confirm a recommendation. The order of the two settings alternates by seed.

    Args:
        runs: The planned runs of the sweep.
        group: The grid that has the recommendation.
        recommendation: A recommendation of a setting other than the reference.
        seeds: The fresh seeds.
    """
    pair = (recommendation.reference, recommendation.strategy)
    by_strategy = {name: {run.spec.fold: run for run in runs if is_of(run.spec, group, name)}.values() for name in pair}
    return [
        _with_seed(run, seed, recommendation.strategy)
        for place, seed in enumerate(seeds)
        for name in (pair if place % 2 == 0 else pair[::-1])
        for run in by_strategy[name]
    ]


def unused_seeds(
    connection: Connection,
    runs: Sequence[PlannedRun],
    group: GridResults,
    recommendation: Recommendation,
    seeds: Sequence[int],
) -> tuple[int, ...]:
    """Return as many seeds as planned, without those that a sweep or a search has used to choose a setting.

    An earlier search may have used runs with the planned seeds to choose the same setting; they are then not fresh.
    Later seeds take their place.

    Args:
        connection: The open store.
        runs: The planned runs of the sweep.
        group: The grid that has the recommendation.
        recommendation: A recommendation of a setting other than the reference.
        seeds: The planned seeds, which count up.
    """
    try:
        chosen_in = read_choices(connection)
    except UnavailableError:  # the results are kept on this machine, and the confirmation says so
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
    """Return the confirmation of a recommendation after its runs were executed.

    Args:
        connection: The open store, from which the test predictions are read.
        recommendation: The recommendation.
        runs: The confirming runs.
        outcomes: The outcomes of runs by fingerprint.
        margins: The margin for the loss, for each metric.
    """
    seeds = tuple(dict.fromkeys(run.spec.seed for run in runs))
    done = [outcomes[run.spec.fingerprint] for run in runs if run.spec.fingerprint in outcomes]
    ids = [one.run_id for one in done if one.status != "failed"]
    return confirmation_by(connection, (recommendation.strategy, recommendation.reference), ids, margins, seeds)


def confirmation_by(
    connection: Connection, pair: tuple[str, str], run_ids: Sequence[str], margins: Margins, seeds: Sequence[int]
) -> Confirmation:
    """Return the confirmation of a setting by recorded runs. If the store does not answer, it says so.

    Args:
        connection: The open store, from which the test predictions are read.
        pair: The setting, and the reference with which it is compared.
        run_ids: The MLflow ids of the finished runs of both with fresh seeds.
        margins: The margin for the loss, for each metric.
        seeds: The fresh seeds with which both were meant to run.
    """
    strategy, reference = pair
    try:
        results = read_runs(connection, [run_id for run_id in run_ids if not run_id.startswith(SPOOLED)])
        # A search may have chosen a learning rate for each of both. Elsewhere, runs of different rates do not compare.
        frame = results.frame.assign(lr=results.frame["lr"].iloc[0]) if len(results.frame) else results.frame
        return confirmed(frame, partial(read_targets, results), strategy, reference, margins=margins, seeds=seeds)
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
    tags = {name: value for name, value in run.tags.items() if name != TAG} | {CONFIRMS: confirmed_strategy}
    return replace(run, spec=spec, tags=tags)


def _seeds_are_fixed(run: PlannedRun) -> bool:
    """Return whether options fix both random seeds, so that runs with other values of --seed would be equal."""
    return run.request.init_seed is not None and run.request.data_seed is not None


def _costliest_pair(runs: Sequence[RunEstimate], what: str) -> float | None:
    """Return the largest cost, with one seed on all folds, of the reference and one other setting; None if unknown."""
    costs: dict[str, float] = {}
    seeds = len({run.seed for run in runs})
    for run in runs:
        cost = getattr(run, what)
        if cost is None:
            return None
        costs[run.strategy] = costs.get(run.strategy, 0.0) + cost / seeds
    reference = costs.pop(REFERENCE, None)
    highest = sorted(costs.values(), reverse=True)
    if reference is not None:
        return reference + highest[0] if highest else 0.0
    return sum(highest[:2]) if len(highest) > 1 else 0.0


def _number_of_seeds(seeds: Sequence[int]) -> str:
    return several(len(seeds), "seed") + f" ({', '.join(map(str, seeds))})"
