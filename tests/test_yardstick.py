"""The linear model on TF-IDF features beside every run: its scores, its cache, and where it is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

from alue_bench.evaluation import yardstick as module
from alue_bench.evaluation.yardstick import compute_yardstick, text_features, yardstick
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.inputs import RunInputs

pytestmark = pytest.mark.usefixtures("folders_of_its_own")


@pytest.fixture
def planned(registry: Any, tiny_bert: Path) -> Callable[..., RunInputs]:
    def plan(task: str, **options: Any) -> RunInputs:
        request = PlanRequest(tasks=(task,), models=(str(tiny_bert),), strategies=("full",), sample=True, **options)
        return build_plan(request, registry).runs[0].inputs

    return plan


def of(inputs: RunInputs) -> tuple[Any, ...]:
    return inputs.task, inputs.rows, inputs.train_task, inputs.train_rows


TRIVIAL = {"anger": 0.37, "mdd": 0.02, "sec": 0.3, "svreg": 0.0, "mq2q": 0.35, "diag": 0.2}


@pytest.mark.parametrize("task", list(TRIVIAL))
def test_learns_every_kind_of_task(planned: Callable[..., RunInputs], task: str) -> None:
    first, second = (compute_yardstick(*of(planned(task))) for _ in range(2))
    assert TRIVIAL[task] + 0.05 < first.test_score <= 1
    assert (first.test_score, first.dev_score, first.strength) == (
        second.test_score, second.dev_score, second.strength
    )  # fmt: skip


def test_many_rows_and_outputs_take_the_faster_solver(
    planned: Callable[..., RunInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXACT_WORK", 0.0)
    for task in ("anger", "sec"):
        assert compute_yardstick(*of(planned(task))).test_score > TRIVIAL[task] + 0.05


def test_one_label_in_the_train_rows_is_no_obstacle(planned: Callable[..., RunInputs]) -> None:
    assert 0 < compute_yardstick(*of(planned("ohsd", limit_train=1))).test_score < 0.6


def test_a_pair_of_texts_has_features_of_what_both_share(planned: Callable[..., RunInputs]) -> None:
    rows = planned("mq2q").rows.splits
    features = text_features(rows)
    ngrams = features["train"].shape[1] // 4
    first, second, apart, shared = (features["test"][:, part * ngrams : (part + 1) * ngrams] for part in range(4))
    assert abs(first.multiply(second) - shared).max() < 1e-6
    assert abs(abs(first - second) - apart).max() < 1e-6


def test_is_computed_once_for_the_same_rows(
    planned: Callable[..., RunInputs], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "own"))
    calls: list[str] = []

    def counted(*inputs: Any) -> Any:
        calls.append(inputs[0].name)
        return compute_yardstick(*inputs)

    monkeypatch.setattr(module, "compute_yardstick", counted)

    def asked(**options: Any) -> Any:
        monkeypatch.setattr(module, "_known_results", {})  # as in a new process
        return yardstick(*of(planned("anger", **options)))

    first = asked(limit_train=60)
    assert asked(limit_train=60, seeds=(43,)) == first
    assert len(calls) == 1
    asked(limit_train=50)
    assert len(calls) == 2
    for path in (tmp_path / "own" / "yardsticks").glob("*.json"):
        path.write_text("{")  # damaged: computed again
    assert asked(limit_train=60).test_score == first.test_score
    assert len(calls) == 3


def test_is_recorded_and_shown_unless_left_out(
    run: CommandLine, alue_bench: CommandLine, store: str, experiment: str
) -> None:
    said = run("-s", "full", "-s", "bottom2", "--limit-train", "40")
    assert "TF-IDF + logistic regression" in said.out
    where = ("--experiment", experiment, "--tracking-uri", store)
    (block,) = json.loads(alue_bench("compare", "--format", "json", *where).out)["blocks"]
    assert f"{block['tfidf_score']:.3f} TF-IDF" in said.out
    assert f"TF-IDF + logistic regression {block['tfidf_score']:.3f}" in " ".join(
        alue_bench("compare", "--format", "markdown", *where).out.split()
    )
    (done,) = json.loads(run("-s", "full", "--limit-train", "40", "--no-yardstick", "--rerun", "--json").out)["runs"]
    assert "test/tfidf_score" not in done["metrics"]


def test_a_failure_costs_the_run_nothing_but_the_score(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "text_features", lambda splits: 1 / 0)
    said = run("-s", "full", "--limit-train", "39", "--json")
    (done,) = json.loads(said.out)["runs"]
    assert said.code == 0
    assert "test/tfidf_score" not in done["metrics"]
    assert "no scores of TF-IDF + logistic regression: ZeroDivisionError" in said.err
