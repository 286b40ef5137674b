"""The tasks of `--also-test`, on which trained models are scored too: their test rows, and the matching of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from alue_bench.contract.errors import DataError, UsageError
from alue_bench.contract.formats import Example, excerpt
from alue_bench.contract.label_fit import LabelFit, LabelMisfit, fit_labels
from alue_bench.contract.registry import Registry
from alue_bench.contract.spec import digest_of
from alue_bench.contract.task import DataFile, TargetKind, Task
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import SplitRows, TaskRows, checked_split, limit_rows, load_rows, read_files
from alue_bench.planning.available import PlanCache, ReadyTask, data_folder
from alue_bench.planning.request import PlanRequest
from alue_bench.running.companion import Companion

Companions = Mapping[str, tuple[Companion, ...]]
"""The tasks on whose test splits the models of a planned task are scored too, by the name of the planned task."""


@dataclass(frozen=True)
class ReadyCompanions:
    """The tasks of `--also-test` for each planned task, with notes for the plan."""

    of_task: Companions
    notes: tuple[str, ...] = ()


def ready_companions(
    request: PlanRequest, registry: Registry, tasks: list[ReadyTask], cache: PlanCache
) -> ReadyCompanions:
    """Return the tasks of `--also-test` for each planned task, with their test rows.

    The labels of each task of `--also-test` must fit the labels of at least one planned task. If they do not fit the
    labels of another planned task, the models of that planned task are not scored on the task of `--also-test`. If the
    user named the planned tasks, a note states the reason.

    Args:
        request: The request.
        registry: The plugins' tasks.
        tasks: The planned tasks. A task without train rows, which is scored with the models of another task, gets no
            tasks of `--also-test`.
        cache: The cache of rows.

    Raises:
        UsageError: A task of `--also-test` or a label of `--map` is unknown, a task of `--also-test` fits no planned
            task, or it is unclear which task a value of `--map` belongs to.
        DataError: The test file of a task is missing or malformed. With `--skip-missing`, the task is left out instead,
            with a note.
    """
    if not request.also_test:
        return ReadyCompanions({})
    trained = {ready.train_task.name: ready for ready in reversed(tasks) if ready.task is ready.train_task}
    named = dict.fromkeys(request.also_test)
    maps = _maps_of(request.maps, tuple(named))
    fits: dict[str, list[tuple[Task, LabelFit]]] = {name: [] for name in trained}
    notes: list[str] = []
    for name in named:
        task = registry.task(name)
        problems = []
        for source in trained.values():
            if source.task.name == name:
                problems.append(
                    f"--also-test {name}: models of this task are scored on its test split without this option"
                )
                continue
            try:
                fit = fit_labels(task, source.task, maps.get(name), several=len(named) > 1)
            except LabelMisfit as misfit:
                problems.append(str(misfit))
            else:
                fits[source.task.name].append((task, fit))
        if trained and len(problems) == len(trained):
            raise UsageError("; ".join(problems))
        if request.tasks:
            notes += [f"not scored elsewhere: {problem.partition('; say what')[0]}" for problem in problems]
    of_task: dict[str, tuple[Companion, ...]] = {}
    for name, fitting in fits.items():
        for task, fit in fitting:
            try:
                companion = _companion(request, registry, trained[name], task, fit, cache)
            except DataError as error:
                if not request.skip_missing:
                    raise
                notes.append(f"not scored elsewhere: {error}")
            else:
                of_task[name] = (*of_task.get(name, ()), companion)
    for name, companions in of_task.items():
        notes += [f"{name}: {note}" for companion in companions for note in companion.notes]
    if any(of_task.values()):
        notes.append(
            "--also-test: a finished run without these scores is trained again, because they need its weights; its "
            "in-domain scores stay the same"
        )
    return ReadyCompanions(of_task, tuple(dict.fromkeys(notes)))


def _maps_of(given: tuple[str, ...], names: tuple[str, ...]) -> dict[str, str]:
    """Return the value of `--map` for each task of `--also-test`, without the task's name at its beginning.

    Args:
        given: The values of `--map`: "LABEL=LABEL,…", or "TASK:LABEL=LABEL,…" if there are several tasks.
        names: The names of the tasks of `--also-test`.

    Raises:
        UsageError: A value names no task although there are several, or two values belong to the same task.
    """
    maps: dict[str, str] = {}
    for text in given:
        name = next((name for name in names if text.startswith(f"{name}:")), None)
        if name is None and len(names) > 1:
            raise UsageError(
                f"--map {excerpt(text, quote=False)}: several tasks are named by --also-test ({', '.join(names)}); "
                f"write the task before its labels, as in --map {names[0]}:LABEL=LABEL"
            )
        owner = name or names[0]
        if owner in maps:
            raise UsageError(f"--map is given twice for --also-test {owner}; join both values by a comma")
        maps[owner] = text.removeprefix(f"{owner}:") if name else text
    return maps


def _companion(
    request: PlanRequest, registry: Registry, source: ReadyTask, task: Task, fit: LabelFit, cache: PlanCache
) -> Companion:
    """Return a task of `--also-test` with its scored rows, for models of a planned task (`source`)."""
    read = _test_rows(request, task, cache)
    if (read.folder.kind, source.rows.folder.kind) == ("sample", "real"):
        raise DataError(
            f"--also-test {task.name}: its official files are not on this machine, and its embedded sample says "
            f"nothing about models of task {source.task.name!r}; add the files (alue-bench data status shows which)"
        )
    rows, left_out = _reachable(read.splits["test"], fit, task)
    origin = registry.tasks[task.name].origin
    scoring = [task.primary, fit.labels.threshold, list(fit.labels.names), list(fit.label_map.items())]
    digest = digest_of([rows.digest, *scoring, origin.distribution, origin.version])
    notes = []
    if mapped := fit.describe():
        notes.append(f"scored on {task.name}: labels of {source.task.name} count as {mapped}")
    if left_out:
        notes.append(
            f"scored on {task.name}: {left_out} of {len(read.splits['test'].examples)} test rows are left out, since "
            f"no label of {source.task.name} counts as {', '.join(fit.unreachable)}"
        )
    if read.dropped:
        notes.append(f"scored on {task.name}: {read.dropped} malformed test rows are left out (--drop-bad)")
    trained_on = {(one.text, one.text_pair) for one in source.train_rows.splits["train"].examples}
    if shared := sum((one.text, one.text_pair) in trained_on for one in rows.examples):
        notes.append(f"scored on {task.name}: {shared} of its test texts are also train texts of {source.task.name}")
    return Companion(task, rows, fit, read.folder, digest, left_out, tuple(notes))


def _test_rows(request: PlanRequest, task: Task, cache: PlanCache) -> TaskRows:
    """Return the test rows of a task; other splits are included only if the test rows are drawn from the train file."""
    folder = data_folder(task, request, fetch=request.download)
    key = ("also-test", task.name, repr(folder), request.drop_bad, request.limit_eval)
    if key not in cache.rows:
        cache.rows[key] = _read(request, task, folder)
    return cache.rows[key]


def _read(request: PlanRequest, task: Task, folder: DataFolder) -> TaskRows:
    if not isinstance(task.splits.test, DataFile):
        return load_rows(task, folder, drop_bad=request.drop_bad, limit_train=None, limit_eval=request.limit_eval)
    rows, dropped = read_files(task, folder, drop_bad=request.drop_bad, splits=("test",))
    test = checked_split(task, "test", limit_rows(rows["test"], request.limit_eval))
    return TaskRows({"test": test}, folder, dropped)


def _reachable(rows: SplitRows, fit: LabelFit, task: Task) -> tuple[SplitRows, int]:
    """Return the rows whose gold label a model can predict, and the number of rows that are left out.

    In a multi-label task, labels that cannot be predicted are removed from the gold labels, and no row is left out.
    """
    if not fit.unreachable:
        return rows, 0
    gone = set(fit.unreachable)

    def kept(example: Example) -> Example | None:
        if isinstance(example.target, tuple):
            return replace(example, target=tuple(name for name in example.target if name not in gone))
        return None if example.target in gone else example

    examples = [one for example in rows.examples if (one := kept(example)) is not None]
    left_out = len(rows.examples) - len(examples)
    if task.labels.kind is TargetKind.MULTILABEL:
        left_out = 0
    return checked_split(task, "test", examples), left_out
