"""The tasks and models of a plan (a list of runs): they are looked up by name, checked, and loaded at most once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from alue_bench.contract.errors import AlueBenchError, DataError, DoesNotFit, PluginError, UnavailableError, UsageError
from alue_bench.contract.formats import excerpt
from alue_bench.contract.model import Model
from alue_bench.contract.naming import model_name
from alue_bench.contract.registry import Origin, Registry, outline_of
from alue_bench.contract.strategy import Outline, Strategy
from alue_bench.contract.task import Labels, Task
from alue_bench.contract.transfer import misfit_reason
from alue_bench.data.folds import load_folds
from alue_bench.data.location import DataFolder, fetch_hub_files, given_data_folder, locate
from alue_bench.data.splits import TaskRows, load_rows
from alue_bench.data.tokenization import first_texts_notes
from alue_bench.data.verification import label_gaps
from alue_bench.messages.display import one_line
from alue_bench.planning.request import PlanRequest
from alue_bench.training.architecture.capabilities import Capabilities, capabilities_of
from alue_bench.training.architecture.encoder_stack import check_layers_can_be_told_apart
from alue_bench.training.device.hardware import Precision
from alue_bench.training.freezing import without_idle_parts
from alue_bench.training.prefix.frozen_prefix import PlannedDepths
from alue_bench.training.pretrained.loading import (
    Checkpoint,
    declared_config,
    encoder_shape,
    head_note,
    load_config,
    locate_checkpoint,
)
from alue_bench.training.pretrained.model_cache import ModelCache
from alue_bench.training.pretrained.tokenizer import set_padding_token
from alue_bench.training.surgery import model_in_outline

R = TypeVar("R")

LeftOut = tuple[str, str]
"""The name of a task or model that is left out of the plan, and the reason."""


@dataclass(frozen=True)
class ReadyTask:
    """A task whose data is on this machine, and the task whose train rows train the models for it.

    The two tasks differ only if the first has no train rows, for example because it is a diagnostic test set.
    `Task.trained_on` then names the training task.
    """

    task: Task
    rows: TaskRows
    train_task: Task
    train_rows: TaskRows


@dataclass(frozen=True)
class ReadyModel:
    """A model whose checkpoint is on this machine and can be used."""

    model: Model
    checkpoint: Checkpoint
    config: Any
    """The model's configuration, a transformers `PretrainedConfig`."""
    capabilities: Capabilities
    """The inputs and number formats that the model supports, found by a test with its tokenizer."""
    outlines: dict[str, Outline] = field(default_factory=dict)
    """The changes that strategies make to the model, by the name of the strategy; a cache that `outline` fills."""

    def unusual(self) -> dict[str, str]:
        """Return the properties that distinguish the model from most models and affect training, for `RunSpec.unusual`.

        An example is padding on the left.
        """
        values = {"parts": self.capabilities.parts, "head": "fresh" if self.checkpoint.has_unused_head else ""}
        values["padding"] = "" if self.capabilities.padding.side == "right" else self.capabilities.padding.side
        return {name: value for name, value in values.items() if value}

    def outline(self, strategy: Strategy, origin: Origin) -> Outline:
        """Return the changes that a strategy makes to the model.

        Args:
            strategy: The strategy.
            origin: The plugin that declares the strategy.

        Raises:
            DoesNotFit: The strategy cannot be applied to the model.
            PluginError: The strategy's code fails.
        """
        if strategy.name not in self.outlines:
            outline = outline_of(strategy, origin, encoder_shape(self.config))
            if outline.freeze_plan.trained != "weights":  # only the modules show where there are such parameters
                stack = model_in_outline(self.config, outline)
                outline = replace(outline, freeze_plan=without_idle_parts(stack, outline.freeze_plan))
            self.outlines[strategy.name] = outline
        return self.outlines[strategy.name]


