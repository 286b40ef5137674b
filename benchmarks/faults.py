"""Check that a plan survives kills, lost servers and full disks with the results of an undisturbed plan.

    python -m benchmarks.faults --executor local --kills 50
    python -m benchmarks.faults --executor jobs --kills 50
    python -m benchmarks.faults --executor ray --kills 50
    python -m benchmarks.faults --together 8
    python -m benchmarks.faults --server-away 30
    python -m benchmarks.faults --disk-full

A campaign kills the same small plan (SIGKILL) at random moments and restarts it, until `--kills` kills are reached; a
plan that completes in the meantime is started again in an empty store. The victims are the main process, the main
process and all workers at once (as in a power failure), or one worker. Whenever a plan completes, every score must
equal that of the undisturbed plan, and no run may be missing, RUNNING, or done twice. `--together N` starts N
invocations at the same time on a store that does not exist yet. `--server-away S` kills `mlflow server` in the middle
of the plan and restarts it S seconds later. `--disk-full` gives the plan a disk that is too small, and then makes room.
Without any of these options, all campaigns run.

Exit codes: 0 all checks passed, 1 a check failed, 2 misuse. The program needs a POSIX system.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import AlueBenchError, UsageError
from benchmarks.command_line import Parser, shown_command, told
from benchmarks.fault_places import AWAY_S, Invoke, fill_the_disk, stop_the_server
from benchmarks.fault_processes import Started, Victim, in_a_copy, load_libraries, ray_cluster, start
from benchmarks.fault_store import Verdict, first_start_ms, gap_ms, stored_runs, verdict
from benchmarks.tables import NONE, Sheet, number, show

KILLS, SEED, SEEDS, TOGETHER = 50, 1, 5, 8
STRATEGIES = ("full", "bottom1", "bottom2", "top1")
SHORT = ("--epochs", "1", "--limit-train", "48", "--limit-eval", "32", "--max-length", "24", "--batch-size", "16")
EXPERIMENT = "faults"
STARTS_IN_A_FRESH_STORE = 5
"""The number of starts that may have to create the store; after that it is provided, since otherwise most kills would
hit its creation."""
MOST_STARTS = 20
"""The number of starts of one plan, in addition to its kills, after which it counts as unable to complete."""


@dataclass(frozen=True)
class Way:
    """A way to execute the plan, with the processes to kill."""

    name: str
    options: tuple[str, ...]
    victims: tuple[Victim, ...]
    span: float
    """The share of the undisturbed plan's duration within which a kill happens after a start."""


WAYS = {
    "local": Way("local", (), ("main",), 0.25),
    "jobs": Way("jobs", ("--jobs", "2"), ("main", "all", "worker"), 0.5),
    "ray": Way("ray", ("--executor", "ray", "--jobs", "2"), ("main", "all", "worker"), 0.2),
}


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
    """The unexpected exit codes, in a sentence each."""

    @property
    def good(self) -> bool:
        """True if all checks passed."""
        return bool(self.verdicts) and all(v.good for v in self.verdicts) and not (self.other_scores or self.problems)

    def of_all(self, name: str) -> int:
        """Return the sum of a field over all verdicts."""
        return sum(getattr(one, name) for one in self.verdicts)


@dataclass(frozen=True)
class Alone:
    """The results of an undisturbed plan."""

    seconds: float
    scores: Mapping[str, Mapping[str, float]]
    first_start_ms: float | None
    gap_ms: float | None


