"""A short run on the official files, where they are at hand."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

FOLDER = os.environ.get("ALUE_BENCH_DATA", "")  # before the fixtures take it out of the environment
WANTED = "semeval2018/2018-E-c-Ar-train.txt"


@pytest.mark.skipif(not FOLDER, reason="ALUE_BENCH_DATA is not set to the folder of the official files")
@pytest.mark.skipif(not (Path(FOLDER) / WANTED).is_file(), reason=f"ALUE_BENCH_DATA has no {WANTED}")
def test_the_bundled_model_on_anger(
    alue_bench: CommandLine, store: str, experiment: str, runs: Callable[..., list[Any]]
) -> None:
    said = alue_bench(
        "run", "-t", "anger", "-m", "mini", "-s", "full", "-s", "bottom3top4", "--data-dir", FOLDER,
        "--limit-train", "120", "--limit-eval", "60", "--epochs", "1", "--max-length", "48",
        "--tracking-uri", store, "--experiment", experiment, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert [(run["status"], run["data_source"]) for run in document["runs"]] == [("finished", "real")] * 2
    for run in document["runs"]:
        assert run["metrics"]["data/train_rows"] == 120
        assert run["metrics"]["data/dev_rows"] == run["metrics"]["data/test_rows"] == 60
        assert 0 < run["metrics"]["test/score"] <= 1
    assert "embedded data" not in said.err
    assert {run.data.tags["data.source"] for run in runs()} == {"real"}
    full, frozen = (run["metrics"] for run in document["runs"])
    assert frozen["flops/train"] < 0.75 * full["flops/train"]


@pytest.mark.skipif(not FOLDER, reason="ALUE_BENCH_DATA is not set to the folder of the official files")
@pytest.mark.skipif(not (Path(FOLDER) / WANTED).is_file(), reason=f"ALUE_BENCH_DATA has no {WANTED}")
def test_autofreeze_freezes_more_and_more_and_says_so(
    alue_bench: CommandLine, store: str, experiment: str, runs: Callable[..., list[Any]], client: Any, tmp_path: Path
) -> None:
    said = alue_bench(
        "run", "-t", "anger", "-m", "mini", "-s", "autofreeze", "--data-dir", FOLDER, "--limit-train", "160",
        "--limit-eval", "60", "--epochs", "2", "--batch-size", "16", "--max-length", "48",
        "--tracking-uri", store, "--experiment", experiment, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    (run,) = json.loads(said.out)["runs"]
    assert (run["status"], run["data_source"]) == ("finished", "real")
    (recorded,) = runs()
    path = client.download_artifacts(recorded.info.run_id, "freezing.csv", str(tmp_path))
    rows = list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))
    steps = sorted({int(row["step"]) for row in rows})
    assert steps == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    frozen = [[row["block"] for row in rows if int(row["step"]) == step and row["frozen"] == "1"] for step in steps]
    for fewer, more in pairwise(frozen):
        assert set(fewer) <= set(more)
    depths = [max(len(blocks) - 1, 0) for blocks in frozen]
    assert 0 == depths[0] < depths[-1] < 12
    assert frozen[-1] == ["embeddings", *(f"layer {k}" for k in range(depths[-1]))]
    curve = client.get_metric_history(recorded.info.run_id, "train/frozen_layers")
    assert [int(point.value) for point in curve] == depths[1:]
    # Less than full fine-tuning, more than if it had begun with what was frozen at the end, never computed.
    assert 1 - depths[-1] / 12 < run["metrics"]["flops/train_vs_full"] < 1
