"""Cross-validation for small data: the rows of a task are divided into folds, and each fold is the test split once.

The rows of the train file and, if there is one, of the dev file are divided. They include the rows that would otherwise
be held out from the train file as the test split. They do not include an official test file, so that no model is
trained on its rows. For each fold, a part of the rows outside the fold is held out as the dev split, and the rest is
the train split. By the scores on the dev split, the weights to be tested are normally selected.

The random draws of the folds and of the dev splits are stratified. For the folds, the rows are put in a random order,
sorted by label, and dealt out to the folds in turn. If no text is repeated, two folds therefore differ by at most one
in their number of rows with a label (Kohavi 1995). Rows with several labels are sorted by their rarest label (after
Sechidis et al. 2011), and rows of a regression by their target. Rows with the same first text are dealt out together,
so that neither a repeated text nor a premise shared by several pairs is in two splits.

The draws depend on the rows, the number of folds and the number of the repetition, but not on the seed of a run: all
strategies and seeds are compared on the same folds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import Answers, Example, excerpt
from alue_bench.contract.spec import Fold, digest_of
from alue_bench.contract.task import DataFile, HeldOut, Labels, TargetKind, Task
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import SplitRows, TaskRows, checked_split, limit_rows, read_files

FOLD_SEED = 20_260_301
"""The first number in the random seed with which folds and dev splits are drawn. The other numbers are the number of
folds, the number of the repetition and, for a dev split, the number of the fold."""
DEV_SHARE = 0.1
"""The share of the rows outside a fold that becomes the dev split, unless the task declares a held-out part for dev."""


def load_folds(
    task: Task,
    folder: DataFolder,
    folds: Sequence[Fold],
    *,
    drop_bad: bool,
    limit_train: int | None,
    limit_eval: int | None,
) -> list[TaskRows]:
    """Read and check a task's files, and divide their rows into cross-validation folds.

    Args:
        task: The task, which must have a train split.
        folder: The folder that contains its files.
        folds: The folds to return, all with the same value of `Fold.folds`.
        drop_bad: Whether bad rows are dropped; otherwise a bad row is an error.
        limit_train: The largest number of rows that are divided into folds; None for all rows.
        limit_eval: The largest number of dev rows, and of test rows, of each fold; None for all rows.

    Returns:
        The rows of each fold, with the splits "train", "dev" and "test".

    Raises:
        DataError: A file is missing or malformed, a row is bad or has no gold label, or there are too few rows for the
            folds.
    """
    rows, dropped = read_files(task, folder, drop_bad=drop_bad, splits=("train", "dev"))
    examples = limit_rows([*rows["train"], *rows.get("dev", ())], limit_train)
    whole = checked_split(task, "train", examples)
    count = folds[0].folds
    _check_rows(task, examples, count)
    dev_part = task.splits.dev.fraction if isinstance(task.splits.dev, HeldOut) else DEV_SHARE
    digest = digest_of([whole.digest, count, dev_part, limit_eval])
    protocol = (
        f"{count}-fold cross-validation over {len(examples)} rows, stratified, repeated texts kept together; "
        f"{dev_part:.0%} of the rows outside a fold are its dev split"
    )
    notes = []
    if isinstance(task.splits.test, DataFile):
        files = "train and dev files" if "dev" in rows else "train file"
        notes.append(f"the rows of the {files} are divided; the test file {task.splits.test.path} is not used")
    parts: dict[int, list[int]] = {}
    divided = []
    for fold in folds:
        if fold.repeat not in parts:
            parts[fold.repeat] = _assign_to_parts(examples, task.labels, count, [FOLD_SEED, count, fold.repeat])
        places = _splits_of(fold, examples, task.labels, parts[fold.repeat], dev_part)
        splits = {}
        for split, chosen in places.items():
            kept = chosen if split == "train" else limit_rows(chosen, limit_eval)
            named = checked_split(task, split, [examples[place] for place in kept])
            splits[split] = SplitRows(named.examples, named.digest, whole, tuple(kept))
        divided.append(TaskRows(splits, folder, dropped, tuple(notes), fold, protocol, digest))
    return divided


def _splits_of(
    fold: Fold, examples: Sequence[Example], labels: Labels, parts: Sequence[int], dev_part: float
) -> dict[str, list[int]]:
    """Return the positions (in `examples`) of the train, dev and test rows of a fold, in ascending order.

    Args:
        fold: The fold.
        examples: All rows that are divided into folds.
        labels: The label space of the task.
        parts: The fold of each example, from 0.
        dev_part: The share of the rows outside the fold that becomes the dev split.
    """
    outside = [place for place, part in enumerate(parts) if part != fold.number - 1]
    others = [examples[place] for place in outside]
    seed = [FOLD_SEED, fold.folds, fold.repeat, fold.number]
    held = _held_out(others, labels, dev_part, seed)
    return {
        "train": [place for place, is_dev in zip(outside, held, strict=True) if not is_dev],
        "dev": [place for place, is_dev in zip(outside, held, strict=True) if is_dev],
        "test": [place for place, part in enumerate(parts) if part == fold.number - 1],
    }


def _check_rows(task: Task, examples: Sequence[Example], folds: int) -> None:
    """Raise DataError if the task, or one of its classes, has fewer different texts than there are folds."""
    texts: defaultdict[str, set[str]] = defaultdict(set)
    for example in examples:
        if task.labels.kind in (TargetKind.BINARY, TargetKind.MULTICLASS):
            texts[str(example.target)].add(example.text)
        else:
            texts[""].add(example.text)
    label, smallest = min(texts.items(), key=lambda item: len(item[1]))
    number = len(smallest)
    if number >= folds:
        return
    whose = f"label {excerpt(label)} of task {task.name!r}" if label else f"task {task.name!r}"
    rows = "1 row" if number == 1 else f"{number} rows"
    remedy = f"take --folds {number} or fewer" if number > 1 else "add rows"
    raise DataError(f"--folds {folds}: {whose} has {rows} with different texts, too few for {folds} folds; {remedy}")


def _assign_to_parts(examples: Sequence[Example], labels: Labels, parts: int, seed: list[int]) -> list[int]:
    """Divide examples into stratified parts, and return the number (from 0) of each example's part.

    The different texts are sorted by label, in a random order within each label, and dealt to the parts in turn.

    Args:
        examples: The examples.
        labels: The label space.
        parts: The number of parts.
        seed: The seed of the random order.
    """
    part_of = {text: place % parts for place, text in enumerate(_stratified(examples, labels, parts, seed))}
    return [part_of[example.text] for example in examples]


def _held_out(examples: Sequence[Example], labels: Labels, fraction: float, seed: list[int]) -> list[bool]:
    """Draw a stratified subset of examples to hold out; return a flag for each example, True if it is held out.

    The different texts are sorted by label, in a random order within each label. Texts at equal distances in this order
    are held out, at least one.

    Args:
        examples: The examples.
        labels: The label space.
        fraction: The share of the texts to hold out.
        seed: The seed of the random order.
    """
    order = _stratified(examples, labels, round(1 / fraction), seed)
    number = max(1, round(fraction * len(order)))
    held = {order[(2 * place + 1) * len(order) // (2 * number)] for place in range(number)}
    return [example.text in held for example in examples]


def _stratified(examples: Sequence[Example], labels: Labels, size: int, seed: list[int]) -> list[str]:
    """Return the distinct texts, sorted by label (or range of targets), in random order within each label.

    Args:
        examples: The examples. The target of the first example with a text counts as the target of the text.
        labels: The label space.
        size: For a regression, the number of texts with neighbouring targets that form one stratum.
        seed: The seed of the random order.
    """
    import numpy as np

    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.text, example)
    texts = list(first)
    targets: list[Any] = [first[text].target for text in texts]
    stratum: list[Any] = targets
    if labels.kind is TargetKind.REGRESSION:
        by_size = sorted(range(len(texts)), key=targets.__getitem__)
        rank_of = {place: rank for rank, place in enumerate(by_size)}
        stratum = [rank_of[place] // size for place in range(len(texts))]
    elif labels.extracts_spans:  # True if the first question about a context has an answer
        stratum = [isinstance(target, Answers) and bool(target.texts) for target in targets]
    elif labels.kind in (TargetKind.MULTILABEL, TargetKind.TOKENS):
        if labels.tags_words:  # a sentence counts for the rarest type of entity (or tag) in it
            targets = [{tag.partition("-")[2] if labels.scheme else tag for tag in tags} for tags in targets]
        counts = Counter(name for names in targets for name in names)
        stratum = [sorted((counts[name], name) for name in names) for names in targets]
    shuffled = np.random.default_rng(seed).permutation(len(texts))
    return [texts[place] for place in sorted(shuffled, key=lambda place: stratum[place])]
