"""Grids of runs: which cells no other beats, which one is recommended and at what loss, and their figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alue_bench.contract.cells import cell_name
from alue_bench.reporting.grid import (
    GridResults,
    cell_table,
    choosing_runs,
    collapsed_sentence,
    grids_of,
    pareto_figure,
    pareto_front,
    recommend,
    runtime_map,
    score_map,
    within_tolerance,
)

SCORE = st.floats(-1, 1, allow_nan=False)
SECONDS = st.floats(0.01, 1000)


def row(strategy: str, dev: float, test: float, seconds: float, **other: Any) -> dict[str, Any]:
    named = {"task": "mdd", "model": "mini", "strategy": strategy, "seed": 42, "lr": 2e-5}
    return {**named, "selection/dev_score": dev, "test/score": test, "runtime/train_s": seconds, **other}


def grid_of(*rows: dict[str, Any]) -> pd.DataFrame:
    return cell_table(pd.DataFrame(list(rows)))


def whole_grid(layers: int = 12) -> pd.DataFrame:
    """Plausible numbers for every cell: more frozen layers, less time and less score."""
    rows = []
    for bottom in range(layers + 1):
        for top in range(layers + 1 - bottom):
            trained = layers - bottom - top
            score = 0.42 - 0.1 * math.exp(-trained / 2)
            seconds = 1 + 3 * trained + (2 * top if trained else 0)
            rows.append(row(cell_name((bottom, top)), score, score - 0.01, seconds))
    return pd.DataFrame(rows)


class TestCells:
    def test_means_over_seeds(self) -> None:
        cells = grid_of(row("full", 0.4, 0.3, 10.0), row("full", 0.6, 0.5, 20.0, seed=43))
        (one,) = cells.to_dict("records")
        assert (one["dev_score"], one["test_score"], one["train_s"], one["seeds"]) == (0.5, 0.4, 15.0, 2)
        assert one["test_spread"] == pytest.approx(0.2 / math.sqrt(2))

    def test_places_come_from_names_and_other_strategies_have_none(self) -> None:
        cells = grid_of(row("bottom6top6", 0.4, 0.3, 1.0), row("head-only", 0.4, 0.3, 1.0)).set_index("strategy")
        assert tuple(cells.loc["bottom6top6", ["bottom", "top"]]) == (6, 6)
        assert cells.loc["head-only", ["bottom", "top"]].isna().all()

    def test_an_undefined_score_takes_no_part(self) -> None:
        assert list(grid_of(row("full", math.nan, 0.3, 1.0), row("top1", 0.1, 0.1, 1.0))["strategy"]) == ["top1"]

    def test_each_task_model_and_rate_is_a_grid_of_its_own(self) -> None:
        runs = pd.DataFrame([row("full", 0.4, 0.3, 1.0, task=task, lr=lr) for task in "ab" for lr in (1e-5, 2e-5)])
        assert [(g.task, g.settings) for g in grids_of(runs)] == [
            ("a", {"lr": 1e-5}),
            ("a", {"lr": 2e-5}),
            ("b", {"lr": 1e-5}),
            ("b", {"lr": 2e-5}),
        ]
        assert next(g.name for g in grids_of(runs)) == "a-mini-lr1e-05"


class TestParetoFront:
    @settings(max_examples=30)
    @given(st.lists(st.tuples(SCORE, SECONDS), min_size=1, max_size=12))
    def test_no_cell_beats_one_on_the_front_and_one_on_it_beats_every_other(
        self, points: list[tuple[float, float]]
    ) -> None:
        cells = grid_of(*(row(f"s{n}", score, 0.0, seconds) for n, (score, seconds) in enumerate(points)))
        front = pareto_front(cells)
        on_it = list(zip(front["dev_score"], front["train_s"], strict=True))
        for score, seconds in points:
            better = [(s, t) for s, t in on_it if s >= score and t <= seconds]
            assert better  # itself, or what beats it
        for score, seconds in on_it:
            assert not any(s >= score and t <= seconds and (s, t) != (score, seconds) for s, t in points)
        assert on_it == sorted(on_it)


class TestRecommendation:
    def test_the_fastest_within_the_tolerance_of_full_by_dev_score(self) -> None:
        recommended = grid_of(
            row("full", 0.500, 0.450, 10.0),
            row("bottom3", 0.497, 0.441, 7.0),
            row("bottom6", 0.494, 0.460, 5.0),  # too low on dev, whatever it does on test
            row("top4", 0.510, 0.430, 9.0),
        )
        chosen = recommend(recommended, 0.01)
        assert chosen is not None
        assert (chosen.strategy, chosen.reference, chosen.candidates, chosen.settings) == ("bottom3", "full", 3, 4)
        assert chosen.saving == pytest.approx(0.3)
        assert chosen.dev_change == pytest.approx(-0.006)
        assert chosen.confirmation is None  # the test scores of these runs are no estimate of the loss to expect
        assert "The loss to expect is not known: bottom3 was chosen among 4 settings" in chosen.loss_sentence()
        wider = recommend(recommended, 0.02)
        assert wider is not None
        assert wider.strategy == "bottom6"

    def test_without_full_the_best_by_dev_score_is_the_reference(self) -> None:
        chosen = recommend(grid_of(row("top1", 0.5, 0.4, 10.0), row("bottom3", 0.5, 0.4, 7.0)), 0.0)
        assert chosen is not None
        assert (chosen.strategy, chosen.reference) == ("bottom3", "top1")

    def test_a_setting_that_failed_with_some_seed_is_not_recommended_for_the_others(self) -> None:
        runs = [
            row(name, dev, dev, seconds, seed=seed)
            for name, dev, seconds in (("full", 0.5, 10.0), ("bottom3", 0.5, 7.0), ("bottom6", 0.5, 5.0))
            for seed in (42, 43)
        ]
        collapsed = row("bottom6", math.nan, math.nan, 5.0, seed=44)
        chosen = recommend(grid_of(*runs, collapsed))
        assert chosen is not None
        assert (chosen.strategy, chosen.candidates, chosen.settings, chosen.left_out) == ("bottom3", 2, 2, 1)
        assert chosen.sentence().endswith("; one setting was left out, because runs failed or have no score")
        without = recommend(grid_of(*runs))
        assert without is not None
        assert (without.strategy, without.left_out) == ("bottom6", 0)

    def test_full_is_the_reference_even_if_it_failed_with_some_seed(self) -> None:
        cells = grid_of(
            row("full", 0.5, 0.5, 10.0), row("full", math.nan, 0.1, 10.0, seed=43), row("top1", 0.6, 0.6, 9.0)
        )
        chosen = recommend(cells)
        assert chosen is not None
        assert (chosen.reference, chosen.strategy, chosen.left_out) == ("full", "top1", 0)

    def test_of_nothing_there_is_none(self) -> None:
        assert recommend(grid_of(row("full", math.nan, 0.1, 1.0))) is None

    @settings(max_examples=30)
    @given(st.lists(st.tuples(SCORE, SECONDS), min_size=1, max_size=12), st.floats(0, 0.5))
    def test_it_is_within_the_tolerance_and_nothing_faster_is(
        self, points: list[tuple[float, float]], tolerance: float
    ) -> None:
        names = ["full", *(f"s{n}" for n in range(1, len(points)))]
        cells = grid_of(*(row(n, score, 0.0, s) for n, (score, s) in zip(names, points, strict=True)))
        chosen = recommend(cells, tolerance)
        assert chosen is not None
        reference = points[0][0]
        assert within_tolerance(chosen.dev_score, reference, tolerance)
        for score, seconds in points:
            assert seconds >= chosen.train_s or not within_tolerance(score, reference, tolerance)

    def test_a_smaller_share_of_a_negative_score_is_a_loss_too(self) -> None:
        assert within_tolerance(-0.505, -0.5, 0.01)
        assert not within_tolerance(-0.51, -0.5, 0.01)

    def test_the_sentence_says_by_which_split_and_of_how_many(self) -> None:
        chosen = recommend(grid_of(row("full", 0.5, 0.45, 10.0), row("bottom3", 0.5, 0.441, 7.0)))
        assert chosen is not None
        assert chosen.sentence() == (
            "bottom3, the fastest of 2 settings (of 2) whose dev score is within 1% of full's (one seed); 7.0 s of "
            "training, 30% less"
        )

    def test_a_setting_that_learnt_nothing_is_not_recommended(self) -> None:
        """With a wide tolerance, the fastest setting within it is one that predicts the same for every text."""
        known = {"selection/trivial_score": 0.48, "selection/above_trivial_error": 0.01}
        rows = [
            row("full", 0.50, 0.5, 10.0, **known),
            row("top4", 0.50, 0.5, 9.0, **known),
            row("bottom12", 0.48, 0.5, 1.0, **known),
        ]
        chosen = recommend(grid_of(*rows), 0.1)
        assert chosen is not None
        assert (chosen.strategy, chosen.settings, chosen.unlearnt, chosen.left_out) == ("top4", 2, 1, 0)
        assert chosen.sentence().endswith("one setting was left out, because it learnt nothing")
        assert "by setting: bottom12 (1 of 1); try more data, more epochs or another --lr" in collapsed_sentence(
            grid_of(*rows)
        )

    @pytest.mark.parametrize("seeds", [1, 3])
    def test_the_set_has_what_the_noise_cannot_distinguish_from_the_pick(self, seeds: int) -> None:
        """The noise is known here: 0.01 for one run. Settings on a smooth surface, of which one is far below."""
        rng = np.random.default_rng(0)
        runs = []
        for seed in range(42, 42 + seeds):
            drift = rng.normal(0, 0.1)  # of a seed, the same for every setting: no noise of a difference
            for _, cell in whole_grid().iterrows():
                score = 0.8 - 0.002 * int(cell["runtime/train_s"] < 20) - 0.2 * int(cell["runtime/train_s"] < 10)
                runs.append({**cell, "seed": seed, "selection/dev_score": score + drift + rng.normal(0, 0.01)})
        cells_of = cell_table(pd.DataFrame(runs))
        chosen = recommend(cells_of, 0.02)
        assert chosen is not None
        assert chosen.standard_error == pytest.approx(0.01 * math.sqrt(2 / seeds), rel=0.25)
        by_name = cells_of.set_index("strategy")
        expected = by_name[
            (by_name["dev_score"] >= chosen.dev_score - chosen.standard_error)
            & (by_name["train_s"] <= 1.1 * chosen.train_s)
        ]
        assert {chosen.strategy, *chosen.alternatives} == set(expected.index)
        assert chosen.alternatives
        assert f"Not distinguishable from {chosen.strategy} by these runs: " in chosen.alternatives_sentence()

    def test_few_settings_with_one_seed_do_not_tell_their_noise(self) -> None:
        chosen = recommend(grid_of(row("full", 0.5, 0.5, 10.0), row("bottom3", 0.5, 0.5, 7.0)))
        assert chosen is not None
        assert chosen.alternatives == ()
        assert chosen.as_dict()["standard_error"] is None
        assert "do not show which other settings are as good" in chosen.alternatives_sentence()

    def test_fresh_seeds_of_two_settings_do_not_change_the_grid(self) -> None:
        runs = whole_grid()
        fresh = runs[runs["strategy"].isin(["full", "bottom3"])].assign(seed=43, **{"selection/dev_score": 0.1})
        assert choosing_runs(pd.concat([runs, fresh])).equals(runs)

    def test_a_clock_that_disagrees_with_the_operations_is_doubted(self) -> None:
        """After short runs on a busy machine, the fastest setting may only be lucky."""
        full = row("full", 0.5, 0.45, 3.0, **{"flops/train_vs_full": 1.0})
        bottom3 = row("bottom3", 0.5, 0.45, 4.0, **{"flops/train_vs_full": 0.75})
        bottom4 = row("bottom4", 0.5, 0.45, 4.5, **{"flops/train_vs_full": 0.67})
        lost = row("bottom12", 0.1, 0.1, 5.0, **{"flops/train_vs_full": 0.1})
        chosen = recommend(grid_of(full, bottom3, bottom4, lost))
        assert chosen is not None
        assert (chosen.strategy, chosen.fewest_flops) == ("full", "bottom4")
        assert "; but bottom4 needs fewer FLOPs (67% of full's against 100%): measured times" in chosen.sentence()
        believed = recommend(grid_of(full, bottom3 | {"runtime/train_s": 2.1}, bottom4 | {"runtime/train_s": 2.0}))
        assert believed is not None
        assert (believed.strategy, believed.fewest_flops) == ("bottom4", "")


class TestFigures:
    @pytest.fixture
    def group(self) -> GridResults:
        (whole,) = grids_of(whole_grid())
        return whole

    @pytest.mark.parametrize(("draw", "column"), [(score_map, "test_score"), (runtime_map, "train_s")])
    def test_a_heat_map_has_every_cell_with_its_number_in_its_place(
        self, group: GridResults, draw: Any, column: str
    ) -> None:
        figure = draw(group, recommend(group.cells))
        axes = figure.axes[0]
        written = {
            (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts
        }
        assert len(written) == 91
        for _, cell in group.cells.iterrows():
            shown = float(written[(cell["bottom"], cell["top"])])
            assert shown == pytest.approx(cell[column], abs=0.06)
        (image,) = axes.images
        assert image.get_array().count() == 91  # the others are masked: no colour where there is no cell

    def test_the_recommended_cell_is_framed(self, group: GridResults) -> None:
        chosen = recommend(group.cells)
        assert chosen is not None
        figure = score_map(group, chosen)
        bottom, top = group.cells.set_index("strategy").loc[chosen.strategy, ["bottom", "top"]]
        (frame,) = [p for p in figure.axes[0].patches if str(p.get_label()).startswith("recommended")]
        assert frame.get_x() < top < frame.get_x() + frame.get_width()
        assert frame.get_y() < bottom < frame.get_y() + frame.get_height()

    @pytest.mark.parametrize("draw", [score_map, runtime_map, pareto_figure])
    @pytest.mark.parametrize("strategies", [["full"], ["head-only"], ["bottom3", "bottom9top1", "last-quarter"]])
    def test_few_cells_or_none_can_be_drawn(self, draw: Any, strategies: list[str], tmp_path: Path) -> None:
        (group,) = grids_of(pd.DataFrame([row(name, 0.4, 0.4, 1.0) for name in strategies]))
        draw(group, recommend(group.cells)).savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")

    def test_sample_data_are_named_as_such(self) -> None:
        (group,) = grids_of(pd.DataFrame([row("full", 0.4, 0.4, 1.0, data_source="sample")]))
        assert "sample data" in score_map(group).axes[0].get_title()
