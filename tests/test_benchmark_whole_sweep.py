"""The benchmark of a whole sweep: what a quarter of the cells says of all, and what operations predict."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alue_bench.planning.build import build_plan
from alue_bench.planning.grid import parse_grid
from alue_bench.planning.request import PlanRequest
from benchmarks.sweep.whole.conclusion import predictions
from benchmarks.sweep.whole.sampling import estimated_sum, strata, trainer_cells

COSTS = st.dictionaries(st.text(min_size=1, max_size=4), st.floats(1, 100), min_size=1, max_size=40)


class TestSampling:
    @given(COSTS)
    def test_every_cell_is_in_one_stratum_with_its_like_and_one_of_each_is_measured(
        self, costs: dict[str, float]
    ) -> None:
        groups = strata(costs)
        assert sorted(cell for group in groups for cell in group) == sorted(costs)
        assert max(map(len, groups)) <= 4
        chosen = trainer_cells(costs)
        assert [len(chosen & set(group)) for group in groups] == [1] * len(groups)
        for dearer, cheaper in zip(groups[1:], groups, strict=False):
            assert max(costs[cell] for cell in cheaper) <= min(costs[cell] for cell in dearer)
        assert trainer_cells(costs) == chosen

    def test_a_quarter_of_91(self) -> None:
        assert len(trainer_cells({f"{n}": float(n) for n in range(91)})) == 23

    @given(COSTS)
    def test_where_cells_of_a_stratum_cost_the_same_the_sum_is_exact(self, costs: dict[str, float]) -> None:
        groups = strata(costs)
        times = {cell: float(number) for number, group in enumerate(groups) for cell in group}
        measured = {cell: times[cell] for cell in trainer_cells(costs)}
        assert estimated_sum(measured, groups).total == pytest.approx(sum(times.values()))

    def test_the_error_is_that_of_neighbours(self) -> None:
        total = estimated_sum({"a": 1.0, "c": 2.0}, [["a", "b"], ["c", "d"]])
        assert total.total == 6.0
        assert total.error == pytest.approx(math.sqrt((2.0 - 4.0) ** 2))


def test_the_operations_of_91_cells_are_half_of_so_many_full_runs(registry: Any, folders_of_its_own: None) -> None:
    """By hand, of 12 layers: a trained one 3, a frozen one above a trained one 2, one of the prefix 1 or nothing."""
    overrides = (("test", {"epochs": 2}),)
    grid = parse_grid(["bottom-top"])
    request = PlanRequest(tasks=("anger",), models=("mini",), grid=grid, sample=True, overrides=overrides)
    predicted = predictions(build_plan(request, registry))
    cells = [(bottom, top) for bottom in range(13) for top in range(13 - bottom)]

    def units(bottom: int, top: int) -> int:
        trained = 12 - bottom - top
        below = bottom == 0 or trained  # the embeddings train where no bottom layer is frozen
        return 3 * trained + (2 if below else 1 if bottom == 0 else 0) * top

    by_hand = sum(units(*cell) for cell in cells) / (36 * 91)
    without = sum(units(bottom, top) + bottom + (top if bottom and bottom + top == 12 else 0) for bottom, top in cells)
    # The last layer, of which the head reads the first token alone, and the head are not counted by hand.
    assert predicted["shared"] == pytest.approx(by_hand, abs=0.04)
    assert predicted["uncached"] == pytest.approx(without / (36 * 91), abs=0.04)
    assert predicted["shared"] < predicted["charged"] < predicted["uncached"]
