"""From a task's files to its train, dev and test rows, held-out parts and limits included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import Example
from alue_bench.contract.spec import digest_of
from alue_bench.contract.task import DataFile, HeldOut, Task
from alue_bench.data.location import DataFolder
from alue_bench.data.verification import ReadFile, read_file, reject_bad_rows

LIMIT_SEED = 20_201_124
"""Which rows `--limit-train` and `--limit-eval` keep: the same for every run, whatever its seed."""


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split, in file order, and a digest of them."""

    examples: tuple[Example, ...]
    digest: str


@dataclass(frozen=True)
class TaskRows:
    """The rows of a task by split."""

    splits: dict[str, SplitRows]
    folder: DataFolder
    dropped: int
    """Bad rows left out because the user said so."""
    notes: tuple[str, ...] = ()
    """What a reader of a run on these rows should know."""


def load_rows(
    task: Task, folder: DataFolder, *, drop_bad: bool, limit_train: int | None, limit_eval: int | None
) -> TaskRows:
    """Read, check and split a task's files.

    Where the task's leaderboard file without gold labels is at hand, its rows are there too, as `submission`, unless
    `limit_eval` makes of the run a rehearsal. No result depends on them: if they cannot be used, a note says why.

    Raises DataError where a file is missing or malformed, or a split has no rows.
    """
    read: dict[str, ReadFile] = {}
    rows: dict[str, Sequence[Example]] = {}
    for split in ("train", "dev", "test"):
        part = getattr(task.splits, split)
        if isinstance(part, DataFile):
            read[split] = read_file(part, folder.file(part), task.labels)
            reject_bad_rows(task, folder, read[split], drop=drop_bad)
            rows[split] = read[split].examples
    for split in (
        "test",
        "dev",
    ):  # the test part is drawn first, so that adding a dev split does not change it
        part = getattr(task.splits, split)
        if isinstance(part, HeldOut):
            rows["train"], rows[split] = hold_out(rows["train"], part, task.name)
    limits = {"train": limit_train, "dev": limit_eval, "test": limit_eval}
    splits: dict[str, SplitRows] = {}
    for split, examples in rows.items():
        kept = limit_rows(examples, limits[split])
        if not kept:
            raise DataError(f"task {task.name!r}: the {split} split has no rows left")
        unlabelled_row = next((example for example in kept if example.target is None), None)
        if unlabelled_row is not None:
            raise DataError(
                f"task {task.name!r}: the {split} split has rows without a gold label, the first of them "
                f"{unlabelled_row.id!r} at {unlabelled_row.line} of its file"
            )
        content = [[e.id, e.text, e.text_pair, e.target] for e in kept]
        splits[split] = SplitRows(tuple(kept), digest_of(content))
    notes: list[str] = []
    if limit_eval is None and task.submission is not None and task.splits.submission is not None:
        try:
            unlabelled = submission_rows(task, folder)
        except DataError as error:
            notes.append(f"no predictions for {task.submission.leaderboard}'s {task.submission.file}: {error}")
        else:
            if unlabelled is not None:
                splits["submission"] = unlabelled
    dropped = sum(len(file.bad) for file in read.values()) if drop_bad else 0
    return TaskRows(splits, folder, dropped, tuple(notes))


def submission_rows(task: Task, folder: DataFolder) -> SplitRows | None:
    """The rows that a leaderboard wants predictions of, every one, in file order: of the file without gold labels, or,
    where the task has none, of the test file. None where the file is not in the folder.

    Raises DataError where it cannot be read or has a bad row: a leaderboard wants a line for each.
    """
    file = task.splits.submission or task.splits.test
    if not isinstance(file, DataFile) or not folder.file(file).is_file():
        return None
    found = read_file(file, folder.file(file), task.labels)
    reject_bad_rows(task, folder, found, drop=False)
    return SplitRows(found.examples, digest_of([[e.id, e.text, e.text_pair] for e in found.examples]))


def limit_rows(examples: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """A fixed random subset in file order. A smaller limit keeps a part of what a larger one keeps."""
    if limit is None or limit >= len(examples):
        return examples
    import numpy as np

    chosen = np.random.default_rng(LIMIT_SEED).permutation(len(examples))[:limit]
    return [examples[index] for index in sorted(chosen)]


def hold_out(examples: Sequence[Example], part: HeldOut, task: str) -> tuple[list[Example], list[Example]]:
    """What remains and what is held out, both in file order. See `HeldOut` for how it is drawn.

    Raises DataError where there are too few rows to draw from.
    """
    from sklearn.model_selection import train_test_split

    # A group stands for its first label: groups are drawn, not rows, which is a thousand times faster than folds of
    # rows that respect groups, and as even where most groups are single rows or hold each label once.
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
