"""What does a whole sweep cost, beside the same cells fine-tuned one by one with the library's `Trainer`?

    python -m benchmarks.whole_sweep --data-dir DIR --folder OUT

Runs `alue-bench sweep` as a user would, every pair of frozen bottom and top layers of `mini` on rows of MADAR, recorded
in a store of its own. Of each four cells that cost about the same, one, drawn by lot, is also done by `Trainer`, right
behind ours and in the same process: batches padded to their longest example, dev split scored after each epoch, test
split at the end. The sum over all cells is estimated from these (a stratified random sample), and said to be an
estimate. Our `full` run is repeated now and then, for the ratio that the numbers of operations predict.

With `--jobs N` the sweep is done by as many worker processes, which share the cores. Nothing can stand between its runs
then: one half of Trainer's cells comes before the sweep, the other after it, and `full` is repeated behind it, by as
many workers at once.

At the end some cells are run again apart: fresh process, empty cache, `alue-bench run`; their scores must be equal.

All is kept in `--folder`. Stopped at any time, the same command goes on; `--stop-after MINUTES` stops by itself. Only
whole cells count: one that was broken off is done again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import AlueBenchError, UsageError
from benchmarks.command_line import Parser, shown_command, told
from benchmarks.machine import described, hardware
from benchmarks.measuring import REPOSITORY
from benchmarks.sampling import Estimate, estimated_sum, strata, trainer_cells
from benchmarks.tables import Sheet, number, show

if TYPE_CHECKING:
    from alue_bench.executors.local import Outcome
    from alue_bench.planning.build import Plan, PlannedRun

TASK, MODEL = "mdd", "mini"
FULLS = 6
"""How often our `full` is repeated over the sweep."""
SEPARATE = 3
"""Cells run again apart."""
EXPERIMENT = "whole-sweep"
TARGET = 1 / 3
"""Of the time of the same cells by `Trainer`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 cells that differ apart, 2 misuse, 3 stopped before the end, 130 and 143 interrupted."""
    started = time.perf_counter()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parser().parse_args(given)
        return benchmark(options, shown_command("whole_sweep", given), started)
    except AlueBenchError as error:
        return told(error)


def benchmark(options: argparse.Namespace, command: str, started: float) -> int:
    """Do what is left, add up, show. Returns the exit code."""
    from alue_bench.cli.commands.sweep import run_sweep
    from alue_bench.cli.options import OutputOptions
    from alue_bench.contract.registry import load_registry

    folder: Path = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["ALUE_BENCH_CACHE"] = str(folder / "cache")
    settings, overrides = swept(options, folder)
    ledger = Ledger(folder / "measurements.json", {**vars(options), "folder": None, "stop_after": None}, command)
    watchers: list[Watch] = []

    def watch(plan: Plan, console: Any) -> Watch:
        watchers.append(Watch(plan, ledger, started, options))
        return watchers[0]

    printed = io.StringIO()
    with redirect_stdout(printed):
        code = run_sweep(load_registry(), settings, overrides, OutputOptions(yes=True, json=True), progress_of=watch)
    watcher = watchers[0]
    document = json.loads(printed.getvalue())
    if code:
        _say("stopped; the same command goes on from here" if watcher.stopped else "the sweep did not end well")
        return 3 if watcher.stopped else code
    ledger.content["finish_s"] = time.perf_counter() - watcher.last
    ledger.content["sweep"] = document["sweep"]
    ledger.write()
    if options.jobs > 1:
        watcher.fit_by_trainer(1)
        repeat_full(options, folder, ledger)
    apart = compared_apart(document, options, folder, ledger)
    found = concluded(ledger.content, watcher.plan) | {"apart": apart}
    ledger.content["conclusion"] = found
    ledger.write()
    report(found, document)
    return 0 if all(one["equal"] for one in apart) else 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.whole_sweep", description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="where store, cache and measurements are kept; go on from there")
    add("--data-dir", type=Path, help="folder with the official files (default: $ALUE_BENCH_DATA)")
    add("--sample", action="store_true", help="use the embedded sample data: to try the benchmark")
    add("--grid", default="bottom-top", help="as of alue-bench sweep; a small one to try it (default: bottom-top)")
    add("--limit-train", type=int, default=2000, help="(default: 2000)")
    add("--limit-eval", type=int, default=1000, help="(default: 1000)")
    add("--epochs", type=int, default=2, help="at least 2 (default: 2)")
    add("--jobs", type=int, default=1, help="as of alue-bench sweep (default: 1)")
    add("--stop-after", type=float, metavar="MINUTES", help="stop by itself, to go on later")
    return parser


def swept(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Any]:
    """The sweep's settings, and its hyper-parameters with their origin."""
    if options.epochs < 2:
        raise UsageError("--epochs must be at least 2: with one epoch a kept prefix saves nothing to compare")
    settings: dict[str, Any] = {
        "task": [TASK],
        "model": [MODEL],
        "grid": [options.grid],
        "limit_train": options.limit_train,
        "limit_eval": options.limit_eval,
        "precision": "fp32",
        "device": "cpu",
        "experiment": EXPERIMENT,
        "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
        "jobs": options.jobs,
    }
    if options.data_dir:
        settings["data_dir"] = str(options.data_dir)
    if options.sample:
        settings["sample"] = True
    return settings, (("benchmark", {"epochs": options.epochs}),)


