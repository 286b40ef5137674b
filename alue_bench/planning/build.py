"""From a question (which tasks, models, strategies, seeds) to an ordered list of runs, and what is left out and why."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from alue_bench import __version__
from alue_bench.contract.errors import AlueBenchError, DataError, DoesNotFit, PluginError, UnavailableError, UsageError
from alue_bench.contract.formats import shown
from alue_bench.contract.model import Model
from alue_bench.contract.naming import model_name
from alue_bench.contract.registry import Origin, Registry, outline_of
from alue_bench.contract.spec import (
    DataDigests,
    HyperParameters,
    Resolved,
    RunSpec,
    digest_of,
    resolve_hyper_parameters,
)
from alue_bench.contract.strategy import Outline, Strategy
from alue_bench.contract.task import Labels, TargetKind, Task
from alue_bench.contract.transfer import misfit
from alue_bench.data.location import DataFolder, cache_folder, given_data_folder, locate
from alue_bench.data.splits import SplitRows, TaskRows, load_rows
from alue_bench.data.tokenisation import TokenCache, first_texts_notes
from alue_bench.data.verification import label_counts
from alue_bench.messages.display import one_line
from alue_bench.planning.grid import Grid
from alue_bench.planning.request import DEFAULT_STRATEGIES, PlanRequest
from alue_bench.running.run import RunInputs
from alue_bench.training.architecture.encoder_stack import check_layers_can_be_told_apart
from alue_bench.training.architecture.trial import Trial, positions_of, try_model
from alue_bench.training.checkpointing import Checkpointing, checkpoint_folder
from alue_bench.training.device.precision import Precision, resolve_device, resolve_graphs, resolve_precision
from alue_bench.training.prefix.frozen_prefix import PlannedDepths
from alue_bench.training.prefix.store import PrefixStore, parse_size, prefix_folder
from alue_bench.training.pretrained.loading import (
    Checkpoint,
    check_keeps_head,
    declared_config,
    encoder_shape,
    head_note,
    load_config,
    locate_checkpoint,
)
from alue_bench.training.pretrained.model_cache import ModelCache
from alue_bench.training.pretrained.tokenizer import pads_with
from alue_bench.training.surgery import model_in_outline

R = TypeVar("R")


@dataclass(frozen=True)
class PlannedRun:
    """A run to do, and what its names stand for."""

    spec: RunSpec
    inputs: RunInputs
    hyper: Resolved
    request: PlanRequest
    """What the plan was asked for."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Recorded with the run where it is done: what says nothing about its result."""

    @property
    def cost(self) -> float:
        """Expected effort in units of one example through one layer, for progress bars: not for reports."""
        plan = self.spec.freeze_plan
        trains_below, passes = not plan.embeddings, 0
        for layer in range(plan.shape.layers):
            trained = layer not in plan.frozen_layers
            passes += 1 + (trained or trains_below) + (trained and plan.trained == "weights")
            trains_below = trains_below or trained
        rows = self.inputs.train_rows.splits
        size = sum(len(example.text) for example in rows["train"].examples)
        return float(size * passes * self.spec.hyper.epochs + size * plan.shape.layers)


@dataclass(frozen=True)
class Skipped:
    """A combination that is left out, and why."""

    task: str
    model: str
    strategy: str
    seed: int | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class AbsentRun:
    """A run that would be done if its model's files were here."""

    task: Task
    rows: TaskRows
    train_task: Task
    train_rows: TaskRows
    model: Model
    strategy: Strategy
    outline: Outline
    seed: int
    hyper: HyperParameters
    device: str
    precision: Precision


