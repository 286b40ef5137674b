"""The plan for a request: an ordered list of runs, and the combinations that are left out, with reasons.

A combination is a task, a model and a strategy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

from alue_bench.contract.byte_sizes import parse_size
from alue_bench.contract.errors import DoesNotFit, UsageError
from alue_bench.contract.model import Model
from alue_bench.contract.registry import Origin, Registry, outline_of
from alue_bench.contract.spec import DataDigests, HyperParameters, ResolvedHyperParameters, RunSpec, digest_of
from alue_bench.contract.strategy import Outline, Strategy
from alue_bench.contract.task import Labels, TargetKind, Task
from alue_bench.contract.version import __version__
from alue_bench.data.cache_folder import cache_folder
from alue_bench.data.splits import SplitRows, TaskRows
from alue_bench.data.tokenization import TokenCache
from alue_bench.data.verification import label_counts
from alue_bench.evaluation.yardstick import has_yardstick
from alue_bench.measure.empty_models import EmptyModels
from alue_bench.planning.available import (
    PlanCache,
    ReadyModel,
    ReadyTask,
    absent_models,
    given_notes,
    ready_models,
    ready_tasks,
    text_notes,
)
from alue_bench.planning.combinations import (
    Combination,
    check_hyper_parameters,
    combinations,
    named_strategies,
    settings_of,
    strategies_for,
    with_strategy_settings,
    without_unused_settings,
)
from alue_bench.planning.companions import ReadyCompanions, ready_companions
from alue_bench.planning.given import with_given_tasks
from alue_bench.planning.grid import Grid
from alue_bench.planning.matched_compute import LimitedSteps, steps_within, trained_share
from alue_bench.planning.request import PlanRequest
from alue_bench.running.companion import Companion
from alue_bench.running.inputs import RunInputs
from alue_bench.training.architecture.capabilities import check_tagging, positions_of
from alue_bench.training.checkpointing import Checkpointing, checkpoint_folder
from alue_bench.training.class_weights import check_class_weights
from alue_bench.training.device.hardware import Precision
from alue_bench.training.device.precision import Graphs, resolve_graphs
from alue_bench.training.device.selection import device_remarks, resolve_device, resolve_precision
from alue_bench.training.prefix.store import PrefixStore, prefix_folder
from alue_bench.training.pretrained.loading import check_keeps_head, encoder_shape, load_config
from alue_bench.training.pretrained.tokenizer import check_offsets


@dataclass(frozen=True)
class PlannedRun:
    """A run that is planned but not yet executed: its specification, and the task, rows and model that it needs."""

    spec: RunSpec
    inputs: RunInputs
    hyper: ResolvedHyperParameters
    request: PlanRequest
    """The user's request that the run belongs to."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags to record with the run when it is executed. They do not affect its result."""

    @property
    def cost(self) -> float:
        """A rough estimate of the run's computing effort, in arbitrary units, for progress bars and the order of runs.

        The estimate is the number of characters of the training text, multiplied by the number of times that the text
        passes through a layer, forward or backward, in the whole training. A backward pass counts twice if it computes
        gradients of the layer's weights. One more pass through every layer is added.
        """
        plan = self.spec.freeze_plan
        trains_below, passes = not plan.embeddings, 0
        for layer in range(plan.shape.layers):
            trained = layer not in plan.frozen_layers
            passes += 1 + (trained or trains_below) + (trained and plan.trained == "weights")
            trains_below = trains_below or trained
        rows = self.inputs.train_rows.splits
        size = sum(len(example.text) for example in rows["train"].examples)
        share = trained_share(self.spec.steps, len(rows["train"].examples), self.spec.hyper)
        return float(size * passes * self.spec.hyper.epochs * share + size * plan.shape.layers)


