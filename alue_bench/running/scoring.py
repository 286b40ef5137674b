"""The predictions of a trained model for the test split, and for the rows of a leaderboard submission."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import Predictions, RunSpec
from alue_bench.contract.transfer import transferred_logits
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.evaluation.predictions import decide, predictions_table
from alue_bench.measure.best_effort import best_effort
from alue_bench.running.fine_tuning import Trained, store_computed
from alue_bench.running.inputs import RunInputs, cache_description, tokenized_for
from alue_bench.training.inference import predict_logits
from alue_bench.training.prefix.frozen_prefix import Examples

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ScoredSplit:
    """A split with gold labels, and a model's logits and predictions for it."""

    split: TokenizedSplit
    logits: np.ndarray[Any, Any]
    """The logits for the labels of the run's task, [examples, outputs]."""
    predicted: np.ndarray[Any, Any]
    """The predicted targets, in the form that `evaluation.metrics.metrics` takes."""
    seconds: float
    """The seconds of the forward passes, including the computation of the frozen prefix."""

    @property
    def gold(self) -> np.ndarray[Any, Any]:
        """The gold targets of the split, in the form that `evaluation.metrics.metrics` takes."""
        return self.split.gold


def score_test_split(spec: RunSpec, inputs: RunInputs, trained: Trained) -> ScoredSplit:
    """Compute a trained model's logits and predictions for the test split of the run's task."""
    split = tokenized_for(trained.stack, inputs.rows, "test", spec, inputs, trained.tokenizer)
    padding = inputs.capabilities.padding
    examples = trained.prefix.examples(split, padding, cache_description(spec, "test"))
    started = time.perf_counter()
    logits = predict_logits(trained.stack, trained.forward, examples, device=trained.device, padding=padding)
    logits = transferred_logits(logits, inputs.task, inputs.train_task)
    seconds = time.perf_counter() - started + prefix_s(examples)
    store_computed(trained.prefix, inputs)
    return ScoredSplit(split, logits, decide(logits, inputs.task.labels, split.decoding), seconds)


def submission_predictions(
    spec: RunSpec, inputs: RunInputs, trained: Trained, on_problem: Callable[[str], None]
) -> Predictions | None:
    """Return the model's predictions for the rows of a leaderboard submission; None if these rows are not available.

    The predictions are not part of any measurement. If an error occurs, `on_problem` is called with the reason, and the
    result is None.
    """
    if "submission" not in inputs.rows.splits:
        return None
    padding = inputs.capabilities.padding

    def predictions() -> Predictions:
        split = tokenized_for(trained.stack, inputs.rows, "submission", spec, inputs, trained.tokenizer)
        logits = predict_logits(trained.stack, trained.forward, Examples(split), device=trained.device, padding=padding)
        logits = transferred_logits(logits, inputs.task, inputs.train_task)
        return predictions_table(split.ids, None, logits, inputs.task.labels)

    return best_effort("no predictions for a submission", predictions, on_problem)


def prefix_s(examples: Examples) -> float:
    """Return the seconds for computing the outputs of a split's frozen prefix; 0 without one.

    On a CPU, the time for storing the outputs is included. On an accelerator, neither the time for storing outputs nor
    the time for copying stored outputs to the device is included.
    """
    return examples.prefix.seconds if examples.prefix else 0.0
