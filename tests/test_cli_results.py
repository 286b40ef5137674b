"""`alue-bench compare` and `export`: on results, and on stores that hold none, somebody else's, or very many."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CommandLine, Finished
from planted_runs import classes, plant, spec

from alue_bench.contract.task import Labels
from alue_bench.reporting.comparison import natural_order
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.reading import read_results
from benchmarks.large_store.command import multiply

BINARY = Labels.binary("NOT_OFF", "OFF")
GOLD = np.random.default_rng(0).integers(0, 2, 120)


def put(connection: Connection, strategy: str, seed: int, accuracy: float, task: str = "oold", **more: Any) -> str:
    keys = ("more", "tags", "status")
    how = {key: more.pop(key) for key in keys if key in more}
    predicted = classes(np.random.default_rng([seed, len(strategy)]), GOLD, accuracy, 2)
    return plant(connection, spec(task, strategy, seed, **more), BINARY, GOLD, predicted, **how)


@pytest.fixture(scope="module")
def filled(store: str) -> Connection:
    """Two tasks, of which one has three seeds and one has one."""
    connection = connect(store, "results of all kinds")
    for seed in (42, 43, 44):
        put(connection, "full", seed, 0.95)
        put(connection, "head-only", seed, 0.55)
    put(connection, "full", 42, 0.9, task="ohsd")
    put(connection, "bottom10top1", 42, 0.8, task="ohsd")
    put(connection, "bottom3top4", 42, 0.8, task="ohsd")
    put(connection, "top1", 42, 0.8, task="ohsd", status="FAILED")
    return connection


@pytest.fixture
def ask(alue_bench: CommandLine, filled: Connection) -> Callable[..., Finished]:
    def call(command: str, *arguments: object) -> Finished:
        return alue_bench(command, "--tracking-uri", filled.uri, "--experiment", filled.experiment, *arguments)

    return call


class TestCompare:
    def test_a_table_a_task_with_significance_and_what_the_signs_mean(self, ask: Any) -> None:
        said = ask("compare")
        assert said.code == 0, said.err
        assert "oold, mini: f1_macro" in said.out
        assert "real data; 3 seeds; trivial score 0.100 (baseline without a model)" in said.out
        (row,) = [line for line in said.out.splitlines() if "│ head-only" in line]
        assert re.search(
            r"head-only +│ 0\.\d+ ± 0\.\d+ │ −0\.\d+ ± 0\.\d+ \*+ │ +−\d+ % │ +0\.\d+ │ +worse │ 10\.0 s", row
        )
        assert re.search(r"margin 0\.009\d \(1% of full's score\)", said.out)
        assert "10.00×" in row
        assert re.search(
            r"  head-only trains in 10 ± .* points lower than full's, \d+ % of what full learnt \(p ", said.out
        )
        assert "* p < 0.05" in said.out
        assert "corrected (Holm) for 1 comparison" in said.out
        # The other task has one seed: never a star.
        (few,) = [line for line in said.out.splitlines() if "│ bottom3top4" in line]
        assert "†" in few
        assert "*" not in few
        assert "† fewer than 3 seeds, so no verdict" in said.out
        assert "1 run failed and is left out" in said.err

    def test_sorted_and_filtered(self, ask: Any) -> None:
        def strategies(*arguments: object) -> list[str]:
            said = ask("compare", "--format", "csv", *arguments)
            return [row["strategy"] for row in csv.DictReader(io.StringIO(said.out))]

        def shown(*arguments: object) -> list[str]:
            return re.findall(r"^\| ([a-z][\w-]+) \|", ask("compare", "--format", "markdown", *arguments).out, re.M)

        assert strategies("-t", "oold") == ["full", "head-only"]
        assert strategies("-t", "ohsd", "-s", "bottom3top4") == ["full", "bottom3top4"], "the baseline comes along"
        assert shown("-t", "ohsd") == ["strategy", "full", "bottom3top4", "bottom10top1"]
        assert shown("-t", "oold", "--sort", "time") == ["strategy", "head-only", "full"]
        assert shown("-t", "oold", "--sort", "score") == ["strategy", "full", "head-only"]
        assert shown("-t", "oold", "--baseline", "head-only") == ["strategy", "head-only", "full"]

    def test_a_name_that_no_run_bears_is_said(self, ask: Any) -> None:
        said = ask("compare", "-t", "ohsd", "-s", "bottom3top4", "-s", "bottom3top5")
        assert said.code == 0
        assert "--strategy bottom3top5: none of the selected finished runs uses it" in said.err
        assert "bottom3top4:" not in said.err

    def test_json_and_csv_hold_numbers(self, ask: Any, filled: Connection) -> None:
        document = json.loads(ask("compare", "--format", "json", "--resamples", "200").out)
        (block,) = [block for block in document["blocks"] if block["task"] == "oold"]
        full, head_only = block["rows"]
        assert block["conditions"]["hardware"]
        assert full["difference"] is None
        assert head_only["verdict"] == "worse"
        assert head_only["margin"] == block["margin"] == pytest.approx(0.01 * full["score"])
        assert 0 < -head_only["difference"] < head_only["loss_bound"] < -head_only["difference"] + 1
        assert head_only["p_corrected"] < 0.05
        assert head_only["p_examples_only"] == pytest.approx(1 / 201)
        frame = read_results(filled, tasks=["oold"], strategies=["head-only"]).frame
        assert head_only["score"] == pytest.approx(frame["test/f1_macro"].mean())
        assert head_only["run_ids"].split() == list(frame["run_id"])
        rows = list(csv.DictReader(io.StringIO(ask("compare", "--format", "csv", "--metric", "accuracy").out)))
        assert float(rows[-1]["score"]) == pytest.approx(frame["test/accuracy"].mean())
        assert len(rows) == 5

    def test_latex_is_well_formed(self, ask: Any) -> None:
        said = ask("compare", "--format", "latex").out
        assert said.count("{") == said.count("}")
        for environment in ("table", "tabular"):
            assert said.count(rf"\begin{{{environment}}}") == said.count(rf"\end{{{environment}}}") == 2
        assert r"$\Delta$ full" in said
        assert "f1\\_macro" in said
        rows = [line for line in said.splitlines() if line.endswith(r"\\")]
        assert re.findall(r"\\begin\{tabular\}\{(lr+)\}", said) == ["lrrrrrrrrr", "lrrrrrrrrrrr"]
        assert {line.count("&") for line in rows} == {9, 11}

    def test_misuse_is_told(self, ask: Any, alue_bench: CommandLine) -> None:
        for arguments, sentence in (
            (("--format", "html"), "--format is 'html'; it must be one of table, markdown, csv, json, latex"),
            (("--sort", "luck"), "--sort is 'luck'; it must be one of strategy, score"),
            (("--data-source", "fake"), "--data-source is 'fake'; it must be real or sample"),
            (("--metric", "bleu"), "--metric bleu: no run has it; there are accuracy"),
            (("--parent", "0123"), "there is no run '0123'"),
            (("--margin", "f1_micro=0.01,rouge=1%"), "--margin rouge=1%: no run has it; there are accuracy"),
            (("--margin", "0"), "--margin is '0', where '0' is no margin; write a loss between 0 and 1"),
        ):
            said = ask("compare", *arguments)
            assert said.code == 2
            assert sentence in said.err
        said = alue_bench("compare")
        assert said.code == 2
        assert "there is no store at" in said.err


class TestExport:
    def test_tables_that_are_tidy_and_exact(self, ask: Any, filled: Connection, tmp_path: Path) -> None:
        said = ask("export", tmp_path / "out" / "appendix")
        assert said.code == 0, said.err
        folder = tmp_path / "out" / "appendix"
        assert sorted(said.out.split()) == sorted(str(path) for path in folder.iterdir())
        frame = read_results(filled).frame
        wide = pd.read_csv(folder / "runs.csv")
        assert list(wide["run_id"]) == list(frame["run_id"])
        assert list(wide["test/f1_macro"]) == list(frame["test/f1_macro"]), "to the last bit"
        assert "artifact_uri" not in wide.columns
        long = pd.read_csv(folder / "metrics.csv")
        assert list(long.columns) == ["run_id", "task", "model", "strategy", "seed", "metric", "value"]
        back = long.pivot(index="run_id", columns="metric", values="value").loc[frame["run_id"]]
        assert list(back["test/accuracy"]) == list(frame["test/accuracy"])
        assert not long["value"].isna().any()
        text = (folder / "results.json").read_text()
        document = json.loads(text)
        assert text == json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        assert [run["score"] for run in document["runs"]] == list(frame["score"])
        assert document["left_out"]["failed"] == 1
        (environment,) = document["environments"]
        assert environment["libraries"] == {"torch": "2.13.0"}
        assert environment["runs"] == len(frame)
        assert {run["environment"] for run in document["runs"]} == {0}
        assert len(pd.read_csv(folder / "comparison.csv")) == 5

    def test_the_baseline_comes_along(self, ask: Any, tmp_path: Path) -> None:
        assert ask("export", tmp_path, "-t", "ohsd", "-s", "bottom3top4").code == 0
        compared = pd.read_csv(tmp_path / "comparison.csv")
        assert list(compared["strategy"]) == ["full", "bottom3top4"]
        assert compared["difference"].notna().tolist() == [False, True]

    def test_parquet_keeps_types(self, ask: Any, filled: Connection, tmp_path: Path) -> None:
        assert ask("export", tmp_path, "--format", "parquet", "-t", "oold").code == 0
        back = pd.read_parquet(tmp_path / "runs.parquet")
        assert str(back["seed"].dtype) == "Int64"
        assert str(back["start_time"].dtype) == "datetime64[ms, UTC]"
        assert len(back) == 6

    def test_the_checklist_says_what_is_missing(self, ask: Any, filled: Connection, tmp_path: Path) -> None:
        ask("export", tmp_path)
        text = (tmp_path / "checklist.md").read_text()
        frame = read_results(filled).frame
        known = [line for line in text.splitlines() if line.startswith("- [x]")]
        unknown = [line for line in text.splitlines() if line.startswith("- [ ]")]
        assert len(known) + len(unknown) == sum(line.startswith("- ") for line in text.splitlines())
        assert any(frame["test_digest"].iloc[0] in line for line in known)
        assert any(frame["model_digest"].iloc[0] in line for line in known)
        assert any("warmup 0.0" in line and "lr 2e-05" in line for line in known)
        assert any("the evaluation with the best dev score" in line for line in known)
        assert any("torch 2.13.0" in line for line in known)
        assert any("Seeds for each task, model and strategy: 1 to 3" in line for line in unknown)
        assert any("1 run failed" in line for line in unknown)
        assert any(line.startswith("- [ ] Energy: **missing**") for line in unknown)
        assert any(line.startswith("- [ ] Training FLOPs") for line in unknown)

    def test_a_file_in_the_way(self, ask: Any, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("mine")
        said = ask("export", tmp_path / "taken")
        assert (said.code, (tmp_path / "taken").read_text()) == (2, "mine")
        assert "taken is a file; name a folder" in said.err


class TestOddStores:
    """One sentence, no traceback, exit code 1 where there is nothing to show."""

    @pytest.fixture
    def odd(self, alue_bench: CommandLine, store: str, experiment: str) -> Any:
        connection = connect(store, experiment)

        def call(command: str, *arguments: object) -> Finished:
            return alue_bench(command, *arguments, "--tracking-uri", store, "--experiment", experiment)

        return connection, call

    @pytest.mark.parametrize(("command", "arguments"), [("compare", ()), ("export", ("out",))])
    def test_empty_failed_only_and_foreign(self, odd: Any, command: str, arguments: Any, experiment: str) -> None:
        connection, call = odd
        said = call(command, *arguments)
        assert (said.code, said.out) == (1, "")
        assert (
            f"experiment {experiment!r} has no finished run that fits the options. Start some with: alue-bench run"
            in said.err
        )
        put(connection, "full", 42, 0.9, status="FAILED")
        said = call(command, *arguments)
        assert said.code == 1
        assert "; 1 run failed and is left out" in said.err
        client = connection.client
        other = client.create_run(connection.experiment_id, tags={"mlflow.runName": "somebody's"}).info.run_id
        client.log_metric(other, "test/score", 1.0)
        client.set_terminated(other, "FINISHED")
        said = call(command, *arguments)
        assert said.code == 1
        assert "1 run in the experiment was written by another program" in said.err
        assert "Traceback" not in said.everything
        assert not Path("out").exists()

    def test_undefined_scores(self, odd: Any) -> None:
        connection, call = odd
        constant, gold = np.zeros(20), np.linspace(0, 1, 20)
        for seed in (42, 43, 44):
            plant(connection, spec("svreg", "full", seed), Labels.regression(0, 1), gold, gold**2)
            plant(connection, spec("svreg", "head-only", seed), Labels.regression(0, 1), gold, constant)
        said = call("compare")
        assert said.code == 0
        assert re.search(r"head-only │ +undefined │", said.out)
        assert json.loads(call("compare", "--format", "json").out)["blocks"][0]["rows"][1]["score"] is None
        assert call("export", "out").code == 0

    def test_very_many_runs(self, alue_bench: CommandLine, own_store: str, filled: Connection, tmp_path: Path) -> None:
        """The store has as many runs as CI can plant in seconds; `benchmarks.large_store` times ten thousand."""
        big = tmp_path / "big.db"
        multiply(Path(filled.uri.removeprefix("sqlite:///")), big, 40)
        where = ("--tracking-uri", f"sqlite:///{big}", "--experiment", filled.experiment)
        said = alue_bench("compare", "--format", "json", *where)
        assert said.code == 0, said.err
        document = json.loads(said.out)
        assert sum(len(block["rows"]) for block in document["blocks"]) == 5 * 40
        # Full's own copies too; one strategy with three seeds and its 39 copies, and full's 39.
        assert document["tested"] == 40 + 39
        assert "(Holm) for 79 comparisons" in alue_bench("compare", *where).out


def test_strategies_stand_in_the_order_of_their_numbers() -> None:
    names = ["bottom10", "bottom3top4", "bottom3", "top2", "full"]
    assert sorted(names, key=natural_order) == ["bottom3", "bottom3top4", "bottom10", "full", "top2"]
