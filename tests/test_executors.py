"""A plan ends the same wherever its runs are done, and whatever becomes of those who do them."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import SHORT, CommandLine
from guide import HERE
from test_standard_output import NOISY

from alue_bench.contract.errors import UnavailableError
from alue_bench.contract.executor import (
    Assignment,
    AssignmentFinished,
    AssignmentLost,
    Event,
    Executor,
    Report,
    Resources,
    WarningIssued,
)
from alue_bench.executors import local, scheduler, worker
from alue_bench.executors.heartbeats import HeartbeatPoller
from alue_bench.executors.processes import cause_of_death, environment_of, start, visible_gpus
from alue_bench.measure.environment import RUNS_PER_GPU
from alue_bench.planning.sweep_order import POSITION_TAG
from alue_bench.testing import ConformanceError, ConformanceWarning, check_executor
from alue_bench.tracking.claims import FINGERPRINT, STAGE
from alue_bench.tracking.connection import connect
from alue_bench.tracking.liveness import MACHINE, PROCESS, this_machine, this_process
from alue_bench.training.device.hardware import Hardware

TWO = ("-s", "full", "-s", "bottom2")


def scores(said: Any) -> dict[str, dict[str, float]]:
    """Everything that was scored and counted, by fingerprint; not what was timed."""
    timed = ("runtime/", "memory/", "throughput/", "energy/")
    return {
        done["fingerprint"]: {name: v for name, v in done["metrics"].items() if not name.startswith(timed)}
        for done in json.loads(said.out)["runs"]
    }


def statuses(said: Any) -> list[str]:
    return [done["status"] for done in json.loads(said.out)["runs"]]


@pytest.fixture
def here(install: Callable[..., Path]) -> None:
    install("alue-bench-here", HERE)


FAULTY = """
import os
from alue_bench import Executor, hookimpl
from alue_bench.contract.executor import Assignment, AssignmentLost, AssignmentFinished, RunStarted

class Faulty:
    \"\"\"Loses what FAULTS says, before or after the work, as workers and machines are lost.\"\"\"
    def __init__(self):
        self._events, self._faults = [], os.environ["FAULTS"].split()

    def has_capacity(self):
        return not self._events

    def submit(self, assignment):
        from alue_bench.executors.worker import execute_assignment

        fault = self._faults.pop(0) if self._faults else "none"
        if fault in ("none", "after"):
            execute_assignment(assignment, self._events.append if fault == "none" else lambda report: None)
        if fault == "none":
            self._events.append(AssignmentFinished(assignment.number))
        else:
            machine = fault == "machine"
            lost = AssignmentLost(assignment.number, "struck by lightning", infrastructure_failure=machine)
            self._events.append(lost)

    def events(self, timeout_s):
        pending, self._events = self._events, []
        return pending

    def stop(self):
        pass

@hookimpl
def alue_bench_executors():
    return [Executor(name="faulty", title="t", start=lambda resources: Faulty())]
