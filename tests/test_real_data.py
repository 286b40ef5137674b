"""A short run on the official files, where they are at hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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
        "--limit-train", "300", "--limit-eval", "200", "--epochs", "1", "--max-length", "64",
        "--tracking-uri", store, "--experiment", experiment, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert [(run["status"], run["data_source"]) for run in document["runs"]] == [("finished", "real")] * 2
    for run in document["runs"]:
        assert run["metrics"]["data/train_rows"] == 300
        assert run["metrics"]["data/test_rows"] == 200
        assert 0 < run["metrics"]["test/score"] <= 1
    assert "embedded data" not in said.err
    assert {run.data.tags["data.source"] for run in runs()} == {"real"}
    full, frozen = (run["metrics"] for run in document["runs"])
    assert frozen["flops/train"] < 0.75 * full["flops/train"]
