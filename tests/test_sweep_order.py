"""The order of a sweep: every cell once, prefixes shared, and no corner of the grid early or late as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alue_bench.contract.cells import cell_name, cell_of
from alue_bench.planning.build import PlannedRun, build_plan
from alue_bench.planning.grid import parse_grid
from alue_bench.planning.request import PlanRequest
from alue_bench.planning.sweep_order import POSITION_TAG, ROUNDS, order_runs

Planned = Callable[..., list[PlannedRun]]


@pytest.fixture
def planned(tiny: Callable[..., Path], registry: Any, folders_of_its_own: None) -> Planned:
    """The runs of a grid on a model of 12 layers, in the order of the plan."""

    def build(*grid: str, tasks: tuple[str, ...] = ("anger",), layers: int = 12, **options: Any) -> list[PlannedRun]:
        request = PlanRequest(
            tasks=tasks, models=(str(tiny("bert", layers=layers)),), grid=parse_grid(grid), sample=True, **options
        )
        return build_plan(request, registry).runs

    return build


def depth(run: PlannedRun) -> int:
    return run.spec.freeze_plan.prefix_layers or 0


def test_the_grid_of_a_model_of_12_layers_has_each_of_91_cells_once(planned: Planned) -> None:
    runs = planned("bottom-top")
    ordered = order_runs(runs).runs
    names = [cell_name((bottom, top)) for bottom in range(13) for top in range(13 - bottom)]
    assert Counter(run.spec.strategy for run in ordered) == Counter(names)
    assert [run.tags[POSITION_TAG] for run in ordered] == [f"{place}/91" for place in range(1, 92)]
    assert {run.spec.fingerprint for run in ordered} == {run.spec.fingerprint for run in runs}


@pytest.mark.parametrize("seed", range(5))
def test_no_corner_is_early_or_late(planned: Planned, seed: int) -> None:
    order = order_runs(planned("bottom-top"), seed)
    places = np.arange(91)
    cells = np.array([cell_of(run.spec.strategy) for run in order.runs])
    for values in (cells[:, 0], cells[:, 1], [run.cost for run in order.runs]):
        assert abs(np.corrcoef(places, values)[0, 1]) <= order.bias + 1e-9 < 0.1
    # Nor in any quarter of the sweep: each has its share of deep and of shallow cells.
    for quarter in np.array_split(cells, 4):
        assert np.abs(quarter.mean(axis=0) - cells.mean(axis=0)).max() < 1


def test_in_each_round_the_runs_of_one_depth_follow_each_other(planned: Planned) -> None:
    runs = order_runs(planned("bottom-top")).runs
    depths = [depth(run) for run in runs]
    blocks = [here for place, here in enumerate(depths) if place == 0 or depths[place - 1] != here]
    assert max(Counter(blocks).values()) <= ROUNDS


def test_it_begins_without_a_prefix_so_that_no_two_workers_compute_the_same_one(planned: Planned) -> None:
    assert [depth(run) for run in order_runs(planned("bottom-top")).runs[:2]] == [0, 0]


def test_it_ends_with_short_runs_so_that_workers_end_together(planned: Planned) -> None:
    runs = order_runs(planned("bottom-top")).runs
    costs = [run.cost for run in runs]
    assert costs[-1] < np.median(costs)
    assert depth(runs[-1]) == max(depth(run) for run in runs[-10:])


def test_it_is_the_same_whenever_it_is_asked_for_and_another_with_another_seed(planned: Planned) -> None:
    runs = planned("bottom-top")

    def strategies(seed: int) -> list[str]:
        return [run.spec.strategy for run in order_runs(runs, seed).runs]

    assert strategies(0) == strategies(0) != strategies(1)


def test_grids_that_are_not_compared_stay_apart_and_seeds_and_rates_are_mixed(planned: Planned) -> None:
    runs = planned("bottom=0..4", "lr=1e-4,1e-3", tasks=("anger", "oold"), layers=4, seeds=(1, 2, 3))
    ordered = order_runs(runs)
    tasks = [run.spec.task for run in ordered.runs]
    assert tasks == ["anger"] * 30 + ["oold"] * 30
    # By chance alone, one in three orders would have more than 0.18.
    for values in ([run.spec.seed for run in ordered.runs[:30]], [run.spec.hyper.lr for run in ordered.runs[:30]]):
        assert abs(np.corrcoef(np.arange(30), values)[0, 1]) < 0.15


def test_what_uses_the_model_of_another_run_comes_right_behind_it(planned: Planned) -> None:
    runs = order_runs(planned("bottom=0..3", tasks=("xnli", "diag"), layers=4)).runs
    assert len(runs) == 8
    for first, second in zip(runs[::2], runs[1::2], strict=True):
        assert first.spec.training_key == second.spec.training_key
        assert {first.spec.task, second.spec.task} == {"xnli", "diag"}


def test_few_runs_or_none_are_fine(planned: Planned) -> None:
    assert order_runs([]).runs == []
    assert len(order_runs(planned("bottom=0", layers=4)).runs) == 1