@dataclass(frozen=True)
class Skipped:
    """A combination of task, model and strategy that the plan leaves out, and the reason.

    The value "*" stands for every task, every model or every strategy.
    """

    task: str
    model: str
    strategy: str
    seed: int | None
    """The first requested seed, although the strategy is left out for all seeds; None if `strategy` is "*"."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class AbsentRun:
    """A run whose cost is estimated although it cannot be planned, because the model's files are not on this machine.

    The module `cost.time` also describes planned runs by this class.
    """

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
    steps: int | None = None
    """The number of steps to which training is limited; None for all steps of all epochs. If the model is
    not on this machine, it is None even for a strategy with a limit of its FLOPs: all epochs are assumed."""


@dataclass
class Plan:
    """An ordered list of runs, and the combinations of task, model and strategy that are left out."""

    runs: list[PlannedRun] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Remarks on models and texts, for the user to read before the runs begin."""
    absent: list[AbsentRun] = field(default_factory=list)
    """The runs of models that are not on this machine, if `--skip-missing` was given, the user named the model, and a
    plugin declares its architecture."""
    without_data: int = 0
    """The number of runs that are left out, with `--skip-missing`, because tasks that the user named have no data on
    this machine."""
    keeps_prefixes: bool = True
    """True if the outputs of frozen lowest layers are computed once and cached, instead of at every step."""
    order_matters: bool = False
    """True if worker processes must start the runs exactly in the order of `runs`. Otherwise they start with the task,
    model and hyper-parameters that have the costliest run."""


def build_plan(request: PlanRequest, registry: Registry, cache: PlanCache | None = None) -> Plan:
    """Build the plan for a request: resolve names, check data and checkpoints, and list the runs.

    Runs are sorted by task, model, fold, hyper-parameters, seed and strategy, with two exceptions: the order of the
    strategies is reversed for every second seed, and runs that test the same trained model are neighbours. If the user
    names no tasks (or models), all tasks (or models) are requested, and unusable ones are skipped with a reason. A
    strategy that cannot be applied to a model is skipped too.

    Args:
        request: The request.
        registry: The plugins' tasks, models and strategies.
        cache: The cache of an earlier plan in this process; None for a new, empty cache.

    Raises:
        AlueBenchError: A name is unknown; or a task or model that the user named is missing, and the request does not
            allow leaving it out.
    """
    check_hyper_parameters(request)
    registry = with_given_tasks(registry, request.given)
    named_strategies(request, registry)  # reports a misspelt name before anything is read
    shared = _PlanContext.of(request, registry, cache or PlanCache())
    tasks, tasks_left_out = ready_tasks(request, registry, shared.cache)
    models, models_left_out = ready_models(request, registry, shared.cache, shared.precision, shared.device)
    shared = replace(shared, companions=ready_companions(request, registry, tasks, shared.cache))
    plan = Plan(keeps_prefixes=shared.prefixes.limit_bytes > 0)
    plan.skipped += [Skipped(name, "*", "*", None, reason) for name, reason in tasks_left_out]
    plan.skipped += [Skipped("*", name, "*", None, reason) for name, reason in models_left_out]
    seen: set[str] = set()
    by_name: dict[str, list[ReadyTask]] = {}
    for task in tasks:
        by_name.setdefault(task.task.name, []).append(task)
    for folds, model in product(by_name.values(), models):
        for folds_before, task in enumerate(folds):
            _add_runs(plan, shared, seen, folds_before, task, model)
    plan.runs.sort(key=_shared_trainings_together(plan.runs))
    plan.notes += device_remarks(request.device, shared.device)
    plan.notes += [note for folds in by_name.values() for note in given_notes(folds[0], request)]
    plan.notes += shared.companions.notes
    if request.yardstick:
        plan.notes += [
            f"task {name}: no score of TF-IDF with logistic regression, which predicts no tags or spans"
            for name, folds in by_name.items()
            if not has_yardstick(folds[0].task)
        ]
    for model in models:
        notes = [*shared.cache.models.notes(model.checkpoint), *model.capabilities.notes]
        notes += [
            f"task {name}: {note}"
            for name, folds in by_name.items()
            for note in text_notes(folds[0], model, shared.cache)
        ]
        notes += _meanings(plan.runs, model)
        plan.notes += [f"{model.model.name}: {note}" for note in notes]
    if request.skip_missing:
        _add_absent(plan, shared, tasks, models)
    return plan


