"""Tables on the command line are complete on a narrow terminal, and show the same figures everywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_runs import classes, plant, spec
from rich.console import Console, RenderableType
from rich.table import Table

from alue_bench.contract.task import Labels
from alue_bench.executors.outcome import Outcome
from alue_bench.planning.build import build_plan
from alue_bench.planning.grid import Grid
from alue_bench.planning.request import PlanRequest
from alue_bench.reporting.comparison import Comparison, compare, mean_change
from alue_bench.reporting.comparison_table import change_text, text_tables
from alue_bench.reporting.numbers import percent
from alue_bench.tracking.connection import connect
from alue_bench.tracking.reading import read_results, read_targets
from alue_bench.views.tables import comparison_view, print_table, result_view
from alue_bench.views.wide_tables import Fitted

BINARY = Labels.binary("NOT_OFF", "OFF")
GOLD = np.random.default_rng(0).integers(0, 2, 120)
SHARES = {"full": 1.0, "bottom2": 0.5, "head-only": 0.0046}
SECONDS = {"full": (10.0, 30.0), "bottom2": (5.0, 27.0), "head-only": (1.0, 3.0)}


def lines(view: RenderableType, width: int = 80) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(view)
    shown = captured.get().splitlines()
    assert all(len(line) <= width for line in shown)
    return shown


def rows_of(shown: Sequence[str]) -> list[list[str]]:
    """The cells of each line of a table."""
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in shown if line[:1] in ("│", "┃")]


def cells_of(shown: Sequence[str]) -> set[str]:
    return {cell for row in rows_of(shown) for cell in row}


def numbers(names: Sequence[str], columns: int, number: str = "0.7821 ± 0.0373") -> Table:
    table = Table(title="Scores")
    table.add_column("strategy", no_wrap=True)
    for place in range(columns):
        table.add_column(f"column {place}", justify="right", no_wrap=True)
    for name in names:
        table.add_row(name, *[number] * columns)
    return table


def test_results_of_several_rates_are_not_averaged_over_them(registry: Any, folders_of_its_own: None) -> None:
    rates = {"lr": (2e-5, 5e-5)}
    request = PlanRequest(tasks=("anger",), models=("mini",), strategies=("full", "bottom2"), grid=Grid(settings=rates))
    metrics = {"params/trainable_share": 1.0, "flops/train_vs_full": 1.0, "runtime/train_s": 1.0}
    outcomes = [
        Outcome(planned, "finished", "id", metrics | {"test/score": 1e4 * planned.spec.hyper.lr})
        for planned in build_plan(request, registry).runs
    ]
    outcomes.append(replace(outcomes.pop(2), status="failed", cause="why"))  # the order alternates
    shown = lines(result_view(outcomes), width=200)
    cells = {(row[0], row[1]): row[2:] for row in rows_of(shown) if row[0] in ("full", "bottom2")}
    assert rows_of(shown)[0][1] == "lr"
    assert {key: row[-6] for key, row in cells.items()} == {
        ("full", "2e-05"): "0.200",
        ("full", "5e-05"): "0.500",
        ("bottom2", "2e-05"): "0.200",
        ("bottom2", "5e-05"): "–",
    }
    assert cells["bottom2", "2e-05"][-5] == "0.000"  # against full with the same rate
    assert any("failed anger/mini/bottom2/seed42, lr 5e-05: why" in line for line in shown)


class TestATable:
    def test_that_fits_is_drawn_as_it_is(self) -> None:
        table = numbers(["full", "bottom3top4"], 3)
        assert lines(Fitted(table)) == lines(table)

    def test_that_is_too_wide_goes_on_below_with_the_names_again(self) -> None:
        shown = lines(Fitted(numbers(["full", "bottom3top4-trainemb"], 7)))
        named = [row for row in rows_of(shown) if row[0] == "bottom3top4-trainemb"]
        assert len(named) > 1
        assert sum(row.count("0.7821 ± 0.0373") for row in named) == 7
        assert sum("Scores" in line for line in shown) == 1

    def test_wraps_headings_between_words_before_it_is_parted(self) -> None:
        table = Table()
        table.add_column("strategy", no_wrap=True)
        for _ in range(6):
            table.add_column("trainable parameters", justify="right", no_wrap=True)
        table.add_row("full", *["1,234"] * 6)
        shown = lines(Fitted(table), width=100)
        assert [row for row in rows_of(shown) if row[0] == "full"] == [["full", *["1,234"] * 6]]
        assert {"trainable", "parameters"} <= cells_of(shown)

    @given(
        st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,29}", fullmatch=True), min_size=1, max_size=4),
        st.lists(st.from_regex(r"[−+]?[0-9]{1,9}\.[0-9]{1,9}", fullmatch=True), min_size=1, max_size=12),
        st.integers(60, 200),
    )
    def test_never_cuts_a_name_or_a_number(self, names: list[str], figures: list[str], width: int) -> None:
        table = numbers([], len(figures))
        for name in names:
            table.add_row(name, *figures)
        assert {*names, *figures} <= cells_of(lines(Fitted(table), width))

    @pytest.mark.parametrize("width", [10, 20, 30])
    def test_folds_what_no_terminal_of_that_width_could_show_in_a_line(self, width: int) -> None:
        shown = lines(Fitted(numbers(["bottom3top4-trainemb"], 2, number="123456789012345")), width)
        folded = "".join(row[0] for row in rows_of(shown))
        assert "bottom3top4-trainemb" in folded
        assert "".join(row[1] for row in rows_of(shown)).count("123456789012345") >= 1

    def test_of_a_listing_keeps_words_and_numbers_whole(self) -> None:
        console = Console(width=80, color_system=None)
        with console.capture() as captured:
            row = ("aubmindlab/bert-base-arabertv02", "1,234,567,890", "words that wrap " * 6, "99.9 %")
            print_table(console, ("model", "trainable parameters", "what it is", "of all"), [row])
        assert {row[0], row[1], row[3]} <= cells_of(captured.get().splitlines())


@pytest.fixture
def compared(store: str, experiment: str) -> Comparison:
    connection = connect(store, experiment)
    for strategy, share in SHARES.items():
        for seed, seconds in zip((42, 43), SECONDS[strategy], strict=True):
            predicted = classes(np.random.default_rng([seed, len(strategy)]), GOLD, 0.5 + share / 3, 2)
            more = {"runtime/train_s": seconds, "params/trainable_share": share, "energy/cpu_j": 123456.0}
            plant(connection, spec("oold", strategy, seed), BINARY, GOLD, predicted, more=more)
    results = read_results(connection)
    return compare(results.frame, partial(read_targets, results))


@pytest.fixture
def outcomes(tiny_bert: Path, registry: Any, folders_of_its_own: None) -> list[Outcome]:
    request = PlanRequest(
        tasks=("anger",), models=(str(tiny_bert),), strategies=tuple(SHARES), seeds=(42, 43), sample=True
    )
    return [
        Outcome(run, "finished", "id", _metrics(run.spec.strategy, run.spec.seed))
        for run in build_plan(request, registry).runs
    ]


def _metrics(strategy: str, seed: int) -> dict[str, float]:
    return {
        "test/score": 0.8 if strategy == "full" else 0.7,
        "test/trivial_score": 0.451,
        "runtime/train_s": SECONDS[strategy][seed - 42],
        "params/trainable_share": SHARES[strategy],
        "flops/train_vs_full": SHARES[strategy],
    }


class TestInEightyColumns:
    def test_compare_shows_every_name_and_number(self, compared: Comparison) -> None:
        (table,) = text_tables(compared)
        shown = cells_of(lines(comparison_view(compared, sort="strategy")))
        for row in table.rows:
            assert set(row) - {""} <= shown
        assert {word for column in table.columns for word in column.split()} <= {w for c in shown for w in c.split()}

    def test_run_shows_its_last_column(self, outcomes: list[Outcome]) -> None:
        shown = lines(result_view(outcomes))
        narrow, wide = cells_of(shown), cells_of(lines(result_view(outcomes), width=120))
        assert "FLOPs" in narrow
        headings = {"task: metric, strategy", "train s", "Δ time"}  # which may take two lines
        assert wide - narrow <= headings
        assert {"full", "bottom2", "head-only", "anger: f1_macro", "0.451 trivial"} <= narrow


class TestNothingLearnt:
    @pytest.mark.parametrize("trivial", [0.8, 0.79])
    def test_run_says_that_full_did_not_learn(self, outcomes: list[Outcome], trivial: float) -> None:
        told = " ".join(lines(result_view(outcomes)))
        assert "did not learn" not in told
        as_trivial = [
            replace(o, metrics={**o.metrics, "test/trivial_score": trivial, "test/above_trivial_error": 0.02})
            for o in outcomes
        ]
        told = " ".join(" ".join(lines(result_view(as_trivial))).split())
        assert "anger/tiny-bert: full did not learn: its test score 0.800 is not above the trivial score 0." in told
        assert "try more data, more epochs or another --lr" in told


class TestFigures:
    def test_small_shares_keep_two_digits(self, outcomes: list[Outcome], compared: Comparison) -> None:
        assert [percent(share) for share in (0, 0.00046, 0.0046, 0.0099, 0.01, 0.28, 1)] == [
            "0 %",
            "0.046 %",
            "0.46 %",
            "0.99 %",
            "1 %",
            "28 %",
            "100 %",
        ]
        assert "0.46 %" in cells_of(lines(result_view(outcomes)))
        assert "0.46 %" in cells_of(lines(comparison_view(compared, sort="strategy")))

    def test_run_and_compare_say_the_same_change_of_time(self, outcomes: list[Outcome], compared: Comparison) -> None:
        """Half of the time with one seed and nine tenths with the other: 30 % less, though the sum is 20 % less."""
        (block,) = compared.blocks
        (row,) = [row for row in block.rows if row.strategy == "bottom2"]
        assert change_text(row.time_change).startswith("−30 % ± ")
        shown = rows_of(lines(result_view(outcomes), width=120))
        assert dict(zip(shown[0], _row(shown, "bottom2"), strict=True))["Δ time"] == "−30 %"

    def test_changes_are_told_apart_and_have_one_minus_sign(self, outcomes: list[Outcome]) -> None:
        shown = rows_of(lines(result_view(outcomes), width=120))
        assert len(set(shown[0])) == len(shown[0])
        assert dict(zip(shown[0], _row(shown, "bottom2"), strict=True))["Δ full"] == "−0.100"

    def test_a_change_needs_both_values(self) -> None:
        assert mean_change([(None, 1.0), (1.0, None), (1.0, 0.0), (float("nan"), 1.0)]) is None
        change = mean_change([(1.0, 2.0), (1.0, None)])
        assert change is not None
        assert change.mean == -0.5


def _row(shown: Sequence[list[str]], name: str) -> list[str]:
    (match,) = [row for row in shown if row[0] == name]
    return match