@dataclass
class Plan:
    """An ordered list of runs, plus what was left out and why."""

    runs: list[PlannedRun] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What one should know of models and texts before the runs begin."""
    absent: list[AbsentRun] = field(default_factory=list)
    """Runs of models that the user named and that are not here, where their shape is declared."""
    without_data: int = 0
    """How many runs are left out because what the user named has no data here."""
    keeps_prefixes: bool = True
    """Whether outputs of frozen layers are computed once and kept."""
    order_matters: bool = False
    """Whether workers are to begin its runs in this order, rather than the longest first."""


@dataclass(frozen=True)
class _ReadyTask:
    task: Task
    rows: TaskRows
    train_task: Task
    train_rows: TaskRows


@dataclass(frozen=True)
class _ReadyModel:
    model: Model
    checkpoint: Checkpoint
    config: Any
    """The library's configuration."""
    trial: Trial
    """What it can do with its tokenizer, in the number format asked for or in one that it can compute in."""
    outlines: dict[str, Outline] = field(default_factory=dict)
    """By strategy."""

    def unusual(self) -> dict[str, str]:
        """As `RunSpec.unusual`."""
        found = {"parts": self.trial.parts, "head": "fresh" if self.checkpoint.head_left_aside else ""}
        found["padding"] = "" if self.trial.padding.side == "right" else self.trial.padding.side
        return {name: value for name, value in found.items() if value}

    def outline(self, strategy: Strategy, origin: Origin) -> Outline:
        """What a strategy makes of the model. Raises DoesNotFit where it does not fit, PluginError where it fails."""
        if strategy.name not in self.outlines:
            found = outline_of(strategy, origin, encoder_shape(self.config))
            if found.freeze_plan.trained != "weights":  # whether there is any of it, only the modules tell
                model_in_outline(self.config, found)
            self.outlines[strategy.name] = found
        return self.outlines[strategy.name]


@dataclass
class PlanCache:
    """What one plan has read, or found out, and may serve the next one in the same process."""

    rows: dict[tuple[object, ...], TaskRows] = field(default_factory=dict)
    checkpoints: dict[tuple[object, ...], Checkpoint] = field(default_factory=dict)
    models: ModelCache = field(default_factory=ModelCache)
    text_notes: dict[tuple[object, ...], list[str]] = field(default_factory=dict)
    """What the models' tokenisers make of the first texts of a task, by texts and model."""
    more_expected: list[tuple[Checkpoint, Labels]] = field(default_factory=list)
    """Which of those models a further plan is likely to begin with."""
    depths: defaultdict[tuple[object, ...], PlannedDepths] = field(default_factory=lambda: defaultdict(PlannedDepths))
    """Of frozen prefixes, by what training begins with: the same model over the same texts."""


