"""Tables on the command line are complete on a narrow terminal, and show the same figures everywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_runs import classes, plant
from rich.console import Console, RenderableType
from rich.table import Table

from alue_bench.contract.task import Labels
from alue_bench.evaluation.margins import parse_margins
from alue_bench.executors.outcome import Outcome
from alue_bench.planning.build import build_plan
from alue_bench.planning.grid import Grid
from alue_bench.planning.request import PlanRequest
from alue_bench.reporting.comparison import DEFAULT_MARGIN, Comparison
from alue_bench.reporting.comparison_table import change_text, text_tables
from alue_bench.reporting.numbers import percent
from alue_bench.reporting.recorded import RecordedRuns
from alue_bench.tracking.connection import Connection, connect
from alue_bench.views.result_table import NOT_COMPARED_WARNING, result_view
from alue_bench.views.tables import comparison_view, print_table
from alue_bench.views.wide_tables import Fitted

BINARY = Labels.binary("NOT_OFF", "OFF")
GOLD = np.random.default_rng(0).integers(0, 2, 120)
SHARES = {"full": 1.0, "bottom2": 0.5, "head-only": 0.0046}
SECONDS = {"full": (10.0, 30.0, 20.0), "bottom2": (5.0, 27.0, 14.0), "head-only": (1.0, 3.0, 2.0)}
SEEDS = (42, 43, 44)


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


def test_results_of_several_rates_are_not_averaged_over_them(
    registry: Any, folders_of_its_own: None, store: str, experiment: str
) -> None:
    rates = {"lr": (2e-5, 5e-5)}
    request = PlanRequest(tasks=("anger",), models=("mini",), strategies=("full", "bottom2"), grid=Grid(settings=rates))
    connection = connect(store, experiment)
    outcomes = []
    for planned in build_plan(request, registry).runs:
        metrics = {"params/trainable_share": 1.0, "test/f1_macro": 1e4 * planned.spec.hyper.lr}
        metrics |= {"test/score": metrics["test/f1_macro"]}
        run_id = plant(connection, planned.spec, BINARY, GOLD, GOLD, more=metrics)
        outcomes.append(Outcome(planned, "finished", run_id, metrics))
    outcomes.append(replace(outcomes.pop(2), status="failed", cause="why", run_id=""))  # the order alternates
    compared = RecordedRuns(connection, [outcome.run_id for outcome in outcomes if outcome.run_id]).comparison
    shown = lines(result_view(outcomes, compared), width=200)
    at = {name: place for place, name in enumerate(rows_of(shown)[0])}
    cells = {(row[0], row[1]): row for row in rows_of(shown) if row[0] in ("full", "bottom2")}
    assert rows_of(shown)[0][1] == "lr"
    assert {key: row[at["score"]] for key, row in cells.items()} == {
        ("full", "2e-05"): "0.200",
        ("full", "5e-05"): "0.500",
        ("bottom2", "2e-05"): "0.200",
        ("bottom2", "5e-05"): "–",
    }
    assert cells["bottom2", "2e-05"][at["Δ full"]] == "0.000 †"  # against full with the same rate
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


@dataclass
class Recorded:
    """Three strategies with three seeds: what `run` has in memory, and the same runs in the store."""

    outcomes: list[Outcome]
    runs: RecordedRuns

    @property
    def comparison(self) -> Comparison:
        return self.runs.comparison

    def view(self) -> RenderableType:
        return result_view(self.outcomes, self.comparison)


@pytest.fixture
def recorded(tiny_bert: Path, registry: Any, folders_of_its_own: None, store: str, experiment: str) -> Recorded:
    return planted_plan(tiny_bert, registry, connect(store, experiment), trivial=0.3)


def planted_plan(tiny_bert: Path, registry: Any, connection: Connection, *, trivial: float) -> Recorded:
    request = PlanRequest(
        tasks=("anger",), models=(str(tiny_bert),), strategies=tuple(SHARES), seeds=SEEDS, sample=True
    )
    outcomes = []
    for planned in build_plan(request, registry).runs:
        strategy, seed = planned.spec.strategy, planned.spec.seed
        predicted = classes(np.random.default_rng([seed, len(strategy)]), GOLD, 0.5 + SHARES[strategy] / 3, 2)
        more = {
            "runtime/train_s": SECONDS[strategy][seed - 42],
            "params/trainable_share": SHARES[strategy],
            "flops/train_vs_full": SHARES[strategy],
            "energy/cpu_j": 123456.0,
            "test/trivial_score": trivial,
            "test/above_trivial_error": 0.04,
        }
        run_id = plant(connection, planned.spec, BINARY, GOLD, predicted, more=more)
        outcomes.append(Outcome(planned, "finished", run_id, more))
    runs = RecordedRuns(connection, [outcome.run_id for outcome in outcomes])
    scores = runs.results.frame.set_index("run_id")["test/f1_macro"]
    scored = [replace(one, metrics={**one.metrics, "test/score": scores[one.run_id]}) for one in outcomes]
    return Recorded(scored, runs)


class TestInEightyColumns:
    def test_compare_shows_every_name_and_number(self, recorded: Recorded) -> None:
        (table,) = text_tables(recorded.comparison)
        shown = cells_of(lines(comparison_view(recorded.comparison, sort="strategy")))
        for row in table.rows:
            assert set(row) - {""} <= shown
        assert {word for column in table.columns for word in column.split()} <= {w for c in shown for w in c.split()}

    def test_run_shows_its_last_column(self, recorded: Recorded) -> None:
        shown = lines(recorded.view())
        narrow, wide = cells_of(shown), cells_of(lines(recorded.view(), width=160))
        assert "FLOPs" in narrow
        headings = {"task: metric, strategy", "loss up to", "train s", "Δ time"}  # which may take two lines
        assert wide - narrow <= headings
        assert {"full", "bottom2", "head-only", "anger: f1_macro", "0.300 trivial"} <= narrow


class TestRun:
    @pytest.mark.parametrize("margin", ["1%", "5pt"])
    def test_shows_the_changes_intervals_and_verdicts_of_compare(self, recorded: Recorded, margin: str) -> None:
        runs = RecordedRuns(
            recorded.runs.connection, recorded.runs.run_ids, None, parse_margins(margin, DEFAULT_MARGIN)
        )
        (table,) = text_tables(runs.comparison)
        ours = rows_of(lines(result_view(recorded.outcomes, runs.comparison), width=200))
        common = [name for name in ours[0] if name in table.columns]
        assert common == ["score", "Δ full", "loss up to", "verdict", "Δ time", "trained", "FLOPs"]
        for theirs in table.rows:
            row, of_compare = _row(ours, theirs[0]), dict(zip(table.columns, theirs, strict=True))
            assert {name: row[ours[0].index(name)] for name in common} == {name: of_compare[name] for name in common}
            assert of_compare["strategy"] == "full" or of_compare["verdict"] in ("worse", "inconclusive")

    def test_compares_nothing_that_is_not_in_the_store(self, recorded: Recorded) -> None:
        elsewhere = [replace(outcome, run_id="kept on this machine") for outcome in recorded.outcomes]
        for comparison, problem in ((None, "no changes and verdicts: why"), (recorded.comparison, "")):
            shown = lines(result_view(elsewhere, comparison, [problem] if problem else []), width=200)
            head, *_ = rows_of(shown)
            assert dict(zip(head, _row(rows_of(shown), "bottom2"), strict=True))["Δ full"] == ""
            assert any((problem or NOT_COMPARED_WARNING) in line for line in shown)

    def test_keeps_runs_of_other_conditions_apart(self, recorded: Recorded) -> None:
        """A seed that was run on other hardware earlier, and is reused, is not averaged with the others."""
        connection = recorded.runs.connection
        elsewhere = [one.run_id for one in recorded.outcomes if one.spec.seed == 44]
        for run_id in elsewhere:
            connection.client.set_tag(run_id, "hardware", "another machine")
        compared = RecordedRuns(connection, recorded.runs.run_ids).comparison
        shown = rows_of(lines(result_view(recorded.outcomes, compared), width=240))
        conditions = shown[0].index("conditions")
        assert [row[conditions] for row in shown if row[0] == "bottom2" and "another" in row[conditions]] == [
            "hardware another machine"
        ]
        assert len([row for row in shown if row[0] == "bottom2"]) == 2

    def test_says_that_full_did_not_learn(
        self, tiny_bert: Path, registry: Any, folders_of_its_own: None, store: str, experiment: str, recorded: Recorded
    ) -> None:
        assert "did not learn" not in " ".join(lines(recorded.view()))
        nothing = planted_plan(tiny_bert, registry, connect(store, f"{experiment} 2"), trivial=0.95)
        told = " ".join(" ".join(lines(nothing.view())).split())
        assert "anger/tiny-bert: full did not learn: its test score 0." in told
        assert "try more data, more epochs or another --lr" in told
        cells = cells_of(lines(nothing.view(), width=200))
        assert {"learnt nothing", "3 of 3"} <= cells
        assert not {"worse", "inconclusive", "within the margin"} & cells


class TestFigures:
    def test_small_shares_keep_two_digits(self, recorded: Recorded) -> None:
        assert [percent(share) for share in (0, 0.00046, 0.0046, 0.0099, 0.01, 0.28, 1)] == [
            "0 %",
            "0.046 %",
            "0.46 %",
            "0.99 %",
            "1 %",
            "28 %",
            "100 %",
        ]
        assert "0.46 %" in cells_of(lines(recorded.view()))
        assert "0.46 %" in cells_of(lines(comparison_view(recorded.comparison, sort="strategy")))

    def test_a_change_of_time_is_the_mean_over_seeds(self, recorded: Recorded) -> None:
        """Half, nine tenths and seven tenths of the time: 30 % less, though the sum is 23 % less."""
        (block,) = recorded.comparison.blocks
        (row,) = [row for row in block.rows if row.strategy == "bottom2"]
        assert change_text(row.time_change).startswith("−30 %")


def _row(shown: Sequence[list[str]], name: str) -> list[str]:
    (match,) = [row for row in shown if row[0] == name]
    return match
