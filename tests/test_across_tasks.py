"""Statistics across tasks and of training times: known values, the coverage of intervals, and what is shown."""

from __future__ import annotations

import csv
import io
import json
import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_runs import classes, plant, spec
from scipy.stats import binom

from alue_bench.contract.task import Labels
from alue_bench.evaluation.across_tasks import (
    geometric_mean_over_tasks,
    interquartile_mean,
    mean_over_tasks,
    performance_profile,
    resampled_tasks,
    wins_ties_losses,
)
from alue_bench.evaluation.intervals import estimate
from alue_bench.evaluation.ratios import geometric_mean
from alue_bench.reporting.across_table import across_as_csv, across_as_json, across_as_markdown, across_tables
from alue_bench.reporting.across_tasks import AcrossTasks, across_tasks
from alue_bench.reporting.comparison import compare
from alue_bench.reporting.training_times import compare_times, time_legend
from alue_bench.tracking.connection import connect
from alue_bench.tracking.reading import Results, read_results, read_targets

REPLICATIONS = 400


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], 4.5),
        ([1, 2, 3, 100], 2.5),
        ([5, 4, 3, 2, 1], 3.0),
        ([-9, 0, 1], (-9 * 1 / 6 + 0 * 4 / 6 + 1 * 1 / 6)),
    ],
)
def test_the_interquartile_mean_is_that_of_the_middle_half(values: list[float], expected: float) -> None:
    assert float(interquartile_mean(np.array(values, dtype="float64"))) == pytest.approx(expected)


class TestTheIntervalOverTasks:
    def test_of_one_seed_each_is_the_t_interval_of_the_tasks(self) -> None:
        changes = [-0.05, -0.01, -0.03, -0.02, 0.01, -0.04, -0.03, -0.06]
        over, t_interval = mean_over_tasks([[change] for change in changes], resamples=20_000), estimate(changes)
        assert t_interval is not None
        assert over.mean.mean == pytest.approx(t_interval.mean)
        assert over.mean.half_width == pytest.approx(t_interval.half_width, rel=0.03)
        assert over.mean.values == 8

    def test_has_the_variance_of_tasks_and_seeds_each_once(self) -> None:
        """The mean's variance is (variance between tasks + variance of seeds / seeds) / tasks."""
        rng = np.random.default_rng(1)
        values = rng.normal(0, 2, (40, 1)) + rng.normal(0, 3, (40, 3))
        drawn = resampled_tasks(values.tolist(), resamples=20_000).mean(axis=1)
        assert drawn.var() == pytest.approx(values.mean(axis=1).var(ddof=1) / 40, rel=0.05)

    @pytest.mark.parametrize(("between", "lowest"), [(0.0, 0.95), (1.0, 0.95), (3.0, 0.95)])
    def test_covers_the_truth_about_as_often_as_it_says(self, between: float, lowest: float) -> None:
        """Eight tasks of three seeds; where tasks do not differ the interval errs on the safe side."""
        rng = np.random.default_rng(7)
        effects = -1 + between * rng.standard_normal((REPLICATIONS, 8, 1))
        worlds = effects + 1.8 * rng.standard_normal((REPLICATIONS, 8, 3))
        hits = {"mean": 0, "iqm": 0}
        for world in worlds:
            over = mean_over_tasks(world.tolist(), resamples=200)
            for name in hits:
                low, high = getattr(over, name).interval
                hits[name] += low <= -1 <= high
        bounds = [float(binom.ppf(q, REPLICATIONS, lowest)) for q in (0.0005, 0.9995)]
        assert hits["mean"] >= bounds[0]
        assert hits["iqm"] >= bounds[0] - 0.01 * REPLICATIONS
        if between == 3:
            assert hits["mean"] <= bounds[1]

    def test_is_the_same_every_time_and_refuses_too_few_tasks(self) -> None:
        values = [[-0.01, 0.02], [0.0], [-0.03, -0.02, 0.01]]
        assert mean_over_tasks(values) == mean_over_tasks(values)
        assert mean_over_tasks(values, seed=1) != mean_over_tasks(values)
        with pytest.raises(ValueError, match="2 tasks: a statement across tasks needs at least 3"):
            mean_over_tasks(values[:2])
        with pytest.raises(ValueError, match="a task has no value"):
            mean_over_tasks([*values, []])

    def test_is_of_width_zero_where_all_changes_are_equal(self) -> None:
        assert mean_over_tasks([[0.5, 0.5]] * 3).mean.half_width == pytest.approx(0)


def test_wins_and_losses_are_counted_beyond_what_a_table_shows() -> None:
    counted = wins_ties_losses([0.01, 0.0004, -0.0004, -0.02, -0.03])
    assert (counted.wins, counted.ties, counted.losses) == (1, 2, 2)


def test_a_profile_is_the_share_of_tasks_within_a_distance_of_the_best() -> None:
    scores = np.array([[0.9, 0.7, 0.8], [0.88, 0.75, math.nan]])
    assert performance_profile(scores, [0, 0.02, 0.05]) == pytest.approx(np.array([[2, 2, 3], [1, 2, 2]]) / 3)


