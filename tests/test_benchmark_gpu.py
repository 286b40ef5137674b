"""The benchmark for a GPU: it runs with tiny sizes on the CPU, and whatever ends it, no result is lost."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Finished

from benchmarks.gpu import command, supervision
from benchmarks.gpu.arms import Arm, best
from benchmarks.gpu.catalogue import ALL, SWEEP_CELLS, Item
from benchmarks.gpu.extrapolation import extrapolated, frozen_layers
from benchmarks.gpu.kernels import counted, counts
from benchmarks.gpu.record import ATTAINABLE, FILE, PAGE, Record
from benchmarks.gpu.sizes import TASKS, TINY
from benchmarks.gpu.worker import Work, work_off

pytestmark = pytest.mark.usefixtures("folders_of_its_own")


def in_this_process(arguments: Sequence[str], folder: Path, until: float) -> None:
    """Measure without starting a process."""
    options = command._parser().parse_args(["--worker", str(until), "--try-again", *arguments])
    assert command.measure(options) == 0


@pytest.fixture
def benchmark(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple[Finished, dict[str, Any]]]:
    """The benchmark's main function with tiny sizes in this process; it returns the file of results too."""

    def run(*arguments: str) -> tuple[Finished, dict[str, Any]]:
        capsys.readouterr()
        code = command.main(["--tiny", "--out", str(tmp_path / "out"), *arguments], supervise=in_this_process)
        return Finished(code, *capsys.readouterr()), json.loads((tmp_path / "out" / FILE).read_text("utf-8"))

    return run


class TestOnACpu:
    def test_checks_pass_and_trainings_are_compared(self, benchmark: Any, tmp_path: Path) -> None:
        pytest.importorskip("accelerate")
        arguments = ("--only", "checks", "--only", "full", "--only", "whole")
        done, content = benchmark(*arguments)
        assert done.code == 0, done.everything
        items = content["items"]
        assert {name: item["state"] for name, item in items.items()} == dict.fromkeys(
            ("checks", "full", "whole"), "done"
        )
        assert [check["passed"] for check in items["checks"]["results"]] == [True] * 4
        arms = {one["arm"]: one for one in items["full"]["results"]}
        assert set(arms) == {"engine full bf16", "trainer-best full bf16", "trainer-glue full fp32"}
        assert all(one["examples_per_s"] == pytest.approx(TINY.batch_size / one["step_s"]) for one in arms.values())
        full, frozen = items["whole"]["results"]
        assert full["prefix_s"] < 1e-3 < frozen["prefix_s"]
        goals = content["summary"]["goals"]
        assert [goal["value"] is None for goal in goals] == [False] * 4 + [True] * 2
        page = (tmp_path / "out" / PAGE).read_text("utf-8")
        assert page.count("not judged on this device") == 4
        assert "The sizes are tiny" in page
        assert "--only full" in page
        assert str(tmp_path) not in page + json.dumps(content)
        again, after = benchmark(*arguments)
        assert (again.code, after["items"]) == (0, items)

    def test_without_time_nothing_is_done_and_all_is_listed(self, benchmark: Any) -> None:
        done, content = benchmark("--minutes", "0.01")
        assert done.code == 0
        assert [item["state"] for item in content["items"].values()] == ["not done"] * len(ALL)
        assert "0 s were left" in done.out

    def test_operations_are_counted(self) -> None:
        few, many = (counted(Arm(strategy=strategy), TINY, "cpu").kernels for strategy in ("head-only", "bottom9top2"))
        assert 0 < few < many

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--only", "everything"), "no such measurement; they are checks, full,"),
            (("--minutes", "soon"), "not a number of minutes above 0"),
            (("--out", __file__), "name another folder"),
        ],
    )
    def test_misuse_is_one_sentence(self, capsys: Any, arguments: tuple[str, ...], said: str) -> None:
        assert command.main(arguments, supervise=in_this_process) == 2
        assert said in capsys.readouterr().err


