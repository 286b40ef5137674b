"""Advice for a task from planted sweeps of others: predictions by hand, what is missing, and the command to confirm."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CommandLine
from planted_runs import plant, spec
from test_selector_ranking import CELLS, load, planted_runs

from alue_bench.contract.cells import cell_name, cell_of
from alue_bench.contract.task import Labels
from alue_bench.evaluation.new_task import mean_prediction
from alue_bench.reporting.advice import Calibration, advise, calibration, feature, leave_one_task_out
from alue_bench.reporting.advice_table import advice_table, recommendation
from alue_bench.reporting.swept_tasks import SweptTask, swept_tasks
from alue_bench.tracking.connection import Connection, connect

FACTORS = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.5}
"""The loss of each task by freezing, as a multiple of that of the planted grid of `test_selector_ranking`."""


def scaled(task: str, factor: float) -> list[dict[str, Any]]:
    """The planted runs of a task that loses `factor` times as much by freezing."""
    return [row | {"test/score": 0.8 - factor * (0.8 - row["test/score"])} for row in planted_runs(task)]


def sweeps_of(*tasks: str) -> list[SweptTask]:
    rows = [row for task in tasks for row in scaled(task, FACTORS[task])]
    sweeps, _ = swept_tasks(pd.DataFrame(rows))
    return sweeps


def calibrated(*tasks: str, without: str = "") -> Calibration:
    whole = calibration(sweeps_of(*tasks), load, without=without)
    assert whole is not None
    return whole


class TestPrediction:
    def test_is_the_mean_loss_over_tasks_as_a_share_of_what_was_learnt(self) -> None:
        """bottom1 loses 0.04, 0.08 and 0.12 of 0.5 learnt."""
        told = calibrated("a", "b", "c").predict((1, 0))
        by_hand = mean_prediction([0.08, 0.16, 0.24])
        assert (told.mean, told.half_width) == pytest.approx((by_hand.mean, by_hand.half_width))

    def test_the_task_itself_takes_no_part(self) -> None:
        whole = calibrated("a", "b", "c", "d", without="d")
        assert [sweep.task for sweep in whole.sweeps] == ["a", "b", "c"]

    def test_settings_are_the_best_of_each_range_of_costs(self) -> None:
        """From the cheapest: bottom4 40 %, bottom3top1 50 % and bottom3 55 %; the smallest losses are chosen."""
        whole = calibrated("a", "b", "c")
        assert len(whole.settings(10)) == 10
        assert len(whole.settings(4)) == 4
        assert whole.settings(1) == [(0, 1)]  # top1 loses least of all

    def test_leaving_out_each_task_as_computed_by_hand(self) -> None:
        """With one setting, top1, tasks lose 0.04, 0.08 and 0.12; the others predict 0.10, 0.08 and 0.06."""
        whole = calibrated("a", "b", "c")
        one = Calibration(whole.sweeps, ((0, 1),), {})
        told = leave_one_task_out(one)
        assert told.error == pytest.approx(np.sqrt((0.06**2 + 0 + 0.06**2) / 3))
        assert (told.covered, told.predictions) == (3, 3)

    def test_equal_scores_on_all_tasks_correct_nothing(self) -> None:
        whole = calibrated("a", "b", "c")
        assert set(whole.features) == {"fisher"}  # and not the control
        assert whole.correction is None

    def test_a_feature_that_explains_the_tasks_corrects_the_prediction(self) -> None:
        """The feature is half of each task's loss, so that the new task's loss is twice its feature."""
        plain = calibrated("a", "b", "c")
        whole = Calibration(plain.sweeps, plain.cells, {"fisher": plain.losses / 2})
        assert whole.correction is not None
        told = whole.predict((1, 0), {"fisher": np.full(len(whole.cells), 0.3)})
        assert told.mean == pytest.approx(0.6)
        assert told.half_width == pytest.approx(0, abs=1e-9)

    def test_the_feature_is_the_share_of_ranks_that_are_frozen(self) -> None:
        """Scores 40, 10, 30, 20 have the ranks 4, 1, 3 and 2."""
        assert feature((40, 10, 30, 20), [(1, 0), (0, 2), (4, 0)]).tolist() == [0.4, 0.5, 1.0]


class TestAdvice:
    @staticmethod
    def of(tolerance: float, own: SweptTask | None = None) -> Any:
        whole = calibrated("a", "b", "c")
        costs = {cell_name(cell): 1 - 0.15 * cell[0] - 0.05 * cell[1] for cell in CELLS}
        return advise("d", "mini", whole, costs, tolerance=tolerance, measured=own)

    def test_recommends_the_cheapest_setting_within_the_tolerance(self) -> None:
        """top1 loses 8 % and saves 5 %; bottom1 loses 16 % and saves 15 %; bottom2 loses 20 % and saves 30 %."""
        assert self.of(0.10).recommended.strategy == "top1"
        assert self.of(0.21).recommended.strategy == "bottom2"

    def test_without_a_setting_within_the_tolerance_the_smallest_loss_is_recommended(self) -> None:
        advice = self.of(0.01)
        assert advice.recommended.strategy == "top1"
        assert "no setting is predicted to lose at most 1 %" in recommendation(advice)

    def test_measured_losses_of_the_task_stand_beside_the_predictions(self) -> None:
        (own,) = sweeps_of("d")
        advice = self.of(0.10, own)
        assert advice.measured == (10, 10)
        table = advice_table(advice)
        assert table.columns[-1] == "measured"
        (row,) = [row for row in table.rows if row[0] == "top1"]
        assert (row[1], row[-1]) == ("+8.0 %", "+10.0 %")


@pytest.fixture
def planted(store: str, experiment: str) -> Connection:
    return connect(store, experiment)


RANKS = {"a": (4, 1, 3, 2), "b": (1, 2, 4, 3), "c": (3, 4, 1, 2)}
"""The score of each layer by a selector on each task; freezing a layer costs a hundredth of its score."""
FULL_SCORE = 0.8


def plant_sweeps(connection: Connection, model: Path, digest: str, folder: Path, tasks: Sequence[str]) -> None:
    """A sweep of seven cells and a selector beside it for each task, under the conditions of a short run."""
    labels, gold = Labels.binary("no", "yes"), np.array([0, 1])
    for task in tasks:
        for strategy in ("full", "top1", "top2", "bottom1", "bottom2", "bottom3", "bottom4", "rgn-2"):
            bottom, top = cell_of(strategy) or (2, 0)
            lost = sum(RANKS[task][:bottom]) + sum(RANKS[task][4 - top :])
            values = {
                "test/score": FULL_SCORE - lost / 100,
                "selection/dev_score": FULL_SCORE - lost / 100,
                "test/trivial_score": 0.3,
                "flops/train_vs_full": 1 - 0.15 * bottom - 0.05 * top,
            }
            planned = spec(
                task,
                strategy,
                model=model.name,
                hyper={"epochs": 1, "batch_size": 16, "max_length": 24},
                source="sample",
                model_digest=digest,
                limit_train=24,
                limit_eval=16,
            )
            run_id = plant(connection, planned, labels, gold, gold, more=values)
            if cell_of(strategy) is None:
                lines = [f"{layer},{score},{int(score < 3)}" for layer, score in enumerate(RANKS[task])]
                path = folder / "layer_scores.csv"
                path.write_text("\n".join(["layer,score,frozen", *lines]) + "\n", encoding="utf-8")
                connection.client.log_artifact(run_id, str(path))


class TestCommand:
    def test_probes_the_model_and_prints_a_command_that_works(
        self, alue_bench: CommandLine, planted: Connection, tiny_bert: Path, registry: Any, tmp_path: Path
    ) -> None:
        """The scores explain the losses. Freezing all layers costs 0.1 of 0.5 learnt, whatever the probe says."""
        from alue_bench.planning.build import build_plan
        from alue_bench.planning.request import PlanRequest

        request = PlanRequest(
            tasks=("anger",), models=(str(tiny_bert),), strategies=("full",), sample=True, limit_train=24
        )
        digest = build_plan(request, registry).runs[0].spec.model_digest
        plant_sweeps(planted, tiny_bert, digest, tmp_path, ["a", "b", "c"])
        where = ("--tracking-uri", planted.uri, "--experiment", planted.experiment)
        asked = ("advise", "-t", "anger", "-m", tiny_bert, "--sample", *where)
        said = alue_bench(*asked, "--format", "json")
        assert said.code == 0, said.err
        told = json.loads(said.out)
        assert told["calibrated_on"] == ["a", "b", "c"]
        by_name = {one["strategy"]: one for one in told["settings"]}
        assert told["corrected_by"]["family"] == "rgn"
        assert told["corrected_by"]["error"] == pytest.approx(0, abs=1e-9)
        assert told["probe_s"] > 0
        assert by_name["bottom4"]["loss"] == pytest.approx(0.2)
        assert by_name["bottom1"]["loss"] in [pytest.approx(0.02 * rank) for rank in (1, 2, 3, 4)]
        assert 0 < by_name["bottom4"]["flops_share"] < by_name["top1"]["flops_share"] < 1
        program, *arguments = shlex.split(told["command"])
        assert program == "alue-bench"
        assert arguments[(at := arguments.index("--limit-train")) : at + 2] == ["--limit-train", "24"]
        arguments[arguments.index("--seeds") + 1] = "1"
        done = alue_bench(*arguments, "--yes", "--json")
        assert done.code == 0, done.err
        assert {run["strategy"] for run in json.loads(done.out)["runs"]} == {"full", told["recommended"]}

    def test_with_too_few_tasks_it_names_the_command_that_sweeps_more(
        self, alue_bench: CommandLine, planted: Connection, tiny_bert: Path, tmp_path: Path
    ) -> None:
        plant_sweeps(planted, tiny_bert, "another model", tmp_path, ["a"])
        where = ("--tracking-uri", planted.uri, "--experiment", planted.experiment)
        said = alue_bench("advise", "-t", "anger", "-m", tiny_bert, "--sample", *where)
        assert said.code == 2
        assert re.search(r"advise needs sweeps of at least 3 tasks other than anger .* it has none", said.err)
        _, *arguments = shlex.split(said.err[said.err.index("alue-bench sweep --task") :])
        planned = alue_bench(*arguments, "--limit-train", "24", "--max-length", "24", "--dry-run", "--json")
        assert planned.code == 0, planned.err
        names = {run["task"] for run in json.loads(planned.out)["planned"]}
        assert len(names) == 3
        assert "anger" not in names
