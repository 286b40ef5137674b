"""The speed goals for fine-tuning BERT-base in bf16 on an H200, and whether the measurements reach them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.arms import ENGINE, GLUE, Arm
from benchmarks.gpu.catalogue import FROZEN
from benchmarks.gpu.record import Record
from benchmarks.timing.comparison import Summary, ratio, summary

JUDGED_ON = "H200"
"""The text that the name of a GPU must contain for the goals to be judged on it."""


@dataclass(frozen=True)
class Goal:
    """A speed goal, and the measured value."""

    text: str
    target: float
    value: float | None
    """The measured value; None if it was not measured."""
    at_least: bool = True
    """True if the value must be at least the target, False if it must be at most the target."""

    @property
    def met(self) -> bool | None:
        """True if the goal is met, False if it is missed; None if the value was not measured."""
        if self.value is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def timings(record: Record, item: str, arm: str) -> list[dict[str, Any]]:
    """Return the results of an arm (way of training) in the measurement `item`, sorted by repetition."""
    results = record.items.get(item, {}).get("results", ())
    return sorted(
        (result for result in results if result["arm"] == arm), key=lambda result: result.get("repetition", 1)
    )


def ratios(record: Record, item: str, part: str, whole: str, name: str = "step_s") -> list[float]:
    """Return, for each round of a measurement, a value of one arm (way of training) divided by another arm's value.

    Args:
        record: The results.
        item: The name of the measurement.
        part: The name of the arm whose value is the numerator.
        whole: The name of the arm whose value is the denominator.
        name: The name of the value, such as "step_s" for the seconds of a step.
    """
    below = {result["repetition"]: result[name] for result in timings(record, item, whole)}
    above = timings(record, item, part)
    return [result[name] / below[result["repetition"]] for result in above if below.get(result["repetition"])]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def goals(record: Record) -> list[Goal]:
    """Return all speed goals with the measured values."""
    own = Arm()
    speed = _median([result["examples_per_s"] for result in timings(record, "full", own.name)])
    glue_arms = (Arm(GLUE, precision="fp32"), Arm(GLUE, precision="fp32").without_accelerate())
    glue = [_median(ratios(record, "full", arm.name, own.name)) for arm in glue_arms]
    tuned = [fastest for item in ("full", "trainer") if (fastest := _fastest_other(record, item, own)) is not None]
    frozen = ratio(_whole(record, Arm(strategy=FROZEN)), _whole(record, own))
    return [
        Goal(f"full at OOLD's lengths, {ENGINE}, examples/s", 5000.0, speed),
        Goal("full: time of Trainer as run_glue configures it ÷ engine", 3.0, next(filter(None, glue), None)),
        Goal("full: time of Trainer at its fastest measured settings ÷ engine", 2.0, min(tuned, default=None)),
        Goal(f"{FROZEN} ÷ full: time of a whole training on OOLD", 0.65, frozen, at_least=False),
        Goal("full: kernels in a step without graphs", 600.0, _kernels(record, "full"), at_least=False),
        Goal(f"{FROZEN}: kernels in a step without graphs", 400.0, _kernels(record, FROZEN), at_least=False),
    ]


def _fastest_other(record: Record, item: str, own: Arm) -> float | None:
    """Return the step time of the fastest other program, `Trainer` or a plain loop, divided by that of our engine.

    Args:
        record: The results.
        item: The name of the measurement, in which all arms train all layers.
        own: The arm of our engine.

    Returns:
        The smallest of the other arms' median ratios; None if there are no results.
    """
    names = {
        result["arm"] for result in record.items.get(item, {}).get("results", ()) if result["settings"]["way"] != ENGINE
    }
    return min((value for name in names if (value := _median(ratios(record, item, name, own.name)))), default=None)


def _whole(record: Record, arm: Arm) -> Summary | None:
    return summary(result["training_s"] for result in timings(record, "whole", arm.name))


def _kernels(record: Record, strategy: str) -> float | None:
    return _median(
        [result["kernels"] for result in timings(record, "kernels", Arm(strategy=strategy, graphs="off").name)]
    )