class TestSpeedUps:
    def test_are_averaged_geometrically(self) -> None:
        ratio = geometric_mean([2.0, 8.0])
        assert ratio is not None
        assert ratio.mean == pytest.approx(4)
        assert ratio.interval is not None
        low, high = ratio.interval
        assert low * high == pytest.approx(16)  # symmetric in the logarithm
        assert math.log(high / 4) == pytest.approx(12.7062 * math.log(2), rel=1e-4)  # t with one degree of freedom
        assert geometric_mean([float("nan"), 0.0]) is None

    def test_over_tasks_do_not_depend_on_which_time_is_divided(self) -> None:
        ratios = [[1.5, 1.6], [2.0, 2.1], [0.9, 1.0], [1.2]]
        over, inverse = (
            geometric_mean_over_tasks(given) for given in (ratios, [[1 / r for r in task] for task in ratios])
        )
        assert over.mean == pytest.approx(1 / inverse.mean)
        assert over.interval is not None
        assert inverse.interval is not None
        assert over.interval[0] == pytest.approx(1 / inverse.interval[1])

    @pytest.mark.parametrize(
        ("sessions", "within", "ratios"),
        [
            (["a", "a"], True, (2.0, 4.0)),
            (["a", "b"], True, (2.0,)),  # one pair is of this session
            (["b", "c"], False, (2.0, 4.0)),
            ([None, pd.NA], False, (2.0, 4.0)),  # an old store
        ],
    )
    def test_are_of_one_session_or_have_no_interval(
        self, sessions: list[Any], within: bool, ratios: tuple[float, ...]
    ) -> None:
        ours = [
            {"runtime/train_s": seconds, "session": session, "runtime/prefix_reused": 1.0}
            for seconds, session in zip((50.0, 25.0), sessions, strict=True)
        ]
        base = {"runtime/train_s": 100.0, "session": sessions[0] and "a"}
        times = compare_times(ours, [(run, base) for run in ours])
        assert times.ratios == ratios
        assert (times.within_sessions, times.across_sessions, times.reused) == (within, not within, 2)
        assert times.speed_up is not None
        assert (times.speed_up.interval is not None) == (within and len(ratios) > 1)
        assert [line[0] for line in time_legend([times])] == (["Δ", "°"] if within else ["Δ", "§", "°"])


BINARY = Labels.binary("no", "yes")
GOLD = np.random.default_rng(0).integers(0, 2, 60)
TASKS = {"anger": 0.9, "mdd": 0.85, "oold": 0.8, "ohsd": 0.5}


class TestAStore:
    @pytest.fixture(scope="class")
    def results(self, store: str) -> Results:
        """Four tasks, on one of which full learnt nothing; one strategy on two tasks only."""
        connection = connect(store, "across tasks")
        for number, (task, accuracy) in enumerate(TASKS.items()):
            for strategy, factor in {"full": 1.0, "head-only": 0.8, "bottom3top4": 0.98}.items():
                for seed in (42, 43):
                    if strategy == "bottom3top4" and number > 1:
                        continue
                    predicted = classes(np.random.default_rng([seed, number]), GOLD, accuracy * factor, 2)
                    more = {"test/trivial_score": 0.95} if task == "ohsd" else {}
                    plant(connection, spec(task, strategy, seed), BINARY, GOLD, predicted, more=more)
        return read_results(connection)

    @pytest.fixture(scope="class")
    def across(self, results: Results) -> AcrossTasks:
        comparison = compare(results.frame, partial(read_targets, results))
        (found,) = across_tasks(comparison.blocks, results.frame)
        return found

    def test_has_the_numbers_that_a_hand_computation_gives(self, across: AcrossTasks, results: Results) -> None:
        assert across.tasks == ("anger", "mdd", "oold")
        full, head_only = across.rows
        assert (full.strategy, head_only.strategy) == ("full", "head-only")
        assert full.change is None
        scores = results.frame.set_index(["task", "strategy", "seed"])["score"].sort_index()
        changes, shares = [], []
        for task in across.tasks:
            base = scores[task, "full"].mean()
            changes.append(scores[task, "head-only"].mean() - base)
            shares.append(changes[-1] / (base - 0.1))
        assert list(head_only.changes.values()) == pytest.approx(changes)
        assert head_only.change is not None
        assert head_only.share is not None
        assert head_only.counts is not None
        assert head_only.speed_up is not None
        assert head_only.change.mean.mean == pytest.approx(np.mean(changes))
        assert head_only.share.mean.mean == pytest.approx(np.mean(shares))
        assert (head_only.counts.losses, head_only.speed_up.mean) == (3, pytest.approx(10))
        assert (full.profile, head_only.profile[0]) == ((1.0,) * 5, 0.0)
        assert not head_only.across_sessions

    def test_says_what_is_left_out(self, across: AcrossTasks) -> None:
        assert across.notes == (
            "left out, since full did not learn: ohsd",
            "on fewer than 3 tasks, left out: bottom3top4",
        )

    def test_is_shown_in_every_format(self, across: AcrossTasks) -> None:
        summary, profile, per_task = across_tables([across])
        assert summary.rows[0][:2] == ("head-only", "3")
        assert summary.rows[0][6:] == ("0/0/3", "10.00× [10.00, 10.00]")
        assert profile.columns == ("strategy", "best", "≤ 1 %", "≤ 2 %", "≤ 5 %", "≤ 10 %")
        assert per_task.columns == ("strategy", "anger", "mdd", "oold")
        record = json.loads(across_as_json([across]))["across_tasks"][1]
        (_, row) = csv.DictReader(io.StringIO(across_as_csv([across])))
        assert float(row["change_mean"]) == pytest.approx(record["change_mean"])
        assert json.loads(row["changes"]) == record["changes"]
        assert across_as_markdown([across]).count("### Across 3 tasks, mini") == 3
        assert across_as_markdown([]) == ""