def build_plan(request: PlanRequest, registry: Registry, shelf: PlanCache | None = None) -> Plan:
    """Resolve names, check data and checkpoints, and lay out the runs: task by task, then model, seed and strategy.

    What the user named must be there, unless the request says otherwise: raises a subclass of AlueBenchError if not.
    What "every available one" brings along may be missing and is skipped with a reason, as is a strategy that does not
    fit a model. A name that nothing declares is an error in any case.
    """
    grid = request.grid or Grid()
    _check_hyper_parameters(request, grid)
    named = _strategies(request.strategies or (() if request.grid else DEFAULT_STRATEGIES), registry)
    device = resolve_device(request.device)
    precision = resolve_precision(request.precision, device)
    cuda_graphs = resolve_graphs(request.cuda_graphs, device)
    plan = Plan()
    shelf = shelf or PlanCache()
    tasks = _ready_tasks(request, registry, plan, shelf)
    models = _ready_models(request, registry, plan, shelf, precision, device)
    tokens = TokenCache(cache_folder())
    checkpointing = _checkpointing(request.checkpoint_every)
    prefixes = PrefixStore(prefix_folder(), parse_size(request.cache_size), warnings.warn)
    seen: set[str] = set()
    for ready in tasks:
        for ready_model in models:
            layers = encoder_shape(ready_model.config).layers
            strategies = {**named, **_strategies(grid.strategy_names(layers), registry)}
            if (grid.bottom or grid.top) and not grid.cells(layers):
                name = ready_model.model.name
                reason = f"--grid freezes more layers than the {layers} of {name}; take smaller numbers"
                plan.skipped.append(Skipped(ready.task.name, name, "*", None, reason))
            try:
                variants = [
                    _hyper_parameters(
                        request, ready.train_task, ready_model.model, ready_model.trial.positions, variant
                    )
                    for variant in grid.variants()
                ]
                if request.keep_head:
                    _check_keeps_head(ready_model, ready.train_task)
            except UsageError as error:
                if request.models:
                    raise
                plan.skipped.append(Skipped(ready.task.name, ready_model.model.name, "*", None, str(error)))
                continue
            unfit: set[str] = set()
            for hyper, seed in product(variants, request.seeds):
                for strategy, origin in strategies.values():
                    try:
                        outlined = ready_model.outline(strategy, origin)
                    except DoesNotFit as error:
                        if strategy.name not in unfit:  # whatever the seed: said once, with the first
                            unfit.add(strategy.name)
                            plan.skipped.append(
                                Skipped(ready.task.name, ready_model.model.name, strategy.name, seed, str(error))
                            )
                        continue
                    providers = _providers(registry, ready.train_task, ready_model.model, origin)
                    spec = RunSpec(
                        task=ready.task.name,
                        train_task=ready.train_task.name,
                        model=ready_model.model.name,
                        model_digest=ready_model.checkpoint.digest,
                        strategy=strategy.name,
                        freeze_plan=outlined.freeze_plan,
                        kept_layers=outlined.kept_layers,
                        adapter=outlined.adapter,
                        keep_head=request.keep_head,
                        seed=seed,
                        init_seed=request.init_seed if request.init_seed is not None else seed,
                        data_seed=request.data_seed if request.data_seed is not None else seed,
                        hyper=hyper.values,
                        data=_digests(ready),
                        device=device,
                        precision=ready_model.trial.precision,
                        cuda_graphs=cuda_graphs,
                        limit_train=request.limit_train,
                        limit_eval=request.limit_eval,
                        drop_bad=request.drop_bad,
                        unusual=ready_model.unusual(),
                        providers=providers,
                        test_providers=_test_providers(registry, ready.task, providers),
                    )
                    if spec.fingerprint in seen:  # two names of one strategy
                        continue
                    seen.add(spec.fingerprint)
                    start = (spec.data.train, spec.model_digest, spec.kept_layers, spec.adapter and spec.strategy)
                    inputs = RunInputs(
                        task=ready.task,
                        rows=ready.rows,
                        train_task=ready.train_task,
                        train_rows=ready.train_rows,
                        model=ready_model.model,
                        strategy=strategy,
                        checkpoint=ready_model.checkpoint,
                        trial=ready_model.trial,
                        tokens=tokens,
                        prefixes=prefixes,
                        models=shelf.models,
                        checkpointing=checkpointing,
                        depths=shelf.depths[start],
                    )
                    shelf.models.expect(inputs.checkpoint, inputs.train_task.labels)
                    if spec.freeze_plan.prefix_layers and strategy.keeps_prefix and inputs.trial.independent:
                        inputs.depths.depths.add(spec.freeze_plan.prefix_layers)
                    plan.runs.append(PlannedRun(spec, inputs, hyper, request))
    plan.runs.sort(key=_shared_trainings_together(plan.runs))
    plan.keeps_prefixes = prefixes.limit_bytes > 0
    for ready_model in models:
        notes = [*shelf.models.notes(ready_model.checkpoint), *ready_model.trial.notes]
        notes += [
            f"task {ready.task.name}: {note}" for ready in tasks for note in _text_notes(ready, ready_model, shelf)
        ]
        plan.notes += [f"{ready_model.model.name}: {note}" for note in notes]
    if request.skip_missing:
        absent = _absent_models(request, registry)
        plan.absent = _absent_runs(request, registry, tasks, absent, device, precision)
        gone = set(request.tasks) - {ready.task.name for ready in tasks}
        configs = [*(ready_model.config for ready_model in models), *(config for _, config in absent)]
        each = sum(len(_strategies_for(request, registry, encoder_shape(config).layers)) for config in configs)
        plan.without_data = len(gone) * each * len(grid.variants()) * len(request.seeds)
    return plan


def _strategies_for(request: PlanRequest, registry: Registry, layers: int) -> dict[str, tuple[Strategy, Origin]]:
    """By name: those that were asked for, and the cells of the grid that a model with so many layers has."""
    grid = request.grid or Grid()
    named = request.strategies or (() if request.grid else DEFAULT_STRATEGIES)
    return _strategies([*named, *grid.strategy_names(layers)], registry)


def _absent_models(request: PlanRequest, registry: Registry) -> list[tuple[Model, Any]]:
    """Models that the user named and that are not here, with the configuration that their plugins declare."""
    found = []
    for name in dict.fromkeys(request.models):
        model = resolve_model(name, registry)
        if model.architecture and not _is_here(model):
            try:
                found.append((model, declared_config(model)))
            except UnavailableError:  # the plugin's mistake costs no more than the estimate
                continue
    return found


