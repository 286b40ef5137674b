"""From a task's files to its train, dev and test rows, held-out parts and limits included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alue_bench.data.location import DataFolder
from alue_bench.data.verification import ReadFile, read_file, reject_bad_rows
from alue_bench.errors import DataError
from alue_bench.formats import Example
from alue_bench.spec import digest_of
from alue_bench.task import DataFile, HeldOut, Task

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


def load_rows(
    task: Task, folder: DataFolder, *, drop_bad: bool, limit_train: int | None, limit_eval: int | None
) -> TaskRows:
    """Read, check and split a task's files.

    Raises DataError where a file is missing or malformed, or a split has no rows.
    """
    read: dict[str, ReadFile] = {}
    rows: dict[str, Sequence[Example]] = {}
    for split in ("train", "dev", "test"):
        part = getattr(task.splits, split)
        if isinstance(part, DataFile):
            read[split] = read_file(part, folder.file(part))
            reject_bad_rows(task, read[split], drop=drop_bad)
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
        if any(example.target is None for example in kept):
            raise DataError(f"task {task.name!r}: the {split} split has rows without a gold label")
        content = [[e.id, e.text, e.text_pair, e.target] for e in kept]
        splits[split] = SplitRows(tuple(kept), digest_of(content))
    return TaskRows(splits, folder, sum(len(file.bad) for file in read.values()) if drop_bad else 0)


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
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    folds = max(2, round(1 / part.fraction))
    groups = [example.text for example in examples]
    too_few = DataError(
        f"task {task!r}: {len(examples)} train rows are too few to hold out {part.fraction:.0%} of them"
    )
    if len(set(groups)) < folds:
        raise too_few
    if isinstance(examples[0].target, str):
        splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=part.seed)
        labels = [example.target for example in examples]
    else:  # several labels at once, or numbers: nothing to stratify by
        splitter = GroupKFold(n_splits=folds, shuffle=True, random_state=part.seed)
        labels = None
    try:
        remaining, held = next(iter(splitter.split(examples, labels, groups)))
    except ValueError as error:  # no label has as many rows as there are folds
        raise too_few from error
    return [examples[i] for i in sorted(remaining)], [examples[i] for i in sorted(held)]
