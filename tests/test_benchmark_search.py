"""The benchmark of a search: a search held against a finished sweep, both real, of a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SHORT, CommandLine

from benchmarks.search.command import main


@pytest.mark.stress
def test_the_sweep_is_asked_about_the_answer_of_a_search_with_its_settings(
    alue_bench: CommandLine,
    store: str,
    experiment: str,
    tiny: Callable[..., Path],
    easy: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tiny("bert", layers=2)
    where = ("--tracking-uri", store, "--experiment", experiment)
    swept = alue_bench("sweep", "-t", easy[0], "-m", model, *where, *SHORT[2:], "--epochs", "3", "--confirm", "0")
    assert swept.code == 0, swept.err
    given = ["--sweep-uri", store, "--sweep-experiment", experiment, "--task", easy[0], "--model", str(model)]
    given += ["--tolerance", "30%", "--budget", "600%"]
    code = main([*given, "--json", str(tmp_path / "content.json"), "--markdown", str(tmp_path / "content.md")])
    said = capsys.readouterr().out
    content = json.loads((tmp_path / "content.json").read_text())
    by_test = content["readings"][0]
    assert (by_test["metric"], by_test["smoothed"]) == ("test/score", False)
    assert content["confirmed"] == (by_test["loss"] <= 0.3 * by_test["full"])
    assert code == (0 if content["confirmed"] and content["budget_kept"] else 1)
    assert content["sweep"]["runs"] == 6
    assert content["search"]["compute"]["reused_runs"] == 0  # in a store of its own
    # The first seed's runs are those of the sweep, trained anew.
    assert f"answer: {content['search']['answer']}" in said
    assert "the sweep confirms" in said or "the sweep does not confirm" in said
    assert "smoothed over all cells" in (tmp_path / "content.md").read_text()


def test_a_store_without_a_whole_sweep_is_refused(
    run: CommandLine, store: str, experiment: str, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("-s", "full")
    given = ["--sweep-uri", store, "--sweep-experiment", experiment, "--task", "anger"]
    assert main([*given, "--model", str(tiny_bert)]) == 2
    assert "lacks 14 of 15 cells" in capsys.readouterr().err
    assert main([*given, "--model", "mini"]) == 2
    assert "has no finished run of full fine-tuning for anger and mini" in capsys.readouterr().err