def _absent_runs(
    request: PlanRequest,
    registry: Registry,
    tasks: list[_ReadyTask],
    models: list[tuple[Model, Any]],
    device: str,
    precision: Precision,
) -> list[AbsentRun]:
    """What those models would run if they were here."""
    found = []
    variants = (request.grid or Grid()).variants()
    for ready, (model, config) in product(tasks, models):
        shape = encoder_shape(config)
        for variant, seed in product(variants, request.seeds):
            hyper = _hyper_parameters(request, ready.train_task, model, positions_of(config), variant)
            for strategy, origin in _strategies_for(request, registry, shape.layers).values():
                try:
                    outlined = outline_of(strategy, origin, shape)
                except DoesNotFit:
                    continue
                found.append(
                    AbsentRun(
                        task=ready.task,
                        rows=ready.rows,
                        train_task=ready.train_task,
                        train_rows=ready.train_rows,
                        model=model,
                        strategy=strategy,
                        outline=outlined,
                        seed=seed,
                        hyper=hyper.values,
                        device=device,
                        precision=precision,
                    )
                )
    return found


def _is_here(model: Model) -> bool:
    try:
        locate_checkpoint(model, download=False)
    except UnavailableError:
        return False
    return True


def _checkpointing(minutes: float | None) -> Checkpointing | None:
    if minutes is None:
        return None
    return Checkpointing(checkpoint_folder(), 60 * minutes)


def resolve_model(name: str, registry: Registry) -> Model:
    """A declared model by name, a local folder, or `hub/id@revision`.

    Raises UsageError where the name is none of these.
    """
    if name in registry.models:
        return registry.models[name].value
    path = Path(name)
    with suppress(RuntimeError):  # a "~" before the name of nobody
        path = path.expanduser()
    if path.is_dir():
        path = path.resolve()
        if (readable := one_line(str(path))) != str(path):
            raise UsageError(
                f"--model {readable}: the name holds what is no text, shown with a backslash; rename the folder"
            )
        return Model(name=model_name(path.name), title=f"local folder {path.name}", checkpoint=path)
    if name.startswith((".", "/", "~")):
        raise UsageError(f"--model {shown(name, quote=False, most=300)}: there is no such folder")
    hub_id, _, revision = name.partition("@")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        return Model(name=model_name(hub_id), title=f"hub {name}", checkpoint=hub_id, revision=revision or None)
    try:
        return registry.model(name)
    except UsageError as error:
        raise UsageError(f"{error}; --model also takes a local folder or hub/id@revision") from None


def _strategies(names: Iterable[str], registry: Registry) -> dict[str, tuple[Strategy, Origin]]:
    found: dict[str, tuple[Strategy, Origin]] = {}
    for name in names:
        strategy, origin = registry.strategy(name)
        found.setdefault(strategy.name, (strategy, origin))
    return found


def _check_hyper_parameters(request: PlanRequest, grid: Grid) -> None:
    """Refuse what is wrong whatever the task and model, once and before anything is looked for: otherwise each pair
    would be skipped for it.
    """
    for variant in grid.variants():
        resolve_hyper_parameters([*request.overrides, *([("grid", variant)] if variant else [])])


def _ready_tasks(request: PlanRequest, registry: Registry, plan: Plan, shelf: PlanCache) -> list[_ReadyTask]:
    if request.tasks and not registry.tasks:
        registry.task(request.tasks[0])
    given = given_data_folder(request.data_dir)
    options = (given, request.sample, request.drop_bad, request.limit_train, request.limit_eval)

    def rows(task: Task) -> TaskRows:
        key = (task.name, *options)
        if key not in shelf.rows:
            folder: DataFolder = locate(task, given=given, sample=request.sample)
            shelf.rows[key] = load_rows(
                task,
                folder,
                drop_bad=request.drop_bad,
                limit_train=request.limit_train,
                limit_eval=request.limit_eval,
            )
        return shelf.rows[key]

    def ready(name: str) -> _ReadyTask:
        task = registry.task(name)
        train_task = _training_task(task, registry)
        return _ReadyTask(task, rows(task), train_task, rows(train_task))

    names = list(dict.fromkeys(request.tasks)) or sorted(registry.tasks)
    return _available(
        names,
        ready,
        forgiven=_forgiven(request, named=bool(request.tasks)),
        skip=lambda name, why: Skipped(name, "*", "*", None, why),
        plan=plan,
    )


