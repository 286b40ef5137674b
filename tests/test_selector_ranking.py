"""Selectors ranked against planted grids, where regret, advantage and correlation are known by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CommandLine
from planted_runs import plant, spec

from alue_bench.contract.cells import cell_name
from alue_bench.contract.probe import LayerScore
from alue_bench.contract.task import Labels
from alue_bench.reporting.comparison import CONDITIONS
from alue_bench.reporting.selector_chart import regrets
from alue_bench.reporting.selector_ranking import HIGHEST, ChosenRun, best_cell, rank_selectors
from alue_bench.reporting.selector_table import ranking_as_csv, ranking_as_json, ranking_tables
from alue_bench.reporting.swept_tasks import swept_tasks
from alue_bench.tracking.connection import Connection, connect

LAYERS = 4
LOSSES = (0.04, 0.01, 0.03, 0.02)
"""The test score that freezing each of four layers costs; `full` has 0.8, the trivial score is 0.3."""
CELLS = [(bottom, top) for bottom in range(5) for top in range(3) if bottom + top <= 4]
LOOKS = {"fisher": (40, 10, 30, 20), "random": (10, 40, 20, 30)}
"""The score of each layer by a selector, which ranks as the losses do, and by the control, which ranks in reverse."""


def score_without(frozen: Sequence[int]) -> float:
    return 0.8 - sum(LOSSES[layer] for layer in frozen)


def of_cell(bottom: int, top: int) -> dict[str, float]:
    """The score and the cost of a cell: a frozen bottom layer saves 15 %, a frozen top layer 5 %."""
    return {
        "test/score": score_without([*range(bottom), *range(LAYERS - top, LAYERS)]),
        "flops/train_vs_full": 1 - 0.15 * bottom - 0.05 * top,
    }


def of_selector(family: str, count: int) -> dict[str, float]:
    """The score of a run that trains the layers of the highest scores, at 90 % of the FLOPs of full fine-tuning."""
    frozen = np.argsort(LOOKS[family])[: LAYERS - count]
    values = {"test/score": score_without(frozen.tolist()), "flops/train_vs_full": 0.9}
    return values | {"flops/train": 900.0, "flops/probe": 100.0, "runtime/probe_s": 2.0}


def layer_scores(family: str, count: int) -> list[LayerScore]:
    trained = set(np.argsort(LOOKS[family])[LAYERS - count :].tolist())
    return [LayerScore(layer, score, layer not in trained) for layer, score in enumerate(LOOKS[family])]


def planted_runs(task: str = "anger", seeds: Sequence[int] = (42, 43)) -> list[dict[str, Any]]:
    """The rows of a frame: every cell, and both selectors with two layers, for each seed; equal scores on all seeds."""
    rows = []
    strategies = {cell_name(cell): of_cell(*cell) for cell in CELLS}
    strategies |= {f"{family}-2": of_selector(family, 2) for family in LOOKS}
    for seed in seeds:
        for strategy, values in strategies.items():
            constant = dict.fromkeys(CONDITIONS, "same") | {"other_hyper": '{"clip": 1.0}', "folds": None}
            rows.append(
                {
                    **constant,
                    "run_id": f"{task}-{strategy}-{seed}",
                    "task": task,
                    "model": "mini",
                    "strategy": strategy,
                    "seed": seed,
                    "first_look": None,
                    "primary_metric": "f1_macro",
                    "test/trivial_score": 0.3,
                    "runtime/train_s": 10.0,
                    "selection/dev_score": values["test/score"],
                    **values,
                }
            )
    return rows


def load(run_id: str) -> list[LayerScore]:
    _, family, _ = run_id.rsplit("-", 3)[0], *run_id.rsplit("-", 3)[1:3]
    return layer_scores(family, 2) if family in LOOKS else []


def ranked(rows: list[dict[str, Any]]) -> Any:
    sweeps, _ = swept_tasks(pd.DataFrame(rows))
    (ranking,) = rank_selectors(sweeps, load)
    return ranking


def one(ranking: Any, family: str, seed: int = 42) -> ChosenRun:
    (run,) = [run for run in ranking.runs if (run.family, run.seed, run.count) == (family, seed, 2)]
    return run


class TestOneTask:
    def test_regret_advantage_and_correlation_as_computed_by_hand(self) -> None:
        """fisher trains layers 0 and 2 and scores 0.8 - 0.01 - 0.02 = 0.77; random, with 1 and 3, 0.73.

        The cells of at most 90 % of the FLOPs are bottom1 (0.76), top2 (0.75), bottom1top1 and cheaper ones.
        """
        ranking = ranked(planted_runs())
        fisher, control = one(ranking, "fisher"), one(ranking, "random")
        assert (fisher.trained, fisher.best) == ((0, 2), "bottom1")
        assert fisher.regret == pytest.approx((0.76 - 0.77) / 0.5)
        assert fisher.advantage == pytest.approx(0.04 / 0.5)
        assert fisher.loss == pytest.approx(0.03 / 0.5)
        assert fisher.correlation == pytest.approx(1)
        assert control.regret == pytest.approx((0.76 - 0.73) / 0.5)
        assert control.advantage == 0
        assert control.correlation == pytest.approx(-1)

    def test_the_cost_of_choosing_is_that_of_the_probe(self) -> None:
        fisher = one(ranked(planted_runs()), "fisher")
        assert fisher.probe_s == 2.0
        assert fisher.probe_share == pytest.approx(0.1)  # 100 of the 1,000 FLOPs of full fine-tuning

    def test_the_highest_layers_are_a_control_of_their_own_cost(self) -> None:
        """bottom2 (0.75) costs 70 %. No cheaper or equal cell is better: bottom1top2 (0.71) costs 75 %."""
        highest = one(ranked(planted_runs()), HIGHEST)
        assert (highest.strategy, highest.best, highest.regret) == ("bottom2", "bottom2", 0.0)
        assert highest.cost == pytest.approx(0.7)
        # Layer numbers 0 to 3 against the losses 4, 1, 3, 2.
        assert highest.correlation == pytest.approx(-0.4)

    def test_the_ranking_begins_with_the_smallest_regret(self) -> None:
        assert [row.family for row in ranked(planted_runs()).families] == ["fisher", HIGHEST, "random"]

    def test_a_lucky_seed_does_not_choose_its_own_best_cell(self) -> None:
        rows = planted_runs()
        (lucky,) = [row for row in rows if (row["strategy"], row["seed"]) == ("bottom4", 42)]
        lucky |= {"selection/dev_score": 0.99, "test/score": 0.99}
        (sweep,), _ = swept_tasks(pd.DataFrame(rows))
        assert best_cell(sweep, 0.9, 42) == "bottom1"
        assert best_cell(sweep, 0.9, 43) == "bottom4"

    def test_with_one_seed_the_ranking_says_that_regrets_are_too_high(self) -> None:
        (note,) = ranked(planted_runs(seeds=[42])).notes
        assert "one seed" in note

    def test_no_cell_of_the_cost_gives_no_regret(self) -> None:
        (sweep,), _ = swept_tasks(pd.DataFrame(planted_runs()))
        assert best_cell(sweep, 0.01, 42) == ""
        rows = [row | {"flops/train_vs_full": 0.01} if row["strategy"] == "fisher-2" else row for row in planted_runs()]
        ranking = ranked(rows)
        assert math.isnan(one(ranking, "fisher").regret)
        assert "no cell of the cost of 2 runs" in ranking.notes[0]


class TestSweeps:
    def test_selectors_with_another_number_of_probe_rows_belong_to_the_sweep(self) -> None:
        rows = [
            row | ({"other_hyper": '{"clip": 1.0, "probe_rows": 64}'} if row["strategy"].endswith("-2") else {})
            for row in planted_runs()
        ]
        assert one(ranked(rows), "fisher").trained == (0, 2)

    def test_runs_with_fewer_used_numbers_of_probe_rows_are_left_out(self) -> None:
        rows = planted_runs()
        (first, *_) = [row for row in rows if row["strategy"] == "fisher-2"]
        rows.append(first | {"other_hyper": '{"clip": 1.0, "probe_rows": 64}', "test/score": 0.1})
        ranking = ranked(rows)
        assert one(ranking, "fisher").score == pytest.approx(0.77)
        assert "1 run with another number of probe rows than 256 left out" in ranking.notes[0]

    def test_other_hyper_parameters_make_another_sweep(self) -> None:
        rows = [row | ({"lr": "other"} if row["strategy"] == "fisher-2" else {}) for row in planted_runs()]
        assert {run.family for run in ranked(rows).runs} == {"random", HIGHEST}

    def test_a_task_on_which_full_learnt_nothing_is_left_out(self) -> None:
        rows = [row | {"test/trivial_score": 0.85} for row in planted_runs()]
        sweeps, (note,) = swept_tasks(pd.DataFrame(rows))
        assert sweeps == []
        assert note.startswith("anger, mini: left out")

    def test_few_cells_are_no_sweep(self) -> None:
        few = {cell_name(cell) for cell in CELLS[:5]}
        rows = [row for row in planted_runs() if row["strategy"] in few]
        assert swept_tasks(pd.DataFrame(rows)) == ([], [])

    def test_an_undefined_score_counts_as_the_trivial_one(self) -> None:
        rows = [row | ({"test/score": math.nan} if row["strategy"] == "bottom4" else {}) for row in planted_runs()]
        (sweep,), _ = swept_tasks(pd.DataFrame(rows))
        assert sweep.score((4, 0)) == 0.3
        assert sweep.loss((4, 0)) == pytest.approx(1)


class TestOverTasks:
    def test_a_seed_that_lacks_a_number_of_layers_is_left_out_of_the_mean_over_numbers(self) -> None:
        rows = planted_runs()
        (more,) = [row for row in rows if (row["strategy"], row["seed"]) == ("fisher-2", 42)]
        rows.append(more | {"run_id": "anger-fisher-3-42", "strategy": "fisher-3", "test/score": 0.7})

        def scores(run_id: str) -> list[LayerScore]:
            return layer_scores("fisher", 3) if "fisher-3" in run_id else load(run_id)

        sweeps, _ = swept_tasks(pd.DataFrame(rows))
        (ranking,) = rank_selectors(sweeps, scores)
        (over_numbers,) = [row for row in ranking.families if row.family == "fisher"]
        assert over_numbers.regret is not None
        assert over_numbers.regret.estimate.mean == pytest.approx((0.76 - (0.77 + 0.7) / 2) / 0.5)
        assert any(note.startswith("fisher, all: only 1 of 2 seeds") for note in ranking.notes)
        rows = [row for row in rows if (row["strategy"], row["seed"]) != ("fisher-2", 42)]
        (ranking,) = rank_selectors(swept_tasks(pd.DataFrame(rows))[0], scores)
        assert "fisher" not in {row.family for row in ranking.families}
        assert ("fisher", 3) in {(row.family, row.count) for row in ranking.rows}

    def test_equal_tasks_have_an_interval_without_width(self) -> None:
        rows = [row for task in ("a", "b", "c") for row in planted_runs(task)]
        (best, *_) = ranked(rows).families
        assert best.regret.estimate.mean == pytest.approx(-0.02)
        assert best.regret.estimate.half_width == pytest.approx(0, abs=1e-9)
        assert set(best.regret.by_task) == {"a", "b", "c"}

    def test_two_tasks_have_a_mean_and_no_interval(self) -> None:
        rows = [row for task in ("a", "b") for row in planted_runs(task)]
        (best, *_) = ranked(rows).families
        assert best.regret.estimate.half_width is None

    def test_every_format_holds_the_same_numbers(self) -> None:
        ranking = ranked([row for task in ("a", "b", "c") for row in planted_runs(task)])
        summary, per_task, effects = ranking_tables([ranking])
        assert summary.rows[0][:4] == ("fisher, all", "3", "−2.0 % ± 0.0 %", "+8.0 % ± 0.0 %")
        assert per_task.rows[0] == ("fisher, 2", *["−2.0 % [0 2]"] * 3)
        assert [row[0] for row in effects.rows] == ["0", "1", "2", "3"]
        assert effects.rows[0][1] == "−8.00 %"
        (told,) = json.loads(ranking_as_json([ranking]))["selectors"]
        assert told["ranking"][0]["regret"] == pytest.approx(-0.02)
        first = next(csv.DictReader(io.StringIO(ranking_as_csv([ranking]))))
        assert (first["family"], float(first["regret"])) == ("fisher", pytest.approx(-0.02))
        assert "fisher, all −2.0 %" in regrets(ranking, name="regret").alt


@pytest.fixture(scope="module")
def planted(store: str, tmp_path_factory: pytest.TempPathFactory) -> Connection:
    """A store with a grid of seven cells and two selectors, with one seed."""
    connection = connect(store, "planted selectors")
    gold, labels = np.array([0, 1]), Labels.binary("no", "yes")
    for row in planted_runs(seeds=[42]):
        cell = row["strategy"] if not row["strategy"].endswith("-2") else ""
        if cell not in ("", "full", "top1", "top2", "bottom1", "bottom2", "bottom3", "bottom4"):
            continue
        more = {name: value for name, value in row.items() if "/" in name}
        run_id = plant(connection, spec("anger", row["strategy"]), labels, gold, gold, more=more)
        if not cell:
            path = tmp_path_factory.mktemp("scores") / "layer_scores.csv"
            lines = [
                f"{one.layer},{one.score},{int(one.frozen)}"
                for one in layer_scores(row["strategy"].removesuffix("-2"), 2)
            ]
            path.write_text("\n".join(["layer,score,frozen", *lines]) + "\n", encoding="utf-8")
            connection.client.log_artifact(run_id, str(path))
    return connection


class TestCommand:
    def test_prints_the_ranking_and_writes_the_figure(
        self, alue_bench: CommandLine, planted: Connection, tmp_path: Path
    ) -> None:
        where = ("--tracking-uri", planted.uri, "--experiment", planted.experiment)
        said = alue_bench("rank-selectors", *where, "--figure", tmp_path / "regret.svg")
        assert said.code == 0, said.err
        assert "fisher, all" in said.out
        assert (tmp_path / "regret.svg").read_text(encoding="utf-8").startswith("<svg ")
        told = alue_bench("rank-selectors", *where, "--format", "json")
        (runs,) = [one["runs"] for one in json.loads(told.out)["selectors"]]
        assert {(run["strategy"], tuple(run["trained"])) for run in runs} >= {
            ("fisher-2", (0, 2)),
            ("random-2", (1, 3)),
        }

    def test_without_a_sweep_it_names_the_command_that_makes_one(self, alue_bench: CommandLine, store: str) -> None:
        connection = connect(store, "one planted run")
        plant(connection, spec("anger", "full"), Labels.binary("no", "yes"), np.array([0, 1]), np.array([0, 1]))
        said = alue_bench("rank-selectors", "--tracking-uri", store, "--experiment", "one planted run")
        assert said.code == 2
        assert "alue-bench sweep --task anger --model mini" in said.err