"""


class TestAPluginsExecutor:
    @pytest.mark.usefixtures("here")
    def test_the_guides_gives_the_results_of_the_main_process(
        self, run: CommandLine, runs: Callable[..., list[Any]]
    ) -> None:
        alone = run(*TWO, "--json")
        handed_out = run(*TWO, "--json", "--rerun", "--executor", "cafes-here")
        assert handed_out.code == 0, handed_out.err
        assert scores(handed_out) == scores(alone)
        assert statuses(run(*TWO, "--json", "--executor", "cafes-here")) == ["reused", "reused"]
        parents = {r.data.tags["mlflow.parentRunId"] for r in runs("tags.kind = 'run'")}
        assert parents == {r.info.run_id for r in runs("tags.kind = 'plan'")[:2]}

    @pytest.mark.usefixtures("here")
    def test_the_runs_of_a_sweep_begin_in_its_order(
        self, alue_bench: CommandLine, store: str, experiment: str, tiny_bert: Path, runs: Callable[..., list[Any]]
    ) -> None:
        """The longest first would put one corner of the grid at the beginning and another one at the end."""
        what = ("-t", "anger", "-m", tiny_bert, *SHORT, "--grid", "bottom=0..4/2,top=0..2/2")
        where = ("--tracking-uri", store, "--experiment", experiment)
        assert alue_bench("sweep", *what, *where, "--executor", "cafes-here", "--confirm", 0).code == 0
        assert [r.data.tags[POSITION_TAG] for r in runs("tags.kind = 'run'")] == [f"{place}/5" for place in range(1, 6)]

    @pytest.mark.usefixtures("here")
    def test_a_diagnostic_set_is_scored_with_the_model_that_its_worker_trained_just_before(
        self, run: CommandLine
    ) -> None:
        said = run("-t", "xnli", "-t", "diag", "-s", "full", "--json", "--executor", "cafes-here", task=None)
        assert said.code == 0, said.err
        trained, reused = json.loads(said.out)["runs"]
        assert (trained["metrics"]["runtime/train_reused"], reused["metrics"]["runtime/train_reused"]) == (0, 1)

    @pytest.mark.parametrize(
        ("faults", "expected", "code"),
        [
            ("worker", ["finished", "finished"], 0),  # done again
            ("after", ["reused", "finished"], 0),  # it was recorded before its worker died
            ("worker worker", ["failed", "finished"], 1),
            ("machine machine machine", ["finished", "finished"], 0),  # it had no part in that
            ("machine machine machine machine", ["failed", "finished"], 1),  # but something is wrong
        ],
    )
    def test_what_a_lost_worker_had_is_done_again_but_not_for_ever(
        self,
        install: Any,
        run: CommandLine,
        runs: Any,
        monkeypatch: pytest.MonkeyPatch,
        faults: str,
        expected: list[str],
        code: int,
    ) -> None:
        install("alue-bench-faulty", FAULTY)
        monkeypatch.setenv("FAULTS", faults)
        said = run(*TWO, "--json", "--executor", "faulty")
        assert said.code == code, said.err
        assert statuses(said) == expected
        assert not runs("attributes.status = 'RUNNING'")
        if code:
            assert "failed anger/tiny-bert/full/seed42: struck by lightning" in said.err
            (failed,) = runs("attributes.status = 'FAILED' and tags.kind = 'run'")
            assert failed.data.tags["failure"] == "struck by lightning"

    def test_what_it_recorded_counts_also_where_everything_is_done_again(
        self, install: Any, run: CommandLine, runs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install("alue-bench-faulty", FAULTY)
        run("-s", "full")
        monkeypatch.setenv("FAULTS", "after")
        said = run("-s", "full", "--json", "--executor", "faulty", "--rerun")
        assert statuses(said) == ["finished"]
        older, newer = runs("tags.kind = 'run'")
        assert json.loads(said.out)["runs"][0]["run_id"] == newer.info.run_id != older.info.run_id

    @pytest.mark.usefixtures("here")
    def test_what_waits_for_another_invocations_model_is_done_where_that_one_fails(
        self, run: CommandLine, store: str, experiment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scheduler, "RECHECK_INTERVAL_S", 0.0)
        given = ("-t", "xnli", "-t", "diag", "-s", "full", "--json")
        planned = json.loads(run(*given, "--dry-run", task=None).out)["planned"]
        (fingerprint,) = (one["fingerprint"] for one in planned if one["task"] == "xnli")
        connection = connect(store, experiment)
        tags = {FINGERPRINT: fingerprint, STAGE: "training", MACHINE: this_machine(), PROCESS: this_process()}
        theirs = connection.client.create_run(connection.experiment_id, tags=tags).info.run_id

        def fails(later: Any) -> str:
            connection.client.set_tag(theirs, "failure", "RuntimeError: not theirs either")
            connection.client.set_terminated(theirs, "FAILED")
            return local.waiting_message(later)

        monkeypatch.setattr(scheduler, "waiting_message", fails)
        said = run(*given, "--executor", "cafes-here", task=None)
        assert [(done["task"], done["status"]) for done in json.loads(said.out)["runs"]] == [
            ("xnli", "failed"),
            ("diag", "finished"),
        ]

    def test_fail_fast_hands_out_nothing_more(
        self, install: Any, run: CommandLine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install("alue-bench-faulty", FAULTY)
        monkeypatch.setenv("FAULTS", "worker worker")
        said = run(*TWO, "--json", "--executor", "faulty", "--fail-fast")
        assert (said.code, statuses(said)) == (1, ["failed"])

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("raise OSError('the queue is closed')", "executor 'own' failed: OSError: the queue is closed"),
            ("raise UnavailableError('there is no queue; make one')", "there is no queue; make one"),
        ],
    )
    def test_one_that_cannot_be_had_says_why(self, install: Any, run: CommandLine, source: str, said: str) -> None:
        install(
            "alue-bench-own",
            "from alue_bench import Executor, UnavailableError, hookimpl\n"
            f"def start(resources):\n    {source}\n"
            "@hookimpl\ndef alue_bench_executors():\n    return [Executor(name='own', title='t', start=start)]\n",
        )
        answer = run("-s", "full", "--executor", "own")
        assert answer.code == 2
        assert f"alue-bench: {said}" in answer.err
        assert "Traceback" not in answer.everything

    @pytest.mark.parametrize("method", ["has_capacity", "submit", "events", "stop"])
    def test_one_that_breaks_in_the_middle_is_named_and_leaves_nothing_open(
        self, install: Any, run: CommandLine, runs: Any, method: str
    ) -> None:
        install("alue-bench-here", f"{HERE}\nHere.{method} = lambda self, *given: 1 / 0\n")
        said = run("-s", "full", "--executor", "cafes-here")
        assert said.code == 2
        assert "executor 'cafes-here' failed: ZeroDivisionError: division by zero; finished runs are" in said.err
        assert "Traceback" not in said.everything
        assert not runs("attributes.status = 'RUNNING' and tags.kind = 'run'")
        assert run("-s", "full").code == 0

    @pytest.mark.parametrize(
        ("event", "objection"),
        [
            ("executor.RunStarted('f00')", "reported run 'f00', which is not in the plan"),
            ("executor.RunEnded('f00', 'finished', 'r1')", "reported run 'f00', which is not in the plan"),
            ("executor.RunAdvanced('f00', 1, 2)", "reported run 'f00', which is not in the plan"),
            (
                "executor.RunEnded('f00', 'done', 'r1')",
                "reported status 'done', which is not one of finished, reused, failed",
            ),
            ("executor.RunEnded('f00', 'held', 'r1')", "reported run 'f00', which no worker has"),
            ("executor.AssignmentFinished(99)", "reported assignment 99, which no worker has"),
            ("executor.AssignmentFinished(1)", "reported assignment 1 as done, but not of anger/tiny-bert/full/seed42"),
            ("executor.AssignmentLost(99, 'gone')", "reported assignment 99, which no worker has"),
            ("{'run': 'f00'}", "reported dict {'run': 'f00'}, which is not an event of alue_bench.contract.executor"),
        ],
    )
    def test_one_that_tells_of_what_it_was_not_given_is_named_and_leaves_nothing_open(
        self, install: Any, run: CommandLine, runs: Any, event: str, objection: str
    ) -> None:
        confused = f"from alue_bench.contract import executor\nHere.events = lambda self, timeout_s: [{event}]\n"
        install("alue-bench-here", f"{HERE}\n{confused}")
        said = run("-s", "full", "--executor", "cafes-here")
        assert said.code == 2
        assert f"executor 'cafes-here' {objection}" in said.err
        assert "; finished runs are recorded" in said.err
        assert "Traceback" not in said.everything
        assert not runs("attributes.status = 'RUNNING' and tags.kind = 'run'")


def test_an_executor_that_asks_the_store_for_news_goes_on_while_it_is_away() -> None:
    assignment = Assignment(
        number=1, runs=(), tracking_uri="http://127.0.0.1:9", experiment="x", parent_id=None, invocation="i",
        disabled_plugins=(), rerun=False, device="cpu",
    )  # fmt: skip
    assert HeartbeatPoller(assignment).reports() == []


class TestAWorkerThatBeginsWhileTheStoreIsAway:
    @pytest.fixture
    def assignment(self, tmp_path: Path) -> Assignment:
        """Nothing to do; the store's folder is none yet."""
        (tmp_path / "none").write_text("")
        (tmp_path / "folder").symlink_to(tmp_path / "none")
        uri = f"sqlite:///{tmp_path / 'folder' / 'mlflow.db'}"
        return Assignment(
            number=1, runs=(), tracking_uri=uri, experiment="x", parent_id=None, invocation="i", disabled_plugins=(),
            rerun=False, device="cpu",
        )  # fmt: skip

    def test_waits_for_it(
        self, assignment: Assignment, own_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "CONNECT_RETRY_INTERVAL_S", 0.05)
        told: list[Report] = []

        def tell(report: Report) -> None:
            told.append(report)
            (tmp_path / "back").symlink_to(Path(own_store.removeprefix("sqlite:///")).parent)
            os.replace(tmp_path / "back", tmp_path / "folder")

        worker.execute_assignment(assignment, tell)
        assert len(told) == 1
        assert isinstance(told[0], WarningIssued)
        assert "a worker waits for the store: tracking folder" in told[0].message

    def test_but_not_for_ever(self, assignment: Assignment, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker, "CONNECT_RETRY_INTERVAL_S", 0.05)
        monkeypatch.setattr(worker, "CONNECT_TIMEOUT_S", 0.2)
        with pytest.raises(UnavailableError, match="tracking folder"):
            worker.execute_assignment(assignment, lambda report: None)


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--executor", "rai"), "--executor 'rai' is unknown (did you mean 'ray'?); known are local, ray"),
            (("--jobs", "0"), "--jobs is 0; it must be at least 1"),
            (("--jobs", "2", "--gpus-per-run", "1"), "--gpus-per-run is for --executor ray"),
            (("--gpus-per-run", "1"), "--gpus-per-run is for --executor ray"),
            (("--executor", "ray", "--gpus-per-run", "0"), "--gpus-per-run is 0.0; it must be above 0"),
        ],
    )
    def test_what_makes_no_sense_is_said(self, run: CommandLine, arguments: Sequence[str], said: str) -> None:
        answer = run("-s", "full", *arguments)
        assert answer.code == 2
        assert said in answer.err

    def test_the_name_of_a_built_in_one_is_taken(self, install: Any, run: CommandLine) -> None:
        install("alue-bench-here", HERE.replace("cafes-here", "ray"))
        said = run("-s", "full", "--dry-run")
        assert "alue_bench_executors() returned 'ray', which is the name of a built-in one" in " ".join(
            said.err.split()
        )


