"""The published tables, and our results beside them."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from alue_bench.contract.errors import UsageError
from alue_bench.reporting.published import F1, TITLES, beside_published, published_results


def runs_of(**columns: object) -> pd.DataFrame:
    common = {"task": "oold", "model": "marbert", "hardware": "a", "data_source": "real"}
    return pd.DataFrame({**common, **columns})


TWO_SEEDS = {
    "strategy": ["full", "full", "bottom3top4", "bottom3top4", "head-only"],
    "test/f1_macro": [0.8, 0.9, 0.7, 0.9, 0.1],
    "test/f1_class_OFF": [0.6, 0.6, 0.5, 0.5, 0.0],
    "test/f1_class_anger": [math.nan] * 5,
    "runtime/train_s": [100.0, 100.0, 70.0, 80.0, 10.0],
}


class TestPublishedNumbers:
    def test_seven_tables_hold_four_models_each(self) -> None:
        table = published_results()
        assert table.groupby("table")["model"].nunique().to_dict() == dict.fromkeys(TITLES, 4)
        assert not table.isna().any().any()
        assert table["f1_full"].between(0, 1).all()
        assert table["f1_frozen"].between(0, 1).all()

    def test_the_changes_are_those_of_the_numbers_beside_them(self) -> None:
        """The tolerance is that of three printed digits: 0.0005 of F1 more or less on both sides."""
        table = published_results()
        change = 100 * (table["f1_frozen"] / table["f1_full"] - 1)
        assert ((change - table["f1_change_pct"]).abs() <= 100 * 0.001 / table["f1_full"] + 0.02).all()
        saving = 100 * (1 - table["runtime_frozen_s"] / table["runtime_full_s"])
        assert ((saving - table["runtime_saving_pct"]).abs() <= 0.02).all()

    def test_they_name_tasks_and_models_that_are_installed(self, registry: object) -> None:
        table = published_results()
        assert set(table["task"]) <= set(registry.tasks)  # type: ignore[attr-defined]
        assert set(table["model"]) <= set(registry.models)  # type: ignore[attr-defined]


class TestBeside:
    def test_means_over_seeds_stand_beside_the_published_numbers(self) -> None:
        table = beside_published(runs_of(**TWO_SEEDS), "f1_macro").set_index(["task", "model"]).loc[("oold", "marbert")]
        assert (table["published_f1_full"], table["published_f1_frozen"]) == (0.974, 0.980)
        assert (table["f1_full"], table["f1_frozen"]) == pytest.approx((0.85, 0.8))
        assert (table["runs_full"], table["runs_frozen"]) == (2, 2)
        assert table["f1_change_pct"] == pytest.approx(100 * (0.8 / 0.85 - 1))
        assert table["runtime_saving_pct"] == pytest.approx(25)

    def test_each_variant_of_f1_that_a_tasks_runs_have_is_shown_and_no_other(self) -> None:
        table = beside_published(runs_of(**TWO_SEEDS))
        ours = table[(table["task"] == "oold") & (table["model"] == "marbert")]
        assert set(ours["metric"]) == {"f1_macro", "f1_class_OFF"}

    def test_every_published_row_stays_without_runs(self) -> None:
        table = beside_published(runs_of(**TWO_SEEDS), "f1_macro")
        assert len(table) == len(published_results())
        others = table[(table["task"] != "oold") | (table["model"] != "marbert")]
        assert others["f1_full"].isna().all()
        assert (others["runs_full"] == 0).all()
        assert table["published_f1_full"].notna().all()

    def test_no_runs_at_all_leave_the_published_side(self) -> None:
        empty = pd.DataFrame({"task": [], "model": [], "strategy": [], "runtime/train_s": []}, dtype="object")
        assert len(beside_published(empty)) == len(published_results())

    @pytest.mark.parametrize("column", ["hardware", "data_source"])
    def test_runs_that_do_not_compare_are_not_averaged(self, column: str) -> None:
        mixed = runs_of(**TWO_SEEDS).assign(**{column: ["x", "y", "x", "y", "x"]})
        with pytest.raises(UsageError, match=rf"oold with marbert do not compare: {column} is x; y"):
            beside_published(mixed, "f1_macro")

    def test_an_unknown_metric_is_named_with_those_there_are(self) -> None:
        with pytest.raises(UsageError, match=r"'f1_makro'.*f1_macro"):
            beside_published(runs_of(**TWO_SEEDS), "f1_makro")

    def test_only_f1_counts_as_a_variant_of_f1(self) -> None:
        assert F1.fullmatch("test/f1_class_NOT_OFF")
        assert not F1.fullmatch("test/accuracy")
        assert not F1.fullmatch("dev/f1_macro")