def _meanings(runs: list[PlannedRun], model: ReadyModel) -> list[str]:
    """Return a sentence for each strategy whose name has a meaning that depends on the model's number of layers.

    An example is "last-quarter freezes bottom 9 of 12 layers".
    """
    strategies = dict.fromkeys(run.spec.strategy for run in runs if run.spec.model == model.model.name)
    return [meaning for name in strategies if (meaning := model.outlines[name].meaning)]


@dataclass(frozen=True)
class _PlanContext:
    """The request, plugins, device, number format and caches that all runs of a plan have in common."""

    request: PlanRequest
    registry: Registry
    cache: PlanCache
    device: str
    precision: Precision
    cuda_graphs: Graphs
    tokens: TokenCache
    prefixes: PrefixStore
    checkpointing: Checkpointing | None
    companions: ReadyCompanions = field(default_factory=lambda: ReadyCompanions({}))
    """The tasks of `--also-test`, with their rows."""

    def companions_of(self, task: ReadyTask) -> tuple[Companion, ...]:
        """Return the tasks on whose test splits the models of a planned task are scored too."""
        return self.companions.of_task.get(task.task.name, ()) if task.task is task.train_task else ()

    @classmethod
    def of(cls, request: PlanRequest, registry: Registry, cache: PlanCache) -> _PlanContext:
        """Return the common values of a request's runs; the choice "auto" is replaced by a device or number format.

        Raises:
            UsageError: This machine does not provide a requested device or number format.
        """
        device = resolve_device(request.device)
        minutes = request.checkpoint_every
        return cls(
            request=request,
            registry=registry,
            cache=cache,
            device=device,
            precision=resolve_precision(request.precision, device),
            cuda_graphs=resolve_graphs(request.cuda_graphs, device),
            tokens=TokenCache(cache_folder()),
            prefixes=PrefixStore(prefix_folder(), parse_size(request.cache_size), warnings.warn),
            checkpointing=None if minutes is None else Checkpointing(checkpoint_folder(), 60 * minutes),
        )


