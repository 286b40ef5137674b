"""Campaigns: a plan is disturbed, restarted until it is complete, and then checked by its MLflow store and scores."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .outages import Invoke
from .plan import WAYS, Alone, PlanUnderTest, Way, last_line, scores
from .processes import Started
from .store import Verdict, stored_runs, verdict

STARTS_IN_A_FRESH_STORE = 5
"""The number of the start before which an empty store is put in place if there is none yet; otherwise most kills would
hit the creation of the store."""
MOST_STARTS = 20
"""The number of starts of one plan, beyond the number of kills, after which the plan is given up as incomplete."""


@dataclass
class Campaign:
    """The result of a campaign."""

    name: str
    seconds: float = 0.0
    kills: int = 0
    plans: int = 0
    """The number of completed plans."""
    verdicts: list[Verdict] = field(default_factory=list)
    other_scores: int = 0
    """The number of runs whose scores differ from those of the undisturbed plan."""
    problems: list[str] = field(default_factory=list)
    """The unexpected ends of processes, in a sentence each."""

    @property
    def good(self) -> bool:
        """True if all checks of the campaign passed."""
        return bool(self.verdicts) and all(v.good for v in self.verdicts) and not (self.other_scores or self.problems)

    def of_all(self, name: str) -> int:
        """Return the sum of a field of `Verdict`, such as "lost", over all verdicts."""
        return sum(getattr(one, name) for one in self.verdicts)


def killing_campaign(
    bench: PlanUnderTest,
    way: Way,
    kills: int,
    alone: Alone,
    chance: random.Random,
    cluster: tuple[str, int] | None,
    progress: Callable[[str], None],
) -> Campaign:
    """Kill and restart the plan until the number of kills is reached and the last plan is complete.

    Args:
        bench: The plan under test.
        way: The way to execute the plan.
        kills: The number of kills.
        alone: The results of the undisturbed plan.
        chance: The random generator that chooses which process is killed, and when.
        cluster: The address of the Ray cluster and the id of its process, or None if the way needs no cluster.
        progress: A function that is called with a line of text after each kill.
    """
    campaign = Campaign(f"{kills} SIGKILLs, {way.name}")
    began = time.monotonic()
    expected = alone.scores
    while campaign.kills < kills and not campaign.problems:
        store, starts = bench.begin(fresh=not campaign.plans), 0
        while True:
            starts += 1
            if starts == STARTS_IN_A_FRESH_STORE:
                bench.provide(store)
            if starts > kills + MOST_STARTS:
                campaign.problems.append("a plan did not complete")
                break
            process = bench.invoke(store, way, cluster=cluster)
            while process.code is None and campaign.kills < kills:
                victim = chance.choice(way.victims)
                if process.wait(chance.uniform(0, way.span * alone.seconds)) is None and process.kill(victim):
                    campaign.kills += 1
                    progress(f"{way.name}: {campaign.kills} of {kills} kills, {campaign.plans} plans complete")
                    if victim != "worker":
                        process.wait()
            code = process.wait()
            if code == 0:
                _judge(campaign, store, process, expected)
                break
            if code not in (-9, 1):  # 1: a run failed because its workers were killed twice; the restart does it again
                campaign.problems.append(f"exit code {code}: {last_line(process.errors)}")
                break
    campaign.seconds = time.monotonic() - began
    return campaign


def together_campaign(bench: PlanUnderTest, together: int, alone: Alone) -> Campaign:
    """Start the plan in `together` processes at once, on a store that does not exist yet."""
    campaign = Campaign(f"{together} invocations on one fresh store")
    began = time.monotonic()
    store = bench.begin(fresh=True)
    processes = [bench.invoke(store, WAYS["local"], name=f"process{place}") for place in range(together)]
    for place, process in enumerate(processes, start=1):
        code = process.wait()
        if code:
            campaign.problems.append(f"process {place} ended with exit code {code}: {last_line(process.errors)}")
    if not campaign.problems:
        for process in processes:
            campaign.other_scores += differing(scores(process.document), alone.scores)
    campaign.plans = 1
    campaign.verdicts.append(verdict(stored_runs(store / "mlflow.db"), set(alone.scores)))
    campaign.seconds = time.monotonic() - began
    return campaign


def place_campaign(
    bench: PlanUnderTest,
    name: str,
    disturb: Callable[[Invoke, Path, set[str]], tuple[Verdict, list[str], Started]],
    alone: Alone,
) -> Campaign:
    """Execute a plan whose store becomes unavailable for a while.

    Args:
        bench: The plan under test.
        name: The name of the campaign.
        disturb: The function that executes and disturbs the plan: `stop_the_server` or `fill_the_disk`.
        alone: The results of the undisturbed plan.
    """
    campaign = Campaign(name, plans=1)
    began = time.monotonic()

    def invoke(store: Path, options: tuple[str, ...]) -> Started:
        return bench.invoke(store, Way("local", options, (), 0.0))

    last, problems, process = disturb(invoke, bench.begin(), set(alone.scores))
    campaign.verdicts.append(last)
    campaign.problems += problems
    if not problems:
        campaign.other_scores = differing(scores(process.document), alone.scores)
    campaign.seconds = time.monotonic() - began
    return campaign


def _judge(campaign: Campaign, store: Path, process: Started, expected: Mapping[str, Mapping[str, float]]) -> None:
    """Check a completed plan and add the verdict to the campaign's result."""
    campaign.plans += 1
    campaign.verdicts.append(verdict(stored_runs(store / "mlflow.db"), set(expected)))
    campaign.other_scores += differing(scores(process.document), expected)


def differing(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> int:
    """Return the number of expected runs that are missing or have other scores than expected."""
    return sum(actual.get(fingerprint) != values for fingerprint, values in expected.items())
