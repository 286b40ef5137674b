"""The files for leaderboards: for each task, the predictions of the run with the best dev score."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import AlueBenchError, DataError
from alue_bench.contract.formats import Example
from alue_bench.contract.task import Submission, Task
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import submission_rows
from alue_bench.evaluation.submission import submission_text
from alue_bench.tracking.reading import Results, read_predictions, read_submission_predictions

if TYPE_CHECKING:
    import pandas as pd

DEV_SCORE = "selection/dev_score"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A file for a leaderboard, with the run that was chosen for it; the file holds this run's predictions."""

    task: Task
    submission: Submission
    run_id: str
    run_name: str
    dev_score: float
    content: str
    rows: int
    passed_over: tuple[str, ...] = ()
    """A text for each run that has a better dev score but could not be used, with the reason."""


@dataclass(frozen=True, kw_only=True)
class MissingSubmission:
    """A leaderboard file that cannot be written, with the reason."""

    task: Task
    submission: Submission
    reason: str
    can_be_run: bool
    """True if a new run would provide the predictions that are missing for the file."""
    run: Mapping[Hashable, Any] | None = None
    """The run with the best dev score, which cannot be used (a row of `Results.frame`). None if the task has no run, or
    if its official files are missing or unusable."""


def collect(
    results: Results, tasks: list[Task], locate: Callable[[Task], DataFolder], *, rehearsal: bool = False
) -> tuple[list[Chosen], list[MissingSubmission]]:
    """Return the leaderboard file of each task, or the reason why the file cannot be written.

    The file holds the predictions of the run with the best dev score. If that run cannot be used (it was limited to
    some rows, or ran before the official file was available), the run with the next best dev score is used. Runs of
    cross-validations are never used.

    Args:
        results: The finished runs.
        tasks: The tasks; those without a leaderboard are skipped.
        locate: A function that returns the folder of a task's official files, or raises DataError. Every predicted row
            is checked against these files.
        rehearsal: Whether the embedded sample data may be used in place of missing official files.

    Returns:
        The files, and the files that cannot be written.
    """
    chosen: list[Chosen] = []
    missing: list[MissingSubmission] = []
    for task in tasks:
        if task.submission is None:
            continue
        try:
            folder = locate(task)
            rows = submission_rows(task, folder)
        except DataError as error:
            missing.append(
                MissingSubmission(task=task, submission=task.submission, reason=str(error), can_be_run=False)
            )
            continue
        if folder.kind == "sample" and not rehearsal:
            missing.append(
                MissingSubmission(task=task, submission=task.submission, reason=_no_files(task), can_be_run=False)
            )
            continue
        if rows is None:
            file = (task.splits.submission or task.splits.test).path  # type: ignore[union-attr]
            reason = f"the official file {file} is not available; get it from: {task.source}"
            missing.append(MissingSubmission(task=task, submission=task.submission, reason=reason, can_be_run=False))
            continue
        best = _best(results, task, task.submission, rows.examples)
        (chosen if isinstance(best, Chosen) else missing).append(best)  # type: ignore[arg-type]
    return chosen, missing


def _no_files(task: Task) -> str:
    """Return the reason why a task without official files has no leaderboard file.

    The text suggests no command, since a new run could only use the embedded sample data, and such predictions are
    never submitted.
    """
    return (
        "the official files are not available, and runs on the embedded sample are not submitted; get them from "
        f"{task.source} and give their folder with --data-dir, to alue-bench run too (or rehearse with --sample)"
    )


def _best(
    results: Results, task: Task, submission: Submission, rows: tuple[Example, ...]
) -> Chosen | MissingSubmission:
    runs = results.frame[(results.frame["task"] == task.name) & results.frame["folds"].isna()]
    if DEV_SCORE in runs.columns:  # of runs with equal scores, the newest comes first
        runs = runs.iloc[::-1].sort_values(DEV_SCORE, ascending=False, kind="stable", na_position="last")
    reasons = []
    best: dict[Hashable, Any] | None = None
    for run in runs.to_dict("records"):
        best = best or run
        try:
            ids, predicted = _predictions(results, task, run)
            content = submission_text(task, ids, predicted, rows)
        except AlueBenchError as error:
            reasons.append(f"{run['run_name']}: {error}")
            continue
        return Chosen(
            task=task,
            submission=submission,
            run_id=run["run_id"],
            run_name=run["run_name"],
            dev_score=run.get(DEV_SCORE, float("nan")),
            content=content,
            rows=len(rows),
            passed_over=tuple(reasons),
        )
    reason = reasons[0] if reasons else "no finished run"
    return MissingSubmission(task=task, submission=submission, reason=reason, can_be_run=True, run=best)


def _predictions(results: Results, task: Task, run: dict[Hashable, Any]) -> tuple[list[str], list[str]]:
    """Return the ids of the examples for which a leaderboard expects predictions, and a run's predictions as texts.

    Raises:
        DataError: The run has no predictions for the leaderboard's file of examples.
        UnavailableError: The file of predictions is missing or damaged.
    """
    table: pd.DataFrame | None
    if task.splits.submission is None:
        table = read_predictions(results, run["run_id"])
    else:
        table = read_submission_predictions(results, run["run_id"])
        if table is None:
            raise DataError(
                f"it has no predictions for {task.splits.submission.path}: it was limited, or the file was not there"
            )
    return [str(value) for value in table["id"]], [str(value) for value in table["prediction"]]