def _add_runs(
    plan: Plan, shared: _PlanContext, seen: set[str], folds_before: int, task: ReadyTask, model: ReadyModel
) -> None:
    """Add the runs and the skipped combinations of one task (or fold) and one model to a plan.

    Args:
        plan: The plan.
        shared: The request, plugins, device, number format and caches that all runs of the plan have in common.
        seen: The fingerprints of the plan's runs, which prevent duplicates. The fingerprints of new runs are added.
        folds_before: The number of folds of the task that the plan contains already.
        task: The task, or one of its folds.
        model: The model.
    """
    request, registry = shared.request, shared.registry
    grid, layers, name = request.grid or Grid(), encoder_shape(model.config).layers, model.model.name
    strategies = strategies_for(request, registry, layers)
    if (grid.bottom or grid.top) and not grid.cells(layers):
        reason = f"--grid freezes more layers than the {layers} of {name}; use smaller numbers"
        plan.skipped.append(Skipped(task.task.name, name, "*", None, reason))
    try:
        settings = settings_of(request, task.train_task, model.model, model.capabilities.positions)
        if task.train_task.labels.reads_tokens:
            check_tagging(model.config, model.capabilities.padding)
        if task.train_task.labels.extracts_spans:
            check_offsets(shared.cache.models.tokenizer(model.checkpoint), model.checkpoint.folder)
        if request.keep_head:
            config = load_config(model.checkpoint)
            check_keeps_head(f"model {name!r}", model.checkpoint, config, task.train_task.labels)
    except DoesNotFit as error:
        plan.skipped.append(Skipped(task.task.name, name, "*", None, str(error)))
        return
    except UsageError as error:
        if request.models:
            raise
        plan.skipped.append(Skipped(task.task.name, name, "*", None, str(error)))
        return
    try:
        for resolved in settings:
            check_class_weights(resolved.values.class_weights, task.train_task.labels, task.train_task.name)
    except UsageError as error:
        if request.tasks:
            raise
        plan.skipped.append(Skipped(task.task.name, name, "*", None, str(error)))
        return
    before = folds_before * len(settings) * len(request.seeds)
    fitting, unfit = combinations(strategies, settings, request.seeds, model.outline, first=before)
    plan.skipped += [Skipped(task.task.name, name, one.strategy, one.seed, one.reason) for one in unfit]
    own = {registry.strategy(one)[0].name: values for one, values in request.strategy_settings.items()}
    for combination in fitting:
        if combination.strategy.name in own:
            combination = with_strategy_settings(
                combination, request, own[combination.strategy.name], model.capabilities.positions
            )
        combination = without_unused_settings(combination)
        if combination.strategy.chooses:
            note = _choice_note(combination)
            plan.notes += [note] if note not in plan.notes else []
        spec = _spec(shared, task, model, combination)
        try:
            limited = _limited_steps(shared, task, model, combination)
        except DoesNotFit as error:
            skipped = Skipped(task.task.name, name, combination.strategy.name, request.seeds[0], str(error))
            plan.skipped += [skipped] if skipped not in plan.skipped else []
            continue
        if limited is not None:
            spec = replace(spec, steps=limited.steps)
            plan.notes += [note] if (note := f"{task.task.name}, {name}: {limited}") not in plan.notes else []
        if spec.fingerprint not in seen:  # otherwise the request names a strategy twice
            seen.add(spec.fingerprint)
            inputs = _inputs(shared, task, model, combination, spec)
            plan.runs.append(PlannedRun(spec, inputs, combination.hyper, request))


def _choice_note(combination: Combination) -> str:
    """Return the note that a strategy chooses its layers in the run, and that the run's cost is the largest possible.

    The note also says whether this cost includes the choosing.
    """
    bound = combination.outline.freeze_plan
    trained = bound.shape.layers - len(bound.frozen_layers)
    verb = "leaves out" if combination.strategy.probe_cost(bound.shape) is None else "includes"
    return (
        f"{combination.strategy.name} chooses its layers at the start of the run, from "
        f"{combination.hyper.values.probe_rows} train examples; its estimated cost is that of the costliest choice, "
        f"which trains {trained} of {bound.shape.layers} layers, and {verb} the choosing"
    )


def _spec(shared: _PlanContext, task: ReadyTask, model: ReadyModel, combination: Combination) -> RunSpec:
    """Return the specification of the run of one task, one model and one combination of strategy, seed and settings."""
    request, outline, seed = shared.request, combination.outline, combination.seed
    providers = _providers(shared.registry, task.train_task, model.model, combination.origin)
    return RunSpec(
        task=task.task.name,
        train_task=task.train_task.name,
        model=model.model.name,
        model_digest=model.checkpoint.digest,
        strategy=combination.strategy.name,
        freeze_plan=outline.freeze_plan,
        kept_layers=outline.kept_layers,
        adapter=outline.adapter,
        fold=task.rows.fold,
        keep_head=request.keep_head,
        seed=seed,
        init_seed=request.init_seed if request.init_seed is not None else seed,
        data_seed=request.data_seed if request.data_seed is not None else seed,
        hyper=combination.hyper.values,
        data=_digests(task, request),
        device=shared.device,
        precision=model.capabilities.precision,
        cuda_graphs=shared.cuda_graphs,
        limit_train=request.limit_train,
        limit_eval=request.limit_eval,
        drop_bad=request.drop_bad,
        unusual=model.unusual(),
        providers=providers,
        test_providers=_test_providers(shared.registry, task.task, providers),
        scored_elsewhere={one.task.name: one.digest for one in shared.companions_of(task)},
    )


