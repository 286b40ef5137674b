"""The plugin guide works as printed, and documents every hook with its signature."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import typer
from conftest import CommandLine
from guide import GUIDE, block_with
from typer.testing import CliRunner

from alue_bench import DataFile, EncoderShape, HeldOut, Labels, Splits, StrategyFamily, Task, TrainingProgress
from alue_bench.contract import hookspecs
from alue_bench.contract.registry import load_registry
from alue_bench.testing import ConformanceWarning, check_model, check_strategy, check_task

FILES = dict(re.findall(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
"""The tutorial's files by path: each is printed below its path."""
TASK_FILE = "alue_bench_cafes/__init__.py"


def executed(words: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "a_module_of_the_guide"}
    exec(compile(block_with(words), "docs/plugins.md", "exec", dont_inherit=True), namespace)
    return namespace


def signatures() -> dict[str, str]:
    """The contract's hooks as written in hookspecs.py, by name."""
    functions = [node for node in ast.parse(inspect.getsource(hookspecs)).body if isinstance(node, ast.FunctionDef)]
    return {
        f.name: f"{f.name}({ast.unparse(f.args)}) -> {ast.unparse(f.returns or ast.Constant(None))}" for f in functions
    }


class TestReference:
    def test_every_hook_is_documented_with_its_signature_and_no_other(self) -> None:
        documented = re.findall(r"^### `(\w+\(.*\) -> .*)`$", GUIDE, re.MULTILINE)
        assert documented == list(signatures().values())

    def test_every_hook_is_described_in_the_words_of_its_docstring(self) -> None:
        prose = " ".join(GUIDE.split())
        for name in signatures():
            assert " ".join((inspect.getdoc(getattr(hookspecs, name)) or "").split()).removesuffix(".") in prose

    def test_every_hook_has_an_implementation_to_copy(self) -> None:
        for name in signatures():
            assert f"@hookimpl\ndef {name}(" in GUIDE

    def test_files_that_the_guide_names_exist(self) -> None:
        root = Path(__file__).parents[1]
        for name in set(re.findall(r"`(alue_bench/[\w/]+\.py)`", GUIDE)):
            assert (root / name).is_file(), name


