"""The outcomes of planned runs, the interface of observers that receive them, and the outcomes' aggregated metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from alue_bench.contract.spec import RunSpec
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.planning.variation import describe, reading_order, settings_of, varied_names_of_specs

Status = Literal["finished", "reused", "failed"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a planned run: status, MLflow run and metrics."""

    planned: PlannedRun
    status: Status
    run_id: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    cause: str = ""
    """The cause of the run's failure in one line; empty if the run did not fail."""

    @property
    def spec(self) -> RunSpec:
        """The run's specification."""
        return self.planned.spec


class Observer(Protocol):
    """An interface for objects that receive the progress of a plan's runs, such as a progress bar."""

    def started(self, planned: PlannedRun) -> None:
        """Handle the start of a planned run."""

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None:
        """Handle progress of a planned run: `done` of its `total` training steps are done."""

    def ended(self, outcome: Outcome) -> None:
        """Handle the end of a planned run, with its outcome."""

    def warned(self, message: str) -> None:
        """Show a message, such as a warning, to the user."""


class Interrupted(BaseException):
    """The exception that is raised if the user interrupts a plan; it holds the outcomes of the runs that have ended."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        """Store the outcomes of the runs that ended before the interruption."""
        super().__init__("interrupted")
        self.outcomes = outcomes


def in_plan_order(plan: Plan, outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes of runs in the order of the runs in the plan."""
    positions = {planned.spec.fingerprint: index for index, planned in enumerate(plan.runs)}
    return sorted(outcomes, key=lambda outcome: positions[outcome.spec.fingerprint])


def aggregate(outcomes: list[Outcome]) -> dict[str, float]:
    """Return the aggregated metrics of a plan, to be logged with its MLflow parent run.

    The metrics are the number of runs of each status and, for each combination of a strategy and values of the varied
    hyper-parameters, the mean score and the total training time in seconds of the runs that did not fail. Undefined
    scores (nan) are left out of the mean. A combination without a defined score has no mean and no total.
    """
    aggregates: dict[str, float] = {
        f"runs/{status}": sum(outcome.status == status for outcome in outcomes)
        for status in ("finished", "reused", "failed")
    }
    names = varied_names_of_specs(outcome.spec for outcome in outcomes)
    groups: dict[str, list[Mapping[str, float]]] = {}
    for outcome in outcomes:
        if outcome.status != "failed":
            settings = describe(settings_of(outcome.spec.hyper, names), between="/")
            groups.setdefault("/".join(filter(None, (outcome.spec.strategy, settings))), []).append(outcome.metrics)
    for name, group in groups.items():
        scores = [m["test/score"] for m in group if math.isfinite(m.get("test/score", math.nan))]
        if scores:
            aggregates[f"mean_score/{name}"] = sum(scores) / len(scores)
            aggregates[f"total_train_s/{name}"] = sum(m["runtime/train_s"] for m in group)
    return aggregates


def in_reading_order(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes sorted by task, model, strategy, varied hyper-parameters, seed and fold."""
    positions = reading_order([outcome.spec for outcome in outcomes])
    return sorted(outcomes, key=lambda outcome: positions[outcome.spec.fingerprint])


def result_document(outcomes: list[Outcome], plan: Plan, *, experiment: str, tracking_uri: str) -> dict[str, Any]:
    """Return the content of the JSON output (`--json`), which is also an artifact of the plan's MLflow parent run.

    Undefined scores are null, since JSON has no nan. The runs are listed in the plan's order. But if the plan
    prescribes the order of execution (`Plan.order_matters`), they are listed in the order of `in_reading_order`.

    Args:
        outcomes: The outcomes in the plan's order.
        plan: The plan.
        experiment: The name of the MLflow experiment.
        tracking_uri: The MLflow tracking URI.
    """
    listed = in_reading_order(outcomes) if plan.order_matters else outcomes
    specs = [planned.spec for planned in plan.runs]
    values = {name: sorted({getattr(spec.hyper, name) for spec in specs}) for name in varied_names_of_specs(specs)}

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "experiment": experiment,
        "tracking_uri": tracking_uri,
        "varied": values,
        "runs": [
            {
                "task": o.spec.task,
                "model": o.spec.model,
                "strategy": o.spec.strategy,
                "seed": o.spec.seed,
                "status": o.status,
                "run_id": o.run_id,
                "fingerprint": o.spec.fingerprint,
                "data_source": o.spec.data.source,
                "params": dict(o.spec.as_dict()["hyper"]) | {"device": o.spec.device, "precision": o.spec.precision},
                "metrics": {name: finite(value) for name, value in sorted(o.metrics.items())},
            }
            | ({"fold": asdict(o.spec.fold)} if o.spec.fold else {})
            | ({"cause": o.cause} if o.cause else {})
            for o in listed
        ],
        "skipped": [
            {"task": s.task, "model": s.model, "strategy": s.strategy, "seed": s.seed, "reason": s.reason}
            for s in plan.skipped
        ],
    }
