"""Names from outside through every command: shown as they are written, nothing lost, no traceback.

One plugin, data folder, model folder and working folder whose names are made of what terminals, Markdown, HTML, LaTeX,
mathematics, addresses and databases read as something else; a plan of three runs; then every command that reads it.
"""

from __future__ import annotations

import ast
import csv
import html
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from conftest import CommandLine, Finished, call_in
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from alue_bench.messages.display import latex, markdown
from alue_bench.tracking.connection import mlflow_uri, sqlite_path, sqlite_uri
from alue_bench.views.console import PlainColumn, PlainConsole, styled

LONG = "L" * 260
LABELS = (
    "[red]mad",
    "[/calm]",
    ":joy:",
    "😀",
    "C+",
    "C#",
    "$x_1$",
    "50%?",
    'it\'s "so"',
    "ليس ساخرا",
    "a|`b`<i>&",
    LONG,
)
ODD = 'mix[/low] :joy: $x_1$ 50%? it\'s "so" ليس 😀 a|`b`<i>& \\n --'
FOLDER = 'a%2Fb ?#[red] :joy: $x_1$ it\'s "so" ليس 😀'
TITLE = f"Moods [beta], as [b]they[/b] are {ODD} {LONG}"
SUBMITTED = "[red]:joy: 50%.tsv"
PLUGIN = f"""
import re
from dataclasses import dataclass
from pathlib import Path
from alue_bench import *

NAMES = {(ODD, LONG)!r}

@hookimpl
def alue_bench_tasks():
    read = Delimited(columns=2, text=0, target=1)
    parts = {{split: DataFile(f"[odd] 100%?/{{split}}.tsv", read) for split in ("train", "dev", "test")}}
    return [Task(
        name="odd", title={TITLE!r}, languages=("en",), labels=Labels.multiclass(*{LABELS!r}), splits=Splits(**parts),
        source={ODD!r}, licence={ODD!r}, citation={ODD!r}, submission=Submission(file={SUBMITTED!r}),
    )]

@hookimpl
def alue_bench_models():
    return [Model(name="odd", title={TITLE!r}, checkpoint=Path(__file__).parents[1] / "m[" / "x]")]

@dataclass(frozen=True)
class Odd(Strategy):
    at: int
    @property
    def name(self): return NAMES[self.at]
    def freeze_plan(self, shape): return FreezePlan(shape, frozenset(range(self.at + 1)), embeddings=True)

@hookimpl
def alue_bench_strategies():
    def parse(name): return Odd(NAMES.index(name)) if name in NAMES else None
    grammar = "mix[<part>] " + NAMES[0]
    return [StrategyFamily(grammar=grammar, title={TITLE!r}, source={ODD!r}, examples=NAMES, parse=parse)]
"""
REFUSED = """
from alue_bench import *

@hookimpl
def alue_bench_tasks():
    read = Delimited(columns=2, text=0, target=1)
    parts = {split: DataFile(split, read) for split in ("train", "dev", "test")}
    return [Task(name="[red]:joy:", title="x", languages=("en",), labels=Labels.binary("a", "b"),
                 splits=Splits(**parts), source="x", licence="x", citation="x")]
"""


def write_plugin(site: Path, module: str, source: str) -> None:
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[alue_bench]\n{module} = {module}\n")
    (site / f"{module}.py").write_text(source, encoding="utf-8")


def write_data(folder: Path) -> None:
    (folder / "[odd] 100%?").mkdir(parents=True)
    for split, rows in (("train", 48), ("dev", 24), ("test", 24)):
        lines = [f"{split} text {n}\t{LABELS[n % len(LABELS)]}\n" for n in range(rows)]
        (folder / "[odd] 100%?" / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def command(
    tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Path]
) -> Iterator[tuple[CommandLine, Finished]]:
    """The command line in the odd folder, and what the plan of three runs said."""
    folder = tmp_path_factory.mktemp("odd") / FOLDER
    write_plugin(folder / "site", "odd_plugin", PLUGIN)
    write_plugin(folder / "site", "refused_plugin", REFUSED)
    write_data(folder / "d[red]ata")
    shutil.copytree(tiny("bert"), folder / "m[" / "x]")
    with call_in(folder) as call, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "site"))
        patch.setenv("COLUMNS", "9000")  # no line of a table is to be broken
        said = call("run", *PLAN, "--epochs", "1", "--max-length", "16", "--data-dir", "d[red]ata")
        assert said.code == 0, said.everything
        yield call, said


