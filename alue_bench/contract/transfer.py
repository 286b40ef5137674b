"""The conversion of labels if a task is scored with a model that was trained on another task (`Task.trained_on`).

Here, the first task is called the scored task, and the second one the training task. Both must have the same label
names in the same order, or the scored task must map each label of the training task to one of its own labels
(`Task.label_map`). A model distinguishes labels only by their position; with different orders, scores would be computed
for the wrong labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alue_bench.contract.task import Labels, TargetKind, Task

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

CLASSES = (TargetKind.BINARY, TargetKind.MULTICLASS)
"""The kinds of target with exactly one label for each example. Models for both kinds have the same type of head."""


def misfit_reason(task: Task, train_task: Task) -> str | None:
    """Return why a model of the training task cannot be scored on a task, with a remedy; None if it can.

    Args:
        task: The scored task.
        train_task: The training task.
    """
    case = f"task {task.name!r} is scored with the model of task {train_task.name!r}"
    own, theirs = task.labels, train_task.labels
    if train_task.splits.train is None:
        return (
            f"{case}, which has no train split of its own; name in trained_on the task that has one"
            + (f", {train_task.trained_on!r}" if train_task.trained_on not in (None, task.name) else "")
        )  # fmt: skip
    if own.kind is not theirs.kind and not {own.kind, theirs.kind} <= set(CLASSES):
        return (
            f"{case}, but its labels are {_describe_label_space(own)} and that one's {_describe_label_space(theirs)}; "
            "a model can only be scored on a task of the same kind"
        )
    if own.kind is TargetKind.REGRESSION:
        if (own.minimum, own.maximum) != (theirs.minimum, theirs.maximum):
            return (
                f"{case}, but its labels are {_describe_label_space(own)} and that one's "
                f"{_describe_label_space(theirs)}; declare one range"
            )
        return None
    if own.kind is TargetKind.MULTILABEL and own.threshold != theirs.threshold:
        return (
            f"{case}, whose epoch is selected with the threshold {theirs.threshold:g}, but its own is "
            f"{own.threshold:g}; declare one threshold for both"
        )
    if own.scheme != theirs.scheme:
        return f"{case}, but only one of the two has tags of the scheme IOB2; declare one scheme for both"
    if not task.label_map:
        if own.names == theirs.names:
            return None
        return (
            f"{case}, whose labels are {_listed_names(theirs)} in this order, but its own are {_listed_names(own)}; "
            "give both the same labels in one order, or say in label_map which of its labels each of "
            f"{train_task.name!r} counts as"
            + (f": label_map={ {name: name for name in theirs.names} }" if set(own.names) == set(theirs.names) else "")
        )
    for wrong, why in (
        ([name for name in task.label_map if name not in theirs.names], "is not a label of that task"),
        ([name for name in theirs.names if name not in task.label_map], "is not in it; map it to None if it is never"),
    ):
        if wrong:
            more = " to be predicted" if why.endswith("never") else ""
            return (
                f"{case}, whose labels are {_listed_names(theirs)}, and its own are {_listed_names(own)}; but "
                f"label_map is wrong: {wrong[0]!r} {why}{more}"
            )
    missing = [name for name in own.names if name not in task.label_map.values()]
    if missing:
        return (
            f"{case}, whose labels are {_listed_names(theirs)}, and its own are {_listed_names(own)}; but by label_map "
            f"none of the former counts as {missing[0]!r}, which could therefore never be predicted"
        )
    return None


def _describe_label_space(labels: Labels) -> str:
    if labels.kind is TargetKind.REGRESSION:
        return f"numbers from {labels.minimum:g} to {labels.maximum:g}"
    return f"{labels.kind} ({_listed_names(labels)})"


def _listed_names(labels: Labels) -> str:
    return ", ".join(labels.names)


def label_map_note(task: Task, train_task: Task) -> str | None:
    """Return a sentence for the notes of a run that states the label map; None if the scored task has no label map.

    Args:
        task: The scored task.
        train_task: The training task.
    """
    if not task.label_map:
        return None
    pairs = (f"{name} → {task.label_map[name] or 'never predicted'}" for name in train_task.labels.names)
    return f"labels of {train_task.name} count as those of {task.name}: {', '.join(pairs)}"


def transferred_logits(logits: Array, task: Task, train_task: Task) -> Array:
    """Return logits for the scored task's labels, computed from logits for the training task's labels.

    If several labels are mapped to the same label, their probabilities are summed; in a multi-label task, the largest
    probability is used. Labels that are mapped to None are left out, so that a softmax over the result divides the
    whole probability among the remaining labels.

    Args:
        logits: The logits for the training task's labels, [examples, train_labels].
        task: The scored task.
        train_task: The training task.

    Returns:
        The logits for the scored task's labels, [examples, labels]; `logits` itself if the scored task has no label
        map.
    """
    if not task.label_map:
        return logits
    return merged_logits(logits, _sources(task, train_task), task.labels.kind)


def merged_logits(logits: Array, sources: Sequence[Sequence[int]], kind: TargetKind) -> Array:
    """Merge logits for the training task's labels into logits for the scored task's labels.

    The probabilities of the merged labels are summed; in a multi-label task, the largest probability is used.

    Args:
        logits: The logits for the training task's labels, [examples, train_labels].
        sources: For each label of the scored task, the positions of the training task's labels that count as it; at
            least one position each.
        kind: The kind of target.

    Returns:
        The logits for the labels of the scored task, [examples, labels].
    """
    import numpy as np
    from scipy.special import logsumexp

    several = kind is TargetKind.MULTILABEL
    columns = []
    for positions in map(list, sources):
        chosen = logits[:, positions]
        merged = chosen[:, 0] if len(positions) == 1 else chosen.max(axis=1) if several else logsumexp(chosen, axis=1)
        columns.append(merged.astype(logits.dtype))
    return np.stack(columns, axis=1)


def transferred_targets(targets: Array, task: Task, train_task: Task) -> Array:
    """Return the training task's targets, converted to targets of the scored task.

    Args:
        targets: The training task's targets: class indices, [examples]; 0 or 1 for each label of a multi-label task,
            [examples, train_labels]; or the numbers of a regression, [examples].
        task: The scored task.
        train_task: The training task.

    Returns:
        The class indices in the label space of the scored task, [n]; the examples whose label is mapped to None are
        missing. For a multi-label task, 0 or 1 for each label, [examples, labels]. If the scored task has no label map,
        `targets` itself.
    """
    if not task.label_map:
        return targets
    return merged_targets(targets, _sources(task, train_task), task.labels.kind, len(train_task.labels.names))


def merged_targets(targets: Array, sources: Sequence[Sequence[int]], kind: TargetKind, train_labels: int) -> Array:
    """Convert targets of the training task to targets of the scored task, as `transferred_targets` does.

    Args:
        targets: The training task's targets: class indices [examples], or 0 or 1 for each label of a multi-label task
            [examples, train_labels].
        sources: For each label of the scored task, the positions of the training task's labels that count as it.
        kind: The kind of target.
        train_labels: The number of the training task's labels.
    """
    import numpy as np

    if kind is TargetKind.MULTILABEL:
        return np.stack([targets[:, list(positions)].max(axis=1) for positions in sources], axis=1)
    converted = np.full(train_labels, -1)
    for own, positions in enumerate(sources):
        converted[list(positions)] = own
    mapped = converted[targets]
    return mapped[mapped >= 0]


def _sources(task: Task, train_task: Task) -> list[list[int]]:
    """Return, for each label of the scored task, the positions of the training task's labels that are mapped to it."""
    names = train_task.labels.names
    return [[i for i, name in enumerate(names) if task.label_map[name] == own] for own in task.labels.names]