class TestConformance:
    def test_the_guides_passes(self) -> None:
        namespace: dict[str, Any] = {}
        exec(compile(HERE, "docs/plugins.md", "exec", dont_inherit=True), namespace)
        (executor,) = namespace["alue_bench_executors"]()
        check_executor(executor)

    def test_what_is_wrong_is_said(self) -> None:
        class Busy:
            def has_capacity(self) -> bool:
                return False

            def submit(self, assignment: Assignment) -> None: ...

            def events(self, timeout_s: float) -> Sequence[Event]:
                return [AssignmentFinished(1), AssignmentLost(2, "")]

            def stop(self) -> None: ...

        with pytest.raises(ConformanceError) as raised:
            check_executor(Executor(name="No Name", title="", start=lambda resources: Busy()))
        for part in ("the name must match", "the title is empty", "accepts no run", "events before any run"):
            assert part in str(raised.value)

    def test_what_is_not_there_is_not_checked(self) -> None:
        def start(resources: Resources) -> Any:
            raise UnavailableError("there is no cluster; start one")

        with pytest.warns(ConformanceWarning, match="there is no cluster"):
            check_executor(Executor(name="cluster", title="on a cluster", start=start))


DEADLY = """
import os, signal
from pathlib import Path
from alue_bench import Model, hookimpl

def normalise(text):
    try:
        open({mark!r}, "x").close()
    except FileExistsError:
        return text
    os.kill(os.getpid(), signal.SIGKILL)

@hookimpl
def alue_bench_models():
    return [Model(name="deadly", title="t", checkpoint=Path({folder!r}), normalise=normalise, normalisation="n")]
"""


