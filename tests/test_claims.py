"""Several invocations may have a run in their plans; one does it, and whoever dies is replaced."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import REPOSITORY, CommandLine
from mlflow.exceptions import MlflowException

from alue_bench.executors import local
from alue_bench.tracking import recording
from alue_bench.tracking.claims import CLAIMING, FINGERPRINT, STAGE, HeldRun, settle_claim, withdraw
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.liveness import (
    HEARTBEAT,
    LEASE_S,
    MACHINE,
    PROCESS,
    DeadProcessDetector,
    HeartbeatWriter,
    heartbeat_value,
    progress_of_heartbeat,
    this_machine,
    this_process,
)
from alue_bench.tracking.recording import Recorder


@pytest.fixture
def connection(store: str, experiment: str) -> Connection:
    return connect(store, experiment)


Claim = Callable[..., str]


@pytest.fixture
def claim(connection: Connection) -> Claim:
    """Creates one, of this process unless told otherwise, and settles nothing."""

    def create(
        fingerprint: str = "f",
        *,
        start_time: int | None = None,
        machine: str | None = None,
        stage: str = CLAIMING,
        **more: str,
    ) -> str:
        tags = {FINGERPRINT: fingerprint, STAGE: stage, HEARTBEAT: heartbeat_value(), **more}
        tags |= {MACHINE: machine or this_machine(), PROCESS: this_process()}
        run = connection.client.create_run(connection.experiment_id, start_time=start_time, tags=tags)
        return str(run.info.run_id)

    return create


@dataclass
class Clock:
    """Shows what it is told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class SeesDeathLate(DeadProcessDetector):
    """Looks at a process when that has just finished its run and ended."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def is_dead(self, run_id: str, tags: Mapping[str, str]) -> bool:
        self._connection.client.set_terminated(run_id, "FINISHED")
        return True


class TestClaims:
    def test_the_only_one_holds(self, connection: Connection, claim: Claim) -> None:
        claim("another run")
        assert settle_claim(connection, DeadProcessDetector(), claim(), "f") is None

    def test_one_that_is_settled_keeps_it_though_another_clock_says_it_came_later(
        self, connection: Connection, claim: Claim
    ) -> None:
        first = claim(start_time=10**13, stage="training")
        assert settle_claim(connection, DeadProcessDetector(), claim(start_time=1), "f") == HeldRun(first)

    def test_what_is_finished_is_not_done_again(self, connection: Connection, claim: Claim) -> None:
        first = claim(stage="done")
        connection.client.set_terminated(first, "FINISHED")
        assert settle_claim(connection, DeadProcessDetector(), claim(), "f") == HeldRun(first)

    @pytest.mark.parametrize("status", ["FAILED", "KILLED"])
    def test_what_came_to_nothing_is(self, connection: Connection, claim: Claim, status: str) -> None:
        connection.client.set_terminated(claim(), status)
        assert settle_claim(connection, DeadProcessDetector(), claim(), "f") is None

    def test_that_of_a_dead_process_is_closed_and_taken_over(self, connection: Connection, claim: Claim) -> None:
        dead = claim(stage="training")
        connection.client.set_tag(dead, PROCESS, "1@0")
        assert settle_claim(connection, DeadProcessDetector(), claim(), "f") is None
        assert connection.client.get_run(dead).info.status == "KILLED"

    def test_what_ended_between_its_reading_and_its_process_death_stays_as_it_ended(
        self, connection: Connection, claim: Claim
    ) -> None:
        first = claim(stage="training")
        assert settle_claim(connection, SeesDeathLate(connection), claim(), "f") == HeldRun(first)
        assert connection.client.get_run(first).info.status == "FINISHED"

    def test_of_two_at_once_the_later_yields_and_the_earlier_waits_for_that(
        self, connection: Connection, claim: Claim
    ) -> None:
        early, late = claim(start_time=1), claim(start_time=2)
        with ThreadPoolExecutor() as pool:
            waits = pool.submit(settle_claim, connection, DeadProcessDetector(), early, "f")
            assert settle_claim(connection, DeadProcessDetector(), late, "f") == HeldRun(early)
            time.sleep(0.3)
            assert not waits.done()
            withdraw(connection, late)
            assert waits.result() is None

    def test_one_made_twice_because_the_stores_answer_was_lost_is_one(
        self, connection: Connection, claim: Claim
    ) -> None:
        claim(start_time=1, invocation="i")
        mine = claim(start_time=2, invocation="i")
        assert settle_claim(connection, DeadProcessDetector(), mine, "f") is None
        (left,) = connection.client.search_runs([connection.experiment_id])
        assert left.info.run_id == mine

    @pytest.mark.parametrize("other", [{"invocation": "j"}, {"machine": "elsewhere"}])
    def test_but_not_one_of_another_invocation_or_machine(
        self, connection: Connection, claim: Claim, other: dict[str, str]
    ) -> None:
        first = claim(**{"start_time": 1, "stage": "training", "invocation": "i", **other})
        assert settle_claim(connection, DeadProcessDetector(), claim(start_time=2, invocation="i"), "f") == HeldRun(
            first
        )

    def test_a_withdrawn_one_is_not_to_be_seen(self, connection: Connection, claim: Claim) -> None:
        withdraw(connection, claim())
        assert not connection.client.search_runs([connection.experiment_id])

    def test_never_do_two_hold_it_and_always_does_one_in_the_end(self, connection: Connection, claim: Claim) -> None:
        # Five threads with clocks apart by hours contend for each of three runs, round by round.
        holding: dict[str, int] = {}
        done: dict[str, int] = {}
        together = threading.Barrier(5)
        lock = threading.Lock()

        def contend(skew: int) -> None:
            for fingerprint in ("a", "b", "c"):
                together.wait()
                while True:
                    run_id = claim(fingerprint, start_time=int(time.time() * 1000) + skew * 3_600_000)
                    held = settle_claim(connection, DeadProcessDetector(), run_id, fingerprint)
                    if held is None:
                        with lock:
                            assert not holding.get(fingerprint)
                            holding[fingerprint] = 1
                        connection.client.set_tag(run_id, STAGE, "training")
                        time.sleep(0.05)
                        with lock:
                            holding[fingerprint] = 0
                            done[fingerprint] = done.get(fingerprint, 0) + 1
                        connection.client.set_terminated(run_id, "FINISHED")
                        break
                    withdraw(connection, run_id)
                    if connection.client.get_run(held.run_id).info.status == "FINISHED":
                        break
                    time.sleep(0.05)

        with ThreadPoolExecutor(5) as pool:
            for future in [pool.submit(contend, skew) for skew in (-3, 0, 0, 2, 5)]:
                future.result()
        assert done == dict.fromkeys("abc", 1)


@pytest.mark.usefixtures("folders_of_its_own")
class TestWhatIsTakenForDead:
    def test_is_not_closed_where_it_had_ended(
        self, connection: Connection, claim: Claim, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id, recorder = claim(stage="training"), Recorder(connection)
        monkeypatch.setattr(recorder, "_dead_processes", SeesDeathLate(connection))
        assert recorder.close_interrupted() == 0
        assert connection.client.get_run(run_id).info.status == "FINISHED"

    def test_is_never_another_programs_run(
        self, connection: Connection, claim: Claim, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs = connection.client.create_run(connection.experiment_id).info.run_id
        ours, recorder = claim(machine="elsewhere"), Recorder(connection)
        monkeypatch.setattr(recorder, "_dead_processes", DeadProcessDetector(lease_s=0.0))
        recorder.close_interrupted()
        time.sleep(0.01)
        assert recorder.close_interrupted() == 1
        assert connection.client.get_run(ours).info.status == "KILLED"
        assert connection.client.get_run(theirs).info.status == "RUNNING"

    def test_can_be_a_plan_that_lives_and_its_results_are_recorded_all_the_same(self, connection: Connection) -> None:
        recorder = Recorder(connection)
        plan = recorder.start_parent({}, name="a plan", tags={})
        connection.client.set_terminated(plan, "KILLED")
        recorder.finish_parent({}, {"mean_score/full": 0.5}, status="FINISHED")
        run = connection.client.get_run(plan)
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"mean_score/full": 0.5})


# Whoever normalises for the first time loses the claim to its run, as to another machine, and fails besides.
UNLUCKY = """
from pathlib import Path
from alue_bench import Model, hookimpl

