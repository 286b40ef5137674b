"""The submission file of a leaderboard, made from predictions, and the checks before an upload."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import Example
from alue_bench.contract.task import Labels, Submission, TargetKind, Task
from alue_bench.evaluation.label_cells import split_labels


def submission_text(task: Task, ids: Sequence[str], predicted: Sequence[str], rows: Sequence[Example]) -> str:
    """Return the content of a leaderboard's submission file; its lines end with line feeds.

    Args:
        task: The task, which declares the format of the file.
        ids: The identifiers of the examples that were predicted.
        predicted: The predicted label (or number, for a regression) of each example, as text. Several labels of an
            example are joined as in `label_cells`.
        rows: All examples of the official test file.

    Raises:
        DataError: `ids` are not the identifiers of `rows` in the same order, a prediction is not a label of the task,
            or the task declares no submission file.
    """
    submission = _declared(task)
    _check_rows(task.name, ids, rows)
    lines = ["\t".join(submission.header)] if submission.header else []
    for number, (row, value) in enumerate(zip(rows, predicted, strict=True)):
        identifier = {"given": [row.id], "row": [str(number)], None: []}[submission.id]
        try:
            cells = _cells(value, task.labels, submission)
        except ValueError as error:
            raise DataError(f"{task.name}: prediction {number + 1} of {len(rows)}: {error}") from error
        lines.append("\t".join([*identifier, *cells]))
    return "\n".join(lines) + "\n"


def _declared(task: Task) -> Submission:
    if task.submission is None:
        raise DataError(f"task {task.name!r} declares no submission file")
    return task.submission


def _check_rows(task: str, ids: Sequence[str], rows: Sequence[Example]) -> None:
    if len(ids) != len(rows):
        raise DataError(
            f"{task}: {len(ids)} predictions for the {len(rows)} rows of the official file; a leaderboard needs one "
            "for each row (was the run limited, or were bad rows dropped?)"
        )
    for number, (identifier, row) in enumerate(zip(ids, rows, strict=True), start=1):
        if identifier != row.id:
            raise DataError(
                f"{task}: prediction {number} is of {identifier!r}, but row {number} of the official file is "
                f"{row.id!r}; the run used another file"
            )
        if any(character in row.id for character in "\t\r\n"):
            raise DataError(
                f"{task}: the identifier {row.id!r} of row {number} cannot be written to a tab-separated file"
            )


def _cells(value: str, labels: Labels, submission: Submission) -> list[str]:
    """Return the fields of the submission file that one prediction, `value`, fills.

    Raises:
        ValueError: The prediction does not belong to the label space.
    """
    if labels.kind is TargetKind.REGRESSION:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{value} is not a finite number")
        return [repr(number)]
    if labels.kind is TargetKind.MULTILABEL:
        marked = set(split_labels(value))
        unknown = sorted(marked - set(labels.names))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not one of the labels {', '.join(labels.names)}")
        return ["1" if name in marked else "0" for name in labels.names]
    if value not in labels.names:
        raise ValueError(f"{value!r} is not one of the labels {', '.join(labels.names)}")
    cell = submission.encode.get(value, value)
    if any(character in cell for character in "\t\r\n"):
        raise ValueError(f"{cell!r} cannot be written to a tab-separated file; Submission(encode=...) gives it a code")
    return [cell]
