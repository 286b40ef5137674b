"""The report of the quality benchmark: models compared with random weights, and strategies with the first strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.intervals import Estimate
from benchmarks.machine import described
from benchmarks.quality.results import Results, sign
from benchmarks.tables import NONE, Sheet, number

if TYPE_CHECKING:
    from alue_bench.planning.build import Plan


def all_sheets(results: Results) -> list[Sheet]:
    """Return the report's tables: models compared with random weights, and strategies with the first strategy."""
    return [
        *(quality_sheet(results, strategy) for strategy in results.strategies),
        *(strategy_sheet(results, strategy) for strategy in results.strategies[1:]),
    ]


def quality_sheet(results: Results, strategy: str) -> Sheet:
    """Return the table of the scores with one strategy: models, random weights, linear model and trivial baseline."""
    first = results.models[0]
    gains = [column for model in results.models for column in (f"{model} - random", "95 % interval")]
    return Sheet(
        title=f"{first} against random weights: {strategy}{_sample_note(results)}",
        columns=("task", "metric", "rows", "trivial", "TF-IDF", *results.models, "random", *gains, "train s"),
        rows=tuple(
            (
                task.name,
                task.metric,
                f"{task.train_rows}/{task.test_rows}",
                number(task.trivial),
                number(task.yardstick.test_score),
                *(_score(results.score(task, model, strategy)) for model in (*results.models, results.random)),
                *(text for model in results.models for text in _difference(results.gain(task, model, strategy))),
                number(results.seconds(task, first, strategy), ".1f"),
            )
            for task in results.tasks
        ),
    )


def strategy_sheet(results: Results, strategy: str) -> Sheet:
    """Return the table that compares a strategy with the first strategy, by scores and training times.

    The scores and times are those of the first model.
    """
    first, base = results.models[0], results.strategies[0]
    return Sheet(
        title=f"{first}: {strategy} against {base}{_sample_note(results)}",
        columns=(
            *("task", "metric", base, strategy, "change", "95 % interval"),
            *(f"{base}: train s", f"{strategy}: train s", "change of time"),
        ),
        rows=tuple(
            (
                task.name,
                task.metric,
                *(_score(results.score(task, first, compared)) for compared in (base, strategy)),
                *_difference(results.change(task, strategy)),
                *(number(results.seconds(task, first, compared), ".1f") for compared in (base, strategy)),
                number(results.time_change(task, strategy), "+.0%"),
            )
            for task in results.tasks
        ),
    )


def closing_lines(results: Results) -> list[str]:
    """Return sentences that explain the tables and count the tasks on which pre-training makes a difference."""
    count = len(results.seeds)
    lines = [
        f"Score: mean ± half-width of the 95 % t-interval over {count} seeds; differences are paired by seed. "
        f"Rows: train/test. TF-IDF: characters and words, linear. train s: of {results.models[0]}."
    ]
    if count == 1:
        lines.append("One seed gives no interval: a difference may be due to chance. Use --seeds 3 for intervals.")
    lines += [_verdict(results, model, strategy, count) for model in results.models for strategy in results.strategies]
    return lines


def _verdict(results: Results, model: str, strategy: str, seeds: int) -> str:
    """Return a sentence on the tasks where a model differs from random weights, and where it beats the linear model.

    The sentence has the number of these tasks. With only one seed, the difference from random weights is left out.
    """
    signs = [sign(results.gain(task, model, strategy)) for task in results.tasks]
    scores = [(results.score(task, model, strategy), task.yardstick.test_score) for task in results.tasks]
    beats = sum(score is not None and score.mean > linear for score, linear in scores)
    above, below, all_tasks = signs.count(1), signs.count(-1), len(results.tasks)
    excludes = f"the interval of {model} - random excludes zero on {above + below} of {all_tasks} tasks"
    sides = f" ({above} above, {below} below)" if above + below else ""
    about_intervals = f"{excludes}{sides}; " if seeds > 1 else ""
    return f"{strategy}: {about_intervals}{model}'s mean is above TF-IDF on {beats} of {all_tasks}."


def document(results: Results) -> dict[str, Any]:
    """Return all values of the tables and the score of each seed, for the `--json` file."""
    return {
        "models": list(results.models),
        "random": results.random,
        "strategies": list(results.strategies),
        "seeds": list(results.seeds),
        "tasks": [asdict(task) for task in results.tasks],
        "results": [
            {
                "task": task.name,
                "model": model,
                "strategy": strategy,
                "scores": {str(seed): score for seed, score in results.of(task, model, strategy).scores.items()},
                "score": _plain(results.score(task, model, strategy)),
                "train_s": {str(seed): time for seed, time in results.of(task, model, strategy).seconds.items()},
                "mean_train_s": results.seconds(task, model, strategy),
                "minus_random": None if model == results.random else _plain(results.gain(task, model, strategy)),
            }
            for strategy in results.strategies
            for task in results.tasks
            for model in (*results.models, results.random)
        ],
        "strategy_changes": [
            {
                "task": task.name,
                "model": results.models[0],
                "strategy": strategy,
                "against": results.strategies[0],
                "score_change": _plain(results.change(task, strategy)),
                "train_s_change": results.time_change(task, strategy),
            }
            for strategy in results.strategies[1:]
            for task in results.tasks
        ],
    }


def measured_under(plan: Plan) -> dict[str, Any]:
    """Return the device, number format and environment in which a plan's runs were measured."""
    from alue_bench.measure.environment import environment

    spec = plan.runs[0].spec
    return {
        "device": spec.device,
        "precision": spec.precision,
        "environment": environment(spec.device),
    }


def origin(circumstances: Mapping[str, Any]) -> str:
    """Return a line for reports with the command, date, hardware and libraries of the measurements.

    Args:
        circumstances: The combined results of `header` and `measured_under`.
    """
    hardware, libraries = (circumstances["environment"][name] for name in ("hardware", "libraries"))
    versions = f"torch {libraries['torch']}, transformers {libraries['transformers']}"
    return f"`{circumstances['command']}`, {circumstances['date']}; {described(hardware)}; {versions}."


def _sample_note(results: Results) -> str:
    sample = any(task.source == "sample" for task in results.tasks)
    return " (embedded sample data: says nothing about the real tasks)" if sample else ""


def _score(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{estimate.mean:.3f} ± {number(estimate.half_width)}"


def _difference(estimate: Estimate | None) -> tuple[str, str]:
    """Return the mean and the confidence interval of a difference as texts, with a dash for each one that is missing.

    Without a difference both are missing; the interval alone is missing if the difference has none.
    """
    if estimate is None or estimate.interval is None:
        return (number(estimate.mean if estimate else None, "+.3f"), NONE)
    low, high = estimate.interval
    return f"{estimate.mean:+.3f}", f"[{low:+.3f}, {high:+.3f}]"


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else {**asdict(estimate), "interval": estimate.interval}