class TestTutorial:
    @pytest.fixture(scope="class")
    def installed(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The tutorial's package, written as printed and installed."""
        source, target = tmp_path_factory.mktemp("alue-bench-cafes"), tmp_path_factory.mktemp("installed")
        for name, content in FILES.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--no-build-isolation", "--no-compile", "--target", str(target)]
        subprocess.run([*pip, *options, str(source)], check=True, timeout=120)
        return target

    @pytest.fixture
    def plugin(self, installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.syspath_prepend(str(installed))
        yield
        sys.modules.pop("alue_bench_cafes", None)

    def test_the_task_takes_less_than_twenty_lines(self) -> None:
        assert len(FILES[TASK_FILE].splitlines()) < 20
        assert "Task(" in FILES[TASK_FILE]

    def test_the_guide_makes_the_folders_that_its_files_need(self) -> None:
        made = re.search(r"^mkdir -p (.*)$", GUIDE, re.MULTILINE)
        assert made is not None
        folders = [Path(folder).relative_to("alue-bench-cafes") for folder in made.group(1).split()]
        for name in FILES:
            parent = Path(name).parent
            assert parent == Path() or any(folder.is_relative_to(parent) for folder in folders), name

    @pytest.mark.usefixtures("plugin")
    def test_the_installed_task_is_found_and_conforms(self) -> None:
        declared = load_registry().tasks["cafes"]
        assert declared.origin.distribution == "alue-bench-cafes"
        check_task(declared.value)

    @pytest.mark.slow
    @pytest.mark.usefixtures("plugin")
    def test_the_run_command_uses_the_task(self, alue_bench: CommandLine, store: str, experiment: str) -> None:
        printed = re.search(r"^alue-bench (run -t cafes .*)$", GUIDE, re.MULTILINE)
        assert printed is not None
        where = ("--tracking-uri", store, "--experiment", experiment)
        called = alue_bench(*printed.group(1).split(), "--epochs", "1", *where, "--json")
        assert called.code == 0, called.err
        runs = json.loads(called.out)["runs"]
        assert [(run["task"], run["strategy"], run["status"]) for run in runs] == [
            ("cafes", "full", "finished"),
            ("cafes", "bottom3top4", "finished"),
        ]
        assert {run["data_source"] for run in runs} == {"sample"}

    @pytest.mark.usefixtures("plugin")
    def test_its_test_file_is_a_test(self) -> None:
        namespace: dict[str, Any] = {"__name__": "test_cafes"}
        exec(compile(FILES["tests/test_cafes.py"], "docs/plugins.md", "exec", dont_inherit=True), namespace)
        for task in namespace["alue_bench_tasks"]():
            namespace["test_task"](task)


class TestOtherBlocks:
    def test_models(self) -> None:
        (model,) = executed("def alue_bench_models")["alue_bench_models"]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConformanceWarning)  # the checkpoint need not be on this machine
            check_model(model)

    def test_strategies(self) -> None:
        (family,) = executed("def alue_bench_strategies")["alue_bench_strategies"]()
        check_strategy(family)
        for name in re.findall(r"-s (cafes-\w+)", GUIDE):
            assert family.parse(name).name == name

    def test_a_strategy_that_changes_its_mind(self) -> None:
        rising = executed("class Rising")["Rising"]
        family = StrategyFamily(
            grammar="cafes-rising",
            title="as in the guide",
            source="the guide",
            examples=("cafes-rising",),
            parse=lambda name: rising() if name == "cafes-rising" else None,
        )
        check_strategy(family)
        plan = rising().freeze_plan(EncoderShape(4))
        frozen = []
        for epoch, scores in enumerate([(0.5,), (0.5, 0.6), (0.5, 0.6, 0.6), (0.5, 0.6, 0.6, 0.4)], start=1):
            plan = rising().revise(plan, TrainingProgress(epoch, 9, 10 * epoch, 90, scores))
            frozen.append(plan.prefix_layers)
        assert frozen == [None, None, 1, 2]

    def test_a_strategy_that_chooses(self) -> None:
        loudest = executed("class Loudest")["Loudest"]
        family = StrategyFamily(
            grammar="cafes-loudest",
            title="as in the guide",
            source="the guide",
            examples=("cafes-loudest",),
            parse=lambda name: loudest() if name == "cafes-loudest" else None,
        )
        check_strategy(family)

    @pytest.mark.parametrize("name", ["read_json_lines", "read_parquet"])
    def test_a_reader_of_one_s_own(self, tmp_path: Path, name: str) -> None:
        read = executed(f"def {name}")[name]
        rows = [{"text": f"نص {number}", "label": "ab"[number % 2]} for number in range(20)]
        if name == "read_parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows")
        else:
            (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        check_task(
            Task(
                name="of-the-guide",
                title="JSON lines",
                languages=("ar",),
                labels=Labels.binary("a", "b"),
                splits=Splits(
                    train=DataFile("rows", read), dev=HeldOut(0.2), test=HeldOut(0.2), protocol="parts of a file"
                ),
                source="this test",
                licence="Apache-2.0",
                citation="this test",
                sample=tmp_path,
            )
        )

    def test_observers(self, capsys: pytest.CaptureFixture[str]) -> None:
        observer = executed("def alue_bench_run_finished")
        spec, result = SimpleNamespace(label="a/b/c/seed42"), SimpleNamespace(metrics={"test/score": 0.5})
        observer["alue_bench_run_started"](spec)
        observer["alue_bench_run_finished"](spec, result)
        assert capsys.readouterr() == ("", "a/b/c/seed42 begins\na/b/c/seed42: 0.500\n")

    def test_commands(self) -> None:
        app = typer.Typer()
        executed("def alue_bench_commands")["alue_bench_commands"](app)
        app.command("other")(lambda: None)
        assert CliRunner().invoke(app, ["cafes-hello", "--name", "Rabat"]).output == "Hello, Rabat!\n"

    @pytest.mark.parametrize("hook", signatures())
    def test_arguments_of_the_implementations_are_those_of_the_hook(self, hook: str) -> None:
        function = executed(f"def {hook}(")[hook]
        assert set(inspect.signature(function).parameters) <= set(
            inspect.signature(getattr(hookspecs, hook)).parameters
        )