PLAN = ("-t", "odd", "-m", "./m[/x]", "-s", "full", "-s", ODD, "-s", LONG)
DATA = ("--data-dir", "d[red]ata")
NAMES = (ODD, LONG)

COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "list tasks": (("list", "tasks"), (TITLE,)),
    "list models": (("list", "models"), (TITLE,)),
    "list strategies": (("list", "strategies"), (TITLE, "mix[<part>] ", *NAMES)),
    "list strategies of a model": (("list", "strategies", "-m", "./m[/x]"), ("./m[/x]: ", *NAMES)),
    "plugins": (("plugins",), ("odd_plugin", "mix[<part>] ", "task name '[red]:joy:' must match")),
    "data status": (("data", "status", *DATA), ("Data folder: d[red]ata", ODD)),
    "data verify": (("data", "verify", "odd", *DATA), LABELS),
    "data verify as JSON": (("data", "verify", "odd", "--json", *DATA), ("[odd] 100%?/train.tsv",)),
    "data add": (("data", "add", "odd", "d[red]ata"), ("Added 3 files",)),
    "doctor": (("doctor", *DATA), ("d[red]ata holds odd", "[red]:joy:")),
    "cache status": (("cache", "status"), (FOLDER,)),
    "run again": (("run", *PLAN, *DATA, "--epochs", "1", "--max-length", "16"), (*NAMES, "3 runs")),
    "run as JSON": (("run", *PLAN, *DATA, "--epochs", "1", "--max-length", "16", "--json"), (LONG,)),
    "dry run": (("run", *PLAN, *DATA, "--dry-run"), NAMES),
    "compare": (("compare",), NAMES),
    "compare, baseline": (("compare", "--baseline", ODD), (*NAMES, f"Δ {ODD}")),
    "compare, Markdown": (("compare", "--format", "markdown"), tuple(map(markdown, NAMES))),
    "compare, LaTeX": (("compare", "--format", "latex"), tuple(map(latex, NAMES))),
    "compare, CSV": (("compare", "--format", "csv"), (LONG,)),
    "submit": (("submit", "to [/x] :joy:", *DATA), (SUBMITTED, "to [/x] :joy:")),
    "submit what is missing": (("submit", "again", "-m", "odd", "-s", ODD, *DATA), (SUBMITTED, "alue-bench run")),
    "sync": (("sync",), ("No results are waiting on this machine",)),
    "unknown task": (("run", "-t", "[red]:joy:"), ("unknown task '[red]:joy:'",)),
    "unknown strategy": (("run", "-s", "mix[/x]"), ("'mix[/x]'",)),
    "unknown model": (("run", "-m", "./n[/x]:joy:"), ("./n[/x]:joy:",)),
    "unknown experiment": (("compare", "--experiment", ODD), (f"'{ODD}'",)),
    "unknown run": (("compare", "--parent", "[red]:joy:"), ("'[red]:joy:'",)),
    "name that no run bears": (("compare", "-s", "[/x]:joy:"), ("--strategy [/x]:joy:: none of the selected",)),
    "folder that is not there": (("data", "verify", "odd", "--data-dir", "[/x]:joy:"), ("[/x]:joy: is not a folder",)),
    "name too long": (("export", LONG), (f"{LONG}: the name of a file or folder",)),
    "option that is none": (("run", "--[red]:joy:"), ("--[red]:joy:",)),
    "format that is none": (("compare", "--format", "[red]:joy:"), ("'[red]:joy:'",)),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_names_are_shown_as_they_are_written(name: str, command: tuple[CommandLine, Finished]) -> None:
    call, _ = command
    arguments, shown = COMMANDS[name]
    said = call(*arguments)
    assert "Traceback" not in said.everything, said.err
    for text in shown:
        assert text in said.everything
    if "--json" in arguments:
        json.loads(said.out)
    wrong = name.startswith(("unknown", "folder", "name too", "option", "format")) or name in (
        "submit what is missing",
    )
    assert (said.code != 0) is (wrong or name == "doctor"), said.everything  # of the plugin that is refused