@dataclass
class PlanCache:
    """A cache of the rows, checkpoints and models that plans have loaded, for later plans in the same process."""

    rows: dict[tuple[object, ...], TaskRows] = field(default_factory=dict)
    folds: dict[tuple[object, ...], list[TaskRows]] = field(default_factory=dict)
    """The rows of each fold of a cross-validated task, by the task and the options that affect its rows."""
    checkpoints: dict[tuple[object, ...], Checkpoint] = field(default_factory=dict)
    models: ModelCache = field(default_factory=ModelCache)
    text_notes: dict[tuple[object, ...], list[str]] = field(default_factory=dict)
    """Notes on texts that a model's tokenizer cannot represent, by the digest of the texts and the model. Only the
    first texts of a task are examined."""
    more_expected: list[tuple[Checkpoint, Labels]] = field(default_factory=list)
    """Checkpoints, with the labels of their heads, that a later plan is likely to need again. The cache `models`
    therefore keeps them loaded."""
    depths: defaultdict[tuple[object, ...], PlannedDepths] = field(default_factory=lambda: defaultdict(PlannedDepths))
    """The depths of the frozen prefix (the numbers of frozen lowest layers above frozen embeddings) that occur in the
    planned runs, by initial model and training data. The outputs of these layers are cached."""


def ready_tasks(request: PlanRequest, registry: Registry, cache: PlanCache) -> tuple[list[ReadyTask], list[LeftOut]]:
    """Return the requested tasks with their rows, and the tasks that are left out.

    A cross-validated task occurs once for each fold.

    Raises:
        AlueBenchError: A task that the user named is unknown; or its data is missing, and the request does not allow
            leaving it out.
    """
    if request.tasks and not registry.tasks:
        registry.task(request.tasks[0])
    given = given_data_folder(request.data_dir)
    options = (given, request.sample, request.drop_bad, request.limit_train, request.limit_eval)
    own = {one.task.name: one for one in request.given}

    def folder_of(task: Task) -> DataFolder:
        return data_folder(task, request, fetch=bool(request.tasks) and request.download)

    def rows(task: Task) -> TaskRows:
        key = (task.name, repr(own.get(task.name)), *options)
        if key not in cache.rows:
            cache.rows[key] = load_rows(
                task,
                folder_of(task),
                drop_bad=request.drop_bad,
                limit_train=request.limit_train,
                limit_eval=request.limit_eval,
            )
        return cache.rows[key]

    def folds_of(task: Task) -> list[TaskRows]:
        key = (task.name, repr(own.get(task.name)), *options, request.requested_folds)
        if key not in cache.folds:
            cache.folds[key] = load_folds(
                task,
                folder_of(task),
                request.requested_folds,
                drop_bad=request.drop_bad,
                limit_train=request.limit_train,
                limit_eval=request.limit_eval,
            )
        return cache.folds[key]

    def ready(name: str) -> list[ReadyTask]:
        task = registry.task(name)
        if task.is_test_only:
            raise DoesNotFit(
                f"task {name!r} has no train split and trains no model; to score models of another task on it, run "
                f"that task with --also-test {name}"
            )
        train_task = _training_task(task, registry)
        if not request.requested_folds:
            return [ReadyTask(task, rows(task), train_task, rows(train_task))]
        if train_task is not task:
            raise DataError(
                f"--folds: task {name!r} has no train rows to divide, since models trained on {train_task.name!r} are "
                f"scored on it; leave --folds out, or cross-validate {train_task.name!r}"
            )
        return [ReadyTask(task, of_fold, task, of_fold) for of_fold in folds_of(task)]

    unnamed = sorted(name for name, declared in registry.tasks.items() if not declared.value.only_by_name)
    names = list(dict.fromkeys(request.tasks)) or unnamed
    available, left_out = _collect_available(names, ready, _tolerated_errors(request, named=bool(request.tasks)))
    return [one for several in available for one in several], left_out


def data_folder(task: Task, request: PlanRequest, *, fetch: bool) -> DataFolder:
    """Return the folder from which to read a task's files.

    Args:
        task: The task.
        request: The request, which may contain the task as a file.
        fetch: Whether to download the data sets of the task that are on the hub.

    Raises:
        DataError: The task's files are not on this machine.
    """
    if fetch:
        fetch_hub_files(task)
    own = next((one for one in request.given if one.task.name == task.name), None)
    return own.files if own else locate(task, given=given_data_folder(request.data_dir), sample=request.sample)


