"""`alue-bench run`: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alue_bench_models import alue_bench_models
from conftest import SHORT, CommandLine

from alue_bench.contract.spec import HyperParameters


@pytest.fixture
def study(tmp_path: Path) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        path = tmp_path / "study.toml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


class TestJson:
    def test_the_document(self, run: CommandLine, experiment: str, store: str) -> None:
        said = run("-s", "full", "-s", "bottom2", "-s", "bottom9", "--json")
        assert said.code == 0
        document = json.loads(said.out)  # and nothing else is on stdout
        assert document.keys() == {"experiment", "tracking_uri", "varied", "runs", "skipped"}
        assert (document["experiment"], document["tracking_uri"]) == (experiment, store)
        assert [done["strategy"] for done in document["runs"]] == ["full", "bottom2"]
        for done in document["runs"]:
            assert done.keys() == {
                "task", "model", "strategy", "seed", "status", "run_id", "fingerprint", "data_source", "params",
                "metrics",
            }  # fmt: skip
            assert (done["task"], done["model"], done["seed"]) == ("anger", "tiny-bert", 42)
            assert (done["status"], done["data_source"]) == ("finished", "sample")
            assert done["params"].keys() == {*vars(HyperParameters()), "device", "precision"}
            assert {"test/score", "test/f1_macro", "runtime/train_s", "flops/train"} <= done["metrics"].keys()
        assert document["skipped"] == [
            {
                "task": "anger",
                "model": "tiny-bert",
                "strategy": "bottom9",
                "seed": 42,
                "reason": "bottom9 freezes 9 layers, but the model has only 4; bottom75% freezes the same share of any "
                "model as bottom9 of one with 12 layers",
            }
        ]

    def test_an_undefined_score_is_null(self, run: CommandLine, runs: Callable[..., list[Any]]) -> None:
        # One test row has no correlation with anything.
        said = run("-s", "full", "--limit-eval", "1", "--json", task="svreg")
        assert said.code == 0, said.err
        assert "NaN" not in said.out
        assert json.loads(said.out)["runs"][0]["metrics"]["test/score"] is None
        again = run("-s", "full", "--limit-eval", "1", "--json", task="svreg")
        assert json.loads(again.out)["runs"][0]["status"] == "reused"
        assert json.loads(again.out)["runs"][0]["metrics"]["test/score"] is None


class TestReuse:
    def test_the_same_command_again_repeats_nothing(self, run: CommandLine, runs: Callable[..., list[Any]]) -> None:
        arguments = ("-s", "full", "-s", "bottom2", "--json")
        first, second = (json.loads(run(*arguments).out)["runs"] for _ in range(2))
        assert [done["status"] for done in second] == ["reused", "reused"]
        for done, reused in zip(first, second, strict=True):
            assert done["metrics"].items() <= reused["metrics"].items()  # the last points of the curves are there too
            assert {**reused, "status": "finished", "metrics": done["metrics"]} == done
        assert len(runs("tags.kind = 'run'")) == 2

    def test_only_what_is_new_is_done(self, run: CommandLine) -> None:
        run("-s", "full")
        runs = json.loads(run("-s", "full", "-s", "bottom2", "--json").out)["runs"]
        assert [done["status"] for done in runs] == ["reused", "finished"]

    def test_none_is_full(self, run: CommandLine) -> None:
        run("-s", "full")
        (done,) = json.loads(run("-s", "none", "-s", "full", "--json").out)["runs"]
        assert (done["strategy"], done["status"]) == ("full", "reused")

    def test_rerun_does_it_again_with_the_same_result(self, run: CommandLine) -> None:
        first = json.loads(run("-s", "full", "--json").out)["runs"][0]
        again = json.loads(run("-s", "full", "--json", "--rerun").out)["runs"][0]
        assert (first["status"], again["status"]) == ("finished", "finished")
        assert first["run_id"] != again["run_id"]
        assert first["fingerprint"] == again["fingerprint"]
        assert first["metrics"]["test/score"] == again["metrics"]["test/score"]

    @pytest.mark.parametrize(
        "change",
        [("--lr", "1e-4"), ("--seed", "43"), ("--data-seed", "1"), ("--limit-eval", "20"), ("--limit-train", "20")],
    )
    def test_whatever_may_change_the_result_changes_the_fingerprint(
        self, run: CommandLine, change: tuple[str, str]
    ) -> None:
        plain, changed = (
            json.loads(run("-s", "full", "--dry-run", "--json", *more).out)["planned"][0]["fingerprint"]
            for more in ((), change)
        )
        assert plain != changed


class TestForPeople:
    def test_the_plan_then_progress_then_the_table_with_the_change_against_full(self, run: CommandLine) -> None:
        said = run("-s", "full", "-s", "bottom2", "--seeds", "2")
        assert said.code == 0
        assert said.err.index("Plan: 4 runs") < said.err.index("run 1/4 anger/tiny-bert/full/seed42: started")
        # The second seed has the strategies in reverse order.
        assert "run 4/4 anger/tiny-bert/full/seed43 [sample data]: finished, f1_macro" in said.err
        assert "Test scores (sample, tiny-bert, finished, mean of 2 seeds ± 95 % t-interval)" in said.out
        cells: dict[str, list[str]] = {}  # a table that is too wide has several parts
        for line in said.out.splitlines():
            if "│" in line:
                name, *others = (cell.strip() for cell in line.split("│")[1:-1])
                cells.setdefault(name, []).extend(others)
        assert "trivial" in cells["anger: f1_macro"][0]
        changes = {name: [one for one in cells[name] if re.match(r"[+−]\d\.\d{3}|0\.000", one)] for name in cells}
        assert (len(changes["full"]), len(changes["bottom2"])) == (0, 1)
        assert cells["full"].count("100 %") == 2
        assert re.search(r"alue-bench ui --experiment .* --tracking-uri", said.err)

    def test_every_view_of_sample_data_says_so(self, run: CommandLine) -> None:
        said = run("-s", "full")
        note = "sample: embedded data written for demonstration"
        assert note in said.err
        assert note in said.out

    def test_settings_are_shown_with_their_origin(self, run: CommandLine) -> None:
        assert "epochs=1 [command line]" in " ".join(run("--dry-run").err.split())

    def test_a_dry_run_leaves_nothing_behind(self, alue_bench: CommandLine, tiny_bert: Path, tmp_path: Path) -> None:
        said = alue_bench("run", "-t", "anger", "-m", tiny_bert, "-s", "full", "--dry-run")
        assert said.code == 0
        assert "Plan: 1 run " in said.err.replace("\n", " ")
        assert not list((tmp_path / "work").iterdir())

    def test_what_does_not_fit_is_skipped_with_its_reason(self, run: CommandLine) -> None:
        said = run("-s", "bottom2", "-s", "bottom3top4", "--dry-run")
        assert said.code == 0
        assert "skipped anger/tiny-bert/bottom3top4: bottom3top4 freezes 7 layers, but the model has only 4" in said.err

    def test_what_does_not_fit_is_said_once_however_many_seeds(self, run: CommandLine) -> None:
        said = run("-s", "bottom2", "-s", "bottom3top4", "--seeds", "2", "--dry-run")
        assert said.code == 0
        assert said.err.count("skipped anger/tiny-bert/bottom3top4") == 1

    def test_everything_available_is_the_default(self, alue_bench: CommandLine) -> None:
        said = alue_bench("run", "--dry-run", "--json")
        document = json.loads(said.out)
        assert {planned["model"] for planned in document["planned"]} == {"mini"}
        assert {planned["strategy"] for planned in document["planned"]} == {"full", "bottom3top4"}
        assert len({planned["task"] for planned in document["planned"]}) == 11
        assert {skipped["model"] for skipped in document["skipped"]} == {
            model.name for model in alue_bench_models()
        } - {"mini"}


class TestExitCodes:
    FAILS = """
