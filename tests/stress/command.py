"""Check that a plan ends with the results of an undisturbed plan after kills, lost servers and full disks.

    python -m tests.stress --executor local --kills 50
    python -m tests.stress --executor jobs --kills 50
    python -m tests.stress --executor ray --kills 50
    python -m tests.stress --together 8
    python -m tests.stress --server-away 30
    python -m tests.stress --disk-full

A campaign kills the same small plan (SIGKILL) at random moments and restarts it, until `--kills` kills are reached; a
plan that completes before that is started again in an empty store. Each kill hits the main process, the main process
and all workers at once (as in a power failure), or one worker. Whenever a plan completes, every score must equal the
score in the undisturbed plan, and no run may be missing, in state RUNNING, or done twice. `--together N` starts the
plan in N processes at the same time, on a store that does not exist yet. `--server-away S` kills `mlflow server` in the
middle of the plan and restarts it S seconds later. `--disk-full` gives the plan a disk that is too small, and then
makes room.
Without any of these options, all campaigns run.

Exit codes: 0 all checks passed, 1 a check failed, 2 misuse. The program needs a POSIX system.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

from alue_bench.contract.errors import UsageError
from benchmarks.command_line import Parser, run_command, say
from benchmarks.ledger import header, write_json
from benchmarks.tables import NONE, Sheet, number, show

from .campaigns import Campaign, differing, killing_campaign, place_campaign, together_campaign
from .outages import AWAY_S, fill_the_disk, stop_the_server
from .plan import STRATEGIES, WAYS, Alone, PlanUnderTest
from .processes import load_libraries, ray_cluster

MODULE = "tests.stress"
KILLS, SEED, SEEDS, TOGETHER = 50, 1, 5, 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; None takes the arguments of this process."""
    return run_command(_parser(), arguments, lambda options, command: run_campaigns(options, command=command))


def run_campaigns(options: argparse.Namespace, *, command: str) -> int:
    """Run the campaigns that the options name, print the tables, and return the exit code."""
    if not hasattr(os, "fork"):
        raise UsageError("the fault campaign copies processes, which this system cannot")
    chosen = options.executor or options.together or options.server_away or options.disk_full
    ways = [WAYS[name] for name in options.executor or ([] if chosen else WAYS)]
    together = options.together or (0 if chosen else TOGETHER)
    away_s = options.server_away or (0.0 if chosen else AWAY_S)
    load_libraries()
    campaigns: list[Campaign] = []
    undisturbed: dict[str, Alone] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alue-bench-faults-")))
        bench = PlanUnderTest(folder, options.seeds)
        reference = undisturbed["local"] = bench.alone(WAYS["local"])
        for way in ways:
            cluster = stack.enter_context(ray_cluster()) if way.name == "ray" else None
            alone = undisturbed.get(way.name) or bench.alone(way, cluster)
            undisturbed[way.name] = alone
            chance = random.Random(f"{options.seed} {way.name}")
            campaign = killing_campaign(bench, way, options.kills, alone, chance, cluster, say)
            campaign.other_scores += differing(alone.scores, reference.scores)
            campaigns.append(campaign)
        if together:
            campaigns.append(together_campaign(bench, together, reference))
        if away_s:
            stop = partial(stop_the_server, away_s=away_s)
            campaigns.append(place_campaign(bench, f"server away for {away_s:.0f} s", stop, reference))
        if options.disk_full or not chosen:
            campaigns.append(place_campaign(bench, "disk full", fill_the_disk, reference))
    show([campaign_sheet(campaigns), alone_sheet(undisturbed)], [problem for c in campaigns for problem in c.problems])
    if options.json is not None:
        content = header(MODULE, command) | {
            "seed": options.seed,
            "runs": options.seeds * len(STRATEGIES),
            "campaigns": [{**asdict(campaign), "good": campaign.good} for campaign in campaigns],
            "undisturbed": {name: {**asdict(alone), "scores": None} for name, alone in undisturbed.items()},
        }
        write_json(options.json, content)
    return 0 if all(campaign.good for campaign in campaigns) else 1


def campaign_sheet(campaigns: Sequence[Campaign]) -> Sheet:
    """Return the table of the campaigns' results."""
    columns = (
        "campaign",
        "result",
        "kills",
        "plans",
        "finished",
        "cut short",
        "lost",
        "running",
        "doubled",
        "other scores",
        "s",
    )
    rows = [
        (
            campaign.name,
            "held" if campaign.good else "BROKEN",
            str(campaign.kills),
            str(campaign.plans),
            *(str(campaign.of_all(name)) for name in ("finished", "cut_short", "lost", "running", "doubled")),
            str(campaign.other_scores),
            f"{campaign.seconds:.0f}",
        )
        for campaign in campaigns
    ]
    return Sheet("What a plan goes through, and what is left of it", columns, tuple(rows))


def alone_sheet(undisturbed: Mapping[str, Alone]) -> Sheet:
    """Return the table of undisturbed plans, one for each way to execute the plan.

    Workers spend most of the time until the first run on loading libraries. If the gap between two runs is longer than
    with the local executor, the difference is the cost of assigning runs to workers.
    """
    columns = (
        "left alone",
        "",
        "plan, s",
        "until the first run, s",
        "between runs of a process, ms",
        "handing out, ms",
    )
    base = undisturbed["local"].gap_ms
    rows = []
    for name, alone in undisturbed.items():
        first = None if alone.first_start_ms is None else alone.first_start_ms / 1000
        out = None if alone.gap_ms is None or base is None or name == "local" else alone.gap_ms - base
        rows.append((name, NONE, number(alone.seconds, ".1f"), number(first, ".1f"), number(alone.gap_ms, ".0f"),
                     number(out, "+.0f")))  # fmt: skip
    return Sheet("The same plan, undisturbed", columns, tuple(rows))


def _parser() -> Parser:
    parser = Parser(prog=f"python -m {MODULE}", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--executor", action="append", choices=list(WAYS), help="repeatable; default: all")
    parser.add_argument("--kills", type=int, default=KILLS, help=f"of each campaign; default: {KILLS}")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"the plan has {len(STRATEGIES)} runs for each")
    parser.add_argument("--seed", type=int, default=SEED, help="chooses which process is killed, and when")
    parser.add_argument("--together", type=int, default=0, help=f"invocations at once; default: {TOGETHER}")
    parser.add_argument("--server-away", type=float, default=0.0, help=f"seconds; default: {AWAY_S:.0f}")
    parser.add_argument("--disk-full", action="store_true", help="needs root, to mount a small disk")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    return parser
