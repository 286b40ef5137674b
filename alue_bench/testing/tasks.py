"""The conformance checks of a task. The modules `files` and `splits` check its data files and its splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alue_bench.contract.formats import Delimited
from alue_bench.contract.tables import Table
from alue_bench.contract.task import METRICS, NAME, DataFile, HeldOut, Splits, Task
from alue_bench.testing.files import check_file, check_reader_alone
from alue_bench.testing.splits import check_splits
from alue_bench.testing.violations import (
    Remark,
    bad_defaults,
    bad_folder,
    bad_languages,
    incomplete,
    raise_if_any,
)


def check_task(task: Task, *, data: Path | None = None, trained_on: Task | None = None) -> None:
    """Check a task's declaration and the files that it reads.

        def test_my_task() -> None:
            check_task(my_plugin.TASK)

    A conforming task has these properties:

    - Its metadata are complete, and `defaults` are valid hyper-parameters.
    - Every file exists, and its reader reads it without a bad row. If a bad row is added to a copy of the file, the
      reader reports it with the correct line.
    - Texts, gold labels and identifiers vary and agree with the declaration, and `is_pair` agrees with the rows.
    - Every split has rows, and every label occurs in train. No split is a copy of another split, and no text of the
      sample is in both train and test.
    - The submission file can be written.
    - The labels can be matched with those of the task in `trained_on` and of the tasks in `companions`.

    A ConformanceWarning reports what could not be checked: rows, if `data` is None and the task has no sample; and
    whether a bad row is reported, if the file's format is neither text nor Parquet.

    Args:
        task: The declaration of the task.
        data: The folder with the official files; None to check the task's sample.
        trained_on: The task that `task.trained_on` names; None to look for it among the installed plugins.

    Raises:
        ConformanceError: The task breaks the contract; the message has one sentence for each violation.
    """
    checks = [_metadata, _submission, lambda task: _files(task, data), lambda task: _transfer(task, trained_on)]
    raise_if_any(task, Task, [*checks, _companions])


def _metadata(task: Task) -> Iterator[str]:
    subject = f"task {task.name!r}"
    if not NAME.fullmatch(task.name):
        yield f"{subject}: the name must match {NAME.pattern}; rename it"
    yield from incomplete(subject, task, ("title", "source", "licence", "citation"))
    yield from bad_languages(subject, task.languages)
    yield from bad_folder(subject, "sample", task.sample)
    metrics = METRICS[task.labels.kind]
    if task.primary not in metrics:
        yield f"{subject}: primary metric {task.primary!r} is not one of {', '.join(metrics)}; choose one of them"
    held_out = [split for split in ("dev", "test") if isinstance(getattr(task.splits, split), HeldOut)]
    if held_out and task.splits.protocol == Splits.protocol:
        yield (
            f"{subject}: the {' and '.join(held_out)} split is drawn from train, but the protocol says "
            f"{task.splits.protocol!r}; describe the splits in splits.protocol"
        )
    yield from bad_defaults(subject, task.defaults)
    yield from _labels_alike(subject, task.labels.names)


def _labels_alike(subject: str, names: tuple[str, ...]) -> Iterator[str]:
    """Yield a remark for each pair of labels that differ only in upper and lower case."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            yield Remark(
                f"{subject}: the labels {other!r} and {name!r} differ only in case; a tracking store that ignores it "
                "keeps one metric for both, so rename one of them, in the file's reader with decode="
            )


def _submission(task: Task) -> Iterator[str]:
    """Yield a violation if the submission file needs identifiers, but the reader of the test file reads none."""
    official = task.splits.submission or task.splits.test
    if task.submission is None or not isinstance(official, DataFile):
        return
    if task.submission.id not in ("given", "row", None):
        yield (f"task {task.name!r}: the submission's id is {task.submission.id!r}; it must be 'given', 'row' or None")
    if task.submission.id == "given" and isinstance(official.read, Delimited | Table) and official.read.id is None:
        yield (
            f"task {task.name!r}: the submission needs the identifiers of {official.path!r}, but its reader names no "
            "column for them; give the reader id=, or the submission id='row'"
        )


def _files(task: Task, data: Path | None) -> Iterator[str]:
    """Yield the violations in a task's data files; if these have no violations, yield those in the task's splits.

    Args:
        task: The task.
        data: The folder with the official files; None for the task's sample.
    """
    subject = f"task {task.name!r}"
    folder = data if data is not None else task.sample
    if folder is None:
        yield from _without_files(task)
        return
    what = "data" if data is not None else "sample"
    if not folder.is_dir():
        yield f"{subject}: the {what} folder {folder} does not exist; correct the path, or ship it with the package"
        return
    failed = False
    for split, file in task.splits.files().items():
        for sentence in check_file(task, split, file, folder):
            failed = failed or not isinstance(sentence, Remark)
            yield sentence
    if not failed:
        yield from check_splits(task, folder, of_sample=data is None)


def _without_files(task: Task) -> Iterator[str]:
    """Yield a remark that a task without files was not fully checked, and the violations of its readers."""
    yield Remark(
        f"task {task.name!r} has no sample, so its rows, splits and labels were not checked; give the check the "
        "folder of the real files, data=Path(...), or give the task a sample="
    )
    for split, file in task.splits.files().items():
        yield from check_reader_alone(task, split, file)


def _transfer(task: Task, train_task: Task | None) -> Iterator[str]:
    """Yield a violation if the task cannot be scored with models of the task in `trained_on`.

    Args:
        task: The task.
        train_task: The task that `task.trained_on` names; None to look for it among the installed plugins.
    """
    from alue_bench.contract.registry import load_registry
    from alue_bench.contract.transfer import misfit_reason

    if task.trained_on is None:
        return
    if train_task is None:
        declared = load_registry().tasks.get(task.trained_on)
        if declared is None:
            yield Remark(
                f"task {task.name!r}: whether its labels fit those of {task.trained_on!r} was not checked, since no "
                "installed plugin declares that task; install it, or give the check trained_on="
            )
            return
        train_task = declared.value
    if (problem := misfit_reason(task, train_task)) is not None:
        yield problem


def _companions(task: Task) -> Iterator[str]:
    """Yield a violation for each task in `companions` on which models of this task cannot be scored."""
    from alue_bench.contract.label_fit import LabelMisfit, fit_labels
    from alue_bench.contract.registry import load_registry

    if not task.companions:
        return
    tasks = load_registry().tasks
    for name in task.companions:
        if name not in tasks:
            yield Remark(
                f"task {task.name!r}: its companion {name!r} was not checked, since no installed plugin declares it; "
                "install the plugin that does"
            )
            continue
        try:
            fit_labels(tasks[name].value, task)
        except LabelMisfit as misfit:
            yield f"task {task.name!r}: companions[{name!r}] does not fit: {misfit}"
