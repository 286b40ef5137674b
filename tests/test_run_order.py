"""The order of the runs of a plan: strategies alternate by seed, for one process and for workers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from alue_bench.executors.scheduler import _costliest_comparison_first, _Unit
from alue_bench.planning.build import PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest

STRATEGIES = ("full", "bottom1", "head-only")
Planned = Callable[..., list[PlannedRun]]


@pytest.fixture
def planned(tiny: Callable[..., Path], registry: Any, folders_of_its_own: None) -> Planned:
    def build(**options: Any) -> list[PlannedRun]:
        request = {"tasks": ("anger",), "models": (str(tiny("bert")),), "strategies": STRATEGIES, "sample": True}
        return build_plan(PlanRequest(**{**request, **options}), registry).runs

    return build


def names(runs: list[PlannedRun]) -> list[str]:
    return [run.spec.strategy for run in runs]


def test_strategies_alternate_by_seed_and_nothing_else_changes(planned: Planned) -> None:
    runs = planned(seeds=(1, 2, 3))
    assert names(runs) == [*STRATEGIES, *reversed(STRATEGIES), *STRATEGIES]
    assert [run.spec.seed for run in runs] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    alone = [run for seed in (1, 2, 3) for run in planned(seeds=(seed,))]
    assert {run.spec.fingerprint for run in runs} == {run.spec.fingerprint for run in alone}


def test_prefixes_are_used_again_at_once_where_two_seeds_meet(planned: Planned) -> None:
    """With room for one set of stored outputs, a plain order computes all of them again for every seed."""
    runs = planned(seeds=(1, 2, 3))
    depths = [run.spec.freeze_plan.prefix_layers for run in runs]
    assert sum(one != other for one, other in pairwise(depths)) == 6  # 8 in a plain order


def test_strategies_alternate_by_fold_where_there_is_one_seed(planned: Planned) -> None:
    runs = planned(seeds=(1,), folds=3)
    assert names(runs) == [*STRATEGIES, *reversed(STRATEGIES), *STRATEGIES]


def test_workers_start_with_the_costliest_task_and_alternate_within_it(planned: Planned) -> None:
    cheap, dear = planned(seeds=(1, 2)), planned(tasks=("oold",), seeds=(1, 2), overrides=(("test", {"epochs": 50}),))
    ordered = _costliest_comparison_first([_Unit([run]) for run in (*cheap, *dear)])
    assert [unit.runs[0] for unit in ordered] == [*dear, *cheap]
