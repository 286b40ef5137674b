"""Commands that messages offer to copy: they parse, name what the user asked for, and are quoted for a shell."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from conftest import REPOSITORY, SHORT, CommandLine
from hypothesis import given
from hypothesis import strategies as st
from planted_runs import plant, spec

from alue_bench.cli.main import app
from alue_bench.contract.errors import UsageError
from alue_bench.contract.task import Labels
from alue_bench.messages.suggestion import PROGRAM, command_line
from alue_bench.tracking.connection import connect
from alue_bench.tracking.reading import read_results

GROUP: Any = typer.main.get_command(app)
HOSTILE = "an experiment; with $signs `and` 'quotes'"


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """The words of the command and its parameters, as the real parser takes them from a shell's line. Runs nothing."""
    program, *words = shlex.split(command)
    assert program == PROGRAM
    one, path = GROUP, ""
    context = one.make_context(PROGRAM, ["list"], resilient_parsing=True)
    while hasattr(one, "commands"):
        path = f"{path} {words[0]}".strip()
        one = one.commands[words.pop(0)]
    context = one.make_context(path, words, parent=context)
    return path, context.params


class TestCommandLine:
    @given(st.text(min_size=1).filter(lambda text: "\0" not in text and "://" not in text))
    def test_any_value_arrives_as_it_is(self, value: str) -> None:
        path, parameters = parsed(command_line("run", options={"experiment": value, "model": [value, "mini"]}))
        assert (path, parameters["experiment"], parameters["model"]) == ("run", value, [value, "mini"])

    def test_what_was_not_given_is_left_out_and_passwords_are_not_shown(self) -> None:
        options = {"task": [], "seed": None, "rerun": False, "sample": True, "tracking_uri": "http://me:secret@host"}
        assert command_line("run", options=options) == "alue-bench run --sample --tracking-uri 'http://***@host'"


