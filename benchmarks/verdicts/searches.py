"""`python -m benchmarks.verdicts searches`: how often `alue-bench search` errs and what it saves, by simulation.

Searches are simulated on the tasks (worlds) of `benchmarks.verdicts.worlds`. The functions that make decisions are
those of `alue-bench search`. The true loss of a setting is its mean score, over all seeds and examples, subtracted from
that of full fine-tuning.

| column | meaning |
| --- | --- |
| error | share of the searches whose answer (the returned setting) has a true loss above tolerance + margin |
| ± | Monte-Carlo standard error of the column "error" |
| full returned | share of the searches that return full fine-tuning |
| cost of the answer | mean training FLOPs of the answer, as a share of full fine-tuning's |
| possible | the same for the cheapest setting whose true loss is within the tolerance, in place of the answer |
| spent | mean cost of the search, as a share of the cost of running every setting once |

Exit codes: 0 if the error is at most `--level` plus `ACCEPTED` in every kind of world; 1 otherwise; 2 misuse.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.searching.candidates import parse_share
from alue_bench.searching.policy import with_best_reference
from benchmarks.command_line import Parser, run_command, say
from benchmarks.tables import Sheet, show, write_page
from benchmarks.verdicts.worlds import WORLDS, World, question, search

ACCEPTED = 0.02
"""The amount by which the simulated rate of errors may exceed `--level`, the rate that a search is meant to keep."""


@dataclass(frozen=True)
class Searched:
    """The simulated searches in one kind of world."""

    world: str
    answers: tuple[tuple[float, float, float, float], ...]
    """For each search: 1 if its answer loses more than tolerance + margin, else 0; the cost of the answer; the cost of
    the cheapest setting within the tolerance; the cost of the search. The cost of the search is a share of the cost of
    running every setting once; the other costs are shares of full fine-tuning's cost."""

    @property
    def error(self) -> float:
        """The share of the searches whose answer loses more than tolerance + margin."""
        return self._mean(0)

    @property
    def monte_carlo(self) -> float:
        """The Monte-Carlo standard error of `error`."""
        return math.sqrt(self.error * (1 - self.error) / len(self.answers))

    @property
    def full_returned(self) -> float:
        """The share of the searches that return full fine-tuning."""
        return sum(answer[1] == 1.0 for answer in self.answers) / len(self.answers)

    @property
    def cost(self) -> float:
        """The mean cost of the answers, as a share of full fine-tuning's."""
        return self._mean(1)

    @property
    def possible(self) -> float:
        """The mean cost of the cheapest settings within the tolerance, as a share of full fine-tuning's."""
        return self._mean(2)

    @property
    def spent(self) -> float:
        """The mean cost of the searches, as a share of the cost of running every setting once."""
        return self._mean(3)

    def _mean(self, index: int) -> float:
        """Return the mean over all searches of one of the four numbers in `answers`, from its index."""
        return sum(answer[index] for answer in self.answers) / len(self.answers)


def simulate(
    name: str, generator: Callable[[int], World], draws: range, *, budget: float = 0.25, **changes: Any
) -> Searched:
    """Simulate searches in worlds of one kind.

    Args:
        name: The name of the kind.
        generator: The function that draws a world of this kind from a seed of the random generator.
        draws: The seeds of the worlds, one for each search.
        budget: The budget, as a share of the cost of running every setting once.
        changes: Fields of `alue_bench.searching.policy.Question` that differ from the defaults of `alue-bench search`.
    """
    answers = []
    for draw in draws:
        world = generator(draw)
        grid = sum(c.cost for c in world.options)
        asked = question(world, budget=budget * grid, **changes)
        decision, evaluations = search(world, asked)
        reference = world.score[with_best_reference(asked, evaluations).full.name]
        answer = decision.best.candidate
        tolerance, wrong = asked.tolerance.of(world.full), reference - world.score[answer.name] > asked.limit(reference)
        possible = min(c.cost for c in world.options if world.loss(c.name) <= tolerance + 1e-12)
        answers.append((float(wrong), answer.cost, possible, decision.spent / grid))
    return Searched(name, tuple(answers))


def sheet(searched: Sequence[Searched], title: str) -> Sheet:
    """Return the rates as a table."""

    def percent(value: float) -> str:
        return f"{100 * value:.1f} %"

    return Sheet(
        title,
        ("world", "error", "±", "full returned", "cost of the answer", "possible", "spent"),
        tuple(
            (
                entry.world,
                percent(entry.error),
                percent(entry.monte_carlo),
                f"{entry.full_returned:.0%}",
                f"{entry.cost:.0%}",
                f"{entry.possible:.0%}",
                percent(entry.spent),
            )
            for entry in searched
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: simulate, print the table, and return the exit code."""
    parser = Parser(prog="python -m benchmarks.verdicts searches", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--simulations", type=int, default=1000, help="searches in each world (default: 1000)")
    add("--world", action="append", choices=list(WORLDS), help="a kind of world (default: all); may be repeated")
    add("--budget", default="25%", help="budget of a search (default: 25%%)")
    add("--level", type=float, default=0.1, help="stated error (default: 0.1)")
    add("--no-short-runs", action="store_true", help="without low-fidelity runs")
    add("--first", type=int, default=0, help="number of the first draw (default: 0)")
    add("--markdown", type=Path, help="file for the table in Markdown")
    return run_command(parser, arguments, _simulated)


def _simulated(options: argparse.Namespace, command: str) -> int:
    """Check the options, simulate, print the table, and return the exit code."""
    if options.simulations < 1 or not 0 < options.level < 0.5 or options.first < 0:
        raise UsageError("--simulations must be at least 1, --level between 0 and 0.5, --first at least 0")
    changes = {
        "budget": parse_share("--budget", options.budget),
        "level": options.level,
        "short_runs": not options.no_short_runs,
    }
    searched = []
    for name in options.world or WORLDS:
        draws = range(options.first, options.first + options.simulations)
        searched.append(simulate(name, WORLDS[name], draws, **changes))
        say(f"{name}: error {searched[-1].error:.1%} ± {searched[-1].monte_carlo:.1%}")
    worst, accepted = max(entry.error for entry in searched), options.level + ACCEPTED
    held = worst <= accepted
    title = f"{options.simulations:,} searches in each world, budget {options.budget}, level {options.level:g}"
    lines = [
        f"largest error: {worst:.1%}, which is {'not ' if held else ''}above the accepted {accepted:.1%}",
        f"`{command}`",
    ]
    sheets = [sheet(searched, title)]
    show(sheets, lines)
    write_page(options.markdown, sheets, lines)
    return 0 if held else 1
