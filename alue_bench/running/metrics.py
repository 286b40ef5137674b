"""The metrics of a run, under the names that MLflow records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import RunSpec
from alue_bench.contract.task import Task
from alue_bench.contract.transfer import transferred_targets
from alue_bench.data.splits import SplitRows
from alue_bench.data.tokenization import encode_targets
from alue_bench.evaluation.learning import TrivialScore, trivial_score, trivial_score_of_tokens
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import decide
from alue_bench.evaluation.spans import first_words
from alue_bench.evaluation.tagging import most_frequent_tags
from alue_bench.evaluation.yardstick import yardstick, yardstick_name
from alue_bench.measure.best_effort import best_effort
from alue_bench.running.fine_tuning import Trained
from alue_bench.running.inputs import RunInputs
from alue_bench.running.scoring import ScoredSplit, prefix_s

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def quality_metrics(inputs: RunInputs, trained: Trained, test: ScoredSplit) -> dict[str, float]:
    """Return the test metrics (test/*), and the selected epoch with its dev score (selection/*)."""
    training, task = trained.training, inputs.task
    values = metrics(test.gold, test.predicted, task.labels)
    return {
        **{f"test/{name}": value for name, value in values.items()},
        "test/score": values[task.primary],
        "selection/dev_score": training.selected_dev_score,
        "selection/epoch": training.selected_epoch,
    }


def trivial_metrics(
    inputs: RunInputs, trained: Trained, test: ScoredSplit, on_problem: Callable[[str], None]
) -> dict[str, float]:
    """Return the scores of a baseline without a model, on the test split (test/*) and dev split (selection/*).

    In a task that tags words, the baseline sees only the word that it tags. In span extraction, it ignores the question
    and answers with the first words of the context.

    The score of the baseline is called */trivial_score. The standard error of the model's lead over this score is
    called */above_trivial_error; it is absent if undefined. If a score cannot be computed, it is absent and
    `on_problem` is called with the reason.
    """
    task, train_task = inputs.task, inputs.train_task
    rows = inputs.train_rows.splits
    reads_tokens, train = train_task.labels.reads_tokens, rows["train"]

    def of_tokens(split: SplitRows, gold: Array, predicted: Array, scored: Task) -> TrivialScore:
        if scored.labels.tags_words:
            baseline = most_frequent_tags(train.examples, split.examples, scored.labels)
        else:
            baseline = first_words(train.examples, split.examples)
        return trivial_score_of_tokens(baseline, gold, predicted, scored.labels, scored.primary)

    def on_test() -> TrivialScore:
        if reads_tokens:
            return of_tokens(inputs.rows.splits["test"], test.gold, test.predicted, task)
        train_targets = transferred_targets(encode_targets(train, train_task.labels).numpy(), task, train_task)
        return trivial_score(train_targets, test.gold, test.predicted, task.labels, task.primary)

    def on_dev() -> TrivialScore:
        dev = trained.prefixes["dev"].split
        predicted = decide(trained.training.selected_dev_logits, train_task.labels, dev.decoding)
        if reads_tokens:
            return of_tokens(rows["dev"], dev.gold, predicted, train_task)
        train_targets = encode_targets(train, train_task.labels).numpy()
        return trivial_score(train_targets, dev.gold, predicted, train_task.labels, train_task.primary)

    values = {}
    for name, scored in (("test", on_test), ("selection", on_dev)):
        baseline = best_effort(f"no {name}/trivial_score", scored, on_problem)
        if baseline is not None:
            values[f"{name}/trivial_score"] = baseline.score
            if math.isfinite(baseline.error):
                values[f"{name}/above_trivial_error"] = baseline.error
    return values


def yardstick_metrics(inputs: RunInputs, on_problem: Callable[[str], None]) -> dict[str, float]:
    """Return the scores of a linear model on TF-IDF features, on the test split (test/*) and dev split (selection/*).

    The result is empty if the run does not record them (`RunInputs.yardstick`), or if they cannot be computed; in this
    case `on_problem` is called with the reason.
    """
    if not inputs.yardstick:
        return {}
    scores = best_effort(
        f"no scores of {yardstick_name(inputs.task.primary)}",
        lambda: yardstick(inputs.task, inputs.rows, inputs.train_task, inputs.train_rows),
        on_problem,
    )
    return {} if scores is None else {"test/tfidf_score": scores.test_score, "selection/tfidf_score": scores.dev_score}


def time_metrics(trained: Trained, test: ScoredSplit, *, total_s: float, reused: bool) -> dict[str, float]:
    """Return the seconds of each part of a run, the host's load, and the CPU time of training (runtime/*).

    Args:
        trained: The model with the costs of its training.
        test: The scored test split.
        total_s: The wall-clock seconds of the run.
        reused: Whether an earlier run trained the model.
    """
    training, prefixes = trained.training, trained.prefixes
    train_prefix = prefixes["train"].prefix
    load = {"runtime/load_average": trained.load.average}
    if training.resumed_at is None:  # else the training began in another process
        load |= {"runtime/cpu_s": trained.load.cpu_s, "runtime/cpu_cores": trained.load.cores}
    return {
        "runtime/train_s": _train_s(trained),
        "runtime/loop_s": training.loop_s,
        "runtime/prefix_s": prefix_s(prefixes["train"]),
        "runtime/prefix_reused": float(train_prefix is not None and train_prefix.reused),
        **({} if trained.probed is None else {"runtime/probe_s": trained.probed.seconds}),
        "runtime/prepare_s": trained.prepare_s,
        "runtime/dev_s": training.dev_s + prefix_s(prefixes["dev"]),
        "runtime/test_s": test.seconds,
        "runtime/total_s": total_s,
        "runtime/train_reused": float(reused),
        **_not_none(load),
    }


def throughput_metrics(trained: Trained, test: ScoredSplit, attainable: float | None) -> dict[str, float]:
    """Return samples, tokens and FLOPs per second, and the share of padding among the tokens (throughput/*).

    Args:
        trained: The model with the costs of its training.
        test: The scored test split.
        attainable: The FLOPs per second that the hardware reaches in large matrix products; None if unknown. The metric
            `flops_utilisation` is relative to it.
    """
    training, train_s = trained.training, _train_s(trained)
    values = {
        "throughput/train_samples_per_s": training.samples / train_s,
        "throughput/train_tokens_per_s": training.tokens / train_s,
        "throughput/train_flops_per_s": trained.cost.flops / train_s,
        "throughput/padding_share": 1 - training.tokens / training.padded_tokens,
        "throughput/test_samples_per_s": len(test.split) / test.seconds,
    }
    if attainable:
        values["throughput/flops_utilisation"] = trained.cost.flops / train_s / attainable
    return values


def resource_metrics(trained: Trained) -> dict[str, float]:
    """Return FLOPs, parameter counts, energy and peak memory (flops/*, params/*, energy/*, memory/*)."""
    work, memory = trained.cost, trained.memory
    peaks = {"memory/process_peak_mib": memory.process_mib, "memory/device_peak_mib": memory.device_mib}
    return {
        "flops/train": work.flops,
        "flops/train_vs_full": work.flops / work.flops_full,
        **({} if trained.probed is None else {"flops/probe": trained.probed.flops}),
        "params/total": work.parameters.total,
        "params/trainable": work.parameters.trainable,
        "params/trainable_share": work.parameters.trainable / work.parameters.total,
        **{f"energy/{part}_j": joules for part, joules in trained.energy.joules.items()},
        **_not_none(peaks),
    }


def data_metrics(spec: RunSpec, inputs: RunInputs, trained: Trained, test: ScoredSplit) -> dict[str, float]:
    """Return the number of training steps, the sizes of the splits, and the number of bad rows left out (data/*)."""
    training = trained.training
    dropped_in_training = 0 if inputs.task is inputs.train_task else inputs.train_rows.dropped
    return {
        "data/train_steps": training.steps,
        "data/train_rows": len(trained.prefixes["train"].split.ids),
        "data/dev_rows": len(trained.prefixes["dev"].split.ids),
        "data/test_rows": len(test.split.ids),
        "data/dropped_rows": inputs.rows.dropped + dropped_in_training,
    }


def _train_s(trained: Trained) -> float:
    """Return the seconds of training, including the choice of layers and the frozen prefix of the train split."""
    chosen_s = 0.0 if trained.probed is None else trained.probed.seconds
    return trained.training.loop_s + prefix_s(trained.prefixes["train"]) + chosen_s


def _not_none(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