def given_notes(task: ReadyTask, request: PlanRequest) -> list[str]:
    """Return notes for the user on a task that the user gives as a file; no notes for a task of a plugin.

    The notes state what was inferred from the file, where the splits come from, and which labels cannot be learnt from
    a split or scored on it (see `label_gaps`).
    """
    own = next((one for one in request.given if one.task.name == task.task.name), None)
    if own is None:
        return []
    lacking = [
        gap
        for split, part in task.rows.splits.items()
        for gap in label_gaps(split, [example.target for example in part.examples], task.task.labels)
    ]
    protocol = task.rows.protocol or task.task.splits.protocol
    return [f"task {task.task.name}: {note}" for note in (*own.notes, f"splits: {protocol}", *lacking)]


def _training_task(task: Task, registry: Registry) -> Task:
    """Return the task whose rows train the models for `task`: usually `task`, else the one named by `trained_on`.

    Raises:
        PluginError: No plugin declares the training task, or its labels do not fit the labels of `task`.
    """
    if task.trained_on is None:
        return task
    origin = registry.tasks[task.name].origin
    if task.trained_on not in registry.tasks:
        raise PluginError(
            f"plugin {origin}: task {task.name!r} is trained on {task.trained_on!r}, which no plugin here declares; "
            "install the plugin that does, or correct trained_on"
        )
    train_task = registry.task(task.trained_on)
    if (problem := misfit_reason(task, train_task)) is not None:
        raise PluginError(f"plugin {origin}: {problem}")
    return train_task


def ready_models(
    request: PlanRequest, registry: Registry, cache: PlanCache, precision: Precision, device: str
) -> tuple[list[ReadyModel], list[LeftOut]]:
    """Return the requested models, each tested with its tokenizer on the device, and the models that are left out.

    Args:
        request: The request, which names the models.
        registry: The plugins that declare models.
        cache: The cache of checkpoints and tokenizers.
        precision: The requested number format.
        device: The device on which models are tested, such as "cuda".

    Raises:
        AlueBenchError: A model that the user named is not available or cannot be used, and the request does not allow
            leaving it out.
    """

    def ready(name: str) -> ReadyModel:
        model = resolve_model(name, registry)
        key = (model.name, model.checkpoint, model.revision, request.keep_head)
        if (checkpoint := cache.checkpoints.get(key)) is None:
            checkpoint = locate_checkpoint(model, download=request.download and bool(request.models))
            checkpoint = replace(checkpoint, keep_head=request.keep_head)
        if checkpoint.pickled and not request.allow_pickles:
            raise UnavailableError(
                f"model {model.name!r} has pickled weights only (pytorch_model.bin), which can contain code. Use a "
                "revision with safetensors or, if you trust its authors, add --allow-pickles"
            )
        config = load_config(checkpoint)
        check_layers_can_be_told_apart(config, checkpoint.folder)
        encoder_shape(config)  # raises an error if the model has no encoder layers
        if key not in cache.checkpoints:
            if not request.keep_head and (note := head_note(checkpoint, config)):
                checkpoint = replace(checkpoint, notes=(*checkpoint.notes, note), has_unused_head=True)
            cache.checkpoints[key] = checkpoint
        tokenizer = cache.models.tokenizer(checkpoint)
        set_padding_token(config, tokenizer.pad_token_id)
        return ReadyModel(model, checkpoint, config, capabilities_of(config, tokenizer, precision, device))

    names = list(dict.fromkeys(request.models)) or sorted(registry.models)
    models, left_out = _collect_available(names, ready, _tolerated_errors(request, named=bool(request.models)))
    return _with_unique_names(models, registry), left_out


def _with_unique_names(models: list[ReadyModel], registry: Registry) -> list[ReadyModel]:
    """Make the names of models unique, by appending a digest of a model's files to each ambiguous name.

    A name is ambiguous if two models with different files have it, or if a local folder or hub model has the name of a
    model that a plugin declares. The plugin's model keeps its name; the local folder or hub model gets the digest. The
    result does not depend on the order of the models.
    """
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for ready in models:
        digests[ready.model.name].add(ready.checkpoint.digest)

    def named(ready: ReadyModel) -> ReadyModel:
        name = ready.model.name
        declared = registry.models.get(name)
        is_declared = declared is not None and declared.value == ready.model
        if is_declared or (declared is None and len(digests[name]) == 1):
            return ready
        return replace(ready, model=replace(ready.model, name=f"{name}-{ready.checkpoint.digest[:6]}"))

    return [named(ready) for ready in models]


