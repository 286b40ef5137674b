"""The example plugin, installed with pip from its folder, works; and so does what `new-plugin` makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions as find_distributions
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

from alue_bench.cli.commands.new_plugin import new_plugin, renamer
from alue_bench.contract.errors import UsageError
from alue_bench.contract.registry import Registry

ROOT = Path(__file__).parents[1]
TINY = ("--limit-train", "32", "--limit-eval", "16", "--epochs", "1")


def pip_install(package: Path, target: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--target", str(target)]
    subprocess.run([*pip, *options, str(package)], check=True, timeout=120)
    return target


def listed(command: CommandLine, plugins: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the output of `alue-bench plugins` by distribution, with the plugins of a folder installed too."""
    called = command("plugins", "--json", PYTHONPATH=str(plugins or ""))
    assert called.code == 0, called.err
    return {report["origin"]["distribution"]: report for report in json.loads(called.out)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pip_install(ROOT / "plugins" / "example_plugin", tmp_path_factory.mktemp("example"))


@pytest.fixture
def importable(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The installed plugin on this process's path of modules."""
    monkeypatch.syspath_prepend(str(installed))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "alue_bench_example"]:
        del sys.modules[name]


class TestInstalled:
    def test_it_is_listed_with_what_it_provides(self, installed: Path, command: CommandLine) -> None:
        report = listed(command, installed)["alue-bench-example"]
        assert report["status"] == "loaded"
        assert report["tasks"] == ["example-reviews", "example-names", "example-answers"]
        assert report["models"] == ["example-mini"]
        assert report["strategies"] == ["example-every<K>"]

    @pytest.mark.slow
    @pytest.mark.usefixtures("importable")
    def test_run_uses_its_task_model_and_strategy(self, alue_bench: CommandLine, store: str, experiment: str) -> None:
        """In this process, which has loaded torch and MLflow already; the listing above starts one of its own."""
        names = ("-t", "example-reviews", "-m", "example-mini", "-s", "example-every2")
        others = ("-t", "example-names", "-t", "example-answers")
        where = ("--tracking-uri", store, "--experiment", experiment)
        called = alue_bench("run", *names, *others, *TINY, *where, "--json")
        assert called.code == 0, called.err
        run, tagged, answered = json.loads(called.out)["runs"]
        assert (tagged["task"], tagged["status"]) == ("example-names", "finished")
        assert "f1_class_HOTEL" in " ".join(tagged["metrics"])
        assert (answered["task"], answered["status"]) == ("example-answers", "finished")
        assert answered["metrics"]["data/test_rows"] == 4
        assert [run[key] for key in ("task", "model", "strategy", "status")] == [*names[1::2], "finished"]
        assert run["data_source"] == "sample"
        assert run["metrics"]["data/train_rows"] == 32
        assert run["metrics"]["params/trainable_share"] < 0.8


class TestUninstalled:
    @pytest.fixture(autouse=True)
    def not_in_this_environment(self) -> None:
        if any(find_distributions(name="alue-bench-example")):
            pytest.skip("alue-bench-example is installed in this environment")

    def test_it_is_not_listed(self, command: CommandLine) -> None:
        assert "alue-bench-example" not in listed(command)

    def test_its_names_are_unknown(self, registry: Registry, alue_bench: CommandLine) -> None:
        for find, name in ((registry.task, "example-reviews"), (registry.model, "example-mini")):
            with pytest.raises(UsageError, match=f"unknown .* '{name}'"):
                find(name)
        called = alue_bench("run", "-t", "oold", "-m", "mini", "-s", "example-every2")
        assert called.code == 2
        assert "unknown strategy 'example-every2'" in called.err
        assert "Traceback" not in called.err


class TestNewPlugin:
    @pytest.mark.slow
    @pytest.mark.stress
    def test_its_output_installs_and_passes_its_own_tests(
        self, tmp_path: Path, command: CommandLine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "new plugin"
        new_plugin("my-hotels", folder)
        assert f"pip install -e '{folder}[test]'" in capsys.readouterr().out
        target = pip_install(folder, tmp_path / "installed")
        report = listed(command, target)["alue-bench-my-hotels"]
        assert report["origin"]["entry_point"] == "my-hotels"
        assert report["status"] == "loaded"
        assert report["tasks"] == ["my-hotels-reviews", "my-hotels-names", "my-hotels-answers"]
        assert report["models"] == ["my-hotels-mini"]
        assert report["strategies"] == ["my-hotels-every<K>"]
        tested = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
            env={**os.environ, "PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert tested.returncode == 0, tested.stdout + tested.stderr

    def test_no_name_of_the_template_is_left(self, tmp_path: Path) -> None:
        new_plugin("cafes", tmp_path)
        for path in tmp_path.rglob("*"):
            assert "example" not in path.name
            content = path.read_text(encoding="utf-8") if path.is_file() else ""
            for name in ("alue-bench-example", "alue_bench_example", "example-", "example_", "example ="):
                assert name not in content, path

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ('example = "alue_bench_example"', 'my-example-x = "alue_bench_my_example_x"'),
            ("alue-bench-example, example-mini", "alue-bench-my-example-x, my-example-x-mini"),
            ("for example, a counterexample-free examples=()", "for example, a counterexample-free examples=()"),
        ],
    )
    def test_names_are_changed_once_and_prose_is_not(self, before: str, after: str) -> None:
        assert renamer("my-example-x")(before) == after

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("My Plugin", "must be lower-case letters"),
            ("example", "the template's own"),
            ("tasks", "'alue_bench_tasks' is installed already"),
        ],
    )
    def test_a_name_that_cannot_be_is_refused(self, tmp_path: Path, name: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            new_plugin(name, tmp_path / "plugin")
        assert not (tmp_path / "plugin").exists()

    def test_nothing_is_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
        with pytest.raises(UsageError, match="not an empty folder"):
            new_plugin("cafes", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