def normalise(text):
    try:
        open({mark!r}, "x").close()
    except FileExistsError:
        return text
    from mlflow import MlflowClient
    client = MlflowClient(tracking_uri={uri!r})
    experiment = client.get_experiment_by_name({experiment!r})
    for run in client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")
    raise RuntimeError("too late anyway")

@hookimpl
def alue_bench_models():
    return [Model(name="unlucky", title="t", checkpoint=Path({folder!r}), normalise=normalise, normalisation="n")]
"""


def test_a_run_that_fails_after_it_was_taken_away_is_done_again(
    run: CommandLine, runs: Callable[..., list[Any]], install: Any, store: str, experiment: str, tiny_bert: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(local, "RECHECK_INTERVAL_S", 0.1)
    given = {"mark": str(tmp_path / "mark"), "uri": store, "experiment": experiment, "folder": str(tiny_bert)}
    install("alue-bench-unlucky", UNLUCKY.format(**given))
    said = run("-s", "full", model="unlucky")
    assert said.code == 0, said.err
    assert sorted(one.info.status for one in runs()) == ["FINISHED", "KILLED"]


def test_a_run_whose_claim_could_not_be_settled_beats_and_gives_way_to_a_result(
    run: CommandLine, runs: Callable[..., list[Any]], install: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("-s", "full")
    (theirs,) = runs()
    client.set_terminated(theirs.info.run_id, "KILLED")
    beating: list[bool] = []

    def they_finish(spec: Any) -> None:
        beating.append(any(thread.name == "heartbeat" for thread in threading.enumerate()))
        client.set_terminated(theirs.info.run_id, "FINISHED")

    switch = ModuleType("their_switch")
    switch.finish = they_finish  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_switch", switch)
    install(
        "alue-bench-others",
        "import sys\nfrom alue_bench import hookimpl\n@hookimpl\ndef alue_bench_run_started(spec):\n"
        "    sys.modules['their_switch'].finish(spec)\n",
    )

    def goes_away(*given: Any) -> None:
        raise MlflowException("the connection was closed")

    monkeypatch.setattr(recording, "settle_claim", goes_away)
    monkeypatch.setattr(recording, "RETRY_INTERVAL_S", 0.0)
    monkeypatch.setattr(local, "RECHECK_INTERVAL_S", 0.0)
    said = run("-s", "full", "--json")
    assert [done["run_id"] for done in json.loads(said.out)["runs"]] == [theirs.info.run_id], said.err
    assert beating == [True]
    assert [one.info.status for one in runs()] == ["FINISHED"]


class TestHeartbeat:
    def test_it_beats_while_the_run_is_held_and_no_longer(self, connection: Connection, claim: Claim) -> None:
        run_id = claim()
        heart = HeartbeatWriter(connection.client, interval_s=0.05)

        def beat() -> str:
            return str(connection.client.get_run(run_id).data.tags[HEARTBEAT])

        heart.start_heartbeat(run_id)
        heart.set_status(run_id, "37/120")
        first = beat()
        for _ in range(200):
            if progress_of_heartbeat(beat()):
                break
            time.sleep(0.02)
        assert progress_of_heartbeat(beat()) == (37, 120)
        assert beat() != first
        heart.stop_heartbeat(run_id)
        time.sleep(0.3)  # one may be on its way
        last = beat()
        time.sleep(0.3)
        assert beat() == last
        assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]

    def test_a_store_that_does_not_take_a_beat_does_not_stop_it(self, connection: Connection) -> None:
        heart = HeartbeatWriter(connection.client, interval_s=0.01)
        heart.start_heartbeat("0" * 32)
        for _ in range(500):
            if heart.missed >= 2:
                break
            time.sleep(0.02)
        assert heart.missed >= 2
        heart.stop_heartbeat("0" * 32)

    @pytest.mark.usefixtures("folders_of_its_own")
    def test_it_ends_with_whoever_recorded_whatever_was_left_open(self, connection: Connection) -> None:
        before = set(threading.enumerate())
        recorder = Recorder(connection)
        recorder.start_parent({}, name="a plan", tags={})
        (heart,) = (thread for thread in set(threading.enumerate()) - before if thread.name == "heartbeat")
        del recorder
        gc.collect()
        heart.join(timeout=10)
        assert not heart.is_alive()

    def test_no_two_beats_are_equal(self) -> None:
        assert heartbeat_value(1) != heartbeat_value(2)


THERE = {MACHINE: "elsewhere", PROCESS: "1@1"}


class TestWatch:
    def test_of_this_machine_it_knows_at_once(self) -> None:
        assert not DeadProcessDetector().is_dead("r", {MACHINE: this_machine(), PROCESS: this_process()})
        for process in ("1@0", "", "nonsense", "4194399@1"):
            assert DeadProcessDetector().is_dead("r", {MACHINE: this_machine(), PROCESS: process})

    def test_elsewhere_silence_for_a_lease_is_death(self) -> None:
        clock = Clock()
        watch = DeadProcessDetector(clock=clock)
        assert not watch.is_dead("r", {**THERE, HEARTBEAT: "1"})
        clock.now += LEASE_S
        assert not watch.is_dead("r", {**THERE, HEARTBEAT: "1"})
        clock.now += 1
        assert watch.is_dead("r", {**THERE, HEARTBEAT: "1"})

    def test_any_new_beat_is_life_whatever_time_it_tells(self) -> None:
        clock = Clock()
        watch = DeadProcessDetector(clock=clock)
        for beat in ("2026-01-01T00:00:00 1", "1970-01-01T00:00:00 2", "2999-01-01T00:00:00 3"):
            assert not watch.is_dead("r", {**THERE, HEARTBEAT: beat})
            clock.now += LEASE_S
        assert not watch.is_dead("r", {**THERE, HEARTBEAT: "another"})

    def test_one_that_never_beats_is_dead_after_a_lease(self) -> None:
        clock = Clock()
        watch = DeadProcessDetector(clock=clock)
        assert not watch.is_dead("r", THERE)
        clock.now += LEASE_S + 1
        assert watch.is_dead("r", THERE)

    def test_of_a_process_that_this_machine_hides_only_the_heart_tells(self) -> None:
        # As on a cluster whose /proc shows each user their own processes alone.
        script = (
            "import sys\n"
            "from alue_bench.tracking.liveness import *\n"
            "def dead(process): return watch.is_dead(process, {MACHINE: this_machine(), PROCESS: process})\n"
            "watch = DeadProcessDetector(lease_s=-1)\n"
            "print(dead(sys.argv[1]), dead(sys.argv[1]), dead(this_process()), dead('4194304@1'))\n"
        )
        hidden = "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups"
        said = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f'{hidden} "$@"', "sh", sys.executable, "-c", script, this_process()],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        if said.returncode and "Traceback" not in said.stderr:
            pytest.skip(f"this user may not mount /proc anew, or is not root: {said.stderr[-200:]}")
        assert said.returncode == 0, said.stderr
        assert said.stdout.split() == ["False", "True", "False", "True"]
