"""With --json, stdout holds one JSON document, whatever plugins and libraries print."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import SHORT, CommandLine

from alue_bench.cli.main import app
from alue_bench.tracking.connection import connect

PRINTING = """
import logging, sys
from alue_bench import hookimpl

def noise(where):
    print("python", where)

noise("import")
logger = logging.getLogger("noisy")
logger.handlers = [logging.StreamHandler(sys.stdout)]
logger.warning("logging import")

@hookimpl
def alue_bench_studies():
    noise("hook")
    return []

@hookimpl
def alue_bench_run_started(spec):
    logger.warning("logging run")
    noise("run")

@hookimpl
def alue_bench_commands(app):
    noise("commands")

    @app.command("noisy")
    def noisy():
        print("its own output")
"""
NOISY = (
    PRINTING.replace(
        """    print("python", where)
""",
        """    print("python", where)
    os.write(1, f"descriptor {where}\\n".encode())
    sys.__stdout__.write(f"kept {where}\\n")
    subprocess.run([sys.executable, "-S", "-c", f"print('child {where}')"])
""",
    ).replace("import logging, sys", "import atexit, logging, os, subprocess, sys")
    + "atexit.register(noise, 'exit')\n"
)
"""Also past `sys.stdout`, and at the end of the process: for a process of its own."""


@pytest.fixture
def noisy(install: Callable[..., Path]) -> str:
    """The path of modules with a plugin that prints in every way, for a process of its own."""
    return f"{install('alue-bench-noisy', NOISY)}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"


def commands_with_json() -> list[str]:
    """By their words, those of our commands that have the option --json."""
    group: Any = typer.main.get_command(app)
    names = [(name,) for name in group.commands]
    names += [(name, inner) for name, one in group.commands.items() for inner in getattr(one, "commands", {})]
    paths = []
    for words in names:
        command = group
        for word in words:
            command = command.commands[word]
        if any("--json" in parameter.opts for parameter in command.params):
            paths.append(" ".join(words))
    return paths


DONE = {
    "run": ("-s", "head-only"),
    "sweep": ("--grid", "bottom=2", "--dry-run"),
    "search": ("--grid", "bottom=0..2", "--dry-run"),
    "submit": ("out",),
    "data verify": ("anger", "--sample"),
}
"""The further arguments with which a command does something cheap."""


@pytest.mark.parametrize("command", commands_with_json())
def test_stdout_holds_one_document(
    command: str,
    install: Callable[..., Path],
    alue_bench: CommandLine,
    store: str,
    experiment: str,
    tiny_bert: Path,
) -> None:
    words = [*command.split(), *DONE.get(command, ())]
    if command in ("run", "sweep", "search", "submit"):
        words += ["-t", "fid" if command == "submit" else "anger", "--tracking-uri", store, "--experiment", experiment]
        connect(store, experiment)
    where = ["-t", "anger", "-m", str(tiny_bert), *SHORT, "--tracking-uri", store, "--experiment", experiment]
    if command in ("run", "sweep", "search"):
        words += ["-m", str(tiny_bert), *SHORT]
    if command in ("keep", "predict"):
        Path("new.csv").write_text("text\nnew\n")
        (kept,) = json.loads(alue_bench("run", *where, "-s", "head-only", "--keep", "best", "--json").out)["kept"]
        words += [kept["run_id"], *(["new.csv", "-o", "out.csv"] if command == "predict" else [])]
        words += ["--tracking-uri", store]
    install("alue-bench-noisy", PRINTING)
    said = alue_bench(*words, "--json")
    assert json.loads(said.out) is not None, said.err
    expected = {"python import", "logging import", "python hook", "python commands"}
    assert expected <= set(said.err.splitlines())
    assert ("logging run" in said.err) == ("python run" in said.err) == (command == "run")


def test_what_is_printed_past_sys_stdout_and_at_the_end_of_the_process_is_kept_off_it_too(
    noisy: str, start_process: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start_process("list", "tasks", "--json", PYTHONPATH=noisy)
    out, err = process.communicate(timeout=60)
    assert json.loads(out) is not None, err
    ways = ("python", "descriptor", "kept", "child")
    expected = {f"{way} {where}" for way in ways for where in ("import", "hook", "commands", "exit")}
    assert expected <= set(err.splitlines())


def test_a_comparison_as_csv_too(install: Callable[..., Path], run: CommandLine, alue_bench: CommandLine) -> None:
    assert run("-s", "head-only").code == 0
    install("alue-bench-noisy", PRINTING)
    said = run("-s", "head-only", "--json")
    store = json.loads(said.out)["tracking_uri"], "--experiment", json.loads(said.out)["experiment"]
    compared = alue_bench("compare", "--format", "csv", "--tracking-uri", *store)
    assert [row["strategy"] for row in csv.DictReader(compared.out.splitlines())] == ["head-only"]
    assert "python hook" in compared.err


def test_a_plugins_own_command_keeps_stdout(noisy: str, start_process: Callable[..., subprocess.Popen[str]]) -> None:
    process = start_process("noisy", PYTHONPATH=noisy)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[0] == "its own output"
    assert "import" not in out
    assert "hook" not in out


def test_a_document_larger_than_a_pipe_arrives_whole() -> None:
    code = (
        "import sys; from alue_bench.views.standard_output import reserve_stdout_for_documents, write_exactly\n"
        "reserve_stdout_for_documents(True); print('noise'); write_exactly('ن' * 300_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode() == "ن" * 300_000
    assert done.stderr.decode() == "noise\n"
