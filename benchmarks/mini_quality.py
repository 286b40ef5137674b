"""Is the bundled encoder honestly pre-trained? Fine-tunes it beside the same architecture with random weights.

    python -m benchmarks.mini_quality --data-dir DIR

The random copy has the same configuration, tokeniser and hyper-parameters; only its weights were drawn instead of
learnt. Every run goes through the harness into MLflow, so that the same command again goes on where it stopped. Beside
the encoders stands a linear model on character n-grams (`bag_of_characters.py`), whichever way that falls.

Intervals are t-intervals over seeds of fine-tuning (head initialisation and data order), paired by seed. They say
nothing of other pre-trainings, other random encoders or other test rows, and are not corrected for the number of tasks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from alue_bench import __version__
from alue_bench.errors import AlueBenchError, UnavailableError, UsageError
from alue_bench.model import Model
from alue_bench.plugins import Declared, Origin, Registry, load_registry
from alue_bench.task import NAME
from benchmarks.bag_of_characters import Yardstick, defined, yardstick

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from alue_bench.executors.local import Outcome
    from alue_bench.plan import Plan, PlannedRun, PlanRequest
    from alue_bench.training.checkpoint import Checkpoint

TASKS = ("mdd", "anger", "oold", "ohsd", "mq2q", "sec", "svreg", "xnli")
STRATEGIES = ("full", "bottom3top4")
BUNDLED = "mini"
EXPERIMENT = "mini-quality"
RANDOM_SEED = 20_201_124
"""Draws the weights of the random copy."""
CONFIDENCE = 0.95
NONE = "–"
WIDTH_OF_LOGS = 200
"""Logs and pipes have no width of their own; tables take what they need of this."""
ORIGIN = Origin("alue-bench", __version__, "benchmarks", "benchmarks.mini_quality")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes are those of `alue-bench`: 0 all done, 1 some runs failed, 2 misuse, 130 and 143 stopped."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        return benchmark(_parser().parse_args(given), command=shown_command(given))
    except AlueBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def benchmark(options: argparse.Namespace, *, command: str) -> int:
    """Plan, execute, compare, show. Returns the exit code."""
    from rich.console import Console

    from alue_bench.cli.run import Terminated, stop_on_sigterm
    from alue_bench.cli.tables import plan_view
    from alue_bench.executors.local import Interrupted
    from alue_bench.plan import build_plan

    talk, show = (Console(file=file, width=_log_width(file)) for file in (sys.stderr, sys.stdout))
    _check_written_files(options)
    installed = load_registry()
    models = chosen_models(options.model or [BUNDLED], installed)
    random = random_copy(models[0])
    if random.name in [model.name for model in models]:
        raise UsageError(f"--model: {random.name!r} is the name of the random copy; choose another")
    registry = with_models(installed, [*models, random])
    plan = build_plan(plan_request(options, [*models, random]), registry)
    talk.print(plan_view(plan))
    _check_plan(plan, sample=options.sample)
    try:
        with stop_on_sigterm():
            outcomes = recorded_outcomes(plan, registry, options.store, talk)
            results = gathered(plan, outcomes, [model.name for model in models], random.name, talk)
    except Interrupted as stop:
        left = len(plan.runs) - len(stop.outcomes)
        talk.print(f"interrupted: {left} runs are left; the same command goes on from here")
        return 143 if isinstance(stop.__cause__, Terminated) else 130
    except KeyboardInterrupt as stop:
        talk.print("interrupted: every run is done; the same command compares them")
        return 143 if isinstance(stop, Terminated) else 130

    circumstances = measured_under(plan, command)
    sheets, lines = all_sheets(results), closing_lines(results)
    for sheet in sheets:
        show.print(as_rich(sheet))
    show.print("\n".join(lines), markup=False, highlight=False)
    if options.json:
        content = circumstances | document(results) | {"runs": run_records(outcomes)}
        options.json.write_text(json.dumps(_finite(content), ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    if options.markdown:
        options.markdown.write_text(as_page(sheets, lines, circumstances), encoding="utf-8")
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        talk.print(f"failed {outcome.spec.label}: {outcome.cause}", style="red", markup=False)
    return 1 if failed else 0


# Options ---------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks.mini_quality",
        description="Compare models with their architecture's random weights and with a linear model.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data-dir", type=Path, help="folder with the official files (default: $ALUE_BENCH_DATA)")
    add("--sample", action="store_true", help="use the embedded sample data: to try the benchmark, not the model")
    add("--task", action="append", help=f"repeatable (default: {', '.join(TASKS)})")
    add(
        "--model",
        action="append",
        metavar="NAME=MODEL",
        help="a model's name, a folder or hub/id, and the name to show it by; repeatable (default: mini=mini). The "
        "random copy is of the first one. What is given by folder has no hyper-parameters of its own and takes those "
        "of the first model, or, where that is a folder too, those of mini",
    )
    add("--strategy", action="append", help="repeatable (default: full and bottom3top4); the first one is the base")
    add("--seeds", type=int, default=3, help="run with this many seeds: 42, 43, … (default: 3)")
    add("--limit-train", type=_limit, default=2000, metavar="ROWS", help="a number or all (default: 2000)")
    add("--limit-eval", type=_limit, metavar="ROWS", help="dev and test rows, a number or all (default: all)")
    add("--epochs", type=int, default=3, help="(default: 3)")
    add("--lr", type=float, help="peak learning rate (default: each model's own)")
    add("--store", metavar="URI", help="MLflow store (default: $MLFLOW_TRACKING_URI, else sqlite below mlruns/)")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    add("--markdown", type=Path, metavar="FILE", help="write the tables here")
    return parser


def _limit(value: str) -> int | None:
    if value != "all" and not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is neither a number of rows nor all")
    return None if value == "all" else int(value)


def _check_written_files(options: argparse.Namespace) -> None:
    """Before hours of work, not after them."""
    for option, file in (("--json", options.json), ("--markdown", options.markdown)):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"{option} {file}: there is no such folder; create it first")


def plan_request(options: argparse.Namespace, models: Sequence[Model]) -> PlanRequest:
    """Raises UsageError where a number of seeds makes no sense."""
    from alue_bench.plan import DEFAULT_SEED, PlanRequest

    if options.seeds < 1:
        raise UsageError(f"--seeds is {options.seeds}; it must be at least 1")
    return PlanRequest(
        tasks=tuple(options.task or TASKS),
        models=tuple(model.name for model in models),
        strategies=tuple(options.strategy or STRATEGIES),
        seeds=tuple(range(DEFAULT_SEED, DEFAULT_SEED + options.seeds)),
        overrides=(("command line", {"epochs": options.epochs, "lr": options.lr}),),
        limit_train=options.limit_train,
        limit_eval=options.limit_eval,
        data_dir=options.data_dir,
        sample=options.sample,
    )


def _check_plan(plan: Plan, *, sample: bool) -> None:
    """The harness takes the embedded sample where it finds no official files; here that would answer nothing.

    Raises UsageError in that case, and where nothing is left to run.
    """
    if not plan.runs:
        reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in plan.skipped))
        raise UsageError(f"nothing to run: {reasons}")
    lacking = dict.fromkeys(run.spec.task for run in plan.runs if run.spec.data.source == "sample")
    if lacking and not sample:
        raise UsageError(
            f"there are no official files of {', '.join(lacking)}; name their folder with --data-dir or "
            "ALUE_BENCH_DATA, or try the benchmark itself with --sample"
        )


def shown_command(arguments: Sequence[str]) -> str:
    """The command line, with each path cut to its last part: the folders above it are this machine's own."""
    folders = re.compile(r"(^|=|sqlite:///)(?:~|\.{0,2})/(?:.*/)?(?=[^/])")
    return shlex.join(["python", "-m", "benchmarks.mini_quality", *(folders.sub(r"\1", part) for part in arguments)])


