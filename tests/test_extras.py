"""The commands that messages give to install optional packages work although no index has alue-bench itself."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement

from alue_bench import Model, UnavailableError
from alue_bench.messages.extras import command_for_module, install_command
from alue_bench.training.pretrained.loading import locate_checkpoint

EXTRAS = {
    name: {Requirement(package).name.lower(): Requirement(package) for package in packages}
    for name, packages in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ].items()
    if name != "test"
}
TEXTS = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "alue_bench").rglob("*.py")),
    *sorted((REPOSITORY / "plugins").rglob("*.py")),
]


def requirements(command: str) -> list[Requirement]:
    pip, install, *packages = shlex.split(command)
    assert (pip, install) == ("pip", "install")
    return [Requirement(package) for package in packages]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_the_packages_of_the_extra_with_their_versions(extra: str) -> None:
    pins = {wanted.name.lower(): wanted.specifier for wanted in requirements(install_command(extra))}
    assert pins == {name: package.specifier for name, package in EXTRAS[extra].items()}


def test_no_text_asks_an_index_for_alue_bench_itself() -> None:
    for path in TEXTS:
        if path.name != "extras.py":
            assert "alue-bench[" not in path.read_text(), path


def test_the_documentation_asks_for_the_versions_that_the_extras_ask_for() -> None:
    ours = {name: wanted for packages in EXTRAS.values() for name, wanted in packages.items()}
    said = [
        wanted
        for path in TEXTS
        for command in re.findall(r"pip install (?:'[\w.>=<,-]+' ?)+", path.read_text())
        for wanted in requirements(command.strip())
        if wanted.name.lower() in ours
    ]
    assert {wanted.name.lower() for wanted in said} == {"arabert", "pyarabic", "peft", "ray", "nvidia-ml-py"}
    assert all(wanted.specifier == ours[wanted.name.lower()].specifier for wanted in said)


@pytest.mark.parametrize(
    ("module", "command"),
    [("no_such_module", "pip install no-such-module"), ("no_such_module.part", "pip install no-such-module")],
)
def test_a_model_of_a_stranger_names_the_package_that_is_missing(module: str, command: str, tmp_path: Path) -> None:
    model = Model(name="strange", title="strange", checkpoint=tmp_path, requires=(module.partition(".")[0],))
    with pytest.raises(UnavailableError, match=rf"{re.escape(command)}$"):
        locate_checkpoint(model)
    assert command_for_module(module) == command


def test_a_module_of_an_extra_is_installed_with_the_version_of_the_extra() -> None:
    (wanted,) = requirements(command_for_module("pyarabic"))
    assert wanted.specifier == EXTRAS["arabic"]["pyarabic"].specifier
    assert wanted.specifier.contains(version("pyarabic"))
