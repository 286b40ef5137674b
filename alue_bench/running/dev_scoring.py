"""The scoring of the dev split during training; the scores select the weights that are kept."""

from __future__ import annotations

from typing import Any

from alue_bench.contract.task import Task
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import decide
from alue_bench.training.session import Scorer


def dev_scorer(task: Task, dev: TokenizedSplit) -> Scorer:
    """Return the function that computes a task's metrics, by name, from the logits of its dev split.

    The metrics include the task's primary metric a second time, as `score`: it selects the weights.
    """
    gold = dev.gold

    def score(logits: Any) -> dict[str, float]:
        values = metrics(gold, decide(logits, task.labels, dev.decoding), task.labels)
        return {**values, "score": values[task.primary]}

    return score
