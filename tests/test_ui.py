"""`alue-bench ui`: MLflow's server is there when its address is printed, and gone when the command is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import CommandLine

from alue_bench.tracking.connection import connect

STARTER = """
import subprocess, sys
from pathlib import Path
guard = subprocess.Popen([sys.executable, "-m", "alue_bench.cli.server_guard", sys.executable, "-c", sys.argv[1]],
                         stdin=subprocess.PIPE, start_new_session=True)
guard.wait()
"""
SERVER = """
import os, signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path("pids.new").write_text(f"{os.getpid()} {worker.pid}")
os.replace("pids.new", "pids")
time.sleep(600)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.05)
    return condition()


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_the_server_answers_when_its_address_is_printed_and_ends_with_the_command(
    start_process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    uri, port = f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}", free_port()
    connect(uri, "alue-bench")
    ui = start_process("ui", "--tracking-uri", uri, "--port", port)
    assert ui.stderr is not None
    said = ""
    while "All runs:" not in said:
        line = ui.stderr.readline()
        assert line, said
        said += line
    assert f"http://127.0.0.1:{port}/#/experiments/" in said
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        assert answer.status == 200
    family = psutil.Process(ui.pid).children(recursive=True)
    assert [one for one in family if "uvicorn" in one.cmdline()]
    assert not [one for one in family if any("jobs" in word or "huey" in word for word in one.cmdline())]
    ui.send_signal(signal.SIGTERM)
    assert ui.wait(30) == 143
    assert all(is_gone(one.pid) for one in family)


def test_a_server_that_heeds_no_signal_ends_when_its_command_is_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, SERVER], cwd=tmp_path)
    assert wait_for((tmp_path / "pids").is_file)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    guard = psutil.Process(pids[0]).ppid()
    starter.kill()
    starter.wait()
    assert wait_for(lambda: all(is_gone(pid) for pid in [*pids, guard]))


def test_a_port_that_is_taken_is_told_with_a_command_that_takes_a_free_one(alue_bench: CommandLine, store: str) -> None:
    connect(store, "of ui")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = alue_bench("ui", "--port", port, "--experiment", "of ui", "--tracking-uri", store)
    assert said.code == 2
    assert f"port {port} of 127.0.0.1 is taken by another process; use a free one: alue-bench ui --port " in said.err
    assert said.err.rstrip().endswith(f" --experiment 'of ui' --tracking-uri {store}")
    assert f"--port {port} " not in said.err


def test_an_experiment_that_is_not_there_is_not_created(alue_bench: CommandLine, store: str) -> None:
    connect(store, "there")
    said = alue_bench("ui", "--experiment", "elsewhere", "--tracking-uri", store)
    assert said.code == 2
    assert "there is no experiment 'elsewhere'" in said.err
    again = alue_bench("ui", "--experiment", "elsewhere", "--tracking-uri", store)
    assert again.err == said.err


def test_a_server_that_ends_before_it_answers_is_told(
    alue_bench: CommandLine, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(store, "there")
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    said = alue_bench("ui", "--experiment", "there", "--tracking-uri", store, "--port", free_port())
    assert said.code == 2
    assert "MLflow's server ended with exit code 3 before it answered" in said.err
    assert "All runs:" not in said.err
