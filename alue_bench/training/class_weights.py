"""Class weights in the loss, for tasks in which some labels are rare, as chosen by `--class-weights`.

    none                      no weighting: every example counts the same
    balanced                  n / (k n_c) for an example of class c, where n is the number of train examples, k the
                              number of classes that occur among them, and n_c the number of examples of class c: each
                              class contributes the same to the loss (King & Zeng 2001)
    joy=1,fear=4              the weights of the named labels; all other labels have weight 1

In single-label tasks, weights are scaled so that the mean weight of a train example is 1. So only the ratios of the
weights matter, and learning rates that suit the unweighted loss suit the weighted one. In tasks that tag words, a word
counts as an example. In multi-label tasks, a weight applies to the positive examples of the label; with "balanced", it
is the number of negative examples divided by the number of positive ones (1 if either number is 0). Weights change only
the training loss; metrics are not weighted.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import excerpt
from alue_bench.contract.task import Labels, TargetKind

if TYPE_CHECKING:
    import numpy as np

NONE, BALANCED = "none", "balanced"
_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)\s*", re.ASCII)


def check_class_weights(given: str, labels: Labels, task: str) -> None:
    """Raise UsageError if class weights cannot be used with a task.

    Args:
        given: The value of `--class-weights`.
        labels: The label space of the task.
        task: The name of the task, for error messages.
    """
    if given == NONE:
        return
    if labels.kind is TargetKind.REGRESSION:
        raise UsageError(
            f"--class-weights {excerpt(given, quote=False)}: task {task!r} is a regression, which has no classes to "
            "weigh; leave --class-weights out"
        )
    if labels.extracts_spans:
        raise UsageError(
            f"--class-weights {excerpt(given, quote=False)}: task {task!r} extracts spans, which have no classes to "
            "weigh; leave --class-weights out"
        )
    if given != BALANCED:
        _parse(given, labels, task)


def class_weights(given: str, labels: Labels, targets: np.ndarray[Any, Any]) -> tuple[float, ...] | None:
    """Return the weight of each label in the loss, in the order of the labels; None if the loss is not weighted.

    Args:
        given: The value of `--class-weights`, which `check_class_weights` has accepted.
        labels: The label space.
        targets: The targets of the train split: class indices [examples] in single-label tasks, tag indices [words] in
            tasks that tag words, and 0 or 1 for each label [examples, labels] in multi-label tasks.
    """
    import numpy as np

    if given == NONE:
        return None
    multilabel, total = labels.kind is TargetKind.MULTILABEL, len(targets)
    counts = targets.sum(axis=0) if multilabel else np.bincount(targets, minlength=len(labels.names))
    if given == BALANCED:
        numerators = total - counts if multilabel else np.full(len(counts), total / max(1, int((counts > 0).sum())))
        # A label that all or none of the examples have cannot be balanced; its weight is 1.
        balanced = np.divide(numerators, counts, out=np.ones(len(counts)), where=(counts > 0) & (numerators > 0))
        return tuple(float(weight) for weight in balanced)
    weights = _parse(given, labels, "")
    mean = 1.0 if multilabel else sum(float(n) * weight for n, weight in zip(counts, weights, strict=True)) / total
    return tuple(weight / mean for weight in weights)


def class_weights_note(weights: tuple[float, ...], labels: Labels) -> str:
    """Return a sentence that lists the weight of each label in the loss, to be recorded with a run."""
    listed = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(labels.names, weights, strict=True))
    return f"class weights of the loss: {listed}"


def _parse(given: str, labels: Labels, task: str) -> list[float]:
    """Parse class weights such as "joy=1,fear=4", and return the weight of each label, in the order of the labels.

    Names of labels may contain commas and equals signs.

    Raises:
        UsageError: The text is malformed, or names a label that the task does not have.
    """
    weights: dict[str, float] = {}
    rest, known = given.strip(), sorted(labels.names, key=len, reverse=True)
    while rest:
        name = next((name for name in known if rest.startswith(f"{name}=")), None)
        match = _NUMBER.match(rest, len(name) + 1) if name is not None else None
        ended = match is not None and (match.end() == len(rest) or rest[match.end()] == ",")
        if name is None or match is None or not ended:
            raise UsageError(_syntax_error(given, rest, name, labels, task))
        weight = float(match[1])
        if not 0 < weight < math.inf:
            raise UsageError(f"--class-weights: the weight of {excerpt(name)} is {match[1]}; it must be above 0")
        if name in weights:
            raise UsageError(f"--class-weights {excerpt(given, quote=False)} gives two weights to {excerpt(name)}")
        weights[name] = weight
        rest = rest[match.end() + 1 :].lstrip()
    if not weights:
        raise UsageError("--class-weights is empty; say balanced, or LABEL=WEIGHT,LABEL=WEIGHT")
    return [weights.get(name, 1.0) for name in labels.names]


def _syntax_error(given: str, rest: str, name: str | None, labels: Labels, task: str) -> str:
    """Return an error message for class weights that cannot be parsed.

    Args:
        given: The value of `--class-weights`.
        rest: The end of the value, from the label whose weight cannot be parsed.
        name: The label with which `rest` begins; None if it begins with no label of the task.
        labels: The label space of the task.
        task: The name of the task.
    """
    option = f"--class-weights {excerpt(given, quote=False)}"
    if name is not None:
        return f"{option}: no number follows {excerpt(f'{name}=')}; write {name}=2.5"
    if "=" not in rest:
        return f"{option} is neither balanced nor LABEL=WEIGHT,LABEL=WEIGHT"
    unknown = rest.split("=", 1)[0]
    return f"{option}: task {task!r} has no label {excerpt(unknown)}; it has {', '.join(labels.names)}"
