"""Time a complete sweep and compare it with fine-tuning the same cells one by one by transformers' `Trainer`.

    python -m benchmarks.whole_sweep --data-dir DIR --folder OUT

The program runs `alue-bench sweep` as a user would: every pair of frozen bottom and top layers of `mini` on rows of
MADAR, recorded in a store of its own. Of every four cells with similar cost, one random cell is also trained by
`Trainer`, right after ours and in the same process: batches padded to their longest example, dev split scored after
each epoch, test split at the end. From this stratified random sample the sum over all cells is estimated, and the
report says that it is an estimate. Our `full` run is repeated at intervals, to compare the measured ratio with the one
that FLOPs predict.

With `--jobs N` the sweep is done by N worker processes that share the cores. Then nothing can run between its runs: one
half of Trainer's cells comes before the sweep and the other after it, and `full` is repeated after the sweep, by N
workers at once.

At the end some cells are run again separately, by `alue-bench run` in a fresh process with an empty cache; their scores
must be equal.

Everything is kept in `--folder`. After a stop at any time, the same command continues; `--stop-after MINUTES` stops by
itself. Only complete cells count: an interrupted cell is done again.
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
"""The number of repetitions of our `full` run during the sweep."""
SEPARATE = 3
"""The number of cells that are run again separately."""
EXPERIMENT = "whole-sweep"
TARGET = 1 / 3
"""The target for the ratio of our time to that of the same cells by `Trainer`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Codes: 0 done, 1 separate runs have other scores, 2 misuse, 3 stopped before the end, 130 or 143 interrupted.
    """
    started = time.perf_counter()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parser().parse_args(given)
        return benchmark(options, shown_command("whole_sweep", given), started)
    except AlueBenchError as error:
        return told(error)


def benchmark(options: argparse.Namespace, command: str, started: float) -> int:
    """Do the work that is left, show the results, and return the exit code.

    Args:
        options: The parsed options.
        command: The command line to show in the report.
        started: The reading of `time.perf_counter` at the start of the process.
    """
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
        _say("stopped; run the same command again to continue" if watcher.stopped else "the sweep failed")
        return 3 if watcher.stopped else code
    ledger.content["finish_s"] = time.perf_counter() - watcher.last
    ledger.content["sweep"] = document["sweep"]
    ledger.write()
    if options.jobs > 1:
        watcher.fit_by_trainer(1)
        repeat_full(options, folder, ledger)
    apart = compared_apart(document, options, folder, ledger)
    conclusion = concluded(ledger.content, watcher.plan) | {"apart": apart}
    ledger.content["conclusion"] = conclusion
    ledger.write()
    report(conclusion, document)
    return 0 if all(one["equal"] for one in apart) else 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.whole_sweep", description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="folder of store, cache and measurements, from which to continue")
    add("--data-dir", type=Path, help="folder with the official files (default: $ALUE_BENCH_DATA)")
    add("--sample", action="store_true", help="use the embedded sample data: to try the benchmark")
    add(
        "--grid",
        default="bottom-top",
        help="as for alue-bench sweep; a small one to try the benchmark (default: bottom-top)",
    )
    add("--limit-train", type=int, default=2000, help="(default: 2000)")
    add("--limit-eval", type=int, default=1000, help="(default: 1000)")
    add("--epochs", type=int, default=2, help="at least 2 (default: 2)")
    add("--jobs", type=int, default=1, help="as for alue-bench sweep (default: 1)")
    add("--stop-after", type=float, metavar="MINUTES", help="stop after this time, to continue later")
    return parser


def swept(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Any]:
    """Return the sweep's settings, and its hyper-parameters with their origin.

    Raises:
        UsageError: There are fewer than two epochs.
    """
    if options.epochs < 2:
        raise UsageError("--epochs must be at least 2: with one epoch a cached prefix saves no time")
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
    """The measurements, in a file that is written atomically."""

    def __init__(self, file: Path, settings: Mapping[str, Any], command: str) -> None:
        """Read the file, if it exists.

        Args:
            file: The file.
            settings: The settings that must be equal for measurements to be comparable.
            command: The command line to show in the report.

        Raises:
            UsageError: The file was made with other settings or on another machine.
        """
        self.file = file
        said = json.loads(json.dumps(dict(settings), default=str)) | {"hardware": hardware("cpu")}
        self.content: dict[str, Any] = {"settings": said, "command": command, "ours": {}, "trainer": {}, "full_s": []}
        if file.exists():
            self.content = json.loads(file.read_text("utf-8"))
            if self.content["settings"] != said:
                raise UsageError(f"{file} was measured with other settings; name another --folder")

    def write(self) -> None:
        """Write the file."""
        scratch = self.file.with_suffix(".part")
        scratch.write_text(json.dumps(self.content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, self.file)


class Watch:
    """A progress display of the sweep that measures each of our runs and does the other trainings between them."""

    def __init__(self, plan: Plan, ledger: Ledger, started: float, options: argparse.Namespace) -> None:
        """Choose the cells for `Trainer` and those after which `full` is repeated.

        Args:
            plan: The plan of the sweep.
            ledger: The measurements.
            started: The reading of `time.perf_counter` at the start of the process.
            options: The parsed options.
        """
        self.plan, self._ledger, self._options = plan, ledger, options
        self._began = self.last = started
        self._aside = 0.0
        self.stopped = self._working = False
        self._sample = trainer_cells(costs(plan))
        self._baseline: Baseline | None = None
        every = max(1, len(plan.runs) // FULLS)
        self._repeat_full = {run.spec.strategy for place, run in enumerate(plan.runs) if place % every == every // 2}

    def __enter__(self) -> Watch:
        """Train the first half of Trainer's cells if the sweep uses several processes."""
        if self._options.jobs > 1:
            self.fit_by_trainer(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def started(self, planned: PlannedRun) -> None:
        """Start the clock at the first run."""
        if not self._working:
            self._working = True
            self._ledger.content.setdefault("startup_s", time.perf_counter() - self._began - self._aside)
            self.last = time.perf_counter()

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None:
        """Do nothing."""

    def warned(self, message: str) -> None:
        """Print a warning."""
        _say(f"warning: {message}")

    def ended(self, outcome: Outcome) -> None:
        """Record the time of a run, then do the trainings that belong after it.

        Raises:
            KeyboardInterrupt: The time of `--stop-after` is over.
            UsageError: The run failed.
        """
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
        """Train one half of Trainer's cells, every second one in the order of the plan, starting with cell `half`."""
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
        done[strategy] = times = self._baseline.fit(planned)
        self._ledger.write()
        _say(f"    {strategy} by Trainer: {times['whole_s']:.1f} s in all")


def costs(plan: Plan) -> dict[str, float]:
    """Return the expected cost of each cell."""
    return {run.spec.strategy: run.cost for run in plan.runs}


def full_again(plan: Plan) -> float:
    """Repeat our `full` run and return the seconds of its training steps."""
    from alue_bench.running.fine_tuning import train

    planned = full_of(plan)
    planned.inputs.models.expect(planned.inputs.checkpoint, planned.inputs.train_task.labels)
    trained = train(planned.spec, planned.inputs)
    return trained.training.loop_s


def full_of(plan: Plan) -> PlannedRun:
    """Return the planned run of full fine-tuning.

    Raises:
        UsageError: The grid does not contain it.
    """
    for planned in plan.runs:
        if planned.spec.strategy == "full":
            return planned
    raise UsageError("--grid must hold full: begin both axes with 0")


class Baseline:
    """A trainer of planned runs by transformers' `Trainer`, in this process."""

    def __init__(self, planned: PlannedRun) -> None:
        """Prepare the data of a run and warm up with a training of one step."""
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
        """Train a run and return its times, counts and test score.

        `train_s` is the time of training alone; `whole_s` is everything that a user would wait for: loading, training,
        scoring the dev split after each epoch and the test split once.
        """
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
    """Return the token ids of a split, as the planned run uses them."""
    from alue_bench.running.inputs import tokenized

    inputs = planned.inputs
    return tokenized(inputs.rows, split, planned.spec, inputs, inputs.models.tokenizer(inputs.checkpoint))


def compared_apart(
    document: Mapping[str, Any], options: argparse.Namespace, folder: Path, ledger: Ledger
) -> list[dict[str, Any]]:
    """Run some cells again, each in a process of its own that shares nothing with the sweep, and compare the scores.

    Args:
        document: The document that the sweep printed.
        options: The parsed options.
        folder: The folder of the benchmark.
        ledger: The measurements; results are added.

    Returns:
        Strategy, equality and largest difference of scores, for each cell.
    """
    done = {one["strategy"]: one["metrics"] for one in document["runs"]}
    chosen = random.Random(1).sample(sorted(done), min(SEPARATE, len(done)))
    known = {one["strategy"]: one for one in ledger.content.get("apart", [])}
    from alue_bench.executors.processes import environment_of

    # A sweep in several processes gives each a share of the cores; these runs must have the same share.
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
    """Execute `alue-bench run` on the same rows in a fresh process, with a cache and a store of its own.

    Args:
        given: Further arguments.
        options: The parsed options.
        folder: The folder for cache and store.
        environment: Further environment variables.

    Returns:
        The runs in the document that the command prints.

    Raises:
        UsageError: The command failed.
    """
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
    """Repeat our `full` run with other seeds, as many at once as in the sweep, and record the seconds."""
    if len(ledger.content["full_s"]) >= FULLS:
        return
    seeds = [option for seed in range(FULLS) for option in ("--seed", str(43 + seed))]
    runs = run_apart(["--strategy", "full", *seeds, "--jobs", str(options.jobs), "--rerun"], options, folder / "fulls")
    ledger.content["full_s"] = [[f"seed {one['seed']}", one["metrics"]["runtime/loop_s"]] for one in runs]
    ledger.write()


def concluded(content: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the sums, estimates and ratios.

    Args:
        content: The content of the ledger.
        plan: The plan of the sweep.

    Raises:
        UsageError: A cell was not measured.
    """
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
    """Return our seconds for scoring dev and test splits.

    The sum includes the cost of the splits' frozen prefixes for each run, so that it exceeds the time actually spent.
    """
    return sum(one["runtime/dev_s"] + one["runtime/test_s"] for one in metrics.values())


def predictions(plan: Plan) -> dict[str, float]:
    """Return the FLOPs of all cells by formula, relative to the same number of `full` runs.

    Returns:
        "shared": all prefixes come from one pass; "charged": each run computes its own prefix once; "uncached": the
        prefixes are computed at every step.
    """
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


def report(conclusion: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Print the conclusion on stdout.

    Args:
        conclusion: The result of `concluded`, with the comparison of separate runs.
        document: The document that the sweep printed.
    """
    trainer, alone = Estimate(**conclusion["trainer_whole_s"]), Estimate(**conclusion["trainer_training_s"])
    sheet = Sheet(
        title=f"{conclusion['cells']} cells; Trainer: estimated from {conclusion['trainer_cells']} of them "
        "(± standard error)",
        columns=("what", "", "ours s", "Trainer s", "ours ÷ Trainer"),
        rows=(
            (
                *("whole job", "loading, training, scoring, recording"),
                *(number(conclusion["ours_whole_s"], ".0f"), f"{trainer.total:.0f} ± {trainer.error:.0f}"),
                number(conclusion["whole_ratio"], ".3f"),
            ),
            (
                *("training alone", "prefixes included" + ("; of a worker" if conclusion["jobs"] > 1 else "")),
                *(number(conclusion["ours_training_s"], ".0f"), f"{alone.total:.0f} ± {alone.error:.0f}"),
                number(conclusion["training_ratio"], ".3f"),
            ),
        ),
    )
    predicted = conclusion["predicted"]
    lines = [
        f"Target {TARGET:.3f} of Trainer's time: {'met' if conclusion['whole_ratio'] <= TARGET else 'missed'} "
        f"({conclusion['whole_ratio']:.3f}).",
        f"Training of all cells took {conclusion['of_so_many_fulls']:.3f} of so many of our full runs "
        f"({conclusion['our_full_s']:.2f} s each, mean of repetitions over the sweep); operations predict "
        f"{predicted['shared']:.3f} with shared prefixes ({conclusion['against_prediction']:+.1%}), "
        f"{predicted['charged']:.3f} where each pays its own, {predicted['uncached']:.3f} without a cache.",
        f"Beside training, scoring among it, a run took {conclusion['ours_beside_training_s_per_run']:.2f} s.",
        *(
            f"{one['strategy']} apart, in a fresh process with an empty cache: "
            f"{'equal' if one['equal'] else 'largest difference ' + format(one['largest_difference'], '.2g')}."
            for one in conclusion["apart"]
        ),
        *(
            f"Recommended for {grid['task']}, {grid['model']}: {grid['recommendation']['strategy']}."
            for grid in document["sweep"]["grids"]
            if grid["recommendation"]
        ),
        f"Measured on {conclusion['hardware']}.",
    ]
    show([sheet], lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
