"""`python -m benchmarks.verdicts sweeps`: how biased the estimated loss of a recommended setting is, by simulation.

A simulated sweep has the 91 settings of a model of 12 layers, and one seed. The score of a run is

    score on a split  =  mean of the setting  +  effect of the seed  +  effect of the split's examples

A seed's effect belongs to the trained model, so that it is the same on the dev and the test split. A setting is chosen
by dev scores, and confirmed on a test split with fresh seeds. The functions for the choice and for the statistical test
of the confirmation are those of `alue-bench sweep`. The loss of a setting is its score subtracted from that of `full`.
The true loss, that is, the mean over all seeds and examples, is known.

| column | meaning |
| --- | --- |
| full | share of the sweeps that recommend `full` and have nothing to confirm; the other columns leave them out |
| true loss | mean loss of the recommended setting, in points |
| naive bias | mean loss on test with the seed of the choice, minus the true loss, in points; negative: too optimistic |
| confirmed bias | mean loss on test with the fresh seeds, minus the true loss, in points |
| coverage | share of the 95 % intervals of the confirmation that contain the true loss |
| set | mean number of settings that the sweep cannot distinguish from the recommended one, which is included |
| ± | Monte-Carlo standard error of the column before it |

Exit codes: 0 if in every world the absolute confirmed bias is at most `MOST_BIAS` and the coverage at least
`LEAST_COVERAGE`; 1 otherwise; 2 misuse.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.cells import Cell, cell_name
from alue_bench.contract.errors import UsageError
from alue_bench.evaluation.grid_noise import noise_of_neighbours
from alue_bench.evaluation.significance import MIN_SEEDS, crossed_test_of
from alue_bench.planning.grid import BOTTOM_TOP_AXIS, parse_grid
from alue_bench.reporting.grid import recommend
from benchmarks.command_line import Parser, run_command
from benchmarks.tables import Sheet, show, write_page

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Array = np.ndarray[Any, Any]

MOST_BIAS = 0.2
"""The largest acceptable absolute bias of the confirmed loss, in points."""
LEAST_COVERAGE = 0.93
"""The smallest acceptable coverage of the 95 % intervals."""
LAYERS = 12
FULL_SCORE = 0.8
TIME_SD = 0.02
"""The standard deviation of a measured time, as a share of the time."""
SETTING_EXAMPLE_SD, RUN_EXAMPLE_SD = 0.14, 0.28
"""The standard deviations of two effects of an example on scores: of the effect on all runs of one setting alike, and
of the effect on one run alone. The effect on all settings alike cancels in differences, and is left out."""


@dataclass(frozen=True, kw_only=True)
class World:
    """A simulated task."""

    loss: Callable[[Cell], float]
    """A function that takes a setting (numbers of frozen bottom and top layers) and returns its true loss, as a
    difference of scores."""
    seed_sd: float = 0.0127
    """The standard deviation of a run's score over seeds. The difference of two runs then has a standard deviation of
    1.8 points."""
    frozen_factor: float = 1.0
    """The factor by which `seed_sd` is multiplied for settings with frozen layers."""
    dev_examples: int = 1000
    test_examples: int = 1000


def _slope(cell: Cell) -> float:
    """Return a loss that grows linearly with the numbers of frozen bottom and top layers."""
    bottom, top = cell
    return 0.0015 * bottom + 0.003 * top


def _cliff(cell: Cell) -> float:
    """Return no loss if at least four layers are trained, and a large loss otherwise."""
    return 0.0 if sum(cell) <= LAYERS - 4 else 0.15


WORLDS: Mapping[str, World] = {
    "flat": World(loss=lambda cell: 0.0),
    "plateau": World(loss=lambda cell: 0.012 if any(cell) else 0.0),
    "cliff": World(loss=_cliff),
    "slope": World(loss=_slope),
    "noisy frozen seeds": World(loss=_slope, frozen_factor=3.0),
    "seed SD 3 points": World(loss=_slope, seed_sd=0.03),
    "dev of 138 rows": World(loss=_slope, dev_examples=138),
}
"""The simulated tasks. On the *plateau* every setting with frozen layers loses 1.2 points. This is more than the
tolerance of a sweep, which is 1 % of the score of `full` (0.8 points)."""


@dataclass
class Outcomes:
    """The outcomes of simulated sweeps in one world.

    The lists have one entry for each sweep that recommends a setting other than `full`.
    """

    world: str
    sweeps: int = 0
    """The number of simulated sweeps."""
    true: list[float] = field(default_factory=list)
    """The true loss of the recommended setting."""
    naive: list[float] = field(default_factory=list)
    """The loss of the recommended setting on test with the seed by which it was chosen."""
    confirmed: list[float] = field(default_factory=list)
    """The loss of the recommended setting on test with the fresh seeds."""
    covered: list[bool] = field(default_factory=list)
    """True if the 95 % interval of the confirmation contains the true loss."""
    set_sizes: list[int] = field(default_factory=list)
    """The number of settings that the sweep cannot distinguish from the recommended one, which is included."""

    def bias(self, losses: Sequence[float]) -> tuple[float, float]:
        """Return the mean difference of estimated and true losses, in points, and its Monte-Carlo standard error.

        Args:
            losses: The estimated losses, `naive` or `confirmed`.
        """
        import numpy as np

        deviations = 100 * (np.array(losses) - np.array(self.true))
        return float(deviations.mean()), float(deviations.std(ddof=1) / math.sqrt(len(deviations)))

    @property
    def coverage(self) -> tuple[float, float]:
        """The share of the confirmation's intervals that contain the true loss, and its Monte-Carlo standard error."""
        rate = sum(self.covered) / len(self.covered)
        return rate, math.sqrt(rate * (1 - rate) / len(self.covered))

    @property
    def holds(self) -> bool:
        """True if the bias of the confirmed loss and the coverage of its intervals are acceptable."""
        return abs(self.bias(self.confirmed)[0]) <= MOST_BIAS and self.coverage[0] >= LEAST_COVERAGE


