"""Ctrl-C and SIGTERM, wherever they meet a command: nothing stays open, no result is lost, the code says which."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import SHORT, CommandLine
from mlflow import MlflowClient

from alue_bench.searching.state import SearchState

Runs = Callable[..., list[Any]]

# Its strategy is named while a plan is made.
STOPS = """
import signal
from alue_bench import StrategyFamily, hookimpl

def parse(name):
    if name == "stops":
        signal.raise_signal(signal.{signal})

@hookimpl
def alue_bench_strategies():
    return [StrategyFamily(grammar="stops", title="t", source="s", examples=("stops",), parse=parse)]
"""


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Whoever started the tests may ignore SIGINT, and SIGTERM must not end them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_while_a_plan_is_made(alue_bench: CommandLine, install: Any, command: str, sent: str, code: int) -> None:
    install("alue-bench-stops", STOPS.format(signal=sent))
    said = alue_bench(command, "-t", "anger", "-m", "mini", "-s", "stops")
    assert said.code == code
    assert "alue-bench: interrupted" in said.err
    assert "Traceback" not in said.everything


def test_between_two_runs_of_a_search(
    alue_bench: CommandLine, store: str, experiment: str, runs: Runs, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = SearchState.decision

    def stopped(search: SearchState) -> Any:
        if search.done:
            signal.raise_signal(signal.SIGTERM)
        return decide(search)

    monkeypatch.setattr(SearchState, "decision", stopped)
    where = ("--tracking-uri", store, "--experiment", experiment)
    cells = ("--grid", "bottom=0..4/4", "--budget", "400%")
    said = alue_bench("search", "-t", "anger", "-m", tiny_bert, *SHORT, *where, *cells)
    assert said.code == 143
    assert "alue-bench: interrupted" in said.err
    assert [(r.data.tags["kind"], r.info.status) for r in runs()] == [("plan", "KILLED"), ("run", "FINISHED")]


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_where_a_librarys_clean_up_fails_by_it(
    alue_bench: CommandLine,
    store: str,
    experiment: str,
    runs: Runs,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: str,
    code: int,
) -> None:
    """torch's modes fail so, if a signal arrives while one is entered or left."""
    from alue_bench.executors import runner

    def execute(*arguments: Any, **options: Any) -> Any:
        try:
            signal.raise_signal(getattr(signal, sent))
        finally:
            raise RuntimeError("trying to pop from empty mode stack")

    monkeypatch.setattr(runner, "execute", execute)
    where = ("--tracking-uri", store, "--experiment", experiment)
    said = alue_bench("run", "-t", "anger", "-m", tiny_bert, "-s", "full", *SHORT, *where)
    assert said.code == code
    assert "interrupted: 1 runs are left" in said.err
    assert [(r.data.tags["kind"], r.info.status) for r in runs()] == [("run", "KILLED")]


@contextmanager
def stopped_after(name: str, call: int) -> Iterator[None]:
    """Ctrl-C just after a call of the client's, counted from 1, has reached the store."""
    real = getattr(MlflowClient, name)
    calls = iter(range(1, 1000))

    def stopping(*given: Any, **named: Any) -> Any:
        returned = real(*given, **named)
        if next(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return returned

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, name, stopping)
        yield


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("log_artifacts", 2),  # the first one is the configuration, when the run begins
        ("set_terminated", 1),  # the run has ended
    ],
)
def test_while_a_result_is_recorded(run: CommandLine, runs: Runs, name: str, call: int) -> None:
    with stopped_after(name, call):
        said = run("-s", "full", "--json")
    assert said.code == 130
    assert "interrupted: 1 runs are left; run the same command again to continue" in said.err

    again = run("-s", "full", "--json")
    assert [done["status"] for done in json.loads(again.out)["runs"]] == ["reused"], again.err
    (recorded,) = runs()
    assert recorded.info.status == "FINISHED"
    assert {"test/score", "runtime/train_s"} <= recorded.data.metrics.keys()


def test_after_the_last_run_of_a_plan(run: CommandLine, runs: Runs) -> None:
    with stopped_after("set_terminated", 3):  # two runs, then the plan's own
        said = run("-s", "full", "-s", "bottom2", "--json")
    assert said.code == 130
    assert Counter(r.info.status for r in runs()) == {"FINISHED": 3}
