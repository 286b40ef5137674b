"""What becomes of planned runs, who is told of it, and what is made of all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from alue_bench.contract.spec import RunSpec
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.planning.variation import describe, reading_order, settings_of, varied_by_specs

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
    """Return what a parent run shows at a glance: per strategy, and per value of hyper-parameters that vary, the mean
    score and the whole training time; counts."""
    found: dict[str, float] = {
        f"runs/{status}": sum(outcome.status == status for outcome in outcomes)
        for status in ("finished", "reused", "failed")
    }
    names = varied_by_specs(outcome.spec for outcome in outcomes)
    groups: dict[str, list[Mapping[str, float]]] = {}
    for outcome in outcomes:
        if outcome.status != "failed":
            settings = describe(settings_of(outcome.spec.hyper, names), between="/")
            groups.setdefault("/".join(filter(None, (outcome.spec.strategy, settings))), []).append(outcome.metrics)
    for name, group in groups.items():
        scores = [m["test/score"] for m in group if math.isfinite(m.get("test/score", math.nan))]
        if scores:
            found[f"mean_score/{name}"] = sum(scores) / len(scores)
            found[f"total_train_s/{name}"] = sum(m["runtime/train_s"] for m in group)
    return found


def in_reading_order(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes as people look for them: by task, model, strategy, hyper-parameters that vary, and seed."""
    place = reading_order([outcome.spec for outcome in outcomes])
    return sorted(outcomes, key=lambda outcome: place[outcome.spec.fingerprint])


def result_document(outcomes: list[Outcome], plan: Plan, *, experiment: str, tracking_uri: str) -> dict[str, Any]:
    """Return the document of `--json`, also kept with the parent run. Undefined scores are null: JSON has no nan.

    Runs stand in the plan's order; where that is one for the machine, in the order of the tables.
    """
    listed = in_reading_order(outcomes) if plan.order_matters else outcomes
    specs = [planned.spec for planned in plan.runs]
    values = {name: sorted({getattr(spec.hyper, name) for spec in specs}) for name in varied_by_specs(specs)}

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
            | ({"cause": o.cause} if o.cause else {})
            for o in listed
        ],
        "skipped": [
            {"task": s.task, "model": s.model, "strategy": s.strategy, "seed": s.seed, "reason": s.reason}
            for s in plan.skipped
        ],
    }
