"""The separation of runs that were used to choose a setting from independent runs of the same setting.

A sweep or a search tags the runs by which it chose a setting (`tracking.selection_tags`). The setting was chosen partly
because these runs were lucky, so that their difference from full fine-tuning is biased. A comparison therefore uses
only the other, independent runs of the setting. If there are none, no difference is computed, and a note states the
command that confirms the setting, that is, runs it with fresh seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alue_bench.evaluation.significance import MIN_SEEDS
from alue_bench.messages.redaction import redact
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.request import LARGEST_SEED
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT, tracking_uri
from alue_bench.tracking.reproduction import options_of, row_options

REFERENCE = "full"
"""The strategy with which settings are compared: full fine-tuning."""
Run = dict[Any, Any]
"""A row of the frame of runs: one run's values by column."""
MAX_OTHER_STRATEGIES = 3
"""The largest number of other strategies in the command that confirms a baseline."""


@dataclass(frozen=True)
class ChoosingRuns:
    """The runs that were used to choose settings, among the comparable runs of one task and model."""

    left_out: Mapping[str, tuple[str, ...]]
    """The ids of the runs by which a strategy was chosen, for each strategy that also has other runs."""
    unconfirmed: Mapping[str, Sequence[Run]]
    """The runs by which a strategy was chosen, for each strategy that has no other runs."""

    def explains(self, strategy: str, baseline: str) -> bool:
        """Return whether a strategy cannot be compared, because all its runs, or all of the baseline's, chose it.

        The result is False for the baseline itself.
        """
        return strategy != baseline and (strategy in self.unconfirmed or baseline in self.unconfirmed)

    def notes(self, by_strategy: Mapping[str, Sequence[Run]], baseline: str) -> list[str]:
        """Return a note on each strategy of which some or all runs were used to choose it.

        Args:
            by_strategy: The comparable runs of each strategy.
            baseline: The strategy with which all other strategies are compared.
        """
        notes = [
            f"{name}: {len(ids)} {'run is' if len(ids) == 1 else 'runs are'} left out, since the strategy was chosen "
            f"by {'it' if len(ids) == 1 else 'them'}"
            for name, ids in self.left_out.items()
        ]
        for name, runs in self.unconfirmed.items():
            seeds = sorted({int(run["seed"]) for run in runs})
            seeds_text = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
            others = {other: by_strategy.get(other, ()) for other in _compared_with(name, baseline, by_strategy)}
            command = confirming_command(name, runs, others)
            notes.append(
                f"{name}: no verdict, since it was chosen among others by its runs with {seeds_text}, whose scores are "
                f"therefore too high on average; confirm it with other seeds: {command}{unrecorded_options(runs)}"
            )
        return notes


def without_choosing_runs(
    by_strategy: Mapping[str, Sequence[Run]],
) -> tuple[dict[str, list[Run]], ChoosingRuns]:
    """Separate the runs that were used to choose settings from the other runs.

    Returns:
        The runs of each strategy that were not used to choose it, or all its runs if all were used; and the runs that
        were used to choose settings.
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
    strategy: str, runs: Sequence[Run], others: Mapping[str, Sequence[Run]], number: int = MIN_SEEDS
) -> str:
    """Return the command that confirms a strategy.

    The command runs the strategy, and the strategies with which it is compared, with fresh seeds. It selects the same
    rows, hyper-parameters and MLflow store as the recorded runs.

    Args:
        strategy: The strategy to confirm.
        runs: The recorded runs of the strategy.
        others: The strategies with which it is compared, with their recorded runs.
        number: The number of fresh seeds, which follow the largest recorded seed.
    """
    recorded = [*runs, *(run for other_runs in others.values() for run in other_runs)]
    last = min(max(int(run["seed"]) for run in recorded), LARGEST_SEED - number)
    return command_line(
        "run", options=options_under_same_conditions(runs[0], [*others, strategy], range(last + 1, last + 1 + number))
    )


def options_under_same_conditions(run: Run, strategies: Sequence[str], seeds: Sequence[int]) -> dict[str, object]:
    """Return the options of `alue-bench run` for other strategies or seeds under the conditions of a recorded run.

    The options select the same task, model, hyper-parameters, rows and MLflow store as the recorded run.

    Args:
        run: The recorded run, a row of `Results.frame`.
        strategies: The strategies to run.
        seeds: The seeds with which to run each strategy.
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
    """Return a remark on options that a command to confirm a strategy may need; empty if it needs none.

    Runs of older versions of alue-bench did not record the options that selected their rows.
    """
    if isinstance(runs[0].get("row_options"), str):
        return ""
    return " (add --limit-train, --limit-eval or --drop-bad if these runs had them, which was not recorded)"


def _compared_with(strategy: str, baseline: str, by_strategy: Mapping[str, Sequence[Run]]) -> list[str]:
    """Return the strategies that must run with the same fresh seeds as a strategy that is to be confirmed.

    If the strategy is not the baseline, only the baseline is returned. If it is the baseline, all other strategies are
    returned. If there are more than `MAX_OTHER_STRATEGIES` of them, only `full` is returned or, if `full` is not among
    them, the first `MAX_OTHER_STRATEGIES`.
    """
    if strategy != baseline:
        return [baseline]
    others = [name for name in by_strategy if name != baseline]
    return (
        others
        if len(others) <= MAX_OTHER_STRATEGIES
        else [REFERENCE]
        if REFERENCE in others
        else others[:MAX_OTHER_STRATEGIES]
    )
