"""Comparisons: which runs are compared, their numbers and verdicts, and what keeps two runs apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from planted_runs import classes, plant, spec

from alue_bench.contract.errors import UsageError
from alue_bench.contract.task import Labels
from alue_bench.evaluation.margins import Margins, parse_margins
from alue_bench.evaluation.significance import MAX_SEEDS
from alue_bench.reporting.comparison import (
    DEFAULT_MARGIN,
    Comparison,
    ComparisonBlock,
    Difference,
    Verdict,
    compare,
    describe_conditions,
)
from alue_bench.reporting.comparison_table import as_json, records, text_tables
from alue_bench.studies.invocation import StoreLocation
from alue_bench.studies.number_of_seeds import describe_seeds, seeds_for_plan
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.reading import read_results, read_targets

BINARY = Labels.binary("NOT_OFF", "OFF")
GOLD = np.random.default_rng(0).integers(0, 2, 200)
SEEDS = (42, 43, 44)


@pytest.fixture
def connection(store: str, experiment: str) -> Connection:
    return connect(store, experiment)


@pytest.fixture
def put(connection: Connection) -> Callable[..., str]:
    """A run whose predictions are right for about a part of the examples; the same ones for the same strategy."""

    def plant_one(strategy: str = "full", seed: int = 42, accuracy: float = 0.8, **more: Any) -> str:
        how = {key: more.pop(key) for key in ("more", "tags", "keep_predictions", "status") if key in more}
        task, draws = more.pop("task", "oold"), more.pop("draws", seed)
        predicted = classes(np.random.default_rng([draws, len(strategy)]), GOLD, accuracy, 2)
        return plant(connection, spec(task, strategy, seed, **more), BINARY, GOLD, predicted, **how)

    return plant_one


@pytest.fixture
def compared(connection: Connection) -> Callable[..., Comparison]:
    def do(**options: Any) -> Comparison:
        results = read_results(connection)
        return compare(results.frame, partial(read_targets, results), **options)

    return do


def only(comparison: Comparison) -> ComparisonBlock:
    (block,) = comparison.blocks
    return block


def difference(block: ComparisonBlock, strategy: str) -> Difference:
    (row,) = [row for row in block.rows if row.strategy == strategy]
    assert row.difference is not None
    return row.difference


class TestABlock:
    def test_holds_what_can_be_computed_by_hand(self, put: Any, compared: Any, connection: Connection) -> None:
        for seed in SEEDS:
            put("full", seed, 0.9, more={"runtime/train_s": 100.0 + seed})
            put("bottom3top4", seed, 0.6, more={"runtime/train_s": 50.0 + seed, "energy/gpu_j": 7.0})
        block = only(compared())
        assert (block.task, block.model, block.metric, block.baseline) == ("oold", "mini", "test/f1_macro", "full")
        assert block.trivial_score == 0.1
        assert [row.strategy for row in block.rows] == ["full", "bottom3top4"]
        runs = connection.client.search_runs([connection.experiment_id], "params.strategy = 'bottom3top4'")
        base = connection.client.search_runs([connection.experiment_id], "params.strategy = 'full'")
        ours = {run.data.params["seed"]: run.data.metrics["test/f1_macro"] for run in runs}
        theirs = {run.data.params["seed"]: run.data.metrics["test/f1_macro"] for run in base}
        full, row = block.rows
        assert row.score is not None
        assert row.score.mean == pytest.approx(np.mean(list(ours.values())))
        # t with 2 degrees of freedom, 97.5 %: 4.3027
        assert row.score.half_width == pytest.approx(4.3027 * np.std(list(ours.values()), ddof=1) / 3**0.5, rel=1e-4)
        change = difference(block, "bottom3top4")
        assert change.mean == pytest.approx(np.mean([ours[seed] - theirs[seed] for seed in ours]))
        assert (change.seeds, change.verdict, change.stars) == (3, Verdict.WORSE, "***")
        assert change.improvement == 0
        assert full.difference is None
        assert row.time_change is not None
        assert row.time_change.mean == pytest.approx(np.mean([(50 + seed) / (100 + seed) - 1 for seed in SEEDS]))
        assert row.speed_up == pytest.approx(np.prod([(100 + seed) / (50 + seed) for seed in SEEDS]) ** (1 / 3))
        assert (row.trainable_share, row.flops_share) == pytest.approx((0.7, 0.7))
        assert (row.memory_mib, row.energy_j) == (1000, 7)
        assert (full.energy_j, row.freeze) == (None, (3, 4, 1))
        assert set(row.run_ids) == {run.info.run_id for run in runs}

    def test_has_another_baseline_and_another_metric(self, put: Any, compared: Any) -> None:
        for seed in SEEDS:
            put("full", seed), put("head-only", seed)
        block = only(compared(baseline="head-only", metric="accuracy"))
        assert [row.strategy for row in block.rows] == ["head-only", "full"]
        assert (block.metric, block.trivial_score) == ("test/accuracy", None)
        with pytest.raises(UsageError, match=r"--metric rouge: no run has it; there are accuracy, f1_class_NOT_OFF, "):
            compared(metric="rouge")

    def test_without_the_baseline_says_so(self, put: Any, compared: Any) -> None:
        put("head-only")
        block = only(compared())
        assert block.rows[0].difference is None
        assert block.notes == ("no run of full under these conditions, so changes cannot be computed",)


class TestAVerdict:
    def test_is_never_given_on_one_seed_or_two(self, put: Any, compared: Any) -> None:
        for number, seed in enumerate(SEEDS[:2], 1):
            put("full", seed, 0.95), put("head-only", seed, 0.5)
            change = difference(only(compared()), "head-only")
            assert (change.verdict, change.stars) == (Verdict.TOO_FEW_SEEDS, "")
            assert change.reason.startswith(f"{number} seed")
            assert change.p_corrected is None

    def test_one_seed_may_be_tested_over_examples_and_still_says_nothing_of_other_seeds(
        self, put: Any, compared: Any
    ) -> None:
        put("full", 42, 0.95), put("head-only", 42, 0.5)
        change = difference(only(compared(resamples=200)), "head-only")
        assert change.p_examples == pytest.approx(1 / 201)
        assert change.bootstrap is not None
        assert change.bootstrap[1] < 0
        assert change.verdict is Verdict.TOO_FEW_SEEDS

    def test_of_two_that_are_alike_is_inconclusive_and_says_which_loss_is_not_excluded(
        self, put: Any, compared: Any
    ) -> None:
        for seed in SEEDS:
            put("full", seed, 0.8), put("head-only", seed, 0.8)
        change = difference(only(compared()), "head-only")
        assert (change.verdict, change.stars) == (Verdict.INCONCLUSIVE, "")
        (table,) = text_tables(compared())
        (note,) = table.notes
        assert change.loss_bound is not None
        assert f"inconclusive: a loss up to {100 * change.loss_bound:.1f} points (" in note
        assert re.search(r"is not excluded \(margin: 0\.8 points\); a loss of zero needs ", note)
        assert change.detectable is not None
        assert change.detectable > abs(change.mean)
        assert change.test is not None
        assert abs(change.mean) < change.test.half_width

    def test_follows_the_margin(self, put: Any, compared: Any) -> None:
        """The same runs: the wider the margin, the more can be said; a gain is within every margin."""
        for seed in SEEDS:
            put("full", seed, 0.9), put("head-only", seed, 0.75), put("top1", seed, 0.97), put("top22", seed, 0.9)

        def verdicts(margin: str) -> list[Verdict]:
            block = only(compared(margins=parse_margins(margin, DEFAULT_MARGIN)))
            return [difference(block, name).verdict for name in ("head-only", "top1", "top22")]

        assert verdicts("0.1pt") == [Verdict.WORSE, Verdict.BETTER, Verdict.INCONCLUSIVE]
        assert verdicts("f1_macro=10pt") == [Verdict.WORSE, Verdict.BETTER, Verdict.WITHIN_MARGIN]
        assert verdicts("50%") == [Verdict.WORSE_WITHIN_MARGIN, Verdict.BETTER, Verdict.WITHIN_MARGIN]
        with pytest.raises(UsageError, match=r"--margin rouge=0.01: no run has it; there are accuracy, "):
            verdicts("rouge=0.01")

    def test_by_a_share_of_what_was_learnt(self, put: Any, compared: Any) -> None:
        for seed in SEEDS:
            put("full", seed, 0.9), put("top22", seed, 0.9)
        of_learnt = parse_margins("30% of learnt", DEFAULT_MARGIN)
        block, unknown = only(compared(margins=of_learnt)), only(compared(margins=of_learnt, metric="accuracy"))
        score = block.rows[0].score
        assert score is not None
        assert block.margin_size == pytest.approx(0.3 * (score.mean - 0.1))
        record = records(compared(margins=of_learnt))[1]
        assert record["margin"] == block.margin_size
        assert record["loss_bound_of_learnt"] == pytest.approx(record["loss_bound"] / (score.mean - 0.1))
        assert (unknown.margin_size, difference(unknown, "top22").verdict) == (None, Verdict.INCONCLUSIVE)

    def test_is_corrected_for_all_that_are_shown(self, put: Any, compared: Any) -> None:
        for seed in SEEDS:
            put("full", seed, 0.9)
            for strategy in ("head-only", "top1", "top22", "top333"):
                put(strategy, seed, 0.8)
        comparison = compared()
        assert comparison.tested == 4
        for row in only(comparison).rows[1:]:
            change = row.difference
            assert change is not None
            assert change.test is not None
            assert change.p_corrected is not None
            assert change.p_corrected >= change.test.p_value
        changes = [row.difference for row in only(comparison).rows[1:]]
        smallest = min(changes, key=lambda one: one.test.p_value)  # type: ignore[union-attr]
        assert smallest.p_corrected == pytest.approx(min(1, 4 * smallest.test.p_value))

    def test_pairs_by_seed(self, put: Any, compared: Any) -> None:
        put("full", 42), put("full", 43), put("head-only", 43), put("head-only", 44)
        assert difference(only(compared()), "head-only").seeds == 1

    def test_needs_a_seed_in_common(self, put: Any, compared: Any) -> None:
        put("full", 42), put("head-only", 43)
        change = difference(only(compared()), "head-only")
        assert (change.verdict, change.reason) == (Verdict.NOT_TESTED, "it has no seed in common with the baseline")

    def test_needs_the_predictions(self, put: Any, compared: Any) -> None:
        for seed in SEEDS:
            put("full", seed), put("head-only", seed, keep_predictions=seed != 44)
        change = difference(only(compared()), "head-only")
        assert change.verdict is Verdict.NOT_TESTED
        assert "predictions.csv of run" in change.reason

    def test_of_the_same_predictions_is_within_every_margin(self, put: Any, compared: Any) -> None:
        for seed in SEEDS:
            put("full", seed, draws=1), put("same", seed, draws=1)  # names of one length: the same draws
        change = difference(only(compared()), "same")
        assert (change.mean, change.verdict, change.p_corrected) == (0, Verdict.WITHIN_MARGIN, 1)


AT_TRIVIAL = {"test/trivial_score": 0.49, "test/above_trivial_error": 0.035}


class TestABaselineThatLearntNothing:
    """Its score is not above the trivial score."""

    def test_is_kept_by_no_strategy(self, put: Any, compared: Any) -> None:
        for seed in SEEDS:
            for strategy in ("full", "head-only"):
                put(strategy, seed, 0.5, more=AT_TRIVIAL)
        comparison = compared()
        block = only(comparison)
        change = difference(block, "head-only")
        assert (change.verdict, change.stars) == (Verdict.NOTHING_LEARNT, "")
        assert block.unlearnt is not None
        assert block.unlearnt.trivial == 0.49
        (table,) = text_tables(comparison)
        (note,) = table.notes
        assert note.startswith("full did not learn: its test score")
        assert note.endswith("so there is no verdict on any strategy; try more data, more epochs or another --lr.")
        columns = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        assert [row["collapsed"] for row in columns] == ["3 of 3", "3 of 3"]
        assert [row["verdict"] for row in columns] == ["learnt nothing", "learnt nothing"]
        assert columns[1]["Δ full"].endswith("‡")
        (told,) = json.loads(as_json(comparison))["blocks"]
        assert told["nothing_learnt"]["trivial_score"] == 0.49

    def test_is_no_standard_for_a_strategy_that_did_learn(self, put: Any, compared: Any) -> None:
        for seed in SEEDS:
            put("full", seed, 0.5, more=AT_TRIVIAL)
            put("head-only", seed, 0.9, more=AT_TRIVIAL)
        (table,) = text_tables(compared())
        assert difference(only(compared()), "head-only").verdict is Verdict.NOTHING_LEARNT
        assert "above the trivial score: head-only;" in table.notes[0]
        assert "no verdict" in table.rows[1]

    def test_is_told_from_a_strategy_that_learnt_nothing_and_from_one_whose_seeds_collapsed(
        self, put: Any, compared: Any
    ) -> None:
        for seed in SEEDS:
            put("full", seed, 0.95, more=AT_TRIVIAL)
            put("top1", seed, 0.5, more=AT_TRIVIAL)
            put("top22", seed, 0.5 if seed == 44 else 0.95, more=AT_TRIVIAL)
        comparison = compared(margins=parse_margins("90%", DEFAULT_MARGIN))
        block = only(comparison)
        assert block.unlearnt is None
        # Even a margin that is larger than all that was learnt does not make it a strategy that keeps the score.
        assert difference(block, "top1").verdict is Verdict.WORSE
        learnt = {record["strategy"]: (record["learnt"], record["collapsed"]) for record in records(comparison)}
        assert learnt == {"full": (True, 0), "top1": (False, 3), "top22": (True, 1)}
        (table,) = text_tables(comparison)
        shown = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
        assert [shown[name]["collapsed"] for name in learnt] == ["", "3 of 3", "1 of 3"]
        assert shown["top1"]["verdict"] == "worse, learnt nothing"
        assert table.notes[-1].endswith("1 of 3 seeds collapsed to the trivial score.")

    def test_is_one_by_chance_too(self, put: Any, compared: Any) -> None:
        """One seed a little above the trivial score: of few examples that shows nothing."""
        for error, verdict in ((0.1, Verdict.NOTHING_LEARNT), (0.01, Verdict.TOO_FEW_SEEDS)):
            for strategy in ("full", "head-only"):
                put(strategy, 42, 0.8, more={"test/trivial_score": 0.7, "test/above_trivial_error": error})
            assert difference(only(compared()), "head-only").verdict is verdict

    def test_by_another_metric_than_the_primary_one_is_not_known(self, put: Any, compared: Any) -> None:
        for seed in SEEDS:
            for strategy in ("full", "head-only"):
                put(strategy, seed, 0.5, more=AT_TRIVIAL)
        assert difference(only(compared(metric="accuracy")), "head-only").verdict is Verdict.INCONCLUSIVE


class TestWhatIsKeptApart:
    @pytest.mark.parametrize(
        ("changes", "column"),
        [
            ({"source": "sample"}, "data_source"),
            ({"test_rows": "other rows"}, "test_digest"),
            ({"tags": {"data.protocol": "a tenth held out"}}, "protocol"),
            ({"tags": {"hardware": "another machine"}}, "hardware"),
            ({"tags": {"precision": "bf16"}}, "precision"),
            ({"hyper": {"lr": 1e-3}}, "lr"),
            ({"hyper": {"epochs": 3}}, "epochs"),
            ({"hyper": {"warmup": 0.1}}, "other_hyper"),
            ({"model_digest": "other weights"}, "model_digest"),
            ({"tags": {"alue_bench.version": "9.9"}}, "version"),
        ],
    )
    def test_runs_that_differ_in_more_than_strategy_and_seed(
        self, changes: dict[str, Any], column: str, put: Any, compared: Any
    ) -> None:
        put("full"), put("head-only", **changes)
        blocks = compared().blocks
        assert len(blocks) == 2
        for block in blocks:
            assert column in block.differing
            assert set(block.differing) <= {column, "train_digest", "dev_digest"}
            assert len(block.rows) == 1
            assert describe_conditions(block)
        assert describe_conditions(blocks[0]) != describe_conditions(blocks[1])

    def test_but_not_runs_with_and_without_cuda_graphs(self, put: Any, compared: Any) -> None:
        gpu = {"device": "cuda", "precision": "bf16"}
        put("full", tags={**gpu, "cuda_graphs": "yes"}), put("lora-r8", tags=gpu)
        assert len(compared().blocks) == 1

    @pytest.mark.parametrize(
        ("numbers", "told"),
        [
            ((64, 200), [r"test rows 64", r"test rows 200"]),
            ((64, 64), [r"test rows 64 \(set [0-9a-f]{6}\)"] * 2),
            ((None, 64), [r"test rows \(set [0-9a-f]{6}\)", r"test rows 64"]),
        ],
    )
    def test_rows_are_told_by_their_number_and_by_their_set_where_the_number_is_the_same(
        self, numbers: tuple[float | None, float], told: list[str], put: Any, compared: Any
    ) -> None:
        for place, number in enumerate(numbers):
            recorded = {"data/test_rows": float("nan") if number is None else number}
            put("full", test_rows=f"set {place}", more=recorded)
        said = [describe_conditions(block) for block in compared().blocks]
        assert all(any(re.fullmatch(pattern, one) for one in said) for pattern in told)
        assert len(set(said)) == 2

    def test_low_fidelity_runs_of_a_search_are_named_in_its_heading(self, put: Any, compared: Any) -> None:
        put("full"), put("full", hyper={"epochs": 1}, tags={"search.first_look": "yes"})
        said = sorted(describe_conditions(block) for block in compared().blocks)
        assert said == ["epochs 10", "low-fidelity runs of a search (no answer rests on them); epochs 1"]

    def test_tasks_and_models(self, put: Any, compared: Any) -> None:
        put("full"), put("full", task="ohsd"), put("full", model="other")
        assert [(block.task, block.model) for block in compared().blocks] == [
            ("ohsd", "mini"),
            ("oold", "mini"),
            ("oold", "other"),
        ]
        assert all(block.differing == () for block in compared().blocks)

    def test_libraries_of_different_versions_are_named(self, put: Any, compared: Any) -> None:
        put("full"), put("head-only", tags={"versions": '{"alue-bench": "0.1.0", "torch": "1.0"}'})
        (note,) = only(compared()).notes
        assert "torch 1.0 and 2." in note

    def test_two_results_for_one_seed_are_not_averaged(self, put: Any, compared: Any) -> None:
        put("full"), put("head-only"), put("head-only", providers={"alue-bench": "0.1.0", "plugin": "2.0"})
        block = only(compared())
        assert [row.seeds for row in block.rows] == [(42,), (42,)]
        assert any("older version of a plugin" in note for note in block.notes)


class TestOtherKindsOfTask:
    def test_several_labels_and_numbers(self, connection: Connection, compared: Any) -> None:
        rng = np.random.default_rng(3)
        marks = rng.integers(0, 2, (80, 3))
        numbers = rng.random(80)
        for seed in SEEDS:
            for strategy, noise in (("full", 0.1), ("head-only", 2.0)):
                flips = rng.random(marks.shape) < noise / 8
                plant(connection, spec("sec", strategy, seed), Labels.multilabel("a", "b", "c"), marks, marks ^ flips)
                guessed = numbers + noise * rng.standard_normal(80)
                plant(connection, spec("svreg", strategy, seed), Labels.regression(0, 1), numbers, guessed)
        multilabel, regression = compared().blocks
        assert (multilabel.metric, regression.metric) == ("test/jaccard_samples", "test/pearson")
        assert difference(multilabel, "head-only").verdict is Verdict.WORSE
        assert difference(regression, "head-only").verdict is Verdict.WORSE
        (spearman,) = compared(metric="spearman").blocks
        change = difference(spearman, "head-only")
        assert (change.verdict, change.reason) == (Verdict.NOT_TESTED, "there is no test of spearman over examples")


def test_a_plan_says_how_many_seeds_it_needs_from_finished_runs(put: Any, connection: Connection) -> None:
    for seed in SEEDS:
        put("full", seed, 0.8), put("head-only", seed, 0.8), put("top22", seed, 0.8)
    place, planned = (
        StoreLocation(connection.uri, connection.experiment),
        [spec("oold", "full", 1), spec("oold", "top22", 1)],
    )

    def needed(margin: str, strategy: str = "top22") -> list[Any]:
        margins = parse_margins(margin, DEFAULT_MARGIN)
        (advice,) = seeds_for_plan([planned[0], spec("oold", strategy, 1)], place, margins)
        return [(one.strategy, one.number, one.observed) for one in advice.needed]

    ((_, narrow, _),), ((name, wide, observed),) = needed("8pt"), needed("pearson=1%,f1_macro=40pt")
    assert (name, observed, wide) == ("top22", 3, 3)
    assert narrow is None or 3 < narrow <= MAX_SEEDS
    assert needed("0.1pt") == [("top22", None, 3)]
    assert {name for name, *_ in needed("1pt", "bottom1")} == {"head-only", "top22"}, "the variances of others"
    assert seeds_for_plan(planned[:1], place, Margins(DEFAULT_MARGIN)) == []
    elsewhere = seeds_for_plan(planned, StoreLocation(connection.uri, "no such experiment"), Margins(DEFAULT_MARGIN))
    assert describe_seeds(elsewhere, Margins(DEFAULT_MARGIN))[1].startswith("  oold/mini: not known, since the store")


def test_a_mean_that_leaves_undefined_scores_out_says_so(connection: Connection, compared: Any) -> None:
    gold = np.linspace(0, 1, 20)
    for seed in SEEDS:
        guessed = np.zeros(20) if seed == 44 else gold**2
        plant(connection, spec("svreg", "full", seed), Labels.regression(0, 1), gold, guessed)
    block = only(compared())
    assert block.notes == ("full: 1 of 3 scores are undefined and left out",)
    assert block.rows[0].score is not None
    assert block.rows[0].score.values == 2


def test_an_empty_store(compared: Any) -> None:
    assert compared() == Comparison(blocks=(), tested=0)
    assert compared(metric="f1_macro") == Comparison(blocks=(), tested=0)
