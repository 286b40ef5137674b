"""The tools that keep the code as it is meant to be, and the files free of what does not belong in them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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


MOST_PARAMETERS = 7
"""More of them are a missing object: what always travels together becomes a frozen dataclass."""
AN_OPTION_EACH = "a command: each parameter is an option, from whose declaration its help is made"
WITH_MORE_PARAMETERS = {
    "alue_bench/cli/commands/advise.py:advise": AN_OPTION_EACH,
    "alue_bench/cli/commands/compare.py:compare": AN_OPTION_EACH,
    "alue_bench/cli/commands/export.py:export": AN_OPTION_EACH,
    "alue_bench/cli/commands/keep.py:keep": AN_OPTION_EACH,
    "alue_bench/cli/commands/predict.py:predict": AN_OPTION_EACH,
    "alue_bench/cli/commands/rank_selectors.py:rank_selectors": AN_OPTION_EACH,
    "alue_bench/cli/commands/report.py:report": AN_OPTION_EACH,
    "alue_bench/cli/commands/submit.py:submit": AN_OPTION_EACH,
    "alue_bench/cli/commands/submit.py:_print_summary": "the parts of a page that only this command prints",
    "alue_bench/executors/scheduler.py:execute_with": "the five partners of a plan's execution, and three flags",
    "alue_bench/reporting/comparison.py:_block": "the parts of one block of a comparison, put together in one place",
}
"""Functions with more parameters than `MOST_PARAMETERS`, and the reason for each."""


def functions_of(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, int]]:
    """The name of each function, with the classes and functions around it, and its number of parameters."""
    for node in ast.iter_child_nodes(tree):
        name = inside
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}.{node.name}".lstrip(".")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            single = [argument for argument in (given.vararg, given.kwarg) if argument is not None]
            names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, *single)]
            yield name, len(names) - (names[:1] in (["self"], ["cls"]))
        yield from functions_of(node, name)


def test_functions_with_more_than_seven_parameters_are_listed_with_their_reason() -> None:
    longer = {
        f"{path.relative_to(REPOSITORY).as_posix()}:{name}"
        for path in sorted((REPOSITORY / "alue_bench").rglob("*.py"))
        for name, parameters in functions_of(ast.parse(path.read_text(encoding="utf-8")))
        if parameters > MOST_PARAMETERS
    }
    new, gone = longer - WITH_MORE_PARAMETERS.keys(), WITH_MORE_PARAMETERS.keys() - longer
    assert not new, f"more than {MOST_PARAMETERS} parameters: put what travels together into a dataclass: {sorted(new)}"
    assert not gone, f"no longer needed in WITH_MORE_PARAMETERS: {sorted(gone)}"
    assert all(reason.strip() for reason in WITH_MORE_PARAMETERS.values())


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
    lines = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if NOT_OURS.search(line):
                lines.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:120]}")
    assert lines == []


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


BARE = ("Of", "As", "Those", "What", "Whether", "To", "Where", "How", "Which", "That", "Than")
"""Openings that leave out what a sentence is about."""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings, and the strings below attributes and constants, with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for child in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield child.lineno, child.value.value


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_begins_without_its_subject(folder: str) -> None:
    bare = [
        f"{path.relative_to(REPOSITORY)}:{line}: {text.splitlines()[0]}"
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for line, text in docstrings(path)
        if text.split()[:1] and text.split()[0] in BARE
    ]
    assert bare == []