def test_a_bare_machine_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that torch, transformers and scikit-learn do not need are missing; a plain loop is the baseline."""
    missing = ("mlflow", "datasets", "pluggy", "pydantic", "xxhash", "platformdirs", "accelerate", "psutil", "pandas")
    (tmp_path / "missing").mkdir()
    for name in missing:
        (tmp_path / "missing" / f"{name}.py").write_text("raise ImportError('not on this machine')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "missing"))
    (tmp_path / "out").mkdir()
    until = time.time() + 600
    arguments = ["--worker", str(until), "--tiny", "--only", "full", "--out", str(tmp_path / "out")]
    program = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    assert supervision._one_process(program, tmp_path / "out", until) is None
    page = (tmp_path / "out" / PAGE).read_text("utf-8")
    assert "loop-glue full fp32" in page
    assert "accelerate is missing" in page
    assert json.loads((tmp_path / "out" / FILE).read_text("utf-8"))["items"]["full"]["state"] == "done"


class TestSupervision:
    @pytest.mark.parametrize(
        ("program", "seconds", "why", "blamed"),
        [
            ("import os; os.abort()", 60, "SIGABRT", True),
            ("raise SystemExit(1)", 60, "exit code 1", True),
            ("import time; time.sleep(60)", 60, "not done after 0 s", True),
            ("raise SystemExit(70)", 60, "unusable", False),
            ("import time; time.sleep(60)", 0, None, False),
            ("", 60, None, False),
        ],
        ids=["crash", "error", "hang", "context lost", "time used up", "done"],
    )
    def test_the_arm_at_fault_is_left_out_and_another_process_continues(
        self, tmp_path: Path, monkeypatch: Any, program: str, seconds: float, why: str | None, blamed: bool
    ) -> None:
        monkeypatch.setattr(supervision, "LOOK_S", 0.05)
        running = {"arm": "a", "since": time.time(), "limit_s": 0.3 if why and "not done" in why else 60}
        entry = {"state": "not done", "results": [1], "problems": {}, "running": running}
        (tmp_path / FILE).write_text(json.dumps({"items": {"full": entry}}))
        said = supervision._one_process([sys.executable, "-c", program], tmp_path, time.time() + seconds)
        assert (said is None) == (why is None)
        assert (why or "") in (said or "")
        after = json.loads((tmp_path / FILE).read_text())["items"]["full"]
        assert (list(after["problems"]), after["results"]) == (["a"] if blamed else [], [1])

    def test_an_error_before_anything_is_measured_is_not_repeated(self, tmp_path: Path) -> None:
        program = [sys.executable, "-c", "raise SystemExit(1)"]
        assert supervision._one_process(program, tmp_path, time.time() + 60) is None

    def test_an_arm_that_fails_does_not_lose_the_others(self, tmp_path: Path) -> None:
        item = Item("two", "Which one fails?", (Arm(strategy="bottom13"), Arm(strategy="head-only")))
        record = Record(tmp_path, {}, "command")
        calls: list[int] = []
        work_off(Work([item], TINY, "cpu", False, False, np.inf, os.getppid()), record, lambda: calls.append(1))
        entry = json.loads((tmp_path / FILE).read_text("utf-8"))["items"]["two"]
        assert [result["arm"] for result in entry["results"]] == ["engine head-only bf16"]
        assert list(entry["problems"]) == ["engine bottom13 bf16"]
        record.forget_problems()
        assert record.entry(item)["state"] == "not done"


def test_graphs_and_the_cache_are_measured_on_a_simulated_gpu(simulated_cuda: Any, tmp_path: Path) -> None:
    arms = tuple(Arm(strategy=strategy, graphs=graphs) for strategy, graphs in (("full", "off"), ("bottom1", "on")))
    item, scale = Item("two", "Do they run?", arms), replace(TINY, layers=2)
    record = Record(tmp_path, {}, "command")
    record.content[ATTAINABLE] = {"bf16": 1e12}  # a product that takes a GPU milliseconds takes the simulation a minute
    work_off(Work([item], scale, "cuda", True, True, np.inf, os.getppid()), record, lambda: None)
    entry = record.entry(item)
    assert (entry["state"], entry["problems"]) == ("done", {})
    off, on = entry["results"]
    assert (off["settings"]["graphs"], on["settings"]["graphs"]) == ("off", "on")
    assert min(off["peak_mib"], on["peak_mib"]) > 0
    assert off["prefix_s"] < on["prefix_s"]
    assert off["graphs"] == 0 < min(on["graphs"], simulated_cuda.activity.replays)


class TestNumbers:
    @pytest.mark.parametrize(("task", "mean"), [("oold", 31.1), ("mdd", 11.7), ("xnli", 40.9)])
    def test_lengths_have_the_tasks_mean(self, task: str, mean: float) -> None:
        for count in (1600, TASKS[task].rows):
            assert TASKS[task].lengths(count).mean() == pytest.approx(mean, rel=0.01)

    def test_a_sweep_whose_parts_add_up_is_extrapolated_exactly(self) -> None:
        def step_s(bottom: int, top: int) -> float:
            trained = 12 - bottom - top
            return 1 + 0.5 * (bottom == 0) + 0.3 * trained + 0.2 * top * (trained > 0 or bottom == 0)

        timed = {cell: step_s(*frozen_layers(cell)) for cell in SWEEP_CELLS}
        swept = extrapolated("engine", timed, steps=2.0, prefix_s=5.0, stores=True)
        assert swept is not None
        cells = [(bottom, top) for bottom in range(13) for top in range(13 - bottom)]
        assert swept.seconds == pytest.approx(20 * sum(step_s(*cell) for cell in cells))
        assert swept.largest_error == pytest.approx(0.0, abs=1e-9)
        assert extrapolated("engine", {"full": 1.0}, steps=2.0, prefix_s=5.0, stores=True) is None

    def test_copies_are_not_kernels(self) -> None:
        """The events are stand-ins for those that the profiler records on a GPU."""

        def event(name: str, device: str, **fields: Any) -> Any:
            time_range = Namespace(elapsed_us=lambda: 10.0)
            return SimpleNamespace(name=name, device_type=Namespace(name=device), time_range=time_range, **fields)

        events = [event("gemm", "CUDA"), event("gemm", "CUDA"), event("Memcpy HtoD", "CUDA"), event("aten::mm", "CPU")]
        events += [event("cudaLaunchKernel", "CPU"), event("cudaGraphLaunch", "CPU")]
        events += [event("Optimizer.step#AdamW.step", "CUDA", is_user_annotation=True)]
        result = counts("arm", events, 2, accelerated=True)
        assert (result.kernels, result.copies, result.launches, result.busy_s) == (1.0, 0.5, 1.0, 1e-5)

    def test_an_arm_is_named_by_what_differs(self) -> None:
        assert (
            Arm(graphs="on", cached=False, task="mdd", batch_size=16).name
            == "engine full bf16 graphs on uncached mdd 16"
        )
        assert best().without_accelerate().name == "loop-best full bf16"


def test_trainer_uses_one_gpu_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of GPUs is a stand-in for a machine with two."""
    pytest.importorskip("accelerate")
    from alue_bench.contract.spec import HyperParameters
    from alue_bench.training.device.precision import Device
    from benchmarks.timing.trainer_baseline import training_arguments

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    arguments = training_arguments(str(tmp_path), "trainer", HyperParameters(batch_size=32), 1, Device("cuda", "fp32"))
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 32)
