"""The wheel and the source archive hold type information and data, and nothing that serves development alone."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

import alue_bench

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = {"alue_bench", "alue_bench_tasks", "alue_bench_models", "alue_bench_strategies"}


def build(target: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = folder.iterdir()
    return built


@pytest.mark.slow
class TestWheel:
    @pytest.fixture(scope="class")
    def names(self, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
        with ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as wheel:
            return set(wheel.namelist())

    def test_type_checkers_read_the_annotations_of_every_package(self, names: set[str]) -> None:
        assert {f"{package}/py.typed" for package in PACKAGES} <= names
        assert "alue_bench/plugin_template/alue_bench_example/py.typed" in names

    def test_it_holds_the_packages_and_nothing_else(self, names: set[str]) -> None:
        metadata = f"alue_bench-{alue_bench.__version__}.dist-info"
        assert {name.partition("/")[0] for name in names} == PACKAGES | {metadata}


@pytest.mark.slow
def test_the_source_distribution_leaves_out_what_serves_development_alone(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "docs/cli.md"} <= names
    top = {name.partition("/")[0] for name in names}
    unwanted = {".ci", ".github", ".pre-commit-config.yaml", "benchmarks", "build", "mkdocs.yml", "mlruns", "tools"}
    assert not top & unwanted


def test_the_citation_names_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == alue_bench.__version__
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]


def test_contributors_set_up_as_the_test_command_of_the_readme_does() -> None:
    readme, guide = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
    (set_up,) = (line for line in guide.splitlines() if line.startswith("python3 -m venv"))
    assert f"{set_up} && python -m pytest\n" in readme
    assert "`python -m pytest`" in guide


def test_public_ci_runs_what_ci_run_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    always = [step["run"] for step in job["steps"] if "run" in step and "if" not in step]
    assert always == ["bash .ci/run"]