class Bench:
    """The plan under test, with folders for stores and caches."""

    def __init__(self, folder: Path, seeds: int) -> None:
        """Prepare a small model and an empty store.

        Args:
            folder: The folder for everything.
            seeds: The number of seeds of the plan.
        """
        self.folder, self.seeds = folder, seeds
        self.model = folder / "tiny"
        self._count = 0
        self._empty = folder / "empty.db"
        in_a_copy(self._prepare)

    def _prepare(self) -> None:
        import logging

        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        save_tiny_model(self.model)
        MlflowClient(tracking_uri=f"sqlite:///{self._empty}").search_experiments()

    def begin(self, *, fresh: bool = False) -> Path:
        """Return a new folder with an empty store, or without a store if `fresh`.

        Creating a store takes the plan seconds, so most plans get a prepared one.
        """
        self._count += 1
        store = self.folder / f"store{self._count}"
        store.mkdir()
        if not fresh:
            self.provide(store)
        return store

    def provide(self, store: Path) -> None:
        """Copy the empty database into a folder that has none."""
        if not (store / "mlflow.db").exists():
            shutil.copyfile(self._empty, store / "mlflow.db")

    def invoke(self, store: Path, way: Way, *, name: str = "last", cluster: tuple[str, int] | None = None) -> Started:
        """Start the plan.

        Args:
            store: The folder of the store.
            way: The way to execute the plan.
            name: The name of the subfolder for what the process prints.
            cluster: The address of a Ray cluster, and the id of the process whose descendants form it.
        """
        strategies = [part for strategy in STRATEGIES for part in ("--strategy", strategy)]
        where = ["--tracking-uri", f"sqlite:///{store / 'mlflow.db'}", "--experiment", EXPERIMENT]
        what = ["--task", "anger", "--sample", "--model", str(self.model), *strategies, "--seeds", str(self.seeds)]
        environment = {
            "ALUE_BENCH_CACHE": str(store / "cache"), "ALUE_BENCH_STATE": str(store / "state"), "OMP_NUM_THREADS": "1"
        }  # fmt: skip
        helpers = []
        if cluster is not None:
            environment["RAY_ADDRESS"], helper = cluster
            helpers.append(helper)
        arguments = ["run", *what, *SHORT, *where, *way.options, "--json", "--yes"]
        return start(arguments, store / name, environment, helpers=helpers)

    def alone(self, way: Way, cluster: tuple[str, int] | None = None) -> Alone:
        """Execute the plan undisturbed and return its results.

        Raises:
            UsageError: The plan does not complete.
        """
        store = self.begin()
        began = time.monotonic()
        process = self.invoke(store, way, cluster=cluster)
        code = process.wait()
        seconds = time.monotonic() - began
        if code:
            raise UsageError(f"left alone, the plan ends with exit code {code}: {last_line(process.errors)}")
        runs = stored_runs(store / "mlflow.db")
        return Alone(seconds, scores(process.document), first_start_ms(runs), gap_ms(runs))