class Ledger:
    """The measurements, in a file that is always whole."""

    def __init__(self, file: Path, settings: Mapping[str, Any], command: str) -> None:
        """Raises UsageError where the file was made with other settings or on another machine."""
        self.file = file
        said = json.loads(json.dumps(dict(settings), default=str)) | {"hardware": hardware("cpu")}
        self.content: dict[str, Any] = {"settings": said, "command": command, "ours": {}, "trainer": {}, "full_s": []}
        if file.exists():
            self.content = json.loads(file.read_text("utf-8"))
            if self.content["settings"] != said:
                raise UsageError(f"{file} was measured with other settings; name another --folder")

    def write(self) -> None:
        scratch = self.file.with_suffix(".part")
        scratch.write_text(json.dumps(self.content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, self.file)


class Watch:
    """Stands where the sweep's progress is shown: measures each of our runs, and puts the others between them."""

    def __init__(self, plan: Plan, ledger: Ledger, started: float, options: argparse.Namespace) -> None:
        self.plan, self._ledger, self._options = plan, ledger, options
        self._began = self.last = started
        self._aside = 0.0
        self.stopped = self._working = False
        self._sample = trainer_cells(costs(plan))
        self._baseline: Baseline | None = None
        every = max(1, len(plan.runs) // FULLS)
        self._repeat_full = {run.spec.strategy for place, run in enumerate(plan.runs) if place % every == every // 2}

    def __enter__(self) -> Watch:
        if self._options.jobs > 1:
            self.fit_by_trainer(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def started(self, planned: PlannedRun) -> None:
        if not self._working:
            self._working = True
            self._ledger.content.setdefault("startup_s", time.perf_counter() - self._began - self._aside)
            self.last = time.perf_counter()

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None:
        pass

    def warned(self, message: str) -> None:
        _say(f"warning: {message}")

    def ended(self, outcome: Outcome) -> None:
        strategy, content = outcome.spec.strategy, self._ledger.content
        if outcome.status == "failed":
            raise UsageError(f"{outcome.spec.label} failed: {outcome.cause}")
        if outcome.status == "finished":
            spent = time.perf_counter() - self.last
            content["ours"][strategy] = {"wall_s": spent, "metrics": dict(outcome.metrics)}
            self._ledger.write()
            _say(f"[{len(content['ours'])}/{len(self.plan.runs)}] {strategy}: {spent:.1f} s in all")
        if self._options.jobs == 1:
            self._by_trainer(outcome.planned)
            if strategy in self._repeat_full and strategy not in {at for at, _ in content["full_s"]}:
                content["full_s"].append([strategy, full_again(self.plan)])
                self._ledger.write()
        self.last = time.perf_counter()
        limit = self._options.stop_after
        late = limit and self.last - self._began > 60 * limit
        if late and outcome.status == "finished" and outcome.planned is not self.plan.runs[-1]:
            self.stopped = True
            raise KeyboardInterrupt

    def fit_by_trainer(self, half: int) -> None:
        """One half of Trainer's cells, every second one in the order of the plan, for a sweep in several processes."""
        started = time.perf_counter()
        cells = [run for run in self.plan.runs if run.spec.strategy in self._sample]
        for planned in cells[half::2]:
            self._by_trainer(planned)
        self._aside += time.perf_counter() - started

    def _by_trainer(self, planned: PlannedRun) -> None:
        strategy, done = planned.spec.strategy, self._ledger.content["trainer"]
        if strategy not in self._sample or strategy in done:
            return
        if self._baseline is None:
            self._baseline = Baseline(planned)
        done[strategy] = found = self._baseline.fit(planned)
        self._ledger.write()
        _say(f"    {strategy} by Trainer: {found['whole_s']:.1f} s in all")


def costs(plan: Plan) -> dict[str, float]:
    """Of each cell, what is expected."""
    return {run.spec.strategy: run.cost for run in plan.runs}


def full_again(plan: Plan) -> float:
    """Seconds of the training steps of our `full`."""
    from alue_bench.running.run import train

    planned = full_of(plan)
    planned.inputs.models.expect(planned.inputs.checkpoint, planned.inputs.train_task.labels)
    trained = train(planned.spec, planned.inputs)
    return trained.training.loop_s


def full_of(plan: Plan) -> PlannedRun:
    """Raises UsageError where the grid does not hold it."""
    for planned in plan.runs:
        if planned.spec.strategy == "full":
            return planned
    raise UsageError("--grid must hold full: begin both axes with 0")


class Baseline:
    """The same run by the library's `Trainer`, in this process."""

    def __init__(self, planned: PlannedRun) -> None:
        """Warms up with a training of one step."""
        from benchmarks import trainer_baseline

        tokenizer = planned.inputs.models.tokenizer(planned.inputs.checkpoint)
        pad_id = tokenizer.pad_token_id
        self._tokenizer = tokenizer
        self._splits = {
            name: trainer_baseline.features(tokens_of(planned, name), pad_id, None) for name in ("train", "dev", "test")
        }
        few = self._splits["train"][: planned.spec.hyper.batch_size]
        self._trained(planned, few, max_steps=1)

    def fit(self, planned: PlannedRun) -> dict[str, float]:
        """Seconds: of training alone, and of all that a user would wait for: loading, training, scoring the dev split
        after each epoch and the test split once."""
        started = time.perf_counter()
        trainer, train_s = self._trained(planned, self._splits["train"])
        scoring = time.perf_counter()
        for _ in range(planned.spec.hyper.epochs):  # which weights are scored does not change the time
            trainer.predict(self._splits["dev"])
        logits = trainer.predict(self._splits["test"]).predictions
        ended = time.perf_counter()
        return {
            "train_s": train_s,
            "score_s": ended - scoring,
            "whole_s": ended - started,
            "steps": len(trainer.losses),
            "padded_tokens": trainer.padded_tokens,
            "test_score": self._score(planned, logits),
        }

    def _trained(self, planned: PlannedRun, examples: Any, **more: Any) -> tuple[Any, float]:
        import tempfile

        from alue_bench.training.architecture.encoder_stack import view_as_stack
        from alue_bench.training.device.precision import Device
        from alue_bench.training.freezing import apply_plan
        from alue_bench.training.pretrained.loading import load_model
        from benchmarks import trainer_baseline

        spec, task = planned.spec, planned.inputs.train_task
        model = load_model(planned.inputs.checkpoint, task.labels, init_seed=spec.init_seed)
        apply_plan(view_as_stack(model), spec.freeze_plan)
        with tempfile.TemporaryDirectory() as folder:
            arguments = trainer_baseline.training_arguments(
                folder,
                "trainer",
                spec.hyper,
                spec.data_seed,
                Device("cpu", "fp32"),
                per_device_eval_batch_size=spec.hyper.batch_size,
                warmup_steps=round(spec.hyper.warmup * -(-len(examples) // spec.hyper.batch_size) * spec.hyper.epochs),
                **more,
            )
            trainer = trainer_baseline.build_trainer(model, examples, "trainer", self._tokenizer, arguments)
            clock = trainer_baseline.Clock()
            trainer.add_callback(clock)
            trainer.train()
            return trainer, time.perf_counter() - clock.began

    def _score(self, planned: PlannedRun, logits: Any) -> float:
        import torch

        from alue_bench.evaluation.metrics import metrics
        from alue_bench.evaluation.predictions import decide

        labels = planned.inputs.task.labels
        gold = torch.tensor([example["labels"] for example in self._splits["test"]]).numpy()
        return float(metrics(gold, decide(logits, labels), labels)[planned.inputs.task.primary])


def tokens_of(planned: PlannedRun, split: str) -> Any:
    """The split as token ids, as our run has it."""
    from alue_bench.running.run import tokenised

    inputs = planned.inputs
    return tokenised(inputs.rows, split, planned.spec, inputs, inputs.models.tokenizer(inputs.checkpoint))


def compared_apart(
    document: Mapping[str, Any], options: argparse.Namespace, folder: Path, ledger: Ledger
) -> list[dict[str, Any]]:
    """Some cells again, each in a process of its own that shares nothing with the sweep: are their scores equal?"""
    done = {one["strategy"]: one["metrics"] for one in document["runs"]}
    chosen = random.Random(1).sample(sorted(done), min(SEPARATE, len(done)))
    known = {one["strategy"]: one for one in ledger.content.get("apart", [])}
    from alue_bench.executors.processes import environment_of

    # A sweep in several processes gives each its share of the cores; so must these.
    share = environment_of(None, options.jobs)
    for strategy in chosen:
        if strategy in known:
            continue
        (alone,) = run_apart(["--strategy", strategy], options, folder / "apart" / strategy, share)
        scores = {name: value for name, value in done[strategy].items() if name.startswith(("test/", "selection/"))}
        gap = max(
            (abs(value - alone["metrics"][name]) for name, value in scores.items() if value is not None), default=0.0
        )
        known[strategy] = {"strategy": strategy, "equal": gap == 0.0, "largest_difference": gap}
        ledger.content["apart"] = list(known.values())
        ledger.write()
        _say(f"{strategy} apart: {'equal' if gap == 0 else f'differs by {gap:.2g}'}")
    return list(known.values())


def run_apart(
    given: Sequence[str], options: argparse.Namespace, folder: Path, environment: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """What `alue-bench run` does of the same rows in a fresh process, with a cache and a store of its own."""
    data = ["--sample"] if options.sample else ["--data-dir", str(options.data_dir)] if options.data_dir else []
    said = ["run", "--task", TASK, "--model", MODEL, *given, "--json", "--precision", "fp32", "--device", "cpu"]
    said += ["--epochs", str(options.epochs), *data]
    said += ["--limit-train", str(options.limit_train), "--limit-eval", str(options.limit_eval)]
    said += ["--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    paths = [str(REPOSITORY), str(REPOSITORY / "plugins"), os.environ.get("PYTHONPATH", "")]
    finished = subprocess.run(
        [sys.executable, "-c", "from alue_bench.cli.main import main; main()", *said],
        env=os.environ
        | {"ALUE_BENCH_CACHE": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise UsageError(f"alue-bench {' '.join(said)}: {finished.stderr.strip().splitlines()[-1:]}")
    runs: list[dict[str, Any]] = json.loads(finished.stdout)["runs"]
    return runs


def repeat_full(options: argparse.Namespace, folder: Path, ledger: Ledger) -> None:
    """Our `full` with other seeds, as many at once as the sweep did."""
    if len(ledger.content["full_s"]) >= FULLS:
        return
    seeds = [option for seed in range(FULLS) for option in ("--seed", str(43 + seed))]
    runs = run_apart(["--strategy", "full", *seeds, "--jobs", str(options.jobs), "--rerun"], options, folder / "fulls")
    ledger.content["full_s"] = [[f"seed {one['seed']}", one["metrics"]["runtime/loop_s"]] for one in runs]
    ledger.write()


def concluded(content: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Sums, estimates and ratios."""
    ours, trainer, cells, jobs = content["ours"], content["trainer"], costs(plan), content["settings"]["jobs"]
    missing = [strategy for strategy in cells if strategy not in ours]
    if missing:
        raise UsageError(f"{missing[0]} was done without being measured; begin again with an empty --folder")
    metrics = {strategy: one["metrics"] for strategy, one in ours.items()}
    groups = strata(cells)
    whole = estimated_sum({name: one["whole_s"] for name, one in trainer.items()}, groups)
    alone = estimated_sum({name: one["train_s"] for name, one in trainer.items()}, groups)
    our_whole = content["startup_s"] + sum(one["wall_s"] for one in ours.values()) + content["finish_s"]
    loops = sum(one["runtime/loop_s"] for one in metrics.values())
    prefixes = sum(one["runtime/prepare_s"] for one in metrics.values())
    prefixes += sum(
        one["runtime/prefix_s"]
        for one in metrics.values()
        if not one["runtime/prefix_reused"] and not one["runtime/prepare_s"]
    )
    full = sum(seconds for _, seconds in content["full_s"]) / len(content["full_s"])
    predicted = predictions(plan)
    measured = (loops + prefixes) / (len(cells) * full)
    return {
        "cells": len(cells),
        "trainer_cells": len(trainer),
        "hardware": described(hardware("cpu")),
        "jobs": jobs,
        "ours_whole_s": our_whole,
        "ours_training_s": (loops + prefixes) / jobs,
        "ours_beside_training_s_per_run": (our_whole - (loops + prefixes) / jobs) / len(cells),
        "ours_scoring_s": scoring(metrics),
        "trainer_whole_s": whole._asdict(),
        "trainer_training_s": alone._asdict(),
        "whole_ratio": our_whole / whole.total,
        "training_ratio": (loops + prefixes) / jobs / alone.total,
        "our_full_s": full,
        "of_so_many_fulls": measured,
        "predicted": predicted,
        "against_prediction": measured / predicted["shared"] - 1,
    }


def scoring(metrics: Mapping[str, Mapping[str, float]]) -> float:
    """Our seconds on dev and test splits. Their prefixes, charged to each run, are in them: more than was spent."""
    return sum(one["runtime/dev_s"] + one["runtime/test_s"] for one in metrics.values())


def predictions(plan: Plan) -> dict[str, float]:
    """Operations of all cells, relative to as many full runs: with prefixes from one pass, charged to each run, and
    computed at every step."""
    from alue_bench.contract.strategy import FreezePlan
    from alue_bench.measure.flops import training_flops
    from alue_bench.training.architecture.encoder_stack import view_as_stack
    from alue_bench.training.pretrained.loading import empty_model, load_config

    some = plan.runs[0]
    stack = view_as_stack(empty_model(load_config(some.inputs.checkpoint), some.inputs.train_task.labels))
    lengths, epochs = tokens_of(some, "train").lengths, some.spec.hyper.epochs

    def flops(freeze_plan: FreezePlan, *, cached: bool) -> float:
        return training_flops(stack, freeze_plan, lengths, epochs, prefix_cached=cached, head_reads_first=True)

    full = flops(FreezePlan(stack.shape), cached=False) * len(plan.runs)
    uncached = charged = loops = deepest = 0.0
    for run in plan.runs:
        at_every_step = flops(run.spec.freeze_plan, cached=False)
        once = flops(run.spec.freeze_plan, cached=bool(run.spec.freeze_plan.prefix_layers))
        prefix = (at_every_step - once) / (epochs - 1)
        uncached, charged, loops = uncached + at_every_step, charged + once, loops + once - prefix
        deepest = max(deepest, prefix)
    return {"shared": (loops + deepest) / full, "charged": charged / full, "uncached": uncached / full}


def report(found: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """On stdout."""
    trainer, alone = Estimate(**found["trainer_whole_s"]), Estimate(**found["trainer_training_s"])
    sheet = Sheet(
        title=f"{found['cells']} cells; Trainer: estimated from {found['trainer_cells']} of them (± standard error)",
        columns=("what", "", "ours s", "Trainer s", "ours ÷ Trainer"),
        rows=(
            (
                *("whole job", "loading, training, scoring, recording"),
                *(number(found["ours_whole_s"], ".0f"), f"{trainer.total:.0f} ± {trainer.error:.0f}"),
                number(found["whole_ratio"], ".3f"),
            ),
            (
                *("training alone", "prefixes included" + ("; of a worker" if found["jobs"] > 1 else "")),
                *(number(found["ours_training_s"], ".0f"), f"{alone.total:.0f} ± {alone.error:.0f}"),
                number(found["training_ratio"], ".3f"),
            ),
        ),
    )
    predicted = found["predicted"]
    lines = [
        f"Target {TARGET:.3f} of Trainer's time: {'met' if found['whole_ratio'] <= TARGET else 'missed'} "
        f"({found['whole_ratio']:.3f}).",
        f"Training of all cells took {found['of_so_many_fulls']:.3f} of so many of our full runs "
        f"({found['our_full_s']:.2f} s each, mean of repetitions over the sweep); operations predict "
        f"{predicted['shared']:.3f} with shared prefixes ({found['against_prediction']:+.1%}), "
        f"{predicted['charged']:.3f} where each pays its own, {predicted['uncached']:.3f} without a cache.",
        f"Beside training, scoring among it, a run took {found['ours_beside_training_s_per_run']:.2f} s.",
        *(
            f"{one['strategy']} apart, in a fresh process with an empty cache: "
            f"{'equal' if one['equal'] else 'largest difference ' + format(one['largest_difference'], '.2g')}."
            for one in found["apart"]
        ),
        *(
            f"Recommended for {grid['task']}, {grid['model']}: {grid['recommendation']['strategy']}."
            for grid in document["sweep"]["grids"]
            if grid["recommendation"]
        ),
        f"Measured on {found['hardware']}.",
    ]
    show([sheet], lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
