"""`python -m benchmarks.verdicts`: how often the verdicts of `alue-bench compare` are wrong, by simulation.

The scores of a simulated comparison follow the crossed model of `alue_bench.evaluation.significance`:

    score difference for seed s and example i  =  true difference + seed effect + example effect + remaining effect

The true loss is the true difference with the opposite sign. It is zero, half the margin, the margin, or twice the
margin. Each simulated comparison is tested and judged by the functions that `compare` uses. If the true loss is the
margin or more, a verdict that excludes a loss as large as the margin is wrong, and the rate of these verdicts is the
error rate. If the true loss is less, such a verdict is right, and the rate of these verdicts is the power.

The columns show rates among all comparisons:

| column | meaning |
| --- | --- |
| within | comparisons whose verdict is "within the margin", "worse, within the margin" or "better" |
| ± | Monte-Carlo standard error of the column "within" |
| worse, within both | comparisons whose verdict is "worse, within the margin" |
| worse, better, inconclusive | comparisons with the verdict that the column names |

Exit codes: 0 if the error rate for a true loss equal to the margin is at most `MOST_ERROR`, with every number of seeds;
1 otherwise; 2 misuse.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alue_bench.contract.errors import UsageError
from alue_bench.evaluation.significance import MIN_SEEDS, crossed_test_of
from alue_bench.reporting.comparison import Verdict, verdict_of
from benchmarks.command_line import Parser, run_command
from benchmarks.tables import Sheet, show, write_page

MOST_ERROR = 0.065
"""The largest acceptable rate of the verdicts `WITHIN` if the true loss is the margin; the nominal rate is 0.05."""
LOSSES = (("0", 0.0), ("margin / 2", 0.5), ("margin", 1.0), ("2 × margin", 2.0))
"""The simulated true losses: for each one its name, and its size as a multiple of the margin."""
WITHIN = (Verdict.WITHIN_MARGIN, Verdict.WORSE_WITHIN_MARGIN, Verdict.BETTER)
"""The verdicts that exclude a loss as large as the margin."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The parameters of simulated comparisons: standard deviations in units of the score, and the number of examples.

    A difference of 0.01 is one point.
    """

    seed_sd: float = 0.018
    """The standard deviation of the effect that a seed has on all examples alike."""
    example_sd: float = 0.2
    """The standard deviation of the effect that an example has for all seeds alike."""
    rest_sd: float = 0.4
    """The standard deviation of the remaining effect, which is drawn for each seed and example separately."""
    examples: int = 1000
    """The number of test examples."""


@dataclass(frozen=True)
class Rates:
    """The verdicts of the simulated comparisons with one number of seeds and one true loss."""

    seeds: int
    loss: str
    """The name of the true loss, as in `LOSSES`."""
    verdicts: Counter[Verdict]

    @property
    def simulations(self) -> int:
        """The number of simulated comparisons."""
        return self.verdicts.total()

    def rate(self, *verdicts: Verdict) -> float:
        """Return the share of the comparisons whose verdict is one of `verdicts`."""
        return sum(self.verdicts[verdict] for verdict in verdicts) / self.simulations

    @property
    def error(self) -> float:
        """The Monte-Carlo standard error of the rate of the verdicts in `WITHIN`."""
        rate = self.rate(*WITHIN)
        return math.sqrt(rate * (1 - rate) / self.simulations)


def simulate(world: World, seeds: int, margin: float, simulations: int, *, seed: int = 0) -> Iterator[Rates]:
    """Simulate comparisons with one number of seeds; yield the verdicts for each true loss in `LOSSES`.

    The random numbers are the same for all true losses.

    Args:
        world: The standard deviations and the number of examples.
        seeds: The number of seeds of a comparison.
        margin: The margin, as a difference of scores.
        simulations: The number of comparisons.
        seed: The seed of the random generator.
    """
    import numpy as np

    rng = np.random.default_rng([seed, seeds])
    verdicts: dict[str, Counter[Verdict]] = {name: Counter() for name, _ in LOSSES}
    for _ in range(simulations):
        differences = (
            world.seed_sd * rng.standard_normal((seeds, 1))
            + world.example_sd * rng.standard_normal((1, world.examples))
            + world.rest_sd * rng.standard_normal((seeds, world.examples))
        )
        for name, multiple in LOSSES:
            shifted = differences - multiple * margin
            test = crossed_test_of(shifted.mean(axis=1), shifted)
            verdicts[name][verdict_of(test, test.p_value, margin)] += 1
    for name, _ in LOSSES:
        yield Rates(seeds, name, verdicts[name])


def sheet(rates: Sequence[Rates], title: str) -> Sheet:
    """Return the rates as a table."""

    def percent(value: float) -> str:
        return f"{100 * value:.1f} %"

    return Sheet(
        title,
        ("seeds", "true loss", "within", "±", "worse, within both", "worse", "better", "inconclusive"),
        tuple(
            (
                str(entry.seeds),
                entry.loss,
                percent(entry.rate(*WITHIN)),
                percent(entry.error),
                percent(entry.rate(Verdict.WORSE_WITHIN_MARGIN)),
                percent(entry.rate(Verdict.WORSE)),
                percent(entry.rate(Verdict.BETTER)),
                percent(entry.rate(Verdict.INCONCLUSIVE)),
            )
            for entry in rates
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: simulate, print the table, and return the exit code."""
    parser = Parser(prog="python -m benchmarks.verdicts", description=(__doc__ or "").partition("\n")[0])
    world = World()
    add = parser.add_argument
    add("--simulations", type=int, default=4000, help="comparisons for each number of seeds (default: 4000)")
    add("--seeds", default="3,5,10", help="numbers of seeds (default: 3,5,10)")
    add("--margin", type=float, default=2.0, help="margin in points (default: 2)")
    add("--seed-sd", type=float, default=100 * world.seed_sd, help="SD over seeds in points (default: 1.8)")
    add("--example-sd", type=float, default=100 * world.example_sd, help="SD over examples in points (default: 20)")
    add("--rest-sd", type=float, default=100 * world.rest_sd, help="remaining SD in points (default: 40)")
    add("--examples", type=int, default=world.examples, help="test examples (default: 1000)")
    add("--markdown", type=Path, help="file for the table in Markdown")
    return run_command(parser, arguments, _simulated)