def simulate(name: str, sweeps: int, confirm: int = MIN_SEEDS, *, seed: int = 0) -> Outcomes:
    """Simulate sweeps in one world.

    Args:
        name: The name of the world, a key of `WORLDS`.
        sweeps: The number of sweeps.
        confirm: The number of fresh seeds.
        seed: The seed of the random generator.
    """
    import numpy as np

    world, outcomes = WORLDS[name], Outcomes(name, sweeps)
    grid = parse_grid([BOTTOM_TOP_AXIS]).cells(LAYERS)
    names = [cell_name(cell) for cell in grid]
    lost = np.array([world.loss(cell) for cell in grid])
    seed_sds = np.array([world.seed_sd * (world.frozen_factor if any(cell) else 1.0) for cell in grid])
    seconds = np.array([_seconds(cell) for cell in grid])
    full = grid.index((0, 0))
    table = _table(names)
    rng = np.random.default_rng([seed, list(WORLDS).index(name)])
    for _ in range(sweeps):
        model = FULL_SCORE - lost + seed_sds * rng.standard_normal(len(grid))
        dev, test = (
            model
            + rng.standard_normal(len(grid)) * math.hypot(SETTING_EXAMPLE_SD, RUN_EXAMPLE_SD) / math.sqrt(examples)
            for examples in (world.dev_examples, world.test_examples)
        )
        measured = table.assign(
            dev_score=dev,
            test_score=test,
            train_s=seconds * np.exp(TIME_SD * rng.standard_normal(len(grid))),
            dev_error=noise_of_neighbours(dict(zip(grid, map(float, dev), strict=True))),
        )
        chosen = recommend(measured)
        assert chosen is not None
        if chosen.is_reference:
            continue
        at = names.index(chosen.strategy)
        difference = _fresh_differences(world, -lost[at], math.hypot(seed_sds[at], seed_sds[full]), confirm, rng)
        confirmation = crossed_test_of(difference.mean(axis=1), difference)
        outcomes.true.append(float(lost[at]))
        outcomes.naive.append(float(test[full] - test[at]))
        outcomes.confirmed.append(-confirmation.difference)
        outcomes.covered.append(abs(confirmation.difference + lost[at]) <= confirmation.half_width)
        outcomes.set_sizes.append(1 + len(chosen.alternatives))
    return outcomes