# Models ----------------------------------------------------------------------------------------------------------


def chosen_models(options: Sequence[str], registry: Registry) -> list[Model]:
    """The models of `--model NAME=MODEL` under the names they are given, with hyper-parameters for those without any.

    Raises UsageError where a name is not one, or is given twice.
    """
    found = [_named_model(option, registry) for option in options]
    names = [model.name for model, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--model: {twice!r} is given twice; tell the two apart with NAME=MODEL")
    first, first_is_declared = found[0]
    recipe = first.defaults if first_is_declared else registry.model(BUNDLED).defaults
    return [model if declared else replace(model, defaults=recipe) for model, declared in found]


def _named_model(option: str, registry: Registry) -> tuple[Model, bool]:
    """A model, and whether a plugin declares it, with hyper-parameters of its own."""
    from alue_bench.plan import resolve_model

    name, equals, value = option.partition("=")
    if not equals:
        return resolve_model(option, registry), option in registry.models
    if not NAME.fullmatch(name):
        raise UsageError(f"--model {option}: {name!r} is not a name (small letters, digits, dots and dashes)")
    return replace(resolve_model(value, registry), name=name), value in registry.models


def with_models(registry: Registry, models: Iterable[Model]) -> Registry:
    """The registry with these models too, so that the plan knows them by name."""
    known = [declared.value for declared in registry.models.values()]
    added = {model.name: Declared(model, ORIGIN) for model in models if model not in known}
    return replace(registry, models={**registry.models, **added})


def random_copy(model: Model) -> Model:
    """The same model with weights as the library initialises them, in a folder that is made once and kept.

    Its architecture is the one that config.json names, so that it has a pooler where the original has one. Name and
    weights depend on configuration and tokeniser alone: so do the fingerprints of its runs.
    """
    from alue_bench.data.location import cache_folder
    from alue_bench.spec import digest_of
    from alue_bench.training.checkpoint import locate_checkpoint

    checkpoint = locate_checkpoint(model)
    described = _description_files(checkpoint)
    content = {path.name: path.read_bytes().hex() for path in described}
    folder = cache_folder() / f"random-{digest_of([RANDOM_SEED, content])[:12]}"
    if not folder.is_dir():
        _write_random_copy(checkpoint, described, folder)
    return replace(
        model,
        name=f"{model.name}-random",
        title=f"the architecture of {model.name} with random weights",
        checkpoint=folder,
        revision=None,
    )


def _description_files(checkpoint: Checkpoint) -> list[Path]:
    """Configuration and tokeniser."""
    kept = (path for path in checkpoint.folder.iterdir() if path.suffix in (".json", ".txt", ".model"))
    return sorted(path for path in kept if not path.name.endswith(".index.json"))


def _write_random_copy(checkpoint: Checkpoint, described: Iterable[Path], folder: Path) -> None:
    """Written beside its place and moved there whole: an interruption leaves no half copy."""
    import torch

    from alue_bench.training.checkpoint import load_config, quiet_transformers

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    except OSError as error:
        raise UnavailableError(f"the cache folder {folder.parent} is not writable ({error.strerror})") from error
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(RANDOM_SEED)
        fresh_model(load_config(checkpoint)).save_pretrained(scratch)
    for path in described:
        shutil.copyfile(path, scratch / path.name)  # config.json too: byte by byte the original's
    try:
        os.replace(scratch, folder)
    except OSError:  # another process was faster: its copy is equal to ours
        shutil.rmtree(scratch, ignore_errors=True)


def fresh_model(config: Any) -> Any:
    """The architecture that the configuration names, in fp32, with the library's own initialisation.

    Raises UsageError where it names none that the library knows.
    """
    import torch
    import transformers

    names = getattr(config, "architectures", None) or ["none"]
    architecture = getattr(transformers, names[0], None)
    if architecture is None:
        raise UsageError(f"config.json names the architecture {names[0]!r}, which transformers does not know")
    return architecture(config).to(torch.float32)


# Running ---------------------------------------------------------------------------------------------------------


def recorded_outcomes(plan: Plan, registry: Registry, store: str | None, talk: Console) -> list[Outcome]:
    """Execute what is not yet in the store, under a parent run that holds plan and results."""
    from alue_bench.cli.progress import PlainProgress
    from alue_bench.executors.local import Interrupted, aggregate, execute_plan, result_document
    from alue_bench.tracking.connection import connect, tracking_uri
    from alue_bench.tracking.recording import Recorder

    uri = tracking_uri(store)
    recorder = Recorder(connect(uri, EXPERIMENT))
    recorder.close_interrupted()
    nothing_yet = result_document([], plan, experiment=EXPERIMENT, tracking_uri=uri)
    sources = ",".join(sorted({run.spec.data.source for run in plan.runs}))
    recorder.start_parent(
        nothing_yet | {"planned": [planned.spec.as_dict() for planned in plan.runs]},
        name=f"{EXPERIMENT}: {len(plan.runs)} runs",
        tags={"data.source": sources},
    )

    def close(outcomes: list[Outcome], status: str) -> None:
        results = result_document(outcomes, plan, experiment=EXPERIMENT, tracking_uri=uri)
        recorder.finish_parent(results, aggregate(outcomes), status=status)

    try:
        with PlainProgress(plan, talk) as progress:
            outcomes = execute_plan(plan, recorder, registry, progress)
    except Interrupted as stop:
        close(stop.outcomes, "KILLED")
        raise
    close(outcomes, "FAILED" if any(outcome.status == "failed" for outcome in outcomes) else "FINISHED")
    return outcomes


def run_records(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Where each number can be looked up in MLflow, and which hyper-parameters it was had with."""
    return [
        {
            "label": outcome.spec.label,
            "status": outcome.status,
            "run_id": outcome.run_id,
            "fingerprint": outcome.spec.fingerprint,
            "model_digest": outcome.spec.model_digest,
            "hyper": asdict(outcome.spec.hyper),
            "metrics": dict(sorted(outcome.metrics.items())),
        }
        for outcome in outcomes
    ]


# Statistics ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean, and half the width of its t-interval; None where one value gives no interval."""

    mean: float
    half_width: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below zero, 0 where it holds zero or there is none."""
        if self.interval is None:
            return 0
        low, high = self.interval
        return int(low > 0) - int(high < 0)


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean with its t-interval; None where there are no values."""
    from scipy.stats import sem, t

    if not values:
        return None
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Estimate(mean, None)
    return Estimate(mean, float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * sem(values)))


def paired_difference(values: Mapping[int, float], base: Mapping[int, float]) -> Estimate | None:
    """The mean of the differences seed by seed, over the seeds that both have."""
    return estimate([values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())])