def _simulated(options: argparse.Namespace, command: str) -> int:
    """Check the options, simulate, print the table, and return the exit code."""
    numbers = [int(number) for number in options.seeds.split(",") if number.strip().isdecimal()]
    if not numbers or min(numbers) < MIN_SEEDS or options.simulations < 1 or options.examples < 2:
        raise UsageError(
            f"--seeds takes numbers from {MIN_SEEDS} on, such as 3,5,10; --simulations must be at least 1, "
            "--examples at least 2"
        )
    world = World(
        seed_sd=options.seed_sd / 100,
        example_sd=options.example_sd / 100,
        rest_sd=options.rest_sd / 100,
        examples=options.examples,
    )
    rates = [entry for seeds in numbers for entry in simulate(world, seeds, options.margin / 100, options.simulations)]
    worst = max(entry.rate(*WITHIN) for entry in rates if entry.loss == "margin")
    held = worst <= MOST_ERROR
    sheets = [
        sheet(rates, f"Verdicts of {options.simulations:,} simulated comparisons, margin {options.margin:g} points")
    ]
    lines = [
        f"error at the margin: at most {100 * worst:.1f} %, which is {'not ' if held else ''}above the accepted "
        f"{100 * MOST_ERROR:.1f} %",
        f"`{command}`",
    ]
    show(sheets, lines)
    write_page(options.markdown, sheets, lines)
    return 0 if held else 1
