"""The conformance checks of a task's splits: labels, overlaps between splits, and the submission file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from alue_bench.contract.errors import DataError
from alue_bench.contract.task import TargetKind, Task
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import SplitRows, load_rows, submission_rows
from alue_bench.data.tokenization import encode_targets
from alue_bench.evaluation.submission import submission_text
from alue_bench.testing.violations import cause

MAX_COPIED_SHARE = 0.5
"""The largest share of a split's rows that may also occur in another split. Above it, the split counts as a copy."""


def check_splits(task: Task, folder: Path, *, of_sample: bool) -> Iterator[str]:
    """Yield a sentence for each violation of the plugin contract by a task's splits.

    The splits are made in the same way as for a run.

    Args:
        task: The task. Its files must have passed `check_file`.
        folder: The data folder.
        of_sample: Whether the folder is the task's sample, in which splits must not overlap at all.
    """
    subject = f"task {task.name!r}"
    kind = DataFolder(folder, "sample" if of_sample else "real")
    try:
        splits = load_rows(task, kind, drop_bad=False, limit_train=None, limit_eval=None).splits
    except DataError as error:
        yield f"{subject}: the splits cannot be made: {error}; add rows or correct the splits"
        return
    yield from _targets(task, splits)
    yield from _occurring(task, splits)
    yield from _copies(task, splits)
    if of_sample:  # the splits of official files may overlap; `alue-bench data verify` counts the overlaps
        yield from _shared_texts(task, splits)
    yield from _submission(task, kind)


def _targets(task: Task, splits: Mapping[str, SplitRows]) -> Iterator[str]:
    """Yield a violation for each split whose encoded targets do not have the shape that training needs."""
    if task.labels.reads_tokens:  # `check_file` checks tags and answers row by row
        return
    for name, rows in splits.items():
        shape = tuple(encode_targets(rows, task.labels).shape)
        wanted: tuple[int, ...] = (len(rows.examples),)
        if task.labels.kind is TargetKind.MULTILABEL and name != "submission":
            wanted += (task.labels.outputs,)
        if shape != wanted:
            yield f"task {task.name!r}: the targets of {name} have the shape {shape}, not {wanted}; correct the labels"


def _occurring(task: Task, splits: Mapping[str, SplitRows]) -> Iterator[str]:
    """Yield a violation for each label, or each type of entity if tags have a scheme, that occurs in no train row."""
    if "train" not in splits or task.labels.extracts_spans:
        return
    occurring: set[str] = set()
    for example in splits["train"].examples:
        if isinstance(example.target, tuple):
            occurring.update(example.target)
        elif isinstance(example.target, str):
            occurring.add(example.target)
    if task.labels.scheme is not None:
        occurring = {tag[2:] for tag in occurring}
    for label in task.labels.types:
        if label not in occurring:
            yield (
                f"task {task.name!r}: label {label!r} does not occur in train; add rows with it, or remove it from "
                "the labels"
            )


def _texts(rows: SplitRows) -> list[tuple[str, str | None]]:
    return [(example.text, example.text_pair) for example in rows.examples]


def _copies(task: Task, splits: Mapping[str, SplitRows]) -> Iterator[str]:
    """Yield a violation for a test or dev split if most of its rows also occur in another split.

    Test is compared with train and dev, and dev is compared with train. A score on a copy of train measures
    memorisation. A score on a copy of dev is biased, because the epoch was selected on the same rows.
    """
    for later, earlier in (("test", "train"), ("dev", "train"), ("test", "dev")):
        if later not in splits or earlier not in splits:
            continue
        known, texts = set(_texts(splits[earlier])), _texts(splits[later])
        shared = sum(text in known for text in texts)
        if shared > MAX_COPIED_SHARE * len(texts):
            yield (
                f"task {task.name!r}: {shared} of the {len(texts)} rows of {later} are rows of {earlier} too, so that "
                f"a score on {later} says nothing; give {later} a different file, or take it from train with HeldOut"
            )


def _shared_texts(task: Task, splits: Mapping[str, SplitRows]) -> Iterator[str]:
    """Yield a violation if some texts are in both train and test; `_copies` reports it if most of them are."""
    if "train" not in splits:
        return
    train = set(_texts(splits["train"]))
    shared = [text for text in _texts(splits["test"]) if text in train]
    if 0 < len(shared) <= MAX_COPIED_SHARE * len(splits["test"].examples):
        yield (
            f"task {task.name!r}: {len(shared)} texts of the test split are in train too, such as "
            f"{shared[0][0][:40]!r}; remove them from one of the two"
        )


def _submission(task: Task, folder: DataFolder) -> Iterator[str]:
    """Yield a violation if the submission file for the task's leaderboard cannot be written.

    For the check, the prediction for every row is the first label or, in a regression, 0. Multi-label tasks are not
    checked.
    """
    if task.submission is None or task.labels.kind is TargetKind.MULTILABEL:
        return
    try:
        rows = submission_rows(task, folder)
        if rows is not None:
            predicted = task.labels.names[0] if task.labels.names else "0.0"
            ids = [example.id for example in rows.examples]
            submission_text(task, ids, [predicted] * len(ids), rows.examples)
    except Exception as error:  # a plugin's reader may raise anything
        yield (
            f"task {task.name!r}: its submission file cannot be written: {cause(error)}; correct Submission or the ids"
        )