def _tolerated_errors(request: PlanRequest, *, named: bool) -> type[AlueBenchError] | tuple[type[AlueBenchError], ...]:
    """Return the types of errors for which a task or model is left out of the plan, instead of ending the command.

    DoesNotFit, for a task or model that cannot be used in any run, is always among them.

    Args:
        request: The request; its `skip_missing` allows named tasks and models to be left out.
        named: Whether the user named the tasks or models. Otherwise any of them may be left out.
    """
    if not named:
        return AlueBenchError
    return (DoesNotFit, DataError, UnavailableError) if request.skip_missing else DoesNotFit


def _collect_available(
    names: Iterable[str],
    ready: Callable[[str], R],
    tolerated: type[AlueBenchError] | tuple[type[AlueBenchError], ...],
) -> tuple[list[R], list[LeftOut]]:
    """Call `ready` for each name; return the results, and the name and reason of each call that raised `tolerated`."""
    available, left_out = [], []
    for name in names:
        try:
            available.append(ready(name))
        except tolerated as error:
            left_out.append((name, str(error)))
    return available, left_out


def absent_models(request: PlanRequest, registry: Registry) -> list[tuple[Model, Any]]:
    """Return the models that the user named and that are not on this machine, with their declared configurations.

    Models whose architecture no plugin declares are left out.
    """
    absent = []
    for name in dict.fromkeys(request.models):
        model = resolve_model(name, registry)
        if model.architecture and not _is_here(model):
            try:
                absent.append((model, declared_config(model)))
            except UnavailableError:  # a plugin's wrong declaration costs only the estimate
                continue
    return absent


def _is_here(model: Model) -> bool:
    """Return whether a model's files are on this machine."""
    try:
        locate_checkpoint(model, download=False)
    except UnavailableError:
        return False
    return True


def resolve_model(name: str, registry: Registry) -> Model:
    """Return the model that a value of --model refers to.

    Args:
        name: The name of a model that a plugin declares, the path of a local folder, or a hub id with an optional
            revision (`hub/id@revision`).
        registry: The plugins that declare models.

    Raises:
        UsageError: The name is none of these, or the folder's name contains bytes that are not text.
    """
    if name in registry.models:
        return registry.models[name].value
    path = Path(name)
    with suppress(RuntimeError):  # a "~" with an unknown user name
        path = path.expanduser()
    is_folder = False
    with suppress(OSError):  # a name that is longer than the file system permits
        is_folder = path.is_dir()
    if is_folder:
        path = path.resolve()
        if (readable := one_line(str(path))) != str(path):
            raise UsageError(
                f"--model {readable}: the name contains bytes that are not text (shown with a backslash); rename the "
                "folder"
            )
        return Model(name=model_name(path.name), title=f"local folder {path.name}", checkpoint=path)
    if name.startswith((".", "/", "~")):
        raise UsageError(f"--model {excerpt(name, quote=False, max_length=300)}: there is no such folder")
    hub_id, _, revision = name.partition("@")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        return Model(name=model_name(hub_id), title=f"hub {name}", checkpoint=hub_id, revision=revision or None)
    try:
        return registry.model(name)
    except UsageError as error:
        raise UsageError(f"{error}; --model also takes a local folder or hub/id@revision") from None


def text_notes(ready: ReadyTask, ready_model: ReadyModel, cache: PlanCache) -> list[str]:
    """Return notes on training texts that the model's tokenizer cannot represent; only the first texts are examined.

    A model with a normalisation function gets no notes here, because planning does not run a plugin's code on texts.
    The notes are then recorded with the runs.
    """
    rows, model = ready.train_rows.splits["train"], ready_model.model
    if model.normalise is not None:
        return []
    key = (rows.digest, model.name, ready_model.checkpoint)
    if key not in cache.text_notes:
        tokenizer = cache.models.tokenizer(ready_model.checkpoint)
        cache.text_notes[key] = first_texts_notes(rows, model, tokenizer, "train")
    return cache.text_notes[key]
