"""The execution of a run: train a model, score it on the test split, and collect the measurements."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from alue_bench.contract.spec import RunResult, RunSpec
from alue_bench.evaluation.predictions import predictions_table
from alue_bench.measure.best_effort import best_effort
from alue_bench.measure.environment import environment
from alue_bench.measure.peak import attainable_flops_per_s
from alue_bench.running.elsewhere import scores_elsewhere
from alue_bench.running.fine_tuning import Trained, train
from alue_bench.running.inputs import RunInputs
from alue_bench.running.metrics import (
    data_metrics,
    quality_metrics,
    resource_metrics,
    throughput_metrics,
    time_metrics,
    trivial_metrics,
    yardstick_metrics,
)
from alue_bench.running.notes import scoring_notes, transfer_notes
from alue_bench.running.scoring import score_test_split, submission_predictions
from alue_bench.training.device.precision import Device, number_format
from alue_bench.training.session import OnStep


def execute(
    spec: RunSpec,
    inputs: RunInputs,
    *,
    before: Trained | None = None,
    on_step: OnStep = lambda done, total: None,
) -> tuple[RunResult, Trained]:
    """Execute one run; return its result, and its trained model for later runs that would train the same model.

    Args:
        spec: The run.
        inputs: The objects to which the names in the specification refer.
        before: A model that an earlier run of the plan trained. It is used again if this run would train the same
            model, for example if only the test set differs.
        on_step: A function that is called after every training step, with the number of finished steps and the total.

    Raises:
        TrainingError: The run cannot be executed, or parameters changed that the strategy freezes.
    """
    with number_format(Device(spec.device, spec.precision)):
        return _execute(spec, inputs, before=before, on_step=on_step)


def _execute(spec: RunSpec, inputs: RunInputs, *, before: Trained | None, on_step: OnStep) -> tuple[RunResult, Trained]:
    """Execute one run as `execute` does, after the number format of matrix products has been set."""
    started = time.perf_counter()
    reused = before is not None and before.key == spec.training_key
    unmeasured: list[str] = []
    attainable = _attainable(Device(spec.device, spec.precision), unmeasured)  # before the model takes memory
    trained = before if before is not None and reused else train(spec, inputs, on_step=on_step)
    if trained.device.precision != spec.precision:
        unmeasured.clear()
        attainable = _attainable(trained.device, unmeasured)
    notes = [*trained.notes, *transfer_notes(inputs)]
    problems = [*trained.memory.problems, *trained.energy.problems, *trained.load.problems]

    inputs.prefixes.on_problem = notes.append
    test = score_test_split(spec, inputs, trained)
    baselines = trivial_metrics(inputs, trained, test, problems.append)
    problems += unmeasured
    total_s = time.perf_counter() - started + (0.0 if reused else trained.training.earlier_s)
    metrics = {
        **quality_metrics(inputs, trained, test),
        **baselines,
        **yardstick_metrics(inputs, problems.append),  # after the clocks have stopped
        **time_metrics(trained, test, total_s=total_s, reused=reused),
        **throughput_metrics(trained, test, attainable),
        **resource_metrics(trained),
        **data_metrics(spec, inputs, trained, test),
    }
    notes += [*scoring_notes(spec, inputs, test.split, metrics["test/score"]), *inputs.rows.notes]

    submission = submission_predictions(spec, inputs, trained, problems.append)
    elsewhere, predictions_elsewhere, notes_elsewhere = scores_elsewhere(spec, inputs, trained, problems.append)
    notes += notes_elsewhere
    circumstances = best_effort(
        "no description of the hardware and libraries", lambda: environment(spec.device), problems.append
    )
    result = RunResult(
        metrics={**metrics, **elsewhere},
        curves=tuple(trained.training.curves),
        predictions=predictions_table(test.split.ids, test.gold, test.logits, inputs.task.labels, test.split.decoding),
        dev_predictions=trained.dev_predictions,
        predictions_elsewhere=predictions_elsewhere,
        submission_predictions=submission,
        environment={**(circumstances or {}), "engine": _engine(trained, attainable)},
        freezing=tuple(trained.training.schedule.events),
        layer_scores=() if trained.probed is None else trained.probed.scores,
        chosen_plan=None if trained.probed is None else trained.probed.choice.plan,
        notes=tuple(dict.fromkeys([*notes, *problems])),
        problems=tuple(dict.fromkeys(problems)),
    )
    return result, trained


def _attainable(device: Device, problems: list[str]) -> float | None:
    """Return the FLOPs per second that a device attains in large matrix products.

    The result is None, and `problems` gets a sentence, if the measurement fails.
    """
    return best_effort(
        "no throughput/flops_utilisation, because the hardware's speed could not be measured",
        lambda: attainable_flops_per_s(device.name, device.compute, tf32=device.precision == "tf32"),
        problems.append,
    )


def _engine(trained: Trained, attainable: float | None) -> dict[str, Any]:
    """Return the way in which training was computed, such as forward pass and number format, for `environment.json`."""
    training, placement = trained.training, trained.prefixes["train"].placement
    prefix_entries = {} if placement is None else {"prefix": str(placement), "prefix_rates": asdict(placement.rates)}
    return {
        "forward": trained.forward.name,
        "precision": trained.device.precision,
        "prefix_layers_cached": trained.prefixes["train"].depth,
        **prefix_entries,
        "micro_batch": training.micro_batch,
        "recorded_shapes": training.recorded_shapes,
        **({} if training.graph_use is None else {"cuda_graphs": asdict(training.graph_use)}),
        "attainable_flops_per_s": attainable,
        "flops_by": trained.cost.method.name,
    }