def relative_change(values: Mapping[int, float], base: Mapping[int, float]) -> float | None:
    """By which part the mean changes against the base's."""
    return statistics.fmean(values.values()) / statistics.fmean(base.values()) - 1 if values and base else None


# Results ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What the runs of one task, model and strategy gave, by seed."""

    scores: Mapping[int, float]
    seconds: Mapping[int, float]


NOTHING = Measured({}, {})


@dataclass(frozen=True)
class TaskFacts:
    """What holds for a task whatever the model."""

    name: str
    metric: str
    train_rows: int
    test_rows: int
    source: str
    yardstick: Yardstick


@dataclass(frozen=True)
class Results:
    """All that was measured, and the comparisons that are made of it."""

    tasks: tuple[TaskFacts, ...]
    models: tuple[str, ...]
    """The first one is compared between strategies; the random copy is not among them."""
    random: str
    strategies: tuple[str, ...]
    """The first one is the base of the others."""
    seeds: tuple[int, ...]
    measured: Mapping[tuple[str, str, str], Measured]
    """By task, model, strategy."""

    def of(self, task: TaskFacts, model: str, strategy: str) -> Measured:
        return self.measured.get((task.name, model, strategy), NOTHING)

    def score(self, task: TaskFacts, model: str, strategy: str) -> Estimate | None:
        return estimate(list(self.of(task, model, strategy).scores.values()))

    def gain(self, task: TaskFacts, model: str, strategy: str) -> Estimate | None:
        """Over random weights."""
        base = self.of(task, self.random, strategy)
        return paired_difference(self.of(task, model, strategy).scores, base.scores)

    def change(self, task: TaskFacts, strategy: str) -> Estimate | None:
        """Of the first model's score, against the base strategy."""
        base = self.of(task, self.models[0], self.strategies[0])
        return paired_difference(self.of(task, self.models[0], strategy).scores, base.scores)

    def time_change(self, task: TaskFacts, strategy: str) -> float | None:
        """Of the first model's seconds of training, against the base strategy."""
        base = self.of(task, self.models[0], self.strategies[0])
        return relative_change(self.of(task, self.models[0], strategy).seconds, base.seconds)

    def seconds(self, task: TaskFacts, model: str, strategy: str) -> float | None:
        values = self.of(task, model, strategy).seconds.values()
        return statistics.fmean(values) if values else None