def _training_task(task: Task, registry: Registry) -> Task:
    """The task that trains the model of `task`. Raises PluginError where none is declared or its labels do not fit."""
    if task.trained_on is None:
        return task
    origin = registry.tasks[task.name].origin
    if task.trained_on not in registry.tasks:
        raise PluginError(
            f"plugin {origin}: task {task.name!r} is trained on {task.trained_on!r}, which no plugin here declares; "
            "install the plugin that does, or mend trained_on"
        )
    train_task = registry.task(task.trained_on)
    if (problem := misfit(task, train_task)) is not None:
        raise PluginError(f"plugin {origin}: {problem}")
    return train_task


def _ready_models(
    request: PlanRequest, registry: Registry, plan: Plan, shelf: PlanCache, precision: Precision, device: str
) -> list[_ReadyModel]:
    def ready(name: str) -> _ReadyModel:
        model = resolve_model(name, registry)
        key = (model.name, model.checkpoint, model.revision, request.keep_head)
        if (checkpoint := shelf.checkpoints.get(key)) is None:
            checkpoint = locate_checkpoint(model, download=request.download and bool(request.models))
            checkpoint = replace(checkpoint, keep_head=request.keep_head)
        if checkpoint.pickled and not request.allow_pickles:
            raise UnavailableError(
                f"model {model.name!r} has pickled weights only (pytorch_model.bin): a pickle can hold a program. Take "
                "a revision with safetensors, or, where you trust its authors, say --allow-pickles"
            )
        config = load_config(checkpoint)
        check_layers_can_be_told_apart(config, checkpoint.folder)
        encoder_shape(config)  # refuses what has no layers
        if key not in shelf.checkpoints:
            if not request.keep_head and (note := head_note(checkpoint, config)):
                checkpoint = replace(checkpoint, notes=(*checkpoint.notes, note), head_left_aside=True)
            shelf.checkpoints[key] = checkpoint
        tokenizer = shelf.models.tokenizer(checkpoint)
        pads_with(config, tokenizer.pad_token_id)
        return _ReadyModel(model, checkpoint, config, try_model(config, tokenizer, precision, device))

    names = list(dict.fromkeys(request.models)) or sorted(registry.models)
    found = _available(
        names,
        ready,
        forgiven=_forgiven(request, named=bool(request.models)),
        skip=lambda name, why: Skipped("*", name, "*", None, why),
        plan=plan,
    )
    return _told_apart(found, registry)


def _told_apart(models: list[_ReadyModel], registry: Registry) -> list[_ReadyModel]:
    """Tell models of one name apart by digests of their files, whatever their order. Declared models keep their names,
    also before a folder that is called like one of them.
    """
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for ready in models:
        digests[ready.model.name].add(ready.checkpoint.digest)

    def named(ready: _ReadyModel) -> _ReadyModel:
        name = ready.model.name
        declared = registry.models.get(name)
        is_declared = declared is not None and declared.value == ready.model
        if is_declared or (declared is None and len(digests[name]) == 1):
            return ready
        return replace(ready, model=replace(ready.model, name=f"{name}-{ready.checkpoint.digest[:6]}"))

    return [named(ready) for ready in models]


def _forgiven(request: PlanRequest, *, named: bool) -> type[AlueBenchError] | tuple[type[AlueBenchError], ...]:
    """Errors that make a task or model skipped. A model that no strategy can be applied to always is."""
    if not named:
        return AlueBenchError
    return (DoesNotFit, DataError, UnavailableError) if request.skip_missing else DoesNotFit


def _available(
    names: Iterable[str],
    ready: Callable[[str], R],
    *,
    forgiven: type[AlueBenchError] | tuple[type[AlueBenchError], ...],
    skip: Callable[[str, str], Skipped],
    plan: Plan,
) -> list[R]:
    found = []
    for name in names:
        try:
            found.append(ready(name))
        except forgiven as error:
            plan.skipped.append(skip(name, str(error)))
    return found


