"""Messages about runs that `rank-selectors` or `advise` needs and the store lacks, with commands that execute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alue_bench.contract.cells import Cell
from alue_bench.contract.registry import Registry
from alue_bench.messages.suggestion import command_line
from alue_bench.reporting.choosing_runs import Run, options_under_same_conditions
from alue_bench.reporting.swept_tasks import MIN_CELLS, SweptTask

if TYPE_CHECKING:
    from alue_bench.tracking.reading import Results

SUGGESTED_GRID = "bottom=0..12/2,top=0..12/2"
"""The grid that messages suggest: 28 freezing settings for a model with twelve layers."""
SUGGESTED_SEEDS = 3
"""The number of seeds that messages suggest."""
GRID_OPTIONS = ("strategy", "seed", "init_seed", "data_seed")
"""The options that a suggested `sweep` command does not copy from a recorded run, because the command sets strategies
and seeds by `--grid` and `--seeds`."""


def sweep_to_run(results: Results) -> str:
    """Return a message that the store has no sweep, with a command that starts one on the task of the newest run.

    Args:
        results: The finished runs in the store; at least one.
    """
    options = options_of_sweep(dict(results.frame.iloc[-1]))
    return (
        f"experiment '{results.connection.experiment}' has no sweep on which full fine-tuning learnt something. "
        f"It needs at least {MIN_CELLS} cells under the same conditions, with full among them. Make one with: "
        f"{command_line('sweep', options={**options, 'grid': SUGGESTED_GRID, 'seeds': SUGGESTED_SEEDS})}"
    )


def selectors_to_run(sweeps: Sequence[SweptTask], registry: Registry) -> str:
    """Return a message that no selector ran under the conditions of the sweeps, with a command that runs selectors.

    A selector is a strategy that chooses its layers by a probe.

    Args:
        sweeps: The sweeps; at least one.
        registry: The plugins' declarations, among them the selectors.
    """
    first = sweeps[0]
    seeds = sorted({seed for runs in first.cells.values() for seed in runs})
    options = options_under_same_conditions(first.example, selectors_of(registry), seeds)
    where = f"{first.task}" + (f" and {len(sweeps) - 1} more" if len(sweeps) > 1 else "")
    return (
        f"no strategy that chooses its layers by a probe ran under the conditions of a sweep (sweeps of: {where}). Run "
        f"them with: {command_line('run', options=options)}"
    )


def selectors_of(registry: Registry) -> list[str]:
    """Return one strategy of each family of selectors: the last of the example names that the family declares."""
    examples = (declared.value.examples for declared in registry.families)
    return [names[-1] for names in examples if names and registry.strategy(names[-1])[0].chooses]


def options_of_sweep(run: Run) -> dict[str, object]:
    """Return the options of `sweep`, except grid and seeds, for a sweep under the conditions of a recorded run."""
    return {
        name: value for name, value in options_under_same_conditions(run, (), ()).items() if name not in GRID_OPTIONS
    }


def grid_of(cells: Sequence[Cell]) -> str:
    """Return a value of `--grid` whose grid contains the given freezing settings.

    Args:
        cells: The freezing settings, as pairs (bottom, top) of numbers of frozen layers.
    """
    axes = {name: sorted({cell[place] for cell in cells}) for place, name in enumerate(("bottom", "top"))}
    return ",".join(f"{name}={','.join(map(str, values))}" for name, values in axes.items())
