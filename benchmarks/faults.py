"""Does a plan survive whatever happens to it, with the results of one that was left alone?

    python -m benchmarks.faults --executor local --kills 50
    python -m benchmarks.faults --executor jobs --kills 50
    python -m benchmarks.faults --executor ray --kills 50
    python -m benchmarks.faults --together 8
    python -m benchmarks.faults --server-away 30
    python -m benchmarks.faults --disk-full

A campaign kills the same small plan (SIGKILL) at random moments and starts it again, until it was killed so often; a
plan that completes meanwhile is begun anew in an empty store. Killed are the main process, it and all its workers at
once as when the power fails, or a worker. Whenever a plan completes, every score must be that of the plan left alone,
no run may be missing, none RUNNING, none done twice. `--together N` starts N invocations at once on one store that does
not exist yet. `--server-away S` kills `mlflow server` in the middle of the plan and starts it again S seconds later;
`--disk-full` gives the plan a disk that is too small for it, and then room. Without any option, all of this is done.

Exit codes: 0 all held, 1 something did not, 2 misuse. Needs a POSIX system.
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
"""Kills that come while the store is being made; after so many it is provided, or most would."""
MOST_STARTS = 20
"""Of one plan, beyond its kills: more means that it does not come to an end by itself."""


@dataclass(frozen=True)
class Way:
    """How a plan is done, and who is killed."""

    name: str
    options: tuple[str, ...]
    victims: tuple[Victim, ...]
    span: float
    """Kills come within this part of the time that the plan takes when left alone."""


WAYS = {
    "local": Way("local", (), ("main",), 0.25),
    "jobs": Way("jobs", ("--jobs", "2"), ("main", "all", "worker"), 0.5),
    "ray": Way("ray", ("--executor", "ray", "--jobs", "2"), ("main", "all", "worker"), 0.2),
}


@dataclass
class Campaign:
    """What came of one."""

    name: str
    seconds: float = 0.0
    kills: int = 0
    plans: int = 0
    """Completed ones."""
    verdicts: list[Verdict] = field(default_factory=list)
    other_scores: int = 0
    """Runs whose scores are not those of the plan left alone."""
    problems: list[str] = field(default_factory=list)
    """Exit codes that nobody caused, in a sentence each."""

    @property
    def good(self) -> bool:
        return bool(self.verdicts) and all(v.good for v in self.verdicts) and not (self.other_scores or self.problems)

    def of_all(self, name: str) -> int:
        return sum(getattr(found, name) for found in self.verdicts)


@dataclass(frozen=True)
class Alone:
    """A plan that was left alone."""

    seconds: float
    scores: Mapping[str, Mapping[str, float]]
    first_start_ms: float | None
    gap_ms: float | None


class Bench:
    """The plan, and folders for stores and caches."""

    def __init__(self, folder: Path, seeds: int) -> None:
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
        """A folder with an empty store; where that is to be fresh, with none: making one takes seconds."""
        self._count += 1
        found = self.folder / f"store{self._count}"
        found.mkdir()
        if not fresh:
            self.provide(found)
        return found

    def provide(self, store: Path) -> None:
        """An empty database, where there is none yet."""
        if not (store / "mlflow.db").exists():
            shutil.copyfile(self._empty, store / "mlflow.db")

    def invoke(self, store: Path, way: Way, *, name: str = "last", cluster: tuple[str, int] | None = None) -> Started:
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
        """Raises UsageError where it does not complete though nobody disturbs it."""
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
    """mini's tokeniser under a random encoder of four narrow layers: a run takes about a second."""
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
    """Of every run that has any, by fingerprint."""
    return {
        run["fingerprint"]: {name: value for name, value in run["metrics"].items() if name.startswith("test/")}
        for run in document["runs"]
        if run["metrics"]
    }


