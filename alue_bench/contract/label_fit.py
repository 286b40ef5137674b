"""The conversion of labels when a model that was trained on one task is also tested on another (`--also-test`).

A model that distinguishes 26 cities, for example, can be scored on a test set of 18 countries if the country of each
city is known. Here, the first task is called the training task, and the second one the scored task. The mapping from
the labels of the training task to those of the scored task is the first of these that exists: the value of the option
`--map`; the mapping that the training task declares in `Task.companions`; the mapping in `Task.label_map`, if the
scored task names the training task in `Task.trained_on`; the mapping of each label to itself, if both tasks have the
same label names.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from alue_bench.contract.formats import excerpt
from alue_bench.contract.task import Labels, TargetKind, Task
from alue_bench.contract.transfer import CLASSES

LabelMap = Mapping[str, str | None]
"""A mapping from each label of the training task to the label of the scored task that it counts as. A label that is
mapped to None is never predicted."""


@dataclass(frozen=True)
class LabelFit:
    """The conversion of a model's predictions from the labels of its training task to those of a scored task.

    For a regression, which has no labels, `sources` and `label_map` are empty.
    """

    labels: Labels
    """The label space in which predictions are scored: the labels of the scored task that can be predicted, and the
    training task's threshold."""
    sources: tuple[tuple[int, ...], ...]
    """For each label in `labels`, the positions of the training task's labels that count as it."""
    label_map: LabelMap
    unreachable: tuple[str, ...] = ()
    """The labels of the scored task that cannot be predicted, because no label of the training task counts as them.
    Rows with such a gold label are left out."""

    def describe(self) -> str:
        """Return the label map in words, or an empty string if every label counts as the label of the same name."""
        pairs = [(name, own) for name, own in self.label_map.items() if name != own]
        return ", ".join(f"{name} → {own or 'never predicted'}" for name, own in pairs)


class LabelMisfit(Exception):
    """An error: models of one task cannot be scored on another task. The message gives the reason and a remedy."""


def fit_labels(task: Task, train_task: Task, given: str | None = None, *, several: bool = False) -> LabelFit:
    """Return how a model's predictions are converted from the labels of its training task to those of a scored task.

    Args:
        task: The scored task.
        train_task: The task on which the model is trained.
        given: The value of `--map` for the scored task, such as "NOT_OFF=normal,OFF=offensive"; None if the option is
            not given.
        several: True if models are scored on several tasks. In error messages, the suggested value of `--map` then
            begins with the name of the scored task.

    Raises:
        LabelMisfit: The kinds of target differ (binary and multiclass count as one kind), or the ranges of two
            regressions do; only one of the tasks has pairs of texts; a task tags words or extracts spans; the mapping
            of the labels is not known or is invalid; or fewer than two labels could be predicted.
    """
    own, theirs = task.labels, train_task.labels
    if other := next((one for one in (task, train_task) if one.labels.reads_tokens), None):
        raise LabelMisfit(
            f"--also-test {task.name}: models of task {train_task.name!r} are not scored on it, because task "
            f"{other.name!r} {'tags words' if other.labels.tags_words else 'extracts spans'}; choose tasks with one "
            "target for each text"
        )
    case = f"--also-test {task.name}: models of task {train_task.name!r}"
    if own.kind is not theirs.kind and not {own.kind, theirs.kind} <= set(CLASSES):
        raise LabelMisfit(
            f"{case} predict {_describe_label_space(theirs)}, but task {task.name!r} has {_describe_label_space(own)}; "
            "choose a task of the same kind"
        )
    if task.is_pair != train_task.is_pair:
        texts = {True: "pairs of texts", False: "single texts"}
        raise LabelMisfit(
            f"{case} read {texts[train_task.is_pair]}, but task {task.name!r} has {texts[task.is_pair]}; choose a "
            "task of the same kind"
        )
    if own.kind is TargetKind.REGRESSION:
        if given:
            raise LabelMisfit(
                f"--map {excerpt(given, quote=False)}: a regression has no labels to map; leave --map out"
            )
        if (own.minimum, own.maximum) != (theirs.minimum, theirs.maximum):
            raise LabelMisfit(
                f"{case} predict {_describe_label_space(theirs)}, but task {task.name!r} has "
                f"{_describe_label_space(own)}; choose a task with the same range"
            )
        return LabelFit(own, (), {})
    remedy = _remedy(task, train_task, several=several)
    label_map = _label_map(task, train_task, given, remedy)
    if label_map is None:
        raise LabelMisfit(
            f"{case} predict {_listed_names(theirs)}, but the labels of task {task.name!r} are {_listed_names(own)}; "
            f"{remedy}"
        )
    if unknown := next((name for name in label_map.values() if name is not None and name not in own.names), None):
        raise LabelMisfit(
            f"{case} would predict {excerpt(unknown)}, which is not one of its labels {_listed_names(own)}; {remedy}"
        )
    reached = tuple(name for name in own.names if name in label_map.values())
    if len(reached) < 2:
        raise LabelMisfit(
            f"{case} could predict only {_only_or_none(reached)} of its labels {_listed_names(own)}; map "
            f"{_listed_names(theirs)} to at least two of them: {remedy}"
        )
    names = theirs.names
    return LabelFit(
        # The threshold with which the model's epoch was selected.
        labels=replace(own, names=reached, threshold=theirs.threshold),
        sources=tuple(tuple(i for i, name in enumerate(names) if label_map[name] == one) for one in reached),
        label_map={name: label_map[name] for name in names},
        unreachable=tuple(name for name in own.names if name not in reached),
    )


