"""`alue-bench run --tune`: what is tried, how values are chosen, and how tuned strategies are compared."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

from alue_bench.contract.errors import UsageError
from alue_bench.evaluation.best_of_budget import expected_best
from alue_bench.executors.outcome import Outcome
from alue_bench.planning.build import build_plan
from alue_bench.planning.grid import Grid
from alue_bench.planning.request import PlanRequest
from alue_bench.planning.tuning import parse_tuning
from alue_bench.studies.tuning import final_runs, tuned_strategies

pytestmark = pytest.mark.usefixtures("folders_of_its_own")


class TestNotation:
    @pytest.mark.parametrize(
        ("texts", "axes"),
        [
            (["lr=1e-5..1e-3/log5"], {"lr": (1e-5, 3.16e-5, 1e-4, 3.16e-4, 1e-3)}),
            (["lr=1e-4,1e-5"], {"lr": (1e-5, 1e-4)}),
            (["lr=1e-5..1e-4/log2 epochs=3,2"], {"lr": (1e-5, 1e-4), "epochs": (2, 3)}),
            (["batch-size=8..32/log3"], {"batch_size": (8, 16, 32)}),
        ],
    )
    def test_values(self, texts: list[str], axes: dict[str, tuple[float, ...]]) -> None:
        assert parse_tuning(texts) == axes

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("lr", "write NAME=VALUES"),
            ("select=best,last", "cannot be tuned"),
            ("lr=1e-4", "has one value"),
            ("lr=1e-3..1e-5/log5", "ascending order"),
            ("lr=1e-5..1e-3", "neither a number nor a range"),
            ("lr=0,1e-4", "lr is 0.0; it must be above 0"),
            ("epochs=1.5,2", "neither a whole number"),
        ],
    )
    def test_problems_name_the_culprit(self, text: str, problem: str) -> None:
        with pytest.raises(UsageError, match=problem):
            parse_tuning([text])


class TestBestOfBudget:
    def test_is_the_mean_over_all_draws(self) -> None:
        scores = [0.5, 0.9, 0.2]
        for k, expected in enumerate(expected_best(scores), start=1):
            draws = itertools.product(scores, repeat=k)
            assert expected == pytest.approx(statistics.fmean(max(draw) for draw in draws))

    def test_a_failed_trial_counts_as_the_lowest(self) -> None:
        assert expected_best([0.5, math.nan]) == expected_best([0.5, 0.5])
        assert expected_best([math.nan]) == []


class TestChoice:
    def test_test_scores_are_not_read(self, registry: Any, tiny_bert: Path) -> None:
        class DevOnly(dict[str, float]):
            def get(self, name: str, default: Any = None) -> Any:
                assert not name.startswith("test/")
                return super().get(name, default)

            def __getitem__(self, name: str) -> float:
                assert not name.startswith("test/")
                return super().__getitem__(name)

        axes = {"lr": (1e-5, 1e-4, 1e-3)}
        request = PlanRequest(
            tasks=("anger",), models=(str(tiny_bert),), strategies=("full", "bottom2"), sample=True, seeds=(42, 43),
            grid=Grid(settings=axes),
        )  # fmt: skip
        dev = {("full", 1e-5): 0.5, ("full", 1e-4): 0.7, ("full", 1e-3): math.nan, ("bottom2", 1e-3): 0.6}
        outcomes = []
        for run in build_plan(request, registry).runs:
            score = dev.get((run.spec.strategy, run.spec.hyper.lr), 0.4) + (run.spec.seed - 42) / 10
            metrics = DevOnly({"selection/dev_score": score, "test/score": 1 - score, "flops/train": 2.0})
            outcomes.append(Outcome(run, "finished", "id", metrics))
        full, bottom2 = tuned_strategies(outcomes, axes)
        assert full.chosen is not None
        assert bottom2.chosen is not None
        assert (full.chosen.values, full.at_edge(axes)) == ({"lr": 1e-4}, [])
        assert (bottom2.chosen.values, bottom2.at_edge(axes)) == ({"lr": 1e-3}, ["lr"])
        assert full.flops == bottom2.flops == 12.0  # the same budget
        final = final_runs([full, bottom2], (44, 45))
        assert [(run.spec.strategy, run.spec.hyper.lr, run.spec.seed) for run in final] == [
            ("full", 1e-4, 44), ("bottom2", 1e-3, 44), ("bottom2", 1e-3, 45), ("full", 1e-4, 45),
        ]  # fmt: skip


class TestCommand:
    SMALL = ("--limit-train", "40", "--limit-eval", "20", "--epochs", "1", "--batch-size", "8")

    def test_tunes_then_runs_with_fresh_seeds_and_gives_the_same_answer_again(
        self, run: CommandLine, alue_bench: CommandLine, store: str, experiment: str, tmp_path: Path
    ) -> None:
        arguments = ("-s", "full", "-s", "bottom2", "--tune", "lr=1e-4,1e-3", *self.SMALL)
        said = run(*arguments, "--json")
        shown = [line for line in said.err.splitlines() if "finished, " in line]
        assert ["dev f1_macro" in line for line in shown] == [True] * 4 + [False] * 2
        first = json.loads(said.out)
        tuning = first["tuning"]
        assert (tuning["tune_seeds"], tuning["seeds"]) == ([42], [43])
        assert [done["status"] for done in first["runs"]] == ["finished"] * 2
        for one in tuning["strategies"]:
            best = max(one["trials"], key=lambda trial: trial["dev_score"])
            assert one["chosen"] == best["values"]
            assert one["cost"]["runs"] == 2
            assert one["expected_best_dev"][-1] <= best["dev_score"]
            of_strategy = [done for done in first["runs"] if done["strategy"] == one["strategy"]]
            assert {done["params"]["lr"] for done in of_strategy} == {one["chosen"]["lr"]}
        said = run(*arguments)
        assert "extend the range of --tune" in " ".join(said.out.split())
        again = json.loads(run(*arguments, "--json").out)
        assert again["tuning"] == tuning
        assert {done["status"] for done in again["runs"]} == {"reused"}

        where = ("--experiment", experiment, "--tracking-uri", store)
        (compared,) = json.loads(alue_bench("compare", "--tuned", "--format", "json", *where).out)["tuned"]
        full, bottom2 = compared["rows"]
        assert (full["strategy"], full["seeds"], bottom2["common_seeds"]) == ("full", 1, 1)
        assert bottom2["tuning"]["chosen"] == tuning["strategies"][1]["chosen"]
        assert "tuning cost" in alue_bench("compare", "--tuned", *where).out
        page = tmp_path / "page.md"
        alue_bench("report", "-o", str(page), *where)
        assert "expected best dev score" in page.read_text().lower()
        assert "one learning rate for all strategies" in alue_bench("compare", "--format", "markdown", *where).out

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("--lr", "1e-4"), "both set lr"),
            (("--folds", "3"), "leave out --folds"),
            (("--init-seed", "1"), "leave out --init-seed"),
        ],
    )
    def test_contradictions_end_in_the_plan(self, run: CommandLine, arguments: tuple[str, ...], problem: str) -> None:
        said = run("-s", "full", "--tune", "lr=1e-4,1e-3", *arguments)
        assert said.code == 2
        assert problem in said.err

    def test_without_a_tuning_the_message_has_a_command(
        self, run: CommandLine, alue_bench: CommandLine, store: str, experiment: str
    ) -> None:
        run("-s", "full", *self.SMALL, "--limit-train", "16")
        said = alue_bench("compare", "--tuned", "--experiment", experiment, "--tracking-uri", store)
        assert said.code != 0
        assert "--tune lr=1e-5..1e-3/log5" in said.err


class TestStudyFile:
    def test_hyper_parameters_of_one_strategy(
        self, run: CommandLine, alue_bench: CommandLine, store: str, experiment: str, tmp_path: Path
    ) -> None:
        study = tmp_path / "own.toml"
        study.write_text("epochs = 1\nbatch_size = 8\nlr = 1e-4\n[strategy.full]\n[strategy.bottom2]\nlr = 1e-3\n")
        rows = ("--limit-train", "40", "--limit-eval", "20", "--json")
        runs = json.loads(run("--config", study, *rows).out)["runs"]
        assert {done["strategy"]: done["params"]["lr"] for done in runs} == {"full": 1e-4, "bottom2": 1e-3}
        where = ("--experiment", experiment, "--tracking-uri", store)
        (compared,) = json.loads(alue_bench("compare", "--tuned", "--format", "json", *where).out)["tuned"]
        assert [row["tuning"]["chosen"]["lr"] for row in compared["rows"]] == [1e-4, 1e-3]
        assert compared["rows"][1]["common_seeds"] == 1
        planned = json.loads(run("--config", study, "--lr", "1e-5", "--dry-run", *rows).out)["planned"]
        assert {one["hyper"]["lr"] for one in planned} == {1e-5}  # the command line overrides the file

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("[strategy.full]\nlearning_rate = 1\n", "unknown hyper-parameter 'learning_rate' in [strategy.full]"),
            ("[strategy.full]\nlr = -1.0\n", "lr in [strategy.full] is -1.0; it must be above 0"),
            ("[strategy]\nfull = 1\n", "strategy.full is 1; it must be a table"),
        ],
    )
    def test_problems_name_the_table(self, run: CommandLine, tmp_path: Path, content: str, problem: str) -> None:
        (tmp_path / "own.toml").write_text(content)
        said = run("--config", tmp_path / "own.toml")
        assert said.code == 2
        assert problem in " ".join(said.err.split())