def last_line(text: str) -> str:
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
    """Kill and start again until it was killed so often, and the last plan is complete."""
    found = Campaign(f"{kills} SIGKILLs, {way.name}")
    began = time.monotonic()
    expected = alone.scores
    while found.kills < kills and not found.problems:
        store, starts = bench.begin(fresh=not found.plans), 0
        while True:
            starts += 1
            if starts == STARTS_IN_A_FRESH_STORE:
                bench.provide(store)
            if starts > kills + MOST_STARTS:
                found.problems.append("a plan did not come to its end")
                break
            process = bench.invoke(store, way, cluster=cluster)
            while process.code is None and found.kills < kills:
                victim = chance.choice(way.victims)
                if process.wait(chance.uniform(0, way.span * alone.seconds)) is None and process.kill(victim):
                    found.kills += 1
                    progress(f"{way.name}: {found.kills} of {kills} kills, {found.plans} plans complete")
                    if victim != "worker":
                        process.wait()
            code = process.wait()
            if code == 0:
                _judge(found, store, process, expected)
                break
            if code not in (-9, 1):  # 1: a run whose workers were killed twice has failed, and is done again
                found.problems.append(f"exit code {code}: {last_line(process.errors)}")
                break
    found.seconds = time.monotonic() - began
    return found


def together_campaign(bench: Bench, together: int, alone: Alone) -> Campaign:
    """So many invocations at once, on a store that none has made yet."""
    found = Campaign(f"{together} invocations on one fresh store")
    began = time.monotonic()
    store = bench.begin(fresh=True)
    processes = [bench.invoke(store, WAYS["local"], name=f"process{place}") for place in range(together)]
    for place, process in enumerate(processes, start=1):
        code = process.wait()
        if code:
            found.problems.append(f"process {place} ended with exit code {code}: {last_line(process.errors)}")
    if not found.problems:
        for process in processes:
            found.other_scores += _differing(scores(process.document), alone.scores)
    found.plans = 1
    found.verdicts.append(verdict(stored_runs(store / "mlflow.db"), set(alone.scores)))
    found.seconds = time.monotonic() - began
    return found


def place_campaign(
    bench: Bench,
    name: str,
    disturb: Callable[[Invoke, Path, set[str]], tuple[Verdict, list[str], Started]],
    alone: Alone,
) -> Campaign:
    """A plan whose store goes away or has no room."""
    found = Campaign(name, plans=1)
    began = time.monotonic()

    def invoke(store: Path, options: tuple[str, ...]) -> Started:
        return bench.invoke(store, Way("local", options, (), 0.0))

    last, problems, process = disturb(invoke, bench.begin(), set(alone.scores))
    found.verdicts.append(last)
    found.problems += problems
    if not problems:
        found.other_scores = _differing(scores(process.document), alone.scores)
    found.seconds = time.monotonic() - began
    return found


def _judge(found: Campaign, store: Path, process: Started, expected: Mapping[str, Mapping[str, float]]) -> None:
    found.plans += 1
    found.verdicts.append(verdict(stored_runs(store / "mlflow.db"), set(expected)))
    found.other_scores += _differing(scores(process.document), expected)


def _differing(found: Mapping[str, Any], expected: Mapping[str, Any]) -> int:
    return sum(found.get(fingerprint) != values for fingerprint, values in expected.items())


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parser().parse_args(given)
        return benchmark(options, command=shown_command("faults", given))
    except AlueBenchError as error:
        return told(error)


def benchmark(options: argparse.Namespace, *, command: str) -> int:
    """Every campaign that is asked for, then the table. Returns the exit code."""
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
            found = killing_campaign(bench, way, options.kills, alone, chance, cluster, _say)
            found.other_scores += differing
            campaigns.append(found)
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
    """The time to begin is that of workers to load the libraries; what the gap between runs is longer than in one
    process is the cost of handing out."""
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
    parser.add_argument("--seed", type=int, default=SEED, help="draws victims and moments")
    parser.add_argument("--together", type=int, default=0, help=f"invocations at once; default: {TOGETHER}")
    parser.add_argument("--server-away", type=float, default=0.0, help=f"seconds; default: {AWAY_S:.0f}")
    parser.add_argument("--disk-full", action="store_true", help="needs root, to mount a small disk")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