def _fresh_differences(world: World, mean: float, seed_sd: float, seeds: int, rng: np.random.Generator) -> Array:
    """Draw the differences between the scores of two settings for fresh seeds and examples, [seeds, examples].

    Args:
        world: The simulated task.
        mean: The true difference of the scores.
        seed_sd: The standard deviation, over seeds, of the score of a run of one setting minus that of the other
            setting.
        seeds: The number of fresh seeds.
        rng: The random generator.
    """
    two = math.sqrt(2)
    return (
        mean
        + seed_sd * rng.standard_normal((seeds, 1))
        + two * SETTING_EXAMPLE_SD * rng.standard_normal((1, world.test_examples))
        + two * RUN_EXAMPLE_SD * rng.standard_normal((seeds, world.test_examples))
    )


def _table(names: Sequence[str]) -> pd.DataFrame:
    """Return a sweep's table of settings in the form of `reporting.grid.cell_table`, with all scores 0.

    The settings have the order of `names`.
    """
    import pandas as pd

    from alue_bench.reporting.grid import DEV, SECONDS, TEST, cell_table

    return cell_table(pd.DataFrame({"strategy": names, "seed": 42, DEV: 0.0, TEST: 0.0, SECONDS: 1.0}))


def _seconds(cell: Cell) -> float:
    """Return the mean training time of a setting in seconds."""
    bottom, top = cell
    trained = LAYERS - bottom - top
    return 5.0 + 3.0 * trained + (2.0 * top if trained else 0.0)


def sheet(all_outcomes: Sequence[Outcomes], title: str) -> Sheet:
    """Return the outcomes as a table."""

    def rows() -> Iterator[tuple[str, ...]]:
        for outcomes in all_outcomes:
            naive, confirmed, coverage = (
                outcomes.bias(outcomes.naive),
                outcomes.bias(outcomes.confirmed),
                outcomes.coverage,
            )
            yield (
                outcomes.world,
                f"{100 * (1 - len(outcomes.true) / outcomes.sweeps):.0f} %",
                f"{100 * sum(outcomes.true) / len(outcomes.true):.2f}",
                *(f"{value:.2f}" for value in (*naive, *confirmed)),
                *(f"{100 * value:.1f} %" for value in coverage),
                f"{sum(outcomes.set_sizes) / len(outcomes.set_sizes):.1f}",
            )

    columns = ("world", "full", "true loss", "naive bias", "±", "confirmed bias", "±", "coverage", "±", "set")
    return Sheet(title, columns, tuple(rows()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: simulate, print the table, and return the exit code."""
    parser = Parser(prog="python -m benchmarks.verdicts sweeps", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--simulations", type=int, default=1000, help="sweeps in each world (default: 1000)")
    add("--confirm", type=int, default=MIN_SEEDS, help=f"fresh seeds (default: {MIN_SEEDS})")
    add("--world", action="append", choices=list(WORLDS), help="world; repeatable (default: all)")
    add("--markdown", type=Path, help="file for the table in Markdown")
    return run_command(parser, arguments, _simulated)


def _simulated(options: argparse.Namespace, command: str) -> int:
    """Check the options, simulate, print the table, and return the exit code."""
    if options.simulations < 2 or options.confirm < 2:
        raise UsageError("--simulations and --confirm must be at least 2")
    all_outcomes = [simulate(name, options.simulations, options.confirm) for name in options.world or WORLDS]
    useless = [outcomes.world for outcomes in all_outcomes if len(outcomes.true) < 2]
    if useless:
        raise UsageError(f"nearly every sweep recommends full in: {', '.join(useless)}; use more --simulations")
    held = all(outcomes.holds for outcomes in all_outcomes)
    title = f"Losses of the recommendations of {options.simulations:,} simulated sweeps, {options.confirm} fresh seeds"
    sheets = [sheet(all_outcomes, title)]
    lines = [
        f"bias of the confirmed loss at most {MOST_BIAS} points and coverage at least {100 * LEAST_COVERAGE:.0f} % in "
        f"every world: {'yes' if held else 'no'}",
        f"`{command}`",
    ]
    show(sheets, lines)
    write_page(options.markdown, sheets, lines)
    return 0 if held else 1
