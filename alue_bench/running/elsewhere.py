"""The scores of a trained model on the test splits of other tasks (option `--also-test`); nothing is trained for them.

The metrics on these tasks are called also_test/TASK/METRIC. They are computed after everything else that a run
measures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from alue_bench.contract.spec import Predictions, RunSpec
from alue_bench.contract.task import TargetKind
from alue_bench.contract.transfer import merged_logits, merged_targets
from alue_bench.data.tokenization import TokenizedSplit, encode_targets, unread_notes
from alue_bench.evaluation.learning import trivial_score
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import decide, predictions_table
from alue_bench.measure.best_effort import best_effort
from alue_bench.running.companion import Companion
from alue_bench.running.fine_tuning import Trained, store_computed
from alue_bench.running.inputs import RunInputs
from alue_bench.training.architecture.encoder_stack import check_ids
from alue_bench.training.inference import predict_logits

PREFIX = "also_test/"
"""The beginning of the names of the metrics on other tasks. The name of the scored task, a slash and the metric's own
name follow."""


def scores_elsewhere(
    spec: RunSpec, inputs: RunInputs, trained: Trained, on_problem: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, Predictions], list[str]]:
    """Score a trained model on the test split of each task that `--also-test` names.

    Args:
        spec: The run.
        inputs: The run's inputs; its `companions` are these tasks.
        trained: The trained model.
        on_problem: A function that is called with the reason if a baseline score cannot be computed.

    Returns:
        The metrics, by name; the predictions, by the name of the scored task; and notes for readers of the run.

    Raises:
        TrainingError: The tokenizer gives a token id for which the model has no embedding.
    """
    values: dict[str, float] = {}
    predictions: dict[str, Predictions] = {}
    notes: list[str] = []
    for companion in inputs.companions:
        name, labels = companion.task.name, companion.fit.labels
        began = time.perf_counter()
        split = _tokenized(spec, inputs, trained, companion)
        logits = _logits(spec, inputs, trained, companion, split)
        gold, predicted = split.targets.numpy(), decide(logits, labels)
        scored = metrics(gold, predicted, labels)
        task_values = {
            **scored,
            "score": scored[companion.task.primary],
            **_trivial(inputs, companion, gold, predicted, on_problem),
            "rows": len(split),
            "left_out_rows": companion.left_out,
            "seconds": time.perf_counter() - began,
        }
        values |= {f"{PREFIX}{name}/{metric}": float(value) for metric, value in task_values.items()}
        predictions[name] = predictions_table(split.ids, gold, logits, labels)
        notes += [*companion.notes, *(f"{name}: {note}" for note in unread_notes(split, "test"))]
        if split.truncated:
            notes.append(f"{name}: {split.truncated} of {len(split)} texts cut to {spec.hyper.max_length} tokens")
    return values, predictions, notes


def _tokenized(spec: RunSpec, inputs: RunInputs, trained: Trained, companion: Companion) -> TokenizedSplit:
    """Tokenize the scored rows of another task, and check that the model has an embedding for each token id."""
    tokens = inputs.tokens.tokenized(
        companion.rows,
        labels=companion.fit.labels,
        model=inputs.model,
        model_digest=spec.model_digest,
        tokenizer=trained.tokenizer,
        max_length=spec.hyper.max_length,
    )
    check_ids(trained.stack, tokens, f"model {spec.model!r}")
    return tokens


def _logits(spec: RunSpec, inputs: RunInputs, trained: Trained, companion: Companion, split: TokenizedSplit) -> Any:
    """Return the logits for the scored task's labels, [examples, labels].

    The outputs of frozen layers are stored, so that other runs of the plan need not compute them again.
    """
    padding = inputs.capabilities.padding
    description = {"task": companion.task.name, "split": "test", "model": spec.model}
    examples = trained.prefix.examples(split, padding, description)
    logits = predict_logits(trained.stack, trained.forward, examples, device=trained.device, padding=padding)
    store_computed(trained.prefix, inputs)
    if companion.fit.labels.kind is TargetKind.REGRESSION:
        return logits
    return merged_logits(logits, companion.fit.sources, companion.fit.labels.kind)


def _trivial(
    inputs: RunInputs, companion: Companion, gold: Any, predicted: Any, on_problem: Callable[[str], None]
) -> dict[str, float]:
    """Return the score of a baseline without a model, and the standard error of the model's lead over it.

    The baseline's prediction comes from the trained task's train split, whose labels are first mapped to those of the
    scored task. The result is empty if the score cannot be computed; it has no standard error if that is undefined.
    """
    train_labels = inputs.train_task.labels
    fit = companion.fit

    def scored() -> dict[str, float]:
        train_targets = encode_targets(inputs.train_rows.splits["train"], train_labels).numpy()
        if fit.sources:
            train_targets = merged_targets(train_targets, fit.sources, fit.labels.kind, len(train_labels.names))
        baseline = trivial_score(train_targets, gold, predicted, fit.labels, companion.task.primary)
        values = {"trivial_score": baseline.score}
        return values | ({"above_trivial_error": baseline.error} if math.isfinite(baseline.error) else {})

    return best_effort(f"no {PREFIX}{companion.task.name}/trivial_score", scored, on_problem) or {}