def _limited_steps(
    shared: _PlanContext, task: ReadyTask, model: ReadyModel, combination: Combination
) -> LimitedSteps | None:
    """Return the limited number of training steps of a strategy with a limit of its FLOPs; None if it has no limit.

    Raises:
        DoesNotFit: The limit is the FLOPs of another strategy, and that strategy cannot be applied to the model, does
            not have fewer FLOPs than full fine-tuning, has limited FLOPs itself, or has FLOPs that are not known before
            its run.
    """
    limit = combination.strategy.compute_limit()
    if limit is None:
        return None
    like = None if limit.like is None else shared.registry.strategy(limit.like)
    tokens = shared.tokens.tokenized(
        task.train_rows.splits["train"],
        labels=task.train_task.labels,
        model=model.model,
        model_digest=model.checkpoint.digest,
        tokenizer=shared.cache.models.tokenizer(model.checkpoint),
        max_length=combination.hyper.values.max_length,
    )
    outlined = None if like is None else (like[0], model.outline(*like))
    models = EmptyModels(keeps_prefixes=model.capabilities.independent, device=shared.device)
    empty = partial(models.of, model.config, task.train_task.labels)
    return steps_within(
        combination.strategy, combination.outline, outlined, empty, tokens.lengths, combination.hyper.values
    )


def _inputs(
    shared: _PlanContext, task: ReadyTask, model: ReadyModel, combination: Combination, spec: RunSpec
) -> RunInputs:
    """Return the inputs of a run, and announce its model and the depth of its frozen prefix to the shared caches."""
    start = (
        task.train_rows.folds_digest or spec.data.train,
        *(spec.model_digest, spec.kept_layers, spec.adapter and spec.strategy),
    )
    inputs = RunInputs(
        task=task.task,
        rows=task.rows,
        train_task=task.train_task,
        train_rows=task.train_rows,
        model=model.model,
        strategy=combination.strategy,
        checkpoint=model.checkpoint,
        capabilities=model.capabilities,
        tokens=shared.tokens,
        prefixes=shared.prefixes,
        models=shared.cache.models,
        checkpointing=shared.checkpointing,
        depths=shared.cache.depths[start],
        companions=shared.companions_of(task),
        yardstick=shared.request.yardstick and has_yardstick(task.task),
    )
    shared.cache.models.expect(inputs.checkpoint, inputs.train_task.labels)
    if spec.freeze_plan.prefix_layers and combination.strategy.keeps_prefix and inputs.capabilities.independent:
        inputs.depths.add(spec.freeze_plan.prefix_layers)
    return inputs


def _add_absent(plan: Plan, shared: _PlanContext, tasks: list[ReadyTask], models: list[ReadyModel]) -> None:
    """Add the runs of models that are not on this machine to `plan.absent`; set the number of runs without data."""
    request, registry = shared.request, shared.registry
    absent = absent_models(request, registry)
    for task, (model, config) in product(tasks, absent):
        shape = encoder_shape(config)
        strategies = strategies_for(request, registry, shape.layers)
        settings = settings_of(request, task.train_task, model, positions_of(config))
        fitting, _ = combinations(strategies, settings, request.seeds, partial(outline_of, shape=shape))
        plan.absent += [
            AbsentRun(
                task=task.task,
                rows=task.rows,
                train_task=task.train_task,
                train_rows=task.train_rows,
                model=model,
                strategy=one.strategy,
                outline=one.outline,
                seed=one.seed,
                hyper=one.hyper.values,
                device=shared.device,
                precision=shared.precision,
            )
            for one in fitting
        ]
    tasks_gone = set(request.tasks) - {task.task.name for task in tasks}
    configs = [*(model.config for model in models), *(config for _, config in absent)]
    each = sum(len(strategies_for(request, registry, encoder_shape(config).layers)) for config in configs)
    settings_each = len((request.grid or Grid()).variants())
    folds_each = max(1, len(request.requested_folds))
    plan.without_data = len(tasks_gone) * each * settings_each * len(request.seeds) * folds_each


