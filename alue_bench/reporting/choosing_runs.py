"""Exclusion of the runs that were used to choose a setting from the comparison of that setting.

A sweep or a search tags the runs that it used to choose a setting (`tracking.selection_tags`). The setting was partly
chosen because these runs were lucky, so that their difference from full fine-tuning is biased. A comparison uses the
setting's other runs only. If there are no other runs, no difference is computed, and a note names the command that
confirms the setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alue_bench.evaluation.significance import FEWEST_SEEDS
from alue_bench.messages.redaction import redact
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.request import LARGEST_SEED
from alue_bench.reporting.grid import REFERENCE
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT, tracking_uri
from alue_bench.tracking.reproduction import options_of, row_options

Run = dict[Any, Any]
"""A row of the frame of runs: one run's values by column."""
MOST_OTHERS = 3
"""The largest number of strategies that the command to confirm a baseline runs for the comparison with it."""


@dataclass(frozen=True)
class ChoosingRuns:
    """The runs that were used to choose settings, among the runs of one task and model that can be compared."""

    left_out: Mapping[str, tuple[str, ...]]
    """The ids of the runs that are left out, for each strategy that has other runs."""
    unconfirmed: Mapping[str, Sequence[Run]]
    """The runs of each strategy that has no others."""

    def explains(self, strategy: str, baseline: str) -> bool:
        """Return whether a strategy has no difference from the baseline because one of both is unconfirmed."""
        return strategy != baseline and (strategy in self.unconfirmed or baseline in self.unconfirmed)

    def notes(self, by_strategy: Mapping[str, Sequence[Run]], baseline: str) -> list[str]:
        """Return a note for each strategy that has runs that were used to choose it.

        Args:
            by_strategy: The runs that are compared, by strategy.
            baseline: The strategy with which the others are compared.
        """
        notes = [
            f"{name}: {len(ids)} {'run is' if len(ids) == 1 else 'runs are'} left out, since the strategy was chosen "
            f"by {'it' if len(ids) == 1 else 'them'}"
            for name, ids in self.left_out.items()
        ]
        for name, runs in self.unconfirmed.items():
            seeds = sorted({int(run["seed"]) for run in runs})
            said = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
            others = {other: by_strategy.get(other, ()) for other in _compared_with(name, baseline, by_strategy)}
            command = confirming_command(name, runs, others)
            notes.append(
                f"{name}: no verdict, since it was chosen among others by its runs with {said}, whose scores are "
                f"therefore too high on average; confirm it with other seeds: {command}{unrecorded_options(runs)}"
            )
        return notes


def without_choosing_runs(
    by_strategy: Mapping[str, Sequence[Run]],
) -> tuple[dict[str, list[Run]], ChoosingRuns]:
    """Separate the runs that were used to choose settings from the other runs.

    Returns:
        The runs by strategy: the independent ones or, if a strategy has none, all of them; and what was separated.
    """
    kept: dict[str, list[Run]] = {}
    left_out: dict[str, tuple[str, ...]] = {}
    unconfirmed: dict[str, Sequence[Run]] = {}
    for name, runs in by_strategy.items():
        independent = [run for run in runs if not isinstance(run.get("chosen_in"), str)]
        kept[name] = independent or list(runs)
        if not independent:
            unconfirmed[name] = runs
        elif len(independent) < len(runs):
            left_out[name] = tuple(str(run["run_id"]) for run in runs if isinstance(run.get("chosen_in"), str))
    return kept, ChoosingRuns(left_out, unconfirmed)


def confirming_command(
    strategy: str, runs: Sequence[Run], others: Mapping[str, Sequence[Run]], number: int = FEWEST_SEEDS
) -> str:
    """Return the command that runs strategies with fresh seeds, on the rows and in the store of recorded runs.

    Args:
        strategy: The strategy to confirm.
        runs: The recorded runs of the strategy.
        others: The recorded runs of each strategy with which it is compared.
        number: The number of fresh seeds. They count up from the last recorded one.
    """
    recorded = [*runs, *(run for of_other in others.values() for run in of_other)]
    last = min(max(int(run["seed"]) for run in recorded), LARGEST_SEED - number)
    return command_line("run", options=options_beside(runs[0], [*others, strategy], range(last + 1, last + 1 + number)))


def options_beside(run: Run, strategies: Sequence[str], seeds: Sequence[int]) -> dict[str, object]:
    """Return the options of `alue-bench run` for other strategies or seeds under the conditions of a recorded run.

    They select the same task, model, hyper-parameters, rows and store.

    Args:
        run: The recorded run, a row of `Results.frame`.
        strategies: The strategies to run.
        seeds: The seeds to run each of them with.
    """
    from alue_bench.contract.registry import load_registry

    options: dict[str, object] = {
        **options_of(run, load_registry()),
        **row_options(run),
        "strategy": list(strategies),
        "seed": list(seeds),
        "sample": run.get("data_source") == "sample",
    }
    folds, experiment, uri = run.get("folds"), run.get("experiment"), run.get("tracking_uri")
    if isinstance(folds, int):
        options["folds"] = folds
    if isinstance(experiment, str) and experiment != DEFAULT_EXPERIMENT:
        options["experiment"] = experiment
    if isinstance(uri, str) and uri != redact(tracking_uri(None)):
        options["tracking_uri"] = uri
    return options


def unrecorded_options(runs: Sequence[Run]) -> str:
    """Return a remark for the command that confirms a strategy if older runs did not record which rows they used."""
    if isinstance(runs[0].get("row_options"), str):
        return ""
    return " (add --limit-train, --limit-eval or --drop-bad if these runs had them, which was not recorded)"


def _compared_with(strategy: str, baseline: str, by_strategy: Mapping[str, Sequence[Run]]) -> list[str]:
    """Return the strategies that must run with the same fresh seeds: the baseline or, to confirm it, some others.

    Where many strategies are compared with a baseline, they are represented by `full`, or else by the first ones.
    """
    if strategy != baseline:
        return [baseline]
    others = [name for name in by_strategy if name != baseline]
    return others if len(others) <= MOST_OTHERS else [REFERENCE] if REFERENCE in others else others[:MOST_OTHERS]