def save_tiny_model(folder: Path) -> None:
    """Save a randomly initialised encoder of four narrow layers with mini's tokenizer; a run takes about a second."""
    import torch
    from transformers import AutoConfig

    from alue_bench.contract.registry import load_registry
    from alue_bench.planning.available import resolve_model
    from alue_bench.training.pretrained.library import quiet_transformers
    from alue_bench.training.pretrained.loading import locate_checkpoint
    from benchmarks.random_copy import fresh_model

    mini = locate_checkpoint(resolve_model("mini", load_registry())).folder
    config = AutoConfig.from_pretrained(mini)
    config.update({"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64})
    with quiet_transformers():
        torch.manual_seed(SEED)
        fresh_model(config).save_pretrained(folder)
    for path in mini.iterdir():
        if path.suffix in (".json", ".txt", ".model") and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def scores(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the test metrics of every run that has metrics, by fingerprint."""
    return {
        run["fingerprint"]: {name: value for name, value in run["metrics"].items() if name.startswith("test/")}
        for run in document["runs"]
        if run["metrics"]
    }


def last_line(text: str) -> str:
    """Return the last line of a text for a message."""
    return next(iter(text.strip().splitlines()[::-1]), "it said nothing")


def killing_campaign(
    bench: Bench,
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
        way: The way to execute it.
        kills: The number of kills.
        alone: The results of the undisturbed plan.
        chance: The random generator that draws which process is killed, and when.
        cluster: The Ray cluster, if the way needs one.
        progress: Called with a line after each kill.
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


def together_campaign(bench: Bench, together: int, alone: Alone) -> Campaign:
    """Start several invocations at once on a store that does not exist yet."""
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
            campaign.other_scores += _differing(scores(process.document), alone.scores)
    campaign.plans = 1
    campaign.verdicts.append(verdict(stored_runs(store / "mlflow.db"), set(alone.scores)))
    campaign.seconds = time.monotonic() - began
    return campaign


def place_campaign(
    bench: Bench,
    name: str,
    disturb: Callable[[Invoke, Path, set[str]], tuple[Verdict, list[str], Started]],
    alone: Alone,
) -> Campaign:
    """Execute a plan whose store becomes unavailable.

    Args:
        bench: The plan under test.
        name: The name of the campaign.
        disturb: The disturbance: see `stop_the_server` and `fill_the_disk`.
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
        campaign.other_scores = _differing(scores(process.document), alone.scores)
    campaign.seconds = time.monotonic() - began
    return campaign


def _judge(campaign: Campaign, store: Path, process: Started, expected: Mapping[str, Mapping[str, float]]) -> None:
    """Add a completed plan to a campaign's result."""
    campaign.plans += 1
    campaign.verdicts.append(verdict(stored_runs(store / "mlflow.db"), set(expected)))
    campaign.other_scores += _differing(scores(process.document), expected)


def _differing(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> int:
    """Return the number of runs whose scores differ from the expected ones."""
    return sum(actual.get(fingerprint) != values for fingerprint, values in expected.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; `arguments` None takes those of the process."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parser().parse_args(given)
        return benchmark(options, command=shown_command("faults", given))
    except AlueBenchError as error:
        return told(error)


def benchmark(options: argparse.Namespace, *, command: str) -> int:
    """Run the campaigns that the options name, show the tables, and return the exit code."""
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
        bench = Bench(folder, options.seeds)
        reference = undisturbed["local"] = bench.alone(WAYS["local"])
        for way in ways:
            cluster = stack.enter_context(ray_cluster()) if way.name == "ray" else None
            alone = undisturbed.get(way.name) or bench.alone(way, cluster)
            undisturbed[way.name] = alone
            chance = random.Random(f"{options.seed} {way.name}")
            differing = _differing(alone.scores, reference.scores)
            campaign = killing_campaign(bench, way, options.kills, alone, chance, cluster, _say)
            campaign.other_scores += differing
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
        content = {
            "command": command,
            "seed": options.seed,
            "runs": options.seeds * len(STRATEGIES),
            "campaigns": [{**asdict(campaign), "good": campaign.good} for campaign in campaigns],
            "undisturbed": {name: {**asdict(alone), "scores": None} for name, alone in undisturbed.items()},
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0 if all(campaign.good for campaign in campaigns) else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def campaign_sheet(campaigns: Sequence[Campaign]) -> Sheet:
    """Return the table of the campaigns."""
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
    return Sheet("Faults during a plan, and its runs afterwards", columns, tuple(rows))


def alone_sheet(undisturbed: Mapping[str, Alone]) -> Sheet:
    """Return the table of undisturbed plans.

    The time until the first run is mostly that of workers loading the libraries. The gap between runs that exceeds the
    gap with the local executor is the cost of handing out runs.
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
    parser = Parser(prog="python -m benchmarks.faults", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--executor", action="append", choices=list(WAYS), help="repeatable; default: all")
    parser.add_argument("--kills", type=int, default=KILLS, help=f"of each campaign; default: {KILLS}")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"the plan has {len(STRATEGIES)} runs for each")
    parser.add_argument("--seed", type=int, default=SEED, help="seed that chooses which process is killed, and when")
    parser.add_argument("--together", type=int, default=0, help=f"invocations at once; default: {TOGETHER}")
    parser.add_argument("--server-away", type=float, default=0.0, help=f"seconds; default: {AWAY_S:.0f}")
    parser.add_argument("--disk-full", action="store_true", help="needs root, to mount a small disk")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