def texts_of_the_sources() -> list[tuple[str, str]]:
    """Every text of the harness and its plugins that speaks of a command, with its file. Values that are filled in are
    `X`."""
    commands = []
    for path in sorted([*(REPOSITORY / "alue_bench").rglob("*.py"), *(REPOSITORY / "plugins").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            for command in re.findall(rf"{PROGRAM} ([a-z][a-z-]*(?: [^`;,()\n]*)?)", text):
                whole, *others = command.split("|")  # data status|add|verify
                commands += [(str(path), one) for one in (whole, *(f"{whole.rpartition(' ')[0]} {o}" for o in others))]
    return commands


def test_every_command_that_a_text_names_exists_with_its_options() -> None:
    wrong = []
    known = 0
    for path, text in texts_of_the_sources():
        words = text.split()
        if words[0] not in GROUP.commands:
            continue  # prose, such as "alue-bench gives"
        one: Any = GROUP
        while words and words[0] in getattr(one, "commands", {}):
            one = one.commands[words.pop(0)]
        known += 1
        options = {option for parameter in getattr(one, "params", ()) for option in parameter.opts}
        given = [word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)]
        wrong += [(path, text, word) for word in given if word not in options]
        if hasattr(one, "commands"):
            wrong.append((path, text, "needs a subcommand"))
    assert known > 25
    assert not wrong


class TestOfRuns:
    def test_the_last_words_of_a_run_lead_to_its_store_and_experiment(
        self, alue_bench: CommandLine, tmp_path: Path
    ) -> None:
        store = f"sqlite:///{tmp_path / 'a store' / 'mlflow.db'}"
        where = ("--tracking-uri", store, "--experiment", HOSTILE)
        said = alue_bench("run", "-t", "anger", "-m", "mini", "-s", "head-only", *SHORT, *where)
        assert said.code == 0, said.err
        (command,) = re.findall(r"Compare in the browser: (.*)", said.err)
        path, parameters = parsed(command)
        assert (path, parameters["tracking_uri"], parameters["experiment"]) == ("ui", store, HOSTILE)
        nothing = alue_bench("compare", "--tracking-uri", store, "--experiment", HOSTILE, "-t", "mdd")
        assert parsed(re.findall(r"Start some with: (alue-bench run .*)", nothing.err)[0])[1]["experiment"] == HOSTILE
        other = alue_bench("report", "--tracking-uri", store, "--experiment", HOSTILE, "--parent", "none")
        path, parameters = parsed(re.findall(r"(alue-bench ui .*) shows the plans", other.err)[0])
        assert (path, parameters["experiment"]) == ("ui", HOSTILE)

    def test_a_store_that_is_not_there_is_made_by_the_command_that_is_named(self, alue_bench: CommandLine) -> None:
        for command in ("compare", "ui", "report"):
            said = alue_bench(command, "--tracking-uri", "sqlite:///a place/mlflow.db", "--experiment", HOSTILE)
            path, parameters = parsed(re.findall(r"(alue-bench run .*) creates one", said.err)[0])
            assert (path, parameters["tracking_uri"]) == ("run", "sqlite:///a place/mlflow.db")
            assert parameters["experiment"] == HOSTILE

    def test_a_plan_of_another_experiment_is_told_with_its_own(self, store: str, tmp_path: Path) -> None:
        plans = connect(store, HOSTILE)
        run = plans.client.create_run(plans.experiment_id, tags={"kind": "plan"})
        with pytest.raises(UsageError, match="use its own: ") as told:
            read_results(connect(store, "another one"), parent_id=run.info.run_id)
        assert shlex.split(str(told.value).partition("use its own: ")[2]) == ["--experiment", HOSTILE]

    def test_a_study_of_another_command(self, alue_bench: CommandLine) -> None:
        Path("a study.toml").write_text('command = "sweep"\n')
        said = alue_bench("run", "--config", "a study.toml")
        path, parameters = parsed(said.err.partition("is a study for: ")[2])
        assert (path, parameters["config"]) == ("sweep", "a study.toml")

    def test_bad_rows_are_all_shown_by_the_command_that_is_named(self, alue_bench: CommandLine) -> None:
        folder = Path("its data") / "semeval2018"
        folder.mkdir(parents=True)
        for part in ("train", "dev", "test-gold"):
            (folder / f"2018-E-c-Ar-{part}.txt").write_text("no header\n")
        said = alue_bench("run", "-t", "sec", "-m", "mini", "--data-dir", "its data")
        if "to list them" in said.err:
            assert parsed(re.findall(r"to list them: (.*)\)", said.err)[0])[1]["data_dir"] == Path("its data")
        else:
            assert said.code == 2


class TestOfStores:
    def test_an_address_that_does_not_answer_is_left_where_it_was_given(
        self, alue_bench: CommandLine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert alue_bench("compare", "--tracking-uri", "http://127.0.0.1:9").err.endswith("leave out --tracking-uri\n")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert alue_bench("compare").err.endswith("or unset MLFLOW_TRACKING_URI\n")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
        assert alue_bench("compare").err.startswith("alue-bench: MLFLOW_TRACKING_URI './mlruns': ")

    def test_a_database_whose_driver_is_missing(self, alue_bench: CommandLine) -> None:
        said = alue_bench("compare", "--tracking-uri", "mysql://me@127.0.0.1/runs")
        assert said.err.endswith(
            "needs the driver 'MySQLdb' of its database; install it with: pip install mysqlclient\n"
        )


class TestOfSubmit:
    def command(self, alue_bench: CommandLine, *arguments: object) -> dict[str, Any]:
        said = alue_bench("submit", "out", *arguments, "--json")
        (missing,) = json.loads(said.out)["missing"]
        path, parameters = parsed(missing["command"])
        assert path == "run"
        assert missing["command"] in said.err
        return {name: value for name, value in parameters.items() if value not in (None, False, [])}

    @pytest.fixture
    def where(self, store: str, experiment: str) -> tuple[str, ...]:
        return ("--tracking-uri", store, "--experiment", experiment, "-t", "oold", "--sample")

    @pytest.fixture
    def planted(self, store: str, experiment: str) -> dict[str, Any]:
        """A run of a model of no plugin whose predictions are of other rows."""
        hyper = {"epochs": 3, "batch_size": 8, "lr": 3e-5, "llrd": 0.9, "clip_by": "component", "select": "last"}
        gold = np.array([0, 1, 0, 1])
        labels = Labels.binary("NOT_OFF", "OFF")
        one = spec("oold", "bottom3top4", seed=7, model="my-encoder", hyper=hyper, source="sample", data_seed=8)
        plant(connect(store, experiment), one, labels, gold, gold, more={"selection/dev_score": 0.5})
        return hyper

    def test_a_run_that_cannot_be_used_is_done_again_as_it_was(
        self, alue_bench: CommandLine, where: tuple[str, ...], planted: dict[str, Any], store: str, experiment: str
    ) -> None:
        asked = self.command(alue_bench, *where)
        expected = {"task": ["oold"], "model": ["x"], "strategy": ["bottom3top4"], "seed": [7], "data_seed": 8}
        expected |= {**planted, "sample": True, "rerun": True, "tracking_uri": store, "experiment": experiment}
        assert {name: asked[name] for name in expected} == expected

    def test_a_task_without_runs_is_done_with_what_was_asked_for(
        self, alue_bench: CommandLine, where: tuple[str, ...], planted: dict[str, Any], tmp_path: Path
    ) -> None:
        Path("some data").mkdir()
        asked = self.command(
            alue_bench, *where[:4], "-t", "ohsd", "-m", "mini", "-s", "top2", "--seed", "5", "--sample",
            "--data-dir", "some data",
        )  # fmt: skip
        assert (asked["task"], asked["model"], asked["strategy"], asked["seed"]) == (["ohsd"], ["mini"], ["top2"], [5])
        assert asked["data_dir"] == Path("some data")

    def test_and_otherwise_with_what_the_runs_of_other_tasks_have_in_common(
        self, alue_bench: CommandLine, where: tuple[str, ...], planted: dict[str, Any]
    ) -> None:
        asked = self.command(alue_bench, *where[:4], "-t", "ohsd", "--sample")
        assert (asked["model"], asked["strategy"], asked["seed"]) == (["x"], ["bottom3top4"], [7])