def _label_map(task: Task, train_task: Task, given: str | None, remedy: str) -> LabelMap | None:
    """Return the mapping of labels; None if it is neither given nor declared and the label names differ."""
    names = train_task.labels.names
    if given is not None:
        return _parse_label_map(given, names, task.labels.names, remedy)
    equal = set(names) == set(task.labels.names)
    for declared, applies in (
        (train_task.companions.get(task.name), task.name in train_task.companions),
        (task.label_map, task.trained_on == train_task.name),
    ):
        if applies and declared:
            return declared
    return {name: name for name in names} if equal else None


def _parse_label_map(given: str, names: Sequence[str], scored_names: Sequence[str], remedy: str) -> LabelMap:
    """Parse a label map such as "OFF=offensive,NOT_OFF=normal"; "LABEL=" stands for a label that is never predicted.

    A label that is missing from `given` counts as the label of the same name. Label names may contain commas and equals
    signs.

    Args:
        given: The label map as the user writes it.
        names: The labels of the training task.
        scored_names: The labels of the scored task.
        remedy: The end of an error message.

    Raises:
        LabelMisfit: A label is unknown or mapped twice, or a missing label has no label of the same name.
    """
    label_map: dict[str, str | None] = {}
    rest = given.strip()
    while rest:
        name = _longest_leading_name(names, rest, "=")
        if name is None:
            wrong = rest.split("=", 1)[0]
            raise LabelMisfit(
                f"--map {excerpt(given, quote=False)}: {excerpt(wrong)} is not a label of the trained task, whose "
                f"labels are {', '.join(names)}; {remedy}"
            )
        if name in label_map:
            raise LabelMisfit(f"--map {excerpt(given, quote=False)} maps {excerpt(name)} twice; leave one of them out")
        rest = rest[len(name) + 1 :]
        target = _longest_leading_name(scored_names, rest, ",")
        if target is None and rest and not rest.startswith(","):
            wrong = rest.split(",", 1)[0]
            raise LabelMisfit(
                f"--map {excerpt(given, quote=False)}: {excerpt(wrong)} is not a label of the scored task, whose "
                f"labels are {', '.join(scored_names)}; {remedy}"
            )
        label_map[name] = target
        rest = rest[len(target or "") + 1 :].lstrip()
    missing = [name for name in names if name not in label_map and name not in scored_names]
    if missing:
        raise LabelMisfit(
            f"--map {excerpt(given, quote=False)} does not say what {excerpt(missing[0])} counts as; add "
            f"{missing[0]}=LABEL with one of {', '.join(scored_names)}, or {missing[0]}= if it is never predicted"
        )
    return {name: label_map.get(name, name) for name in names}


def _longest_leading_name(names: Sequence[str], text: str, end: str) -> str | None:
    """Return the longest of `names` that stands at the beginning of `text`, followed by `end`; None if there is none.

    If `end` is ",", `text` may also consist of the name alone.
    """
    fitting = [name for name in names if text.startswith(f"{name}{end}") or (text == name and end == ",")]
    return max(fitting, key=len, default=None)


def _remedy(task: Task, train_task: Task, *, several: bool) -> str:
    """Return the end of an error message, which suggests a value of `--map` to copy.

    The suggestion maps each label of the training task to the scored task's label of the same name, ignoring case. The
    remaining labels of both tasks are paired in their order. If the scored task has too few of them, the suggestion
    maps the last labels of the training task to nothing (`LABEL=`), so that they are never predicted.
    """
    names, own = train_task.labels.names, task.labels.names
    alike = {name.casefold(): name for name in own}
    pairs = {name: alike[name.casefold()] for name in names if name.casefold() in alike}
    others = [name for name in own if name not in pairs.values()]
    for name in names:
        pairs.setdefault(name, others.pop(0) if others else "")
    value = ",".join(f"{name}={pairs[name]}" for name in names)
    return (
        f"say what each label counts as, for example --map {shlex.quote(f'{task.name}:{value}' if several else value)} "
        "(correct the pairs; LABEL= stands for a label that is never predicted)"
    )


def _describe_label_space(labels: Labels) -> str:
    if labels.kind is TargetKind.REGRESSION:
        return f"numbers from {labels.minimum:g} to {labels.maximum:g}"
    return f"{labels.kind} labels ({_listed_names(labels)})"


def _listed_names(labels: Labels) -> str:
    return ", ".join(labels.names)


def _only_or_none(names: Sequence[str]) -> str:
    return excerpt(names[0]) if names else "none"
