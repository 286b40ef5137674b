"""The division of a task's rows into train, dev and test.

If a task has no dev or test split, a part of its train rows is held out. The `--limit-…` options are applied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import Answers, Example, Target
from alue_bench.contract.spec import Fold, digest_of
from alue_bench.contract.task import DataFile, HeldOut, Task
from alue_bench.data.location import DataFolder
from alue_bench.data.verification import ReadFile, read_file, reject_bad_rows

T = TypeVar("T")

LIMIT_SEED = 20_201_124
"""The seed of the random choice of rows that `--limit-train` and `--limit-eval` keep; it is the same for every run."""


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split, in the order of the file, and their digest."""

    examples: tuple[Example, ...]
    digest: str
    """A digest of the identifiers, texts and targets of the examples."""
    all_rows: SplitRows | None = None
    """All rows that a cross-validation divides into folds; None without cross-validation. Values that depend on a
    single row, such as its token ids, are computed once for these rows instead of once for each fold."""
    positions: tuple[int, ...] = ()
    """The positions in `all_rows` of this split's examples; empty without cross-validation."""


@dataclass(frozen=True)
class TaskRows:
    """The rows of a task for one run, divided into splits."""

    splits: dict[str, SplitRows]
    """The rows by the name of the split: "train", "dev", "test", and perhaps "submission" (see `load_rows`)."""
    folder: DataFolder
    """The folder from which the rows were read."""
    dropped: int
    """The number of bad rows that were left out because the user requested it with `--drop-bad`."""
    notes: tuple[str, ...] = ()
    """Sentences about these rows that are recorded with each run that uses them."""
    fold: Fold | None = None
    """The fold whose rows are the test split; None if the task's own splits are used."""
    protocol: str = ""
    """A sentence that says how the splits were made; empty if the sentence in the task's declaration applies."""
    folds_digest: str = ""
    """A digest of everything that determines the rows of all folds; empty without cross-validation."""


def load_rows(
    task: Task, folder: DataFolder, *, drop_bad: bool, limit_train: int | None, limit_eval: int | None
) -> TaskRows:
    """Read, check and split a task's files.

    The result includes the rows of the leaderboard's test file without gold labels as the split "submission", if the
    task has such a file, the file exists and `limit_eval` is None. No score depends on these rows. If they cannot be
    used, no error is raised; `TaskRows.notes` gives the reason.

    Args:
        task: The task.
        folder: The folder that contains its files.
        drop_bad: Whether bad rows are dropped; otherwise a bad row is an error.
        limit_train: The largest number of train rows; None for all.
        limit_eval: The largest number of dev rows and of test rows; None for all.

    Raises:
        DataError: A file is missing or malformed, a split has no rows, or a row is bad or has no gold label.
    """
    rows, dropped = read_files(task, folder, drop_bad=drop_bad)
    for split in ("test", "dev"):  # test is drawn first, so that holding out a dev split does not change it
        part = getattr(task.splits, split)
        if isinstance(part, HeldOut):
            rows["train"], rows[split] = hold_out(rows["train"], part, task.name)
    limits = {"train": limit_train, "dev": limit_eval, "test": limit_eval}
    splits: dict[str, SplitRows] = {}
    for split, examples in rows.items():
        splits[split] = checked_split(task, split, limit_rows(examples, limits[split]))
    notes: list[str] = []
    if limit_eval is None and task.submission is not None and task.splits.submission is not None:
        try:
            unlabelled = submission_rows(task, folder)
        except DataError as error:
            notes.append(f"no predictions for {task.submission.leaderboard}'s {task.submission.file}: {error}")
        else:
            if unlabelled is not None:
                splits["submission"] = unlabelled
    return TaskRows(splits, folder, dropped, tuple(notes))


def read_files(
    task: Task, folder: DataFolder, *, drop_bad: bool, splits: Sequence[str] = ("train", "dev", "test")
) -> tuple[dict[str, Sequence[Example]], int]:
    """Read the splits of a task that have files of their own.

    Splits that are held out from the train file (`HeldOut`) are not in the result; their rows are among the train rows.

    Args:
        task: The task.
        folder: The folder that contains its files.
        drop_bad: Whether bad rows are dropped; otherwise a bad row is an error.
        splits: The names of the splits to read.

    Returns:
        The examples by split, and the number of bad rows that were dropped.

    Raises:
        DataError: A file is missing or malformed, or has a bad row and `drop_bad` is False.
    """
    read: dict[str, ReadFile] = {}
    for split in splits:
        part = getattr(task.splits, split)
        if isinstance(part, DataFile):
            read[split] = read_file(part, folder.file(part), task.labels)
            reject_bad_rows(task, folder, read[split], drop=drop_bad)
    dropped = sum(len(file.bad) for file in read.values()) if drop_bad else 0
    return {split: file.examples for split, file in read.items()}, dropped


