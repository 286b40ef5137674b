"""The example plugin, installed with pip from its folder, works; and so does what `new-plugin` makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distributions as find_distributions
from pathlib import Path
from typing import Any

import pytest

from alue_bench.cli.new_plugin import new_plugin, renamer
from alue_bench.errors import UsageError
from alue_bench.plugins import load_registry

ROOT = Path(__file__).parents[1]
ALUE_BENCH = (sys.executable, "-c", "from alue_bench.cli.main import main; main()")
TINY = ("--limit-train", "32", "--limit-eval", "16", "--epochs", "1")


def pip_install(package: Path, target: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--target", str(target)]
    subprocess.run([*pip, *options, str(package)], check=True, timeout=120)
    return target


def call(*command: str, cwd: Path, plugins: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with the plugins of one folder and nothing of the user's: data, cache, store."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ALUE_BENCH", "MLFLOW"))}
    environment |= {
        "ALUE_BENCH_CACHE": str(cwd / "cache"),
        "XDG_DATA_HOME": str(cwd / "data"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{cwd / 'mlflow.db'}",
        "PYTHONPATH": str(plugins or ""),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300
    )


def listed(cwd: Path, plugins: Path | None = None) -> dict[str, dict[str, Any]]:
    """What `alue-bench plugins` says, by distribution."""
    called = call(*ALUE_BENCH, "plugins", "--json", cwd=cwd, plugins=plugins)
    assert called.returncode == 0, called.stderr
    return {report["origin"]["distribution"]: report for report in json.loads(called.stdout)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pip_install(ROOT / "plugins" / "example_plugin", tmp_path_factory.mktemp("example"))


class TestInstalled:
    def test_it_is_listed_with_what_it_provides(self, installed: Path, tmp_path: Path) -> None:
        report = listed(tmp_path, installed)["alue-bench-example"]
        assert report["status"] == "loaded"
        assert report["tasks"] == ["example-hotels"]
        assert report["models"] == ["example-mini"]
        assert report["strategies"] == ["example-every<K>"]

    @pytest.mark.slow
    def test_run_uses_its_task_model_and_strategy(self, installed: Path, tmp_path: Path) -> None:
        names = ("-t", "example-hotels", "-m", "example-mini", "-s", "example-every2")
        called = call(*ALUE_BENCH, "run", *names, *TINY, "--json", cwd=tmp_path, plugins=installed)
        assert called.returncode == 0, called.stderr
        (run,) = json.loads(called.stdout)["runs"]
        assert [run[key] for key in ("task", "model", "strategy", "status")] == [*names[1::2], "finished"]
        assert run["data_source"] == "sample"
        assert run["metrics"]["data/train_rows"] == 32
        assert run["metrics"]["params/trainable_share"] < 0.8


class TestUninstalled:
    @pytest.fixture(autouse=True)
    def not_in_this_environment(self) -> None:
        if any(find_distributions(name="alue-bench-example")):
            pytest.skip("alue-bench-example is installed in this environment")

    def test_it_is_not_listed(self, tmp_path: Path) -> None:
        assert "alue-bench-example" not in listed(tmp_path)

    def test_its_names_are_unknown(self, tmp_path: Path) -> None:
        registry = load_registry()
        for find, name in ((registry.task, "example-hotels"), (registry.model, "example-mini")):
            with pytest.raises(UsageError, match=f"unknown .* '{name}'"):
                find(name)
        called = call(*ALUE_BENCH, "run", "-t", "oold", "-m", "mini", "-s", "example-every2", cwd=tmp_path)
        assert called.returncode == 2
        assert "unknown strategy 'example-every2'" in called.stderr
        assert "Traceback" not in called.stderr


class TestNewPlugin:
    @pytest.mark.slow
    def test_its_output_installs_and_passes_its_own_tests(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "new plugin"
        new_plugin("my-hotels", folder)
        assert f"pip install -e '{folder}[test]'" in capsys.readouterr().out
        target = pip_install(folder, tmp_path / "installed")
        report = listed(tmp_path, target)["alue-bench-my-hotels"]
        assert report["origin"]["entry_point"] == "my-hotels"
        assert report["status"] == "loaded"
        assert report["tasks"] == ["my-hotels-hotels"]
        assert report["models"] == ["my-hotels-mini"]
        assert report["strategies"] == ["my-hotels-every<K>"]
        pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder))
        called = call(*pytest_, cwd=tmp_path, plugins=target)
        assert called.returncode == 0, called.stdout + called.stderr

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