def gathered(plan: Plan, outcomes: Iterable[Outcome], models: Sequence[str], random: str, talk: Console) -> Results:
    """The outcomes by task, model and strategy, with the yardstick of each task, which is measured here."""
    specs = [planned.spec for planned in plan.runs]
    first_of = {planned.spec.task: planned for planned in reversed(plan.runs)}
    facts = []
    for task in dict.fromkeys(spec.task for spec in specs):
        facts.append(task_facts(first_of[task]))
        found = facts[-1].yardstick
        talk.print(f"{task}/TF-IDF: {facts[-1].metric} {found.score:.3f}, in {found.seconds:.1f} s", highlight=False)
    return Results(
        tasks=tuple(facts),
        models=tuple(models),
        random=random,
        strategies=tuple(dict.fromkeys(spec.strategy for spec in specs)),
        seeds=tuple(sorted({spec.seed for spec in specs})),
        measured=by_cell(outcomes),
    )


def task_facts(planned: PlannedRun) -> TaskFacts:
    """Metric, rows and yardstick, on the very rows that the planned run has."""
    inputs = planned.inputs
    return TaskFacts(
        name=planned.spec.task,
        metric=inputs.task.primary,
        train_rows=len(inputs.train_rows.splits["train"].examples),
        test_rows=len(inputs.rows.splits["test"].examples),
        source=planned.spec.data.source,
        yardstick=yardstick(inputs),
    )