def _text_notes(ready: _ReadyTask, ready_model: _ReadyModel, shelf: PlanCache) -> list[str]:
    """What the model's tokeniser makes of the first texts that it would be trained on.

    Not of a model with a normalisation of its own: the plan runs no plugin's code on texts, and the runs tell.
    """
    rows, model = ready.train_rows.splits["train"], ready_model.model
    if model.normalise is not None:
        return []
    key = (rows.digest, model.name, ready_model.checkpoint)
    if key not in shelf.text_notes:
        tokenizer = shelf.models.tokenizer(ready_model.checkpoint)
        shelf.text_notes[key] = first_texts_notes(rows, model, tokenizer, "train")
    return shelf.text_notes[key]


def _check_keeps_head(ready: _ReadyModel, task: Task) -> None:
    """Raises UsageError where the model has no fine-tuned head for the task's labels."""
    name = ready.model.name
    check_keeps_head(f"model {name!r}", ready.checkpoint, load_config(ready.checkpoint), task.labels)


def _hyper_parameters(
    request: PlanRequest, task: Task, model: Model, limit: int | None, variant: Mapping[str, object]
) -> Resolved:
    """limit: the most tokens the model can take; None where it has no such limit. variant: of the grid."""
    layers = [(f"task {task.name}", task.defaults), (f"model {model.name}", model.defaults)]
    overrides = [*request.overrides, *([("grid", variant)] if variant else [])]
    resolved = resolve_hyper_parameters([*layers, *overrides])
    if limit is not None and resolved.values.max_length > limit:
        asked_by = resolved.origins["max_length"]
        if asked_by in dict(overrides):
            raise UsageError(
                f"{asked_by}: max_length is {resolved.values.max_length}, but model {model.name!r} takes at most "
                f"{limit} tokens"
            )
        origins = {**resolved.origins, "max_length": f"the model's limit of {limit} tokens"}
        return Resolved(replace(resolved.values, max_length=limit), origins)
    return resolved


def _digests(ready: _ReadyTask) -> DataDigests:
    train, test = ready.train_rows.splits, ready.rows.splits["test"]
    folders = (ready.rows.folder, ready.train_rows.folder)
    with_test = [*([dict(ready.task.label_map)] if ready.task.label_map else []), *_never_gold(test, ready.task.labels)]
    return DataDigests(
        source="sample" if any(folder.kind == "sample" for folder in folders) else "real",
        protocol=ready.task.splits.protocol,
        train=digest_of(
            [
                *(train["train"].digest, train["dev"].digest, list(ready.train_task.labels.names)),
                *_never_gold(train["dev"], ready.train_task.labels),
            ]
        ),
        test=digest_of([test.digest, *with_test]) if with_test else test.digest,
    )


def _never_gold(rows: SplitRows, labels: Labels) -> list[list[str]]:
    """Labels that no row of a split has, in a list of one, where there are any: they are left out of macro averages."""
    counts = label_counts([example.target for example in rows.examples if example.target is not None])
    absent = [] if labels.kind is TargetKind.REGRESSION else [name for name in labels.names if name not in counts]
    return [absent] if absent else []


def _providers(registry: Registry, train_task: Task, model: Model, strategy: Origin) -> dict[str, str]:
    """Return the distributions, with versions, whose code determines a training. A change of one makes it another."""
    origins = [strategy, registry.tasks[train_task.name].origin]
    if model.name in registry.models:
        origins.append(registry.models[model.name].origin)
    return {"alue-bench": __version__} | {origin.distribution: origin.version for origin in origins}


def _test_providers(registry: Registry, task: Task, of_training: Mapping[str, str]) -> dict[str, str]:
    """Return the distribution of the task that is tested, unless it determines the training too."""
    origin = registry.tasks[task.name].origin
    return {} if of_training.get(origin.distribution) == origin.version else {origin.distribution: origin.version}


def _shared_trainings_together(runs: list[PlannedRun]) -> Callable[[PlannedRun], int]:
    """Keeps the order, but puts each run right after the first one with the same training, which it can use."""
    first: dict[str, int] = {}
    for index, run in enumerate(runs):
        first.setdefault(run.spec.training_key, index)
    return lambda run: first[run.spec.training_key]
