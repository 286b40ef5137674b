"""What becomes of planned runs, who is told of it, and what is made of all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from alue_bench.plan import Plan, PlannedRun
from alue_bench.spec import RunSpec

Status = Literal["finished", "reused", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of a planned run."""

    planned: PlannedRun
    status: Status
    run_id: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    cause: str = ""
    """Of a failure, in one line."""

    @property
    def spec(self) -> RunSpec:
        return self.planned.spec


class Observer(Protocol):
    """Is told how a plan goes along."""

    def started(self, planned: PlannedRun) -> None: ...

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def warned(self, message: str) -> None: ...


class Interrupted(BaseException):
    """The user stopped the plan; holds what was finished until then."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        super().__init__("interrupted")
        self.outcomes = outcomes


def in_order(plan: Plan, outcomes: list[Outcome]) -> list[Outcome]:
    """As the plan has them, whatever came first."""
    place = {planned.spec.fingerprint: index for index, planned in enumerate(plan.runs)}
    return sorted(outcomes, key=lambda outcome: place[outcome.spec.fingerprint])


def aggregate(outcomes: list[Outcome]) -> dict[str, float]:
    """What a parent run shows at a glance: per strategy the mean score and the whole training time; counts."""
    found: dict[str, float] = {
        f"runs/{status}": sum(outcome.status == status for outcome in outcomes)
        for status in ("finished", "reused", "failed")
    }
    for strategy in dict.fromkeys(outcome.spec.strategy for outcome in outcomes):
        of_strategy = [o.metrics for o in outcomes if o.spec.strategy == strategy and o.status != "failed"]
        scores = [m["test/score"] for m in of_strategy if math.isfinite(m.get("test/score", math.nan))]
        if scores:
            found[f"mean_score/{strategy}"] = sum(scores) / len(scores)
            found[f"total_train_s/{strategy}"] = sum(m["runtime/train_s"] for m in of_strategy)
    return found


def result_document(outcomes: list[Outcome], plan: Plan, *, experiment: str, tracking_uri: str) -> dict[str, Any]:
    """The document of `--json`, also kept with the parent run. Undefined scores are null: JSON has no nan."""

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "experiment": experiment,
        "tracking_uri": tracking_uri,
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
            | ({"cause": o.cause} if o.cause else {})
            for o in outcomes
        ],
        "skipped": [
            {"task": s.task, "model": s.model, "strategy": s.strategy, "seed": s.seed, "reason": s.reason}
            for s in plan.skipped
        ],
    }