def checked_split(task: Task, split: str, examples: Sequence[Example]) -> SplitRows:
    """Return the rows of a split with their digest. Raise DataError if there are no rows or a row has no gold label."""
    if not examples:
        raise DataError(f"task {task.name!r}: the {split} split has no rows left")
    unlabelled_row = next((example for example in examples if example.target is None), None)
    if unlabelled_row is not None:
        raise DataError(
            f"task {task.name!r}: the {split} split has rows without a gold label, the first of them "
            f"{unlabelled_row.id!r} at {unlabelled_row.line} of its file"
        )
    content = [
        [e.id, e.text, e.text_pair, _target_as_json(e.target), *([] if e.words is None else [e.words])]
        for e in examples
    ]
    return SplitRows(tuple(examples), digest_of(content))


def _target_as_json(target: Target) -> object:
    """Return a target as data that JSON can represent."""
    return [target.texts, target.starts, target.ends] if isinstance(target, Answers) else target


def submission_rows(task: Task, folder: DataFolder) -> SplitRows | None:
    """Return all rows for which a leaderboard needs predictions, in file order.

    These are the rows of the official file without gold labels or, if the task has no such file, of the test file.

    Returns:
        The rows, or None if the file is not in the folder.

    Raises:
        DataError: The file cannot be read or has a bad row; a leaderboard needs a prediction for every row.
    """
    file = task.splits.submission or task.splits.test
    if not isinstance(file, DataFile) or not folder.file(file).exists():
        return None
    read = read_file(file, folder.file(file), task.labels)
    reject_bad_rows(task, folder, read, drop=False)
    return SplitRows(read.examples, digest_of([[e.id, e.text, e.text_pair] for e in read.examples]))


def limit_rows(examples: Sequence[T], limit: int | None) -> Sequence[T]:
    """Return a fixed random subset of `limit` examples in file order, or all examples if `limit` is None.

    The subset for a smaller limit is contained in the subset for a larger limit.
    """
    if limit is None or limit >= len(examples):
        return examples
    import numpy as np

    chosen = np.random.default_rng(LIMIT_SEED).permutation(len(examples))[:limit]
    return [examples[index] for index in sorted(chosen)]


def hold_out(examples: Sequence[Example], part: HeldOut, task: str) -> tuple[list[Example], list[Example]]:
    """Divide examples into a remaining and a held-out part, as the class `HeldOut` describes.

    Args:
        examples: The examples of the train file.
        part: The declaration of the held-out part.
        task: The name of the task, for error messages.

    Returns:
        The remaining examples and the held-out ones, both in file order.

    Raises:
        DataError: There are too few examples.
    """
    from sklearn.model_selection import train_test_split

    # A group is formed by the examples with the same first text. Groups are drawn instead of rows, and each group is
    # stratified by the label of its first example. This is a thousand times faster than a grouped and stratified
    # division of the rows, and as balanced if most groups are single rows or contain each label once.
    label_of: dict[str, str] = {}
    for example in examples:
        label_of.setdefault(example.text, example.target if isinstance(example.target, str) else "")
    groups, labels = list(label_of), list(label_of.values())
    held_groups = round(len(groups) * part.fraction)
    if held_groups < 1 or len(groups) - held_groups < 1:
        raise DataError(
            f"task {task!r}: {len(examples)} train rows are too few to hold out {part.fraction:.0%} of them"
        )
    counts = Counter(labels)
    stratified = (
        len(counts) > 1 and min(counts.values()) > 1 and len(counts) <= min(held_groups, len(groups) - held_groups)
    )
    _, held = train_test_split(
        groups, test_size=held_groups, random_state=part.seed, stratify=labels if stratified else None
    )
    chosen = set(held)
    return [e for e in examples if e.text not in chosen], [e for e in examples if e.text in chosen]
