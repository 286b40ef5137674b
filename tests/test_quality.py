"""The tools that keep the code as it is meant to be, and the files free of what does not belong in them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = [name for name in ("alue_bench", "plugins", "tests", "benchmarks", "tools") if (REPOSITORY / name).is_dir()]
TOOLS = {
    "ruff check": ["ruff", "check", *FOLDERS],
    "ruff format": ["ruff", "format", "--check", *FOLDERS],
    "mypy": ["mypy"],
    "lint-imports": ["importlinter"],
}


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_has_nothing_to_say(tool: str) -> None:
    module, *arguments = TOOLS[tool]
    if module == "importlinter":
        command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    else:
        command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name.strip())[0]).lower()


def test_constraints_pin_everything_that_the_project_names() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = [name for names in project["optional-dependencies"].values() for name in names]
    named = {normalised(name) for name in [*project["dependencies"], *extras]} - {normalised(project["name"])}
    pinned = {}
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement:
            assert re.match(r"[\w.-]+(\[[\w,-]+\])? ?==", requirement), f"not an exact pin: {line}"
            pinned[normalised(requirement)] = requirement
    assert not named - pinned.keys()


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name]


# Written so that this file does not hold what it looks for.
NOT_OURS = re.compile(
    "|".join(
        [
            r"/(?:home|Users)/[a-z]+/",
            r"/" + r"work/",
            r"/" + r"root/",
            r"(?i:\b[\w.-]+\.(?:internal|corp|local)(?::\d+|/))",
            r"(?i:(?:index-url|extra-index-url|proxy)\s*[=:]\s*https?://)",
            r"(?i:arti" + r"factory|/simple/?(?:\s|$))",
        ]
    )
)


def test_no_file_names_a_machine_its_folders_or_its_package_registry() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if NOT_OURS.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:120]}")
    assert found == []


def test_the_architecture_page_lists_every_package_in_the_order_of_imports() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^  (\w+)/ ", page.split("```")[1].split("plugins/")[0], flags=re.MULTILINE)
    packages = {path.parent.name for path in (REPOSITORY / "alue_bench").glob("*/__init__.py")}
    assert set(listed) == packages
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = [{name.strip().removeprefix("alue_bench.") for name in layer.split("|")} for layer in reversed(layers)]
    floor_of = {name: number for number, floor in enumerate(floors) for name in floor}
    assert listed == sorted(listed, key=floor_of.__getitem__)


def test_the_architecture_page_names_modules_that_exist() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:alue_bench/)?[a-z_]+(?:/[a-z_]+)+\.py)`", page))
    assert len(paths) > 40
    known = [REPOSITORY, REPOSITORY / "alue_bench"]
    assert [path for path in sorted(paths) if not any((folder / path).is_file() for folder in known)] == []
