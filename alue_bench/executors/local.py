"""One run after the other, in this process; finished ones are not repeated."""

from __future__ import annotations

import gc
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from alue_bench.errors import AlueBenchError, StoreUnavailableError
from alue_bench.plan import Plan, PlannedRun
from alue_bench.plugins import Registry, notify
from alue_bench.run import Trained, execute
from alue_bench.spec import RunSpec
from alue_bench.tracking.recording import Recorder

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


def execute_plan(
    plan: Plan,
    recorder: Recorder,
    registry: Registry,
    observer: Observer,
    *,
    rerun: bool = False,
    fail_fast: bool = False,
) -> list[Outcome]:
    """Do what is not yet done. A run that fails is recorded and the plan goes on, unless `fail_fast`.

    Raises Interrupted, with the outcomes so far, on KeyboardInterrupt; the run at hand is then closed as KILLED.
    """
    outcomes: list[Outcome] = []
    trained: Trained | None = None
    for planned in plan.runs:
        try:
            done = None if rerun else recorder.finished(planned.spec.fingerprint)
            if done is not None:
                outcome = Outcome(planned, "reused", done.run_id, done.metrics)
            else:
                if trained is not None and trained.key != planned.spec.training_key:
                    trained = None  # frees the last model before the next one is loaded
                    gc.collect()
                observer.started(planned)
                outcome, trained = _execute_one(planned, recorder, registry, observer, trained)
        except KeyboardInterrupt as stop:
            recorder.kill_open()
            raise Interrupted(outcomes) from stop
        outcomes.append(outcome)
        observer.ended(outcome)
        if outcome.status == "failed" and fail_fast:
            break
    return outcomes


def _execute_one(
    planned: PlannedRun, recorder: Recorder, registry: Registry, observer: Observer, before: Trained | None
) -> tuple[Outcome, Trained | None]:
    spec, labels = planned.spec, planned.inputs.task.labels
    notify(registry, "alue_bench_run_started", observer.warned, spec=spec)
    run_id = recorder.start(spec, planned.inputs, labels)
    try:
        result, trained = execute(
            spec,
            planned.inputs,
            before=before,
            on_step=lambda done, total: observer.advanced(planned, done, total),
        )
        recorder.finish(run_id, spec, result, labels)
    except StoreUnavailableError:
        raise
    except Exception as error:  # one run's failure must not cost the others
        cause = str(error) if isinstance(error, AlueBenchError) else f"{type(error).__name__}: {error}"
        recorder.fail(run_id, cause, traceback.format_exc())
        return Outcome(planned, "failed", run_id, cause=next(iter(cause.splitlines()), "")), None
    notify(registry, "alue_bench_run_finished", observer.warned, spec=spec, result=result)
    return Outcome(planned, "finished", run_id, result.metrics), trained


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
