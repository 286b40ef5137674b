"""Evaluations between the ends of epochs, and trainings that stop when the dev score no longer rises."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_training import Bench, bench, plan_runs, same, weights  # noqa: F401 - fixtures

from alue_bench.planning.build import Plan
from alue_bench.running.run import execute
from alue_bench.training.selection import evaluation_points

STEPS = 5  # of an epoch: 40 rows, eight at a time


@given(st.integers(1, 60), st.floats(0, 1, exclude_min=True))
def test_the_last_evaluation_of_an_epoch_is_at_its_end_and_none_is_further_apart(steps: int, every: float) -> None:
    points = evaluation_points(steps, every)
    assert points == sorted(set(points))
    assert points[-1] == steps
    assert all(later - earlier <= max(1, math.ceil(every * steps)) for earlier, later in pairwise([0, *points]))


def test_points_are_those_of_the_decimals_that_were_said() -> None:
    assert evaluation_points(10, 0.1) == list(range(1, 11))
    assert evaluation_points(10, 0.4) == [4, 8, 10]
    assert evaluation_points(STEPS, 0.5) == [3, 5]
    assert evaluation_points(STEPS, 1.0) == [5]


def test_more_evaluations_change_no_weight_and_the_best_may_be_in_the_middle_of_an_epoch(bench: Bench) -> None:  # noqa: F811
    plain, often, best = bench.stack(), bench.stack(), bench.stack()
    bench.tune(plain, epochs=2, select="last")
    training = bench.tune(often, epochs=2, select="last", eval_every=0.5)
    assert same(weights(plain), weights(often))
    assert (training.evaluated_at, training.selected_epoch) == ([3, 5, 8, 10], 2.0)
    assert training.epoch_scores == [0.0, 0.0]
    chosen = bench.tune(best, [0.1, 0.2, 0.9, 0.4], epochs=2, eval_every=0.5)
    assert (chosen.selected_epoch, chosen.selected_dev_score) == (8 / STEPS, 0.9)
    assert not same(weights(best), weights(often))


@pytest.mark.parametrize(
    ("scores", "options", "steps", "selected"),
    [
        ([0.5, 0.4, 0.5, 0.6], {"patience": 2}, 3 * STEPS, 1.0),  # as good is no better
        ([0.5, 0.4, 0.6, 0.5, 0.4], {"patience": 2}, 5 * STEPS, 3.0),
        ([0.5, 0.4, 0.3], {"patience": 2, "select": "last"}, 3 * STEPS, 3.0),
        ([math.nan, math.nan, 0.4], {"patience": 1}, 2 * STEPS, 1.0),
        ([0.5, 0.4, 0.6, 0.7, 0.6, 0.5], {"patience": 2, "eval_every": 0.5}, 3 * STEPS, 2.0),
        ([0.5, 0.6, 0.5, 0.4, 0.3], {"patience": 3, "eval_every": 0.5}, 2 * STEPS + 3, 1.0),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], {"patience": 1}, 6 * STEPS, 6.0),
    ],
)
def test_a_training_stops_after_evaluations_without_a_better_score(
    bench: Bench,  # noqa: F811
    scores: list[float],
    options: dict[str, Any],
    steps: int,
    selected: float,
) -> None:
    training = bench.tune(bench.stack(), scores, epochs=6, lr=1e-4, **options)
    assert (training.steps, training.selected_epoch) == (steps, selected)
    assert training.stopped_early == (steps < 6 * STEPS)
    losses = [point for point in training.curves if point.metric == "train/loss"]
    assert losses[-1].step == steps


@pytest.mark.parametrize("strategy", ["bottom2", "gradual-unfreeze"])
def test_costs_are_those_of_the_steps_that_were_done(plan_runs: Callable[..., Plan], strategy: str) -> None:  # noqa: F811
    """With a rate that changes nothing no evaluation is better than the first one."""
    hyper = {"epochs": 8, "lr": 1e-30, "patience": 1}
    (stopped,) = plan_runs(strategies=(strategy,), hyper=hyper).runs
    (whole,) = plan_runs(strategies=(strategy,), hyper=hyper | {"epochs": 2, "patience": 0}).runs
    assert stopped.spec.fingerprint != whole.spec.fingerprint
    result, full = (execute(run.spec, run.inputs)[0] for run in (stopped, whole))
    assert any("stopped early after 2 of 8 epochs" in note for note in result.notes)
    names = ("data/train_steps", "data/train_rows", *(["flops/train"] if strategy == "bottom2" else []))
    assert {name: result.metrics[name] for name in names} == {name: full.metrics[name] for name in names}
    if strategy == "bottom2":
        assert result.metrics["flops/train_vs_full"] == pytest.approx(full.metrics["flops/train_vs_full"] / 4)
