"""The supervision of the measuring process: a process that dies, hangs or loses the GPU is replaced by another one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError
from benchmarks.command_line import say
from benchmarks.gpu.record import FILE
from benchmarks.ledger import write_json
from benchmarks.processes import environment

LOOK_S = 1.0
"""The seconds between two checks whether the measuring process is still running and within its time limit."""
GRACE_S = 15.0
"""The length in seconds of the last part of the available time. No training begins in it, so that a running one can
end."""
MISUSE = 2
"""The exit code of a measuring process that rejects the results in the folder, because their settings are not those of
this command."""
DEVICE_UNUSABLE = 70
"""The exit code of a measuring process whose GPU context no longer works."""
MOST_PROCESSES = 12
"""The largest number of measuring processes that are started."""


def supervised(arguments: Sequence[str], folder: Path, until: float) -> None:
    """Start measuring processes, one after the other, until everything is measured or the time is used up.

    If a process dies, hangs or loses the GPU, the next one continues.

    Args:
        arguments: The command-line arguments for a process.
        folder: The folder of results.
        until: The end of the available time, in seconds since 1970.

    Raises:
        UsageError: The folder has results with other settings than those of this command; the process has printed the
            differences.
    """
    command = [sys.executable, "-m", "benchmarks.gpu", "--worker", str(until - GRACE_S), *arguments]
    for number in range(MOST_PROCESSES):
        why = _one_process(command if number else [*command, "--try-again"], folder, until)
        if why is None or time.time() >= until:
            return
        say(f"another process continues: {why}")


def _one_process(command: Sequence[str], folder: Path, until: float) -> str | None:
    """Run a measuring process to its end; return the reason why another process must continue, or None if none must.

    Raises:
        UsageError: The process has rejected the results in the folder.
    """
    variables = environment(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    process = subprocess.Popen(command, env=variables, process_group=0)  # torch.compile starts child processes
    why = ""
    try:
        while process.poll() is None:
            time.sleep(LOOK_S)
            running = _running(folder)
            if time.time() > until:
                _kill(process)
                _blame_arm(folder, None)
                return None
            if running is not None and time.time() > running[1]["since"] + running[1]["limit_s"]:
                why = f"it was not done after {running[1]['limit_s']:.0f} s"
                _kill(process)
    finally:
        if process.poll() is None:  # an interruption
            _kill(process)
    code = process.returncode
    if code == MISUSE:
        raise UsageError("nothing was measured")
    if code == 0:
        return None
    if code == DEVICE_UNUSABLE and not why:
        return "the GPU context of the last one was unusable"
    why = why or f"its process died ({_signal(code)})"
    return why if _blame_arm(folder, why) else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its child processes; the results that it has measured are already in the file."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code, as text."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _running(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the field `running` of the measurement that is being made; None if none is being made."""
    items = _content(folder).get("items", {})
    return next(((name, entry["running"]) for name, entry in items.items() if "running" in entry), None)


def _content(folder: Path) -> dict[str, Any]:
    """Return the content of the file of results, which is empty if there is no file yet."""
    file = folder / FILE
    content: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return content


def _blame_arm(folder: Path, why: str | None) -> bool:
    """Record that a process ended while training an arm (way of training), so that the next process leaves the arm out.

    Args:
        folder: The folder of results.
        why: The reason for the end, which becomes the problem of the arm. If None, the arm is not to blame: only its
            mark as running is removed.

    Returns:
        False if no arm was being trained. The process then ended for another reason, and the next one would end too.
    """
    content = _content(folder)
    at_work = [entry for entry in content.get("items", {}).values() if "running" in entry]
    for entry in at_work:
        arm = entry.pop("running")["arm"]
        if why:
            entry["problems"][arm] = why
    if at_work:
        write_json(folder / FILE, content)
    return bool(at_work)