def test_a_plan_shows_its_strategies_and_where_its_failures_lie(command: tuple[CommandLine, Finished]) -> None:
    _, said = command
    for text in (*NAMES, "warning: plugin refused_plugin", "task name '[red]:joy:' must match"):
        assert text in said.err
    for strategy in NAMES:
        assert strategy in said.out


def test_the_store_lies_in_the_working_folder_and_nothing_beside_it(command: tuple[CommandLine, Finished]) -> None:
    assert {path.name for path in Path.cwd().parent.iterdir()} == {FOLDER}
    assert Path("mlruns/artifacts").is_dir()
    assert not list(Path("state").rglob("*.json")), "nothing waits for the store"


def test_csv_gives_names_back(command: tuple[CommandLine, Finished]) -> None:
    call, _ = command
    rows = list(csv.DictReader(io.StringIO(call("compare", "--format", "csv").out)))
    assert {row["strategy"] for row in rows} == {"full", *NAMES}
    said = call("export", "[/x] 50%?")
    assert said.code == 0, said.err
    for path in map(Path, said.out.splitlines()):
        assert path.is_file(), "its name is printed so that it can be copied"
    with Path("[/x] 50%?", "runs.csv").open(encoding="utf-8", newline="") as file:
        assert {row["strategy"] for row in csv.DictReader(file)} == {"full", *NAMES}
    for strategy in NAMES:
        assert markdown(strategy) in Path("[/x] 50%?", "comparison.md").read_text(encoding="utf-8")
        assert markdown(strategy) in Path("[/x] 50%?", "checklist.md").read_text(encoding="utf-8")


def test_a_report_shows_them_as_html_and_as_markdown(command: tuple[CommandLine, Finished]) -> None:
    call, _ = command
    assert call("report", "-o", "[/x] 50%?.html").code == 0
    page = Path("[/x] 50%?.html").read_text(encoding="utf-8")
    texts = [html.unescape(text) for text in re.findall(r">([^<>]*)<", page)]
    for name in (*NAMES, *LABELS):
        assert name in texts
    stem = "[x] 50%? " + "M" * 200
    assert call("report", "-o", f"{stem}.md").code == 0
    written = Path(f"{stem}.md").read_text(encoding="utf-8")
    for name in (*NAMES, *LABELS):
        assert markdown(name) in written
    linked = re.findall(r"\]\(([^)]+\.svg)\)", written)
    assert linked
    assert all(Path(unquote(name)).is_file() for name in linked)


def test_artifacts_that_mlflow_keeps_can_be_found(command: tuple[CommandLine, Finished]) -> None:
    call, _ = command
    rows: list[dict[str, Any]] = json.loads(call("compare", "--format", "json").out)["blocks"][0]["rows"]
    from alue_bench.tracking.connection import open_store, tracking_uri
    from alue_bench.tracking.reading import read_predictions, read_results

    results = read_results(open_store(tracking_uri(None), "alue-bench"))
    for row in rows:
        assert set(read_predictions(results, row["run_ids"])["gold"]) == set(LABELS)


@pytest.mark.skipif(sys.platform != "linux", reason="the file system takes no names that are not UTF-8")
def test_names_that_are_no_text_are_shown_escaped_or_refused(command: tuple[CommandLine, Finished]) -> None:
    call, _ = command
    said = call("submit", os.fsdecode(b"sub\xff\x1b[2J"), *DATA, "--json")
    assert said.code == 0, said.err
    assert "sub\\udcff\\x1b[2J" in said.err
    assert os.fsencode(json.loads(said.out)["folder"]) == b"sub\xff\x1b[2J"
    os.mkdir(b"n\xff")
    said = call("run", "-m", os.fsdecode(b"n\xff"))
    assert said.code == 2
    assert "n\\udcff: the name contains bytes that are not text" in said.err


