"""Grids of settings: what is written is what is meant, and what makes no sense is told in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alue_bench.contract.cells import cell_name, cell_of
from alue_bench.contract.errors import UsageError
from alue_bench.contract.strategy import EncoderShape
from alue_bench.planning.grid import parse_grid

LAYERS = st.integers(1, 48)
CELLS = st.tuples(st.integers(0, 60), st.integers(0, 60))


class TestCells:
    def test_the_papers_grid_has_91_cells(self) -> None:
        cells = parse_grid(["bottom-top"]).cells(12)
        assert len(cells) == len(set(cells)) == 91
        assert (0, 0) in cells
        assert (12, 0) in cells
        assert (3, 4) in cells

    @given(LAYERS)
    def test_every_pair_that_freezes_no_layer_twice_is_a_cell_of_the_whole_grid(self, layers: int) -> None:
        pairs = {(bottom, top) for bottom in range(layers + 1) for top in range(layers + 1) if bottom + top <= layers}
        assert set(parse_grid(["bottom-top"]).cells(layers)) == pairs

    @given(LAYERS, st.integers(0, 20), st.integers(0, 20), st.integers(1, 7), st.booleans())
    def test_a_range_holds_both_ends_where_the_step_meets_them(
        self, layers: int, first: int, length: int, step: int, in_one: bool
    ) -> None:
        written = [f"bottom={first}..{first + length}/{step}", "top=0..2"]
        cells = parse_grid([",".join(written)] if in_one else written).cells(layers)
        bottoms = [n for n in range(first, first + length + 1) if (n - first) % step == 0]
        assert cells == [(n, top) for n in bottoms for top in (0, 1, 2) if n + top <= layers]

    @given(st.lists(st.integers(0, 12), min_size=1), st.sampled_from([",", " ", ", "]))
    def test_lists_name_each_cell_once_in_order(self, values: list[int], between: str) -> None:
        cells = parse_grid([f"top={between.join(map(str, values))}"]).cells(12)
        assert cells == [(0, top) for top in sorted(set(values))]

    def test_an_open_range_ends_with_the_model(self) -> None:
        grid = parse_grid(["bottom=2..", "top=0"])
        assert grid.cells(4) == [(2, 0), (3, 0), (4, 0)]
        assert len(grid.cells(24)) == 23

    @given(CELLS)
    def test_a_cell_and_its_name_belong_together(self, cell: tuple[int, int]) -> None:
        assert cell_of(cell_name(cell)) == cell

    @given(CELLS)
    def test_the_names_are_those_of_static_freezing(self, registry: Any, cell: tuple[int, int]) -> None:
        strategy, _ = registry.strategy(cell_name(cell))
        assert strategy.name == cell_name(cell)
        plan = strategy.freeze_plan(EncoderShape(sum(cell) + 1))
        assert (plan.bottom, plan.top, plan.embeddings) == (*cell, cell[0] > 0)

    @pytest.mark.parametrize("other", ["head-only", "bottom3-trainemb", "bottom0top3", "", "bottom", "lora-r8"])
    def test_other_strategies_are_no_cells(self, other: str) -> None:
        assert cell_of(other) is None


class TestOtherAxes:
    def test_strategies_stand_beside_the_cells(self) -> None:
        grid = parse_grid(["bottom=0..2,strategy=full,last-quarter"])
        assert grid.strategy_names(12) == ["full", "bottom1", "bottom2", "last-quarter"]

    def test_strategies_alone_make_no_cells(self) -> None:
        assert parse_grid(["strategy=full,head-only"]).strategy_names(12) == ["full", "head-only"]

    def test_hyper_parameters_cross_with_each_other(self) -> None:
        grid = parse_grid(["bottom-top", "lr=2e-5,5e-5", "batch-size=16,32"])
        assert grid.variants() == [
            {"lr": 2e-5, "batch_size": 16},
            {"lr": 2e-5, "batch_size": 32},
            {"lr": 5e-5, "batch_size": 16},
            {"lr": 5e-5, "batch_size": 32},
        ]

    def test_without_them_there_is_one_variant(self) -> None:
        assert parse_grid(["bottom-top"]).variants() == [{}]

    def test_seeds(self) -> None:
        assert parse_grid(["bottom-top seed=42..44,50"]).seeds == (42, 43, 44, 50)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "--grid is empty; write bottom-top"),
        ("3..4", "'3..4' belongs to no axis"),
        ("layers=3", "unknown axis 'layers'; known are bottom, top"),
        ("bottom=", "--grid bottom= has no values"),
        ("bottom=four", "bottom=four is neither a number nor a range such as 0..12"),
        ("bottom=4..2", "bottom=4..2 ends before it begins"),
        ("bottom=0..4/0", "has a step of 0"),
        ("lr=fast", "lr=fast is not a number"),
        ("epochs=1.5", "epochs=1.5 is not a whole number"),
        ("seed=42..", "has no end; add one, such as seed=42..46"),
        ("seed=42../2", "has no end; add one, such as seed=42..50/2"),
        ("seed=0..99999999", "more than 1000000 values"),
    ],
)
def test_what_makes_no_sense_is_told(written: str, said: str) -> None:
    with pytest.raises(UsageError) as told:
        parse_grid([written])
    assert said in str(told.value)
    assert "\n" not in str(told.value)


@given(st.text(alphabet="bottom-top=0123./, lrseed", max_size=40))
@settings(max_examples=60)
def test_any_text_is_a_grid_or_a_sentence(text: str) -> None:
    try:
        grid = parse_grid([text])
    except UsageError:
        return
    assert grid.strategies or grid.settings or grid.seeds or grid.bottom or grid.top
