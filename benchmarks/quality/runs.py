"""The execution of the compared runs by alue-bench, which records them in MLflow and never repeats a finished run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from alue_bench.contract.registry import Registry

if TYPE_CHECKING:
    from alue_bench.executors.outcome import Outcome
    from alue_bench.planning.build import Plan
    from alue_bench.views.console import PlainConsole

EXPERIMENT = "mini-quality"


def recorded_outcomes(plan: Plan, registry: Registry, store: str | None, talk: PlainConsole) -> list[Outcome]:
    """Execute the runs of a plan that are not recorded yet, under an MLflow parent run.

    Args:
        plan: The plan.
        registry: The plugin registry, which must contain the compared models.
        store: The URI of the MLflow store; None means the default store.
        talk: The console on which progress is printed.

    Returns:
        The outcomes of all runs of the plan, including runs found in the store.
    """
    from alue_bench.executors.local import execute_plan
    from alue_bench.executors.outcome import Interrupted, aggregate, result_document
    from alue_bench.tracking.connection import connect, tracking_uri
    from alue_bench.tracking.recording import Recorder
    from alue_bench.views.progress import PlainProgress

    uri = tracking_uri(store)
    recorder = Recorder(connect(uri, EXPERIMENT))
    recorder.close_interrupted()
    nothing_yet = result_document([], plan, experiment=EXPERIMENT, tracking_uri=uri)
    sources = ",".join(sorted({run.spec.data.source for run in plan.runs}))
    recorder.start_parent(
        nothing_yet | {"planned": [planned.spec.as_dict() for planned in plan.runs]},
        name=f"{EXPERIMENT}: {len(plan.runs)} runs",
        tags={"data.source": sources},
    )

    def close(outcomes: list[Outcome], status: str) -> None:
        results = result_document(outcomes, plan, experiment=EXPERIMENT, tracking_uri=uri)
        recorder.finish_parent(results, aggregate(outcomes), status=status)

    try:
        with PlainProgress(plan, talk) as progress:
            outcomes = execute_plan(plan, recorder, registry, progress)
    except Interrupted as stop:
        close(stop.outcomes, "KILLED")
        raise
    close(outcomes, "FAILED" if any(outcome.status == "failed" for outcome in outcomes) else "FINISHED")
    return outcomes


def run_records(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Return the MLflow run id, fingerprint, hyper-parameters and metrics of each run, for the `--json` file."""
    return [
        {
            "label": outcome.spec.label,
            "status": outcome.status,
            "run_id": outcome.run_id,
            "fingerprint": outcome.spec.fingerprint,
            "model_digest": outcome.spec.model_digest,
            "hyper": asdict(outcome.spec.hyper),
            "metrics": dict(sorted(outcome.metrics.items())),
        }
        for outcome in outcomes
    ]