@given(st.lists(st.text(st.sampled_from("a%2F?#&=+@: []$'\"\\قط😀"), min_size=1), min_size=1, max_size=3))
def test_a_stores_address_gives_its_path_back(parts: list[str]) -> None:
    path = Path("/", *parts, "mlflow.db")
    assert sqlite_path(sqlite_uri(path)) == path
    assert sqlite_path(mlflow_uri(sqlite_uri(path))) == path


# The mechanism -----------------------------------------------------------------------------------------------------


def test_a_console_interprets_nothing() -> None:
    written = io.StringIO()
    console = PlainConsole(file=written, force_terminal=True, width=80, color_system="standard", no_color=False)
    text = "[red]x[/red] :joy: 123 /a/b 'q' https://x.y " + "word " * 30
    console.print(text)
    assert written.getvalue() == text + "\n", "neither coloured nor broken"
    console.print(styled("[/x]:joy:\x1b[2J", "red"))
    assert written.getvalue().endswith("\x1b[31m[/x]:joy:\\x1b[2J\x1b[0m\n")


def test_a_progress_bar_interprets_nothing() -> None:
    written = io.StringIO()
    console = PlainConsole(file=written, force_terminal=True, width=80)
    with Progress(PlainColumn("{task.description}"), console=console) as progress:
        progress.add_task("[/x] [red]:joy: {0}")
    assert "[/x] [red]:joy: {0}" in written.getvalue()


FOLDERS = ("alue_bench", "plugins/alue_bench_tasks", "plugins/alue_bench_models", "plugins/alue_bench_strategies")
FROM_RICH = {
    "rich.console": {"Group", "RenderableType", "RenderResult", "ConsoleOptions"},
    "rich.measure": {"Measurement"},
    "rich.table": {"Table", "Column"},
    "rich.progress": {"Progress", "BarColumn", "TimeElapsedColumn", "TimeRemainingColumn"},
    "rich.filesize": {"decimal"},
}
"""The names that modules may import from rich besides the console's: none prints, and none reads markup."""
WRITERS = (
    "print",
    "Console",
    "Text",
    "typer.echo",
    "typer.secho",
    "typer.prompt",
    "sys.stdout.write",
    "sys.stderr.write",
)
TYPES = {"rich.text": {"Text"}, "rich.console": {"Console"}}


def strays(tree: ast.AST) -> Iterator[str]:
    """Ways onto the terminal that do not go through the console, in one module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rich":
            for name in node.names:
                allowed = FROM_RICH.get(node.module or "", set()) | TYPES.get(node.module or "", set())
                if name.name not in allowed:
                    yield f"{node.lineno}: from {node.module} import {name.name}"
        elif isinstance(node, ast.Import) and any(name.name.partition(".")[0] == "rich" for name in node.names):
            yield f"{node.lineno}: import rich"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in WRITERS or called.startswith("Text.from_"):
                yield f"{node.lineno}: {called}(…)"
            for keyword in node.keywords:
                if keyword.arg in ("markup", "emoji", "highlight", "highlighter"):
                    yield f"{node.lineno}: {keyword.arg}="


def test_every_command_prints_through_the_one_console() -> None:
    root = Path(__file__).parents[1]
    writers = {root / "alue_bench/views/console.py", root / "alue_bench/views/standard_output.py"}
    misplaced = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            if path not in writers:
                tree = ast.parse(path.read_text(encoding="utf-8"))
                misplaced += [f"{path.relative_to(root)}:{stray}" for stray in strays(tree)]
    assert misplaced == []


@pytest.mark.parametrize(
    "source",
    ["print('x')", "from rich import print", "import rich.prompt", "from rich.panel import Panel", "Console()",
     "Text.from_markup('x')", "console.print('x', markup=True)", "typer.echo('x')", "sys.stderr.write('x')"],
)  # fmt: skip
def test_another_way_onto_the_terminal_would_be_found(source: str) -> None:
    assert list(strays(ast.parse(source)))