def by_cell(outcomes: Iterable[Outcome]) -> dict[tuple[str, str, str], Measured]:
    """Scores and seconds by seed of every task, model and strategy; failed runs are left out."""
    scores: dict[tuple[str, str, str], dict[int, float]] = {}
    seconds: dict[tuple[str, str, str], dict[int, float]] = {}
    for outcome in outcomes:
        if outcome.status != "failed":
            spec = outcome.spec
            cell = (spec.task, spec.model, spec.strategy)
            scores.setdefault(cell, {})[spec.seed] = defined(outcome.metrics["test/score"])
            seconds.setdefault(cell, {})[spec.seed] = outcome.metrics["runtime/train_s"]
    return {cell: Measured(scores[cell], seconds[cell]) for cell in scores}


# Showing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sheet:
    """A table before it is drawn; the first two columns hold words, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


WORDS = 2


def all_sheets(results: Results) -> list[Sheet]:
    """One against random weights for each strategy, and one for each strategy against the base."""
    return [
        *(quality_sheet(results, strategy) for strategy in results.strategies),
        *(strategy_sheet(results, strategy) for strategy in results.strategies[1:]),
    ]


def quality_sheet(results: Results, strategy: str) -> Sheet:
    """Each model against random weights, the yardstick and the trivial predictor, under one strategy."""
    first = results.models[0]
    gains = [column for model in results.models for column in (f"{model} - random", "95 % interval")]
    return Sheet(
        title=f"{first} against random weights: {strategy}{_sample_note(results)}",
        columns=("task", "metric", "rows", "trivial", "TF-IDF", *results.models, "random", *gains, "train s"),
        rows=tuple(
            (
                task.name,
                task.metric,
                f"{task.train_rows}/{task.test_rows}",
                _number(task.yardstick.trivial),
                _number(task.yardstick.score),
                *(_score(results.score(task, model, strategy)) for model in (*results.models, results.random)),
                *(text for model in results.models for text in _difference(results.gain(task, model, strategy))),
                _number(results.seconds(task, first, strategy), ".1f"),
            )
            for task in results.tasks
        ),
    )


def strategy_sheet(results: Results, strategy: str) -> Sheet:
    """What a strategy costs and saves the first model."""
    first, base = results.models[0], results.strategies[0]
    return Sheet(
        title=f"{first}: {strategy} against {base}{_sample_note(results)}",
        columns=(
            *("task", "metric", base, strategy, "change", "95 % interval"),
            *(f"{base}: train s", f"{strategy}: train s", "change of time"),
        ),
        rows=tuple(
            (
                task.name,
                task.metric,
                *(_score(results.score(task, first, one)) for one in (base, strategy)),
                *_difference(results.change(task, strategy)),
                *(_number(results.seconds(task, first, one), ".1f") for one in (base, strategy)),
                _number(results.time_change(task, strategy), "+.0%"),
            )
            for task in results.tasks
        ),
    )


def closing_lines(results: Results) -> list[str]:
    """How to read the tables, and on how many tasks pre-training shows."""
    count = len(results.seeds)
    lines = [
        f"Score: mean ± half-width of the 95 % t-interval over {count} seeds; differences are paired by seed. "
        f"Rows: train/test. TF-IDF: characters, linear. train s: of {results.models[0]}."
    ]
    if count == 1:
        lines.append("One seed gives no interval: a difference may be chance. --seeds 3 tells more.")
    lines += [_verdict(results, model, strategy, count) for model in results.models for strategy in results.strategies]
    return lines


def _verdict(results: Results, model: str, strategy: str, seeds: int) -> str:
    signs = [found.sign if (found := results.gain(task, model, strategy)) else 0 for task in results.tasks]
    scores = [(results.score(task, model, strategy), task.yardstick.score) for task in results.tasks]
    beats = sum(score is not None and score.mean > linear for score, linear in scores)
    above, below, all_tasks = signs.count(1), signs.count(-1), len(results.tasks)
    excludes = f"the interval of {model} - random excludes zero on {above + below} of {all_tasks} tasks"
    sides = f" ({above} above, {below} below)" if above + below else ""
    said = f"{excludes}{sides}; " if seeds > 1 else ""
    return f"{strategy}: {said}{model}'s mean is above TF-IDF on {beats} of {all_tasks}."


def as_rich(sheet: Sheet) -> Table:
    """For a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=sheet.title, title_justify="left", title_style="bold")
    for place, column in enumerate(sheet.columns):
        table.add_column(column, justify="left" if place < WORDS else "right")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table