def _digests(ready: ReadyTask, request: PlanRequest) -> DataDigests:
    train, test = ready.train_rows.splits, ready.rows.splits["test"]
    folders = (ready.rows.folder, ready.train_rows.folder)
    with_test = [
        *([dict(ready.task.label_map)] if ready.task.label_map else []),
        *_labels_without_rows(test, ready.task.labels),
        *_unusual_scoring(ready.task, request),
    ]
    return DataDigests(
        source="sample" if any(folder.kind == "sample" for folder in folders) else "real",
        protocol=ready.rows.protocol or ready.task.splits.protocol,
        train=digest_of(
            [
                *(train["train"].digest, train["dev"].digest, list(ready.train_task.labels.names)),
                *_labels_without_rows(train["dev"], ready.train_task.labels),
                *_unusual_scoring(ready.train_task, request),
            ]
        ),
        test=digest_of([test.digest, *with_test]) if with_test else test.digest,
    )


def _labels_without_rows(rows: SplitRows, labels: Labels) -> list[list[str]]:
    """Return the labels that no row has, as a part of the digest of a split.

    They are part of the digest because they affect the scores: macro averages leave them out. The result is a list with
    one list of labels, or an empty list if every label occurs.
    """
    if labels.extracts_spans:
        return []
    counts = label_counts([example.target for example in rows.examples if example.target is not None])
    absent = [] if labels.kind is TargetKind.REGRESSION else [name for name in labels.names if name not in counts]
    return [absent] if absent else []


def _unusual_scoring(task: Task, request: PlanRequest) -> list[dict[str, object]]:
    """Return the settings of a task's scoring that differ from the defaults, as a part of the digest of a split.

    Only tasks that the user gives as files are considered. For a plugin's task, the version of the plugin, which is
    part of the fingerprint too, determines the scoring. The result is a list with one dict, or an empty list if no
    setting differs.
    """
    if all(one.task != task for one in request.given):
        return []
    kind, labels = task.labels.kind, task.labels
    unusual: dict[str, object] = {}
    if task.primary != labels.main_metric:
        unusual["metric"] = task.primary
    if labels.scheme is not None:
        unusual["scheme"] = labels.scheme
    if labels.no_answer:
        unusual["no_answer"] = True
    if kind is TargetKind.MULTILABEL and labels.threshold != Labels(kind, labels.names).threshold:
        unusual["threshold"] = labels.threshold
    if kind is TargetKind.MULTICLASS and len(labels.names) == 2:
        unusual["kind"] = str(kind)
    return [unusual] if unusual else []


def _providers(registry: Registry, train_task: Task, model: Model, strategy: Origin) -> dict[str, str]:
    """Return the versions of the Python distributions whose code determines the result of a run, by name.

    They are part of the run's fingerprint: a run with another version counts as a different run.
    """
    origins = [strategy, registry.tasks[train_task.name].origin]
    if model.name in registry.models:
        origins.append(registry.models[model.name].origin)
    return {"alue-bench": __version__} | {origin.distribution: origin.version for origin in origins}


def _test_providers(registry: Registry, task: Task, of_training: Mapping[str, str]) -> dict[str, str]:
    """Return the version of the Python distribution that provides the tested task, by the distribution's name.

    The result is empty if `of_training`, the result of `_providers`, contains this distribution and version.
    """
    origin = registry.tasks[task.name].origin
    return {} if of_training.get(origin.distribution) == origin.version else {origin.distribution: origin.version}


def _shared_trainings_together(runs: list[PlannedRun]) -> Callable[[PlannedRun], int]:
    """Return a sort key that keeps the order of runs, but makes runs that test the same trained model neighbours."""
    first: dict[str, int] = {}
    for index, run in enumerate(runs):
        first.setdefault(run.spec.training_key, index)
    return lambda run: first[run.spec.training_key]
