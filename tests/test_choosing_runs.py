"""Runs by which a strategy was chosen are no evidence for it; its other runs are. Without any there is no verdict."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from planted_runs import classes, plant, spec

from alue_bench.contract.task import Labels
from alue_bench.evaluation.margins import Margin, Margins
from alue_bench.planning.build import PlannedRun
from alue_bench.planning.request import PlanRequest
from alue_bench.reporting import grid
from alue_bench.reporting.across_tasks import across_tasks
from alue_bench.reporting.comparison import ComparisonBlock, StrategyResult, Verdict, compare
from alue_bench.reporting.confirmation import Confirmation, confirm_setting
from alue_bench.reporting.subjects import arrange
from alue_bench.studies.confirmation import confirmation_by, confirming_seeds, unused_seeds
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.reading import Results, read_results, read_targets
from alue_bench.tracking.selection_tags import CHOSEN_IN

BINARY = Labels.binary("NOT_OFF", "OFF")
GOLD = np.random.default_rng(0).integers(0, 2, 200)
CHOSEN = {CHOSEN_IN: "the parent run"}


@pytest.fixture
def connection(store: str, experiment: str) -> Connection:
    return connect(store, experiment)


@pytest.fixture
def put(connection: Connection) -> Callable[..., str]:
    def plant_one(
        strategy: str, seed: int, accuracy: float, *, chosen: bool = False, task: str = "oold", **more: Any
    ) -> str:
        predicted = classes(np.random.default_rng([seed, len(strategy)]), GOLD, accuracy, 2)
        return plant(
            connection, spec(task, strategy, seed, **more), BINARY, GOLD, predicted, tags=CHOSEN if chosen else None
        )

    return plant_one


def compared(results: Results, task: str = "oold") -> tuple[ComparisonBlock, StrategyResult]:
    comparison = compare(results.frame, partial(read_targets, results))
    (block,) = [block for block in comparison.blocks if block.task == task]
    return block, next(row for row in block.rows if row.strategy == "bottom3top4")


def test_with_other_seeds_only_these_count(put: Any, connection: Connection) -> None:
    """The runs by which it was chosen were lucky: with them, no loss would be found."""
    for seed in (42, 43, 44, 45, 46):
        put("full", seed, 0.9)
    lucky = [put("bottom3top4", seed, 1.0, chosen=True) for seed in (42, 43)]
    fresh = [put("bottom3top4", seed, 0.7) for seed in (44, 45, 46)]
    results = read_results(connection)
    block, row = compared(results)
    assert row.difference is not None
    assert (row.difference.verdict, row.difference.seeds) == (Verdict.WORSE, 3)
    assert row.difference.mean < -0.1
    assert (set(row.run_ids), set(row.left_out), row.seeds) == (set(fresh), set(lucky), (44, 45, 46))
    assert "bottom3top4: 2 runs are left out, since the strategy was chosen by them" in block.notes
    # Figures of the grid still show every run.
    comparison = compare(results.frame, partial(read_targets, results))
    (comparable,) = arrange(comparison, results.frame)
    assert len(comparable.runs) == len(results.frame) == 10


def test_without_any_there_is_no_verdict_but_the_command_that_confirms_it(put: Any, connection: Connection) -> None:
    for task in ("oold", "ohsd", "anger"):
        for seed in (42, 43, 44):
            put("full", seed, 0.8, task=task), put("bottom3top4", seed, 1.0, chosen=True, task=task)
            put("head-only", seed, 0.8, task=task)
    results = read_results(connection)
    block, row = compared(results)
    assert row.difference is None
    assert row.unconfirmed
    (note,) = block.notes
    assert note.startswith(
        "bottom3top4: no verdict, since it was chosen among others by its runs with seeds 42, 43, 44"
    )
    words = shlex.split(note.partition(": alue-bench ")[2])
    assert words[:3] == ["run", "--task", "oold"]
    options = list(zip(words[1::2], words[2::2], strict=True))
    assert [value for name, value in options if name == "--strategy"] == ["full", "bottom3top4"]
    assert [value for name, value in options if name == "--seed"] == ["45", "46", "47"]
    assert ("--experiment", connection.experiment) in options
    comparison = compare(results.frame, partial(read_targets, results))
    (across,) = across_tasks(comparison.blocks, results.frame)
    changes = {one.strategy: one.changes for one in across.rows}
    assert len(changes["head-only"]) == 3
    assert not changes.get("bottom3top4")


def test_scores_that_chose_a_strategy_take_no_part_in_its_profile_over_tasks(put: Any, connection: Connection) -> None:
    for task in ("oold", "ohsd", "anger", "mdd"):
        put("full", 42, 0.9, task=task)
        put("bottom3top4", 42, 1.0, chosen=task == "mdd", task=task)
    results = read_results(connection)
    comparison = compare(results.frame, partial(read_targets, results))
    (across,) = across_tasks(comparison.blocks, results.frame)
    best = {one.strategy: one.profile[0] for one in across.rows}
    assert best["bottom3top4"] == 3 / 4


class TestConfirmation:
    """The loss to expect, from fresh seeds: none of them may be left out because it went badly."""

    SEEDS = (43, 44, 45)

    def confirm(self, connection: Connection, margin: float, seeds: tuple[int, ...] = SEEDS) -> Confirmation:
        results = read_results(connection)
        load, margins = partial(read_targets, results), Margins(Margin(margin))
        return confirm_setting(results.frame, load, "bottom3top4", "full", margins=margins, seeds=seeds)

    @pytest.mark.parametrize(
        ("done", "accuracy", "verdict"),
        [((43, 44, 45, 46), 0.9, "within the margin"), ((43, 44, 45), 0.9, "inconclusive"), ((43, 44, 45), 1.0, "")],
    )
    def test_a_failed_seed_is_stated_and_leaves_no_verdict_in_favour(
        self, put: Any, connection: Connection, done: tuple[int, ...], accuracy: float, verdict: str
    ) -> None:
        seeds = (*self.SEEDS, 46)
        for seed in seeds:
            put("full", seed, 0.9)
            if seed in done:
                put("bottom3top4", seed, accuracy)
        found = self.confirm(connection, 0.5, seeds)
        assert found.seeds == done
        assert found.verdict == verdict or (found.verdict, accuracy) == ("inconclusive", 1.0)  # even if it is better
        assert found.missing == tuple(sorted({*seeds} - {*done}))
        if found.missing:
            assert found.loss_bound is None
            said = (
                "inconclusive, since the seeds that failed may have lost more; 1 of 4 fresh seeds failed or could not"
            )
            assert said in found.sentence()

    def test_constant_predictions_count_as_no_correlation(self, connection: Connection) -> None:
        gold = np.linspace(0, 1, 200)
        rng = np.random.default_rng(5)
        for seed in self.SEEDS:
            for strategy in ("full", "bottom3top4"):
                constant = strategy != "full" and seed == 44
                guessed = np.full(200, 0.5) if constant else gold + 0.1 * rng.standard_normal(200)
                plant(connection, spec("svreg", strategy, seed), Labels.regression(0, 1), gold, guessed)
        found = self.confirm(connection, margin=0.1)
        assert (found.seeds, found.missing) == (self.SEEDS, ())
        assert found.difference == pytest.approx((0.1 - 0.95) / 3, abs=0.02)  # 0.1 is the planted trivial score
        assert found.verdict == "inconclusive"  # the test takes the seed into account, too
        assert found.low is not None
        assert found.low < -0.9
        assert "bottom3top4: 1 of 3 test scores undefined" in found.sentence()

    def test_the_stated_scores_are_those_of_the_stated_difference(self, put: Any, connection: Connection) -> None:
        """Full was run with further seeds, in which it was better."""
        for seed, accuracy in ((43, 0.8), (44, 0.8), (45, 0.8), (46, 1.0), (47, 1.0)):
            put("full", seed, accuracy)
        for seed in self.SEEDS:
            put("bottom3top4", seed, 0.7)
        found = self.confirm(connection, margin=0.01)
        assert (found.test_score, found.reference_score, found.difference) != (None, None, None)
        assert found.test_score - found.reference_score == pytest.approx(found.difference)  # type: ignore[operator]
        assert found.reference_score < 0.9  # type: ignore[operator]

    def test_a_store_that_does_not_answer_leaves_it_unconfirmed(
        self, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mlflow import MlflowClient

        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        gone = replace(connection, client=MlflowClient("http://127.0.0.1:9"), uri="http://127.0.0.1:9")
        found = confirmation_by(gone, ("bottom3top4", "full"), ["0" * 32], Margins(Margin(0.1)), self.SEEDS)
        assert found.sentence().startswith("Not confirmed: tracking store http://127.0.0.1:9 cannot be read")


def command_in(note: str) -> list[tuple[str, str]]:
    words = shlex.split(note.partition(": alue-bench ")[2])
    assert words[0] == "run"
    return list(zip(words[1::2], words[2::2], strict=True))


@pytest.mark.parametrize(
    ("baseline", "others"), [("full", ["full"]), ("bottom3top4", ["full"]), ("bottom3top4", ["full", "a", "b", "c"])]
)
def test_the_command_runs_the_same_rows_in_the_same_store(
    put: Any, connection: Connection, baseline: str, others: list[str]
) -> None:
    limits = {"limit_train": 2000, "limit_eval": 500}
    for seed in (42, 43):
        put("bottom3top4", seed, 0.9, chosen=True, **limits)
        for other in others:
            put(other, seed, 0.9, **limits)
    results = read_results(connection)
    comparison = compare(results.frame, partial(read_targets, results), baseline=baseline)
    (note,) = [note for block in comparison.blocks for note in block.notes]
    options = command_in(note)
    assert {("--limit-train", "2000"), ("--limit-eval", "500"), ("--tracking-uri", connection.uri)} <= set(options)
    assert [value for name, value in options if name == "--strategy"] == ["full", "bottom3top4"]
    assert "not recorded" not in note


def test_runs_that_did_not_record_their_limits_are_told_about(put: Any, connection: Connection) -> None:
    put("full", 42, 0.9), put("bottom3top4", 42, 0.9, chosen=True)
    results = read_results(connection)
    older = results.frame.assign(row_options=None)
    (block,) = compare(older, partial(read_targets, results)).blocks
    assert block.notes[0].endswith("(add --limit-train, --limit-eval or --drop-bad if these runs had them, which was "
                                   "not recorded)")  # fmt: skip


def test_the_performance_profile_has_no_scores_of_runs_that_chose(put: Any, connection: Connection) -> None:
    for task in ("oold", "ohsd", "anger", "mdd"):
        lucky = task == "mdd"
        put("full", 42, 0.9, task=task), put("bottom3top4", 42, 1.0 if lucky else 0.6, chosen=lucky, task=task)
    results = read_results(connection)
    (across,) = across_tasks(compare(results.frame, partial(read_targets, results)).blocks, results.frame)
    assert {one.strategy: one.profile[0] for one in across.rows} == {"full": 1.0, "bottom3top4": 0.0}


def test_a_sweep_after_a_search_confirms_with_seeds_that_the_search_left(put: Any, connection: Connection) -> None:
    """The search has tested the setting with seeds 43 to 45 and 47, and has tagged these runs."""
    planned = [
        PlannedRun(spec("oold", name, 42), cast(Any, None), cast(Any, None), PlanRequest())
        for name in ("full", "bottom3top4")
    ]
    rows = [
        {
            "task": "oold",
            "model": "mini",
            "strategy": name,
            "seed": 42,
            grid.DEV: 0.9,
            grid.TEST: 0.9,
            grid.SECONDS: time,
        }
        for name, time in (("full", 2.0), ("bottom3top4", 1.0))
    ]
    (group,) = grid.grids_of(pd.DataFrame(rows))
    recommendation = grid.recommend(group.cells)
    assert recommendation is not None
    asked = (connection, planned, group, recommendation, (43, 44, 45))
    assert unused_seeds(*asked) == (43, 44, 45)
    for seed in (43, 44, 45, 47):
        put("bottom3top4", seed, 0.9, chosen=True)
    put("bottom3top4", 46, 0.9)
    assert unused_seeds(*asked) == (46, 48, 49)


def test_the_plan_says_why_fixed_seeds_leave_nothing_to_confirm_with() -> None:
    fixed = PlanRequest(init_seed=1, data_seed=1)
    planned = [PlannedRun(spec("oold", name, 42), cast(Any, None), cast(Any, None), fixed) for name in ("full", "top1")]
    assert "--init-seed and --data-seed fix both random seeds" in confirming_seeds(planned, 3).describe()
    assert "no fresh seeds" not in confirming_seeds(planned, 0).describe()