def as_markdown(sheet: Sheet) -> str:
    """For GitHub."""
    rules = ["---" if place < WORDS else "---:" for place in range(len(sheet.columns))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (sheet.columns, rules, *sheet.rows)]
    return "\n".join([f"**{sheet.title}**", "", *lines])


def as_page(sheets: Iterable[Sheet], lines: Sequence[str], circumstances: Mapping[str, Any]) -> str:
    """All tables, with how, when and on what they were measured."""
    environment = circumstances["environment"]
    hardware, libraries = environment["hardware"], environment["libraries"]
    device = hardware.get("accelerator") or f"{hardware['processor']}, {hardware['threads']} threads"
    versions = f"torch {libraries['torch']}, transformers {libraries['transformers']}"
    made = f"`{circumstances['command']}`, {circumstances['date']}; {device}; {versions}."
    return "\n\n".join([*map(as_markdown, sheets), *lines, made]) + "\n"


def document(results: Results) -> dict[str, Any]:
    """All numbers of the tables and those behind them."""
    return {
        "models": list(results.models),
        "random": results.random,
        "strategies": list(results.strategies),
        "seeds": list(results.seeds),
        "tasks": [asdict(task) for task in results.tasks],
        "results": [
            {
                "task": task.name,
                "model": model,
                "strategy": strategy,
                "scores": {str(seed): score for seed, score in results.of(task, model, strategy).scores.items()},
                "score": _plain(results.score(task, model, strategy)),
                "train_s": {str(seed): time for seed, time in results.of(task, model, strategy).seconds.items()},
                "mean_train_s": results.seconds(task, model, strategy),
                "minus_random": None if model == results.random else _plain(results.gain(task, model, strategy)),
            }
            for strategy in results.strategies
            for task in results.tasks
            for model in (*results.models, results.random)
        ],
        "strategy_changes": [
            {
                "task": task.name,
                "model": results.models[0],
                "strategy": strategy,
                "against": results.strategies[0],
                "score_change": _plain(results.change(task, strategy)),
                "train_s_change": results.time_change(task, strategy),
            }
            for strategy in results.strategies[1:]
            for task in results.tasks
        ],
    }


def measured_under(plan: Plan, command: str) -> dict[str, Any]:
    """When, how and on what."""
    from alue_bench.measure.environment import environment

    spec = plan.runs[0].spec
    return {
        "benchmark": EXPERIMENT,
        "version": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "device": spec.device,
        "precision": spec.precision,
        "environment": environment(spec.device),
    }


def _sample_note(results: Results) -> str:
    sample = any(task.source == "sample" for task in results.tasks)
    return " (embedded sample data: says nothing about the real tasks)" if sample else ""


def _number(value: float | None, style: str = ".3f") -> str:
    return NONE if value is None else format(value, style)


def _score(found: Estimate | None) -> str:
    return NONE if found is None else f"{found.mean:.3f} ± {_number(found.half_width)}"


def _difference(found: Estimate | None) -> tuple[str, str]:
    """The mean, and its interval."""
    if found is None or found.interval is None:
        return (_number(found.mean if found else None, "+.3f"), NONE)
    low, high = found.interval
    return f"{found.mean:+.3f}", f"[{low:+.3f}, {high:+.3f}]"


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else {**asdict(found), "interval": found.interval}


def _finite(value: Any) -> Any:
    """JSON has no nan: what is undefined is null."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _log_width(stream: Any) -> int | None:
    return None if stream.isatty() else WIDTH_OF_LOGS


if __name__ == "__main__":
    sys.exit(main())
