"""Short stress tests (two kills instead of fifty, three processes at once) and tests of the campaigns' code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, environment_of

from stress.command import main
from stress.store import StoredRun, gap_ms, verdict

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")


@pytest.mark.slow
@pytest.mark.stress
def test_a_plan_that_is_killed_and_one_that_many_do_end_as_one_left_alone(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["--executor", "local", "--kills", "2", "--seeds", "1", "--together", "3", "--json", str(report)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress", *options],
        cwd=REPOSITORY, env=environment_of(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    killed, together = json.loads(report.read_text())["campaigns"]
    assert killed["kills"] == 2
    for campaign in (killed, together):
        assert campaign["good"]
        assert campaign["other_scores"] == 0
        for judged in campaign["verdicts"]:
            assert (judged["finished"], judged["lost"], judged["doubled"], judged["running"]) == (4, 0, 0, 0)


def run(fingerprint: str, status: str = "FINISHED", *, process: str = "1", start: int = 0, end: int = 1) -> StoredRun:
    return StoredRun("run", status, fingerprint, process, start, end)


class TestVerdict:
    def test_of_what_is_as_it_should_be(self) -> None:
        assert verdict([run("a"), run("b"), run("b", "KILLED")], {"a", "b"}).good

    @pytest.mark.parametrize(
        ("runs", "what"),
        [
            ([run("a")], "lost"),
            ([run("a"), run("b"), run("b")], "doubled"),
            ([run("a"), run("b"), run("b", "RUNNING")], "running"),
            ([run("a"), run("b"), StoredRun("plan", "RUNNING", "", "1", 0, None)], "running"),
        ],
    )
    def test_of_what_is_not(self, runs: list[StoredRun], what: str) -> None:
        judged = verdict(runs, {"a", "b"})
        assert not judged.good
        assert {name for name in ("lost", "doubled", "running") if getattr(judged, name)} == {what}


def test_the_gap_is_between_runs_of_one_process() -> None:
    runs = [run("a", start=0, end=10), run("b", start=15, end=20), run("c", process="2", start=100, end=110)]
    assert gap_ms(runs) == 5
    assert gap_ms(runs[:1]) is None


def test_misuse_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--executor", "slurm"]) == 2
    assert "error:" in capsys.readouterr().err