import os
from pathlib import Path
from alue_bench import Model, hookimpl

def normalise(text):
    raise RuntimeError("the preprocessor is out of order")

@hookimpl
def alue_bench_models():
    return [Model(name="fails", title="t", checkpoint=Path({folder!r}), normalise=normalise, normalisation="n")]
"""

    def test_1_where_a_run_failed_and_the_others_went_on(self, install: Any, run: CommandLine, tiny_bert: Path) -> None:
        install("alue-bench-failing", self.FAILS.format(folder=str(tiny_bert)))
        said = run("-m", tiny_bert, "-s", "full", "--json", model="fails")
        assert said.code == 1
        failed, fine = json.loads(said.out)["runs"]
        assert (failed["status"], fine["status"]) == ("failed", "finished")
        assert failed["cause"] == "RuntimeError: the preprocessor is out of order"
        assert "failed anger/fails/full/seed42: RuntimeError: the preprocessor is out of order" in said.err
        assert "Traceback" not in said.everything

    def test_fail_fast_stops_there(self, install: Any, run: CommandLine, tiny_bert: Path) -> None:
        install("alue-bench-failing", self.FAILS.format(folder=str(tiny_bert)))
        said = run("-m", tiny_bert, "-s", "full", "--json", "--fail-fast", model="fails")
        assert said.code == 1
        assert [done["model"] for done in json.loads(said.out)["runs"]] == ["fails"]

    def test_2_where_nothing_is_left_to_run(self, run: CommandLine) -> None:
        said = run("-s", "bottom9")
        assert said.code == 2
        assert "nothing to run: bottom9 freezes 9 layers, but the model has only 4" in said.err

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("run", "--warmup", "2"), "command line: warmup is 2.0; it must be at least 0 and below 1"),
            (("run", "--select", "worst"), "command line: select is 'worst'; it must be best or last"),
            (("sweep", "--grid", "lr=-1", "-s", "full"), "lr"),
            (("run", "-s", "full", "--jobs", "0"), "--jobs is 0; it must be at least 1"),
            (("run", "-s", "full", "--executor", "nope"), "--executor 'nope' is unknown"),
            (("sweep", "-t", "anger", "--jobs", "0"), "--jobs is 0; it must be at least 1"),
            (("search", "-t", "anger", "--jobs", "0"), "--jobs is 0; it must be at least 1"),
        ],
    )
    def test_2_and_one_line_for_a_value_that_is_wrong_whatever_the_task_and_model(
        self, alue_bench: CommandLine, arguments: tuple[str, ...], told: str
    ) -> None:
        said = alue_bench(*arguments)
        assert said.code == 2
        (line,) = said.err.splitlines()
        assert told in line

    @pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--help"), ("--version",)])
    def test_0_for_help(self, alue_bench: CommandLine, arguments: tuple[str, ...]) -> None:
        said = alue_bench(*arguments)
        assert said.code == 0
        assert said.everything

    @pytest.mark.parametrize("arguments", [("rnu",), ("run", "--tsk", "anger"), ("run", "--epochs", "many")])
    def test_2_for_an_option_that_is_not_one(self, alue_bench: CommandLine, arguments: tuple[str, ...]) -> None:
        said = alue_bench(*arguments)
        assert said.code == 2
        assert said.err
        assert "Traceback" not in said.everything


class TestStudyFile:
    def test_it_holds_any_option_and_the_command_line_wins(
        self, alue_bench: CommandLine, study: Any, tiny_bert: Path, store: str, experiment: str
    ) -> None:
        path = study(
            f"""
            task = ["anger", "oold"]
            model = "{tiny_bert}"
            strategy = ["full", "bottom2"]
            seeds = 3
            epochs = 1
            lr = 1
            select = "last"
            limit_train = 48
            limit_eval = 32
            max_length = 24
            experiment = "{experiment}"
            tracking_uri = "{store}"
            """
        )
        said = alue_bench("run", "-c", path, "-t", "ohsd", "--lr", "0.001", "--seed", "7", "-s", "full", "--json")
        assert said.code == 0, said.err
        document = json.loads(said.out)
        (done,) = document["runs"]
        assert (done["task"], done["strategy"], done["seed"]) == ("ohsd", "full", 7)
        assert (done["params"]["lr"], done["params"]["select"]) == (0.001, "last")
        assert document["experiment"] == experiment

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ('task = "anger"\nlearning_rate = 1\n', ":2: unknown key 'learning_rate'; known are task, model"),
            ('task = "anger"\n\nepochs = \n', ":3: not valid TOML"),
            ('task = "anger\n', ":1: not valid TOML"),
            ("epochs = 1.5\n", ":1: epochs is 1.5; it must be of type int"),
            ('# a study\nlr = "fast"\n', ":2: lr is 'fast'; it must be of type float"),
            ("epochs = true\n", ":1: epochs is True; it must be of type int"),
            ("task = 3\n", ":1: task is 3; it must be of type str"),
            ("task = [1]\n", ":1: task is 1; it must be of type str"),
            ("seeds = 0\n", ":1: seeds is 0; it must be at least 1"),
            ("lr = -1e-5\n", ":1: lr is -1e-05; it must be above 0"),
            ('select = "worst"\n', ":1: select is 'worst'; it must be best or last"),
            ("[run]\nepochs = 1\n", ":1: unknown key 'run'"),
        ],
    )
    def test_a_mistake_is_named_by_file_and_line(self, run: CommandLine, study: Any, content: str, said: str) -> None:
        path = study(content)
        answer = run("--config", path, "--dry-run")
        assert answer.code == 2
        assert f"alue-bench: {path}{said}" in answer.err
        assert "Traceback" not in answer.everything


def test_a_folder_with_blanks_and_arabic_letters_is_a_folder_like_any_other(
    alue_bench: CommandLine, tiny_bert: Path, store: str, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "my studies" / "دراسة #1"
    folder.mkdir(parents=True)
    shutil.copy(store.removeprefix("sqlite:///"), folder / "mlflow.db")
    shutil.copytree(tiny_bert, folder / "نموذج صغير")
    said = alue_bench(
        "run", "-t", "anger", "-m", folder / "نموذج صغير", "-s", "full", *SHORT,
        "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}", "--experiment", "تجربة 1", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert list((folder / "artifacts").rglob("predictions.csv"))