LOSES_ITS_GPU = """
from pathlib import Path
from alue_bench import Model, hookimpl
from alue_bench.executors import runner

lost = []
runner.device_is_lost = lambda device: bool(lost)  # of this process, as with CUDA

def normalise(text):
    try:
        open({mark!r}, "x").close()
    except FileExistsError:
        return text
    lost.append(True)
    raise RuntimeError("CUDA error: device-side assert triggered")

@hookimpl
def alue_bench_models():
    return [Model(name="asserting", title="t", checkpoint=Path({folder!r}), normalise=normalise, normalisation="n")]
"""


@pytest.fixture
def asserting(install: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of this name, the first run of which loses the GPU of its process."""
    from alue_bench.executors import runner

    monkeypatch.setattr(runner, "device_is_lost", runner.device_is_lost)  # puts the true one back afterwards
    install("alue-bench-asserting", LOSES_ITS_GPU.format(folder=str(tiny_bert), mark=str(tmp_path / "asserted")))


class TestALostGpu:
    """After some errors CUDA answers every later call of a process with the same one."""

    @pytest.mark.usefixtures("asserting")
    def test_the_next_run_is_not_tried_in_this_process(self, run: CommandLine, runs: Any) -> None:
        said = run(*TWO, model="asserting")
        assert said.code == 2
        assert "this process can no longer use its GPU after a failed run; run the same command again" in said.err
        assert "Traceback" not in said.err
        assert [r.info.status for r in runs("tags.kind = 'run'")] == ["FAILED"]


class TestWorkersEnvironment:
    """Set before a worker loads torch."""

    def test_none_is_given_a_gpu_that_is_named_and_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A container's image may name four GPUs on a machine with one: CUDA stops at the first that is missing."""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        assert visible_gpus(Hardware("cuda")) == ["0"]

    def test_more_workers_than_gpus_share_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        pool = start(Resources(device="cuda", jobs=5))
        assert [given["CUDA_VISIBLE_DEVICES"] for given in pool.environments] == ["0", "1", "0", "1", "0"]
        assert {given[RUNS_PER_GPU] for given in pool.environments} == {"3"}
        assert all(RUNS_PER_GPU not in given for given in start(Resources(device="cuda", jobs=2)).environments)

    def test_the_cores_are_divided_unless_the_user_has_chosen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cores = len(os.sched_getaffinity(0))
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert environment_of({}, 1) == {"OMP_NUM_THREADS": str(cores), "RAYON_NUM_THREADS": str(cores)}
        assert environment_of({}, 10 * cores)["OMP_NUM_THREADS"] == "1"
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert environment_of({}, 2)["OMP_NUM_THREADS"] == "3"


NOISY_IN_WORKERS = """
def noise(where):
    import multiprocessing
    if multiprocessing.parent_process() is None:
        return
"""


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C interrupts this process, even if a shell has started it in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
class TestWorkerProcesses:
    @pytest.mark.usefixtures("asserting")
    def test_they_give_the_scores_of_one_process_though_one_is_killed_and_one_loses_its_gpu(
        self, install: Any, run: CommandLine, runs: Any, tiny_bert: Path, tmp_path: Path
    ) -> None:
        install("alue-bench-deadly", DEADLY.format(folder=str(tiny_bert), mark=str(tmp_path / "killed")))
        everything = ("-m", "deadly", *TWO, "--json")
        said = run(*everything, "--jobs", "2", model="asserting")
        assert said.code == 1, said.err
        assert sorted(statuses(said)) == ["failed", "finished", "finished", "finished"]
        assert "the worker process was killed by SIGKILL, as the system does when memory runs out; the" in said.err
        assert "could no longer use its GPU, after an earlier run had failed; the run is repeated" in said.err
        done = runs("tags.kind = 'run'")
        assert Counter(r.info.status for r in done) == {"FINISHED": 3, "FAILED": 1, "KILLED": 1}
        assert len({r.data.tags["process"] for r in done}) >= 3
        assert not {r.data.tags["process"].partition("@")[0] for r in done} & {str(os.getpid())}

        alone = scores(run(*everything, "--rerun", model="asserting"))
        of_workers = {fingerprint: values for fingerprint, values in scores(said).items() if values}
        assert len(of_workers) == 3
        assert of_workers == {fingerprint: alone[fingerprint] for fingerprint in of_workers}

    @pytest.mark.parametrize(
        ("code", "cause"),
        [
            (-signal.SIGSEGV, "the worker process was killed by SIGSEGV"),
            (3, "the worker process ended with exit code 3"),
        ],
    )
    def test_how_one_died_is_said(self, code: int, cause: str) -> None:
        assert cause_of_death(code) == cause

    def test_interrupted_they_close_their_runs_and_print_nothing_on_stdout(
        self, install: Any, run: CommandLine, runs: Any, store: str, experiment: str, interrupts: None, capfd: Any
    ) -> None:
        install("alue-bench-noisy", NOISY.replace("def noise(where):\n", NOISY_IN_WORKERS))
        connect(store, experiment)
        ended = threading.Event()

        def interrupt() -> None:
            while not ended.wait(0.2):
                if len(runs("tags.stage = 'training' and attributes.status = 'RUNNING'")) == 2:
                    os.kill(os.getpid(), signal.SIGINT)
                    return

        thread = threading.Thread(target=interrupt)
        thread.start()
        said = run(*TWO, "--epochs", "400", "--max-length", "64", "--batch-size", "4", "--jobs", "2", "--json")
        ended.set()
        thread.join()
        assert said.code == 130, said.err
        assert "interrupted: 2 runs are left" in said.err
        assert "Traceback" not in said.err
        assert json.loads(said.out)["runs"] == []
        printed = capfd.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert "descriptor run" in printed.err  # of both workers; their lines may run together
        done = runs("tags.kind = 'run'")
        assert [r.info.status for r in done] == ["KILLED", "KILLED"]
        processes = {int(r.data.tags["process"].partition("@")[0]) for r in done}
        assert len(processes) == 2
        assert os.getpid() not in processes
        assert not [number for number in processes if Path(f"/proc/{number}").exists()]
