"""The exclusion of runs by which a setting was chosen from the comparison of that setting with others.

A sweep or a search tags the runs by which it chose a setting (`tracking.selection_tags`). The setting was partly chosen
because these runs were lucky, so that their difference from full fine-tuning is biased. A comparison uses the setting's
other runs only. If there are no others, there is no difference, and a note names the command that confirms the setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alue_bench.evaluation.significance import FEWEST_SEEDS
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.request import LARGEST_SEED
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT
from alue_bench.tracking.reproduction import options_of

Run = dict[Any, Any]
"""A row of the frame of runs: one run's values by column."""


@dataclass(frozen=True)
class ChoosingRuns:
    """The runs by which settings were chosen, among the runs of one task and model that can be compared."""

    left_out: Mapping[str, tuple[str, ...]]
    """The ids of the runs that are left out, for each strategy that has other runs."""
    unconfirmed: Mapping[str, Sequence[Run]]
    """The runs of each strategy that has no others."""

    def explains(self, strategy: str, baseline: str) -> bool:
        """Return whether a strategy has no difference from the baseline because one of both is unconfirmed."""
        return strategy != baseline and (strategy in self.unconfirmed or baseline in self.unconfirmed)

    def notes(self, by_strategy: Mapping[str, Sequence[Run]], baseline: str) -> list[str]:
        """Return a note for each strategy that has runs by which it was chosen.

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
            command = confirming_command(name, runs, baseline, by_strategy.get(baseline, ()))
            notes.append(
                f"{name}: no verdict, since it was chosen among others by its runs with {said}, whose scores are "
                f"therefore too high on average; confirm it with other seeds: {command}"
            )
        return notes


def without_choosing_runs(
    by_strategy: Mapping[str, Sequence[Run]],
) -> tuple[dict[str, list[Run]], ChoosingRuns]:
    """Separate the runs by which settings were chosen from the others.

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
    strategy: str, runs: Sequence[Run], baseline: str, base: Sequence[Run], number: int = FEWEST_SEEDS
) -> str:
    """Return the command that runs a strategy and the baseline with fresh seeds, under the conditions of recorded runs.

    Args:
        strategy: The strategy to confirm.
        runs: The recorded runs of the strategy.
        baseline: The strategy with which it is compared.
        base: The recorded runs of the baseline.
        number: The number of fresh seeds. They count up from the last recorded one.
    """
    from alue_bench.contract.registry import load_registry

    first = runs[0]
    last = min(max(int(run["seed"]) for run in (*runs, *base)), LARGEST_SEED - number)
    options: dict[str, object] = {
        **options_of(first, load_registry()),
        "strategy": list(dict.fromkeys((baseline, strategy))),
        "seed": [last + 1 + place for place in range(number)],
        "sample": first.get("data_source") == "sample",
    }
    folds, experiment = first.get("folds"), first.get("experiment")
    if isinstance(folds, int):
        options["folds"] = folds
    if isinstance(experiment, str) and experiment != DEFAULT_EXPERIMENT:
        options["experiment"] = experiment
    return command_line("run", options=options)
