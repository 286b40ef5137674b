"""`alue-bench search` on a tiny model: real runs, found again by the next invocation."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import SHORT, CommandLine, Finished
from guide import HERE

from alue_bench.tracking.selection_tags import CHOSEN_IN

Runs = Callable[..., list[Any]]
# A tiny model needs several epochs to learn with every seed; what is searched for is wide enough to be found.
WIDE = ("--tolerance", "0.7", "--margin", "0.9", "--budget", "500%", "--grid", "bottom=0..2")


@pytest.fixture
def search(
    alue_bench: CommandLine, store: str, experiment: str, tiny: Callable[..., Path], easy: tuple[str, str]
) -> CommandLine:
    """`alue-bench search` on an easy task with a tiny BERT of two layers, or of so many."""

    def call(*arguments: object, wide: bool = True, layers: int = 2) -> Finished:
        what = ("--task", easy[0], "--model", tiny("bert", layers), "--tracking-uri", store, "--experiment", experiment)
        return alue_bench("search", *what, *SHORT, *(WIDE if wide else ()), "--confirm", "0", *arguments)

    return call


def document_of(said: Finished) -> Any:
    assert said.code == 0, said.err
    return json.loads(said.out)


class TestASearch:
    def test_its_document_its_runs_and_its_repetition(self, search: CommandLine, runs: Runs) -> None:
        said = search("--epochs", "6", "--confirm", "2", "--json")
        (searched,) = document_of(said)["searches"]
        for told in (
            "the cheapest of 3 settings that loses at most 0.7",
            "a low-fidelity run with fewer epochs",
            "Answer: bottom1",
            "bottom2: nothing learnt, and so no answer; more --epochs, another --lr or more rows may change that",
            "beside the budget, the answer and full are confirmed with 2 more seeds",
            "confirmation of bottom",
            "Expected loss, from 2 seeds that took no part in the choice: test score",
            "too few seeds",
            "of the grid's cost (budget 500%)",
        ):
            assert told in said.err
        assert searched["supported"]
        assert searched["answer"] == "bottom1"  # bottom2 trains the head alone, and learns nothing
        assert {one["setting"]: one["state"] for one in searched["candidates"]}["bottom2"] == "nothing learnt"
        assert searched["dev"]["seeds"] >= 3
        assert searched["dev"]["loss"] <= 0.7
        assert searched["dev"]["high"] <= 1.6
        assert searched["test"]["difference"] == pytest.approx(searched["test_score"] - searched["test_score_of_full"])
        assert searched["test"]["seeds"] == [51, 52]

        # What was forecast is what the runs report: the budget is kept in FLOPs that were done.
        compute = searched["compute"]
        assert compute["recorded_flops"] == pytest.approx(
            compute["spent_flops"] + compute["confirmation_flops"], rel=1e-6
        )
        assert 0 < compute["confirmation_flops"] <= compute["confirmation_flops_at_most"]
        assert compute["spent_flops"] <= compute["budget_flops"]
        assert compute["spent_share"] == pytest.approx(compute["spent_flops"] / compute["grid_flops"])

        parent, *children = runs()
        assert (parent.info.status, parent.data.tags["kind"]) == ("FINISHED", "plan")
        assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
        assert [child.info.run_id for child in children] == [step["run_id"] for step in searched["steps"]]
        epochs = {step["run_id"]: 2 if step["short"] else 6 for step in searched["steps"]}
        assert {child.info.run_id: int(child.data.params["epochs"]) for child in children} == epochs
        assert 2 in epochs.values()
        looks = {child.info.run_id for child in children if "search.first_look" in child.data.tags}
        assert looks == {step["run_id"] for step in searched["steps"] if step["short"]}

        # The runs that chose and tested the answer are marked, those that confirm it are not.
        of_answer = [step for step in searched["steps"] if step["setting"] == searched["answer"] and not step["short"]]
        chose = {step["run_id"] for step in of_answer if step["replicate"] <= 8}
        assert len(of_answer) - len(chose) == 2
        assert {child.info.run_id for child in children if CHOSEN_IN in child.data.tags} == chose

        again = document_of(search("--epochs", "6", "--confirm", "2", "--json"))["searches"][0]
        assert again["compute"]["reused_runs"] == again["compute"]["runs"] == len(children)
        assert len(runs("tags.kind = 'run'")) == len(children)
        assert [step["run_id"] for step in again["steps"]] == [step["run_id"] for step in searched["steps"]]
        assert {**again, "compute": 0, "steps": 0} == {**searched, "compute": 0, "steps": 0}

    def test_a_budget_that_does_not_suffice_is_said_and_full_is_the_answer(self, search: CommandLine) -> None:
        said = search("--epochs", "6", "--budget", "150%", "--json")
        (searched,) = document_of(said)["searches"]
        assert (searched["answer"], searched["supported"], searched["budget_ended"]) == ("full", False, True)
        assert searched["compute"]["spent_share"] <= 1.5
        assert "The budget ended before a cheaper setting was supported" in said.err


@pytest.mark.parametrize("workers", [False, True])
def test_where_full_learns_nothing_a_search_ends_after_it_without_an_answer(
    search: CommandLine, runs: Runs, install: Callable[..., Path], workers: bool
) -> None:
    install("alue-bench-here", HERE)
    said = search("--epochs", "2", "--lr", "1e-9", "--json", *(("--executor", "cafes-here") if workers else ()))
    assert said.code == 3
    (searched,) = json.loads(said.out)["searches"]
    assert (searched["answer"], searched["supported"], searched["budget_ended"]) == (None, False, False)
    assert [step["setting"] for step in searched["steps"]] == ["full"]
    assert searched["compute"]["runs"] == 1
    assert searched["nothing_learnt"]["score"] == searched["dev_score_of_full"]
    assert "No answer: full did not learn: its dev score 0.333 is not above the trivial score 0.333, so a" in said.err
    assert "Answer:" not in said.err
    parent, *done = runs()
    assert "search/easy/tiny-bert2/cost_of_full" not in parent.data.metrics
    assert len(done) == (4 if workers else 1)  # the opening's other runs were begun beside it


def test_searches_side_by_side_ask_for_the_runs_of_one_after_the_other_and_come_to_the_same_answers(
    search: CommandLine, runs: Runs, install: Callable[..., Path]
) -> None:
    what = ("--task", "easy-too", "--epochs", "6", *WIDE[:-1], "bottom=0..1", "--json")
    install("alue-bench-here", HERE.replace("Here())", "pools.append(Here()) or pools[-1])") + "pools = []\n")
    said = search(*what, "--executor", "cafes-here", wide=False)
    together = document_of(said)["searches"]
    assert [searched["task"] for searched in together] == ["easy", "easy-too"]
    assert all(searched["supported"] for searched in together)
    assert len(sys.modules["alue_bench_here"].pools) == 1  # the workers stay from one round to the next
    assert "easy-too/tiny-bert2: bottom1, seed 1, short: a low-fidelity run with fewer epochs" in said.err
    # The openings of both come before all that depends on them.
    begun = [(r.data.params["task"], r.data.params["strategy"], r.data.params["epochs"]) for r in runs()[1:]]
    opening = {("full", "2"), ("bottom1", "2"), ("full", "6"), ("bottom1", "6")}
    assert set(begun[:8]) == {(task, *run) for task in ("easy", "easy-too") for run in opening}

    alone = document_of(search(*what, wide=False))["searches"]
    for one, other in zip(alone, together, strict=True):
        assert all(step.pop("reused") for step in one["steps"])
        assert not any(step.pop("reused") for step in other["steps"])
        compute, before = one.pop("compute"), other.pop("compute")
        assert compute["reused_runs"] == before["runs"]
        assert compute["spent_flops"] == before["spent_flops"]
        assert one == other
    assert len(begun) == sum(len(searched["steps"]) for searched in together)


def test_an_interrupted_search_goes_on_and_ends_with_the_same_answer(
    search: CommandLine, runs: Runs, install: Callable[..., Path]
) -> None:
    install(
        "stops-at-the-third",
        "import alue_bench\n"
        "finished = []\n"
        "@alue_bench.hookimpl\n"
        "def alue_bench_run_finished(spec, result):\n"
        "    finished.append(spec)\n"
        "    if len(finished) == 3:\n"
        "        raise KeyboardInterrupt\n",
    )
    stopped = search("--epochs", "6", "--json")
    assert stopped.code == 130
    assert "interrupted: run the same command again to continue" in stopped.err
    assert [r.info.status for r in runs()].count("KILLED") >= 1  # the parent
    finished = {r.info.run_id for r in runs("tags.kind = 'run' and attributes.status = 'FINISHED'")}
    document = document_of(search("--epochs", "6", "--json"))
    (searched,) = document["searches"]
    assert {step["run_id"] for step in searched["steps"] if step["reused"]} == finished
    assert searched["supported"]


def test_runs_of_other_commands_are_taken_unless_they_have_no_dev_predictions(
    search: CommandLine, run: CommandLine, runs: Runs
) -> None:
    run("-s", "full", "-s", "bottom4", task="easy")
    _, full, deep = runs()
    (Path(full.info.artifact_uri.removeprefix("file://")) / "dev_predictions.csv").unlink()
    said = search(*WIDE[:-1], "bottom=0..4/2", "--json", wide=False, layers=4)
    (searched,) = document_of(said)["searches"]
    assert "recorded without dev predictions; it is repeated" in said.err
    assert searched["steps"][0]["setting"] == "full"
    assert searched["steps"][0]["run_id"] != full.info.run_id
    assert [step["run_id"] for step in searched["steps"] if step["reused"]] == [deep.info.run_id]
    assert not any(step["short"] for step in searched["steps"])  # one epoch cannot be shortened


def test_predictions_that_are_not_their_runs_are_told(search: CommandLine, run: CommandLine, runs: Runs) -> None:
    run("-s", "full", "-s", "bottom4", task="easy")
    _, full, _ = runs()
    file = Path(full.info.artifact_uri.removeprefix("file://")) / "dev_predictions.csv"
    table = pd.read_csv(file, dtype=str)
    table["prediction"] = table["gold"].iloc[0]
    table.to_csv(file, index=False)
    said = search(*WIDE[:-1], "bottom=0..4/2", "--json", wide=False, layers=4)
    assert (said.code, said.out) == (2, "")
    assert "the recorded predictions of full do not belong to its run" in said.err
    assert "repeat it with --rerun" in said.err


def test_a_dry_run_computes_what_the_grid_costs_and_starts_nothing(search: CommandLine, runs: Runs) -> None:
    said = search("--dry-run", "--json")
    (planned,) = document_of(said)["searches"]
    assert planned["compute"]["runs"] == 0
    assert (planned["answer"], planned["supported"], planned["cost_of_full"], planned["said"]) == (None, None, None, [])
    assert "The search begins with this run. It chooses the other runs from the results." in said.err
    assert "Answer:" not in said.err
    assert planned["compute"]["budget_flops"] == pytest.approx(5 * planned["compute"]["grid_flops"])
    assert "estimate: at most about " in said.err
    assert "extrapolated from" in said.err
    with pytest.raises(AttributeError):
        runs()  # not even the experiment


def test_strategies_are_candidates_once_at_each_rate(search: CommandLine) -> None:
    """On four layers, head-only and last-quarter are cells of the grid, and adapters are not."""
    given = ("--grid", "bottom=0..4,strategy=lora-r2,head-only", "-s", "last-quarter", "-s", "lora-r4", "-s", "full")
    said = search(
        *given, "--lr", "1e-4", "--lr", "3e-4", "--budget", "200%", "--dry-run", "--json", wide=False, layers=4
    )
    (planned,) = document_of(said)["searches"]
    told = " ".join(said.err.split())
    assert "the cheapest of 14 settings" in told  # five cells and two adapters, with two rates each
    assert "The search begins with full fine-tuning at each learning rate" in told
    assert planned["reference"] == "full lr=1e-4"
    compute = planned["compute"]
    assert compute["budget_flops"] == pytest.approx(2 * compute["grid_flops"])


def test_a_dry_run_guesses_the_time_that_the_budget_pays_for(search: CommandLine, run: CommandLine) -> None:
    cells = ("--grid", "bottom=0..4", "--dry-run", "--json")
    guessed = document_of(search("--budget", "50%", *cells, wide=False, layers=4))["estimate"]
    twice = document_of(search("--budget", "100%", *cells, wide=False, layers=4))["estimate"]
    whole = document_of(run(*(f"-sbottom{n}" for n in range(1, 5)), "-s", "full", "--dry-run", "--json", task="easy"))[
        "estimate"
    ]

    def work(estimate: Any, seconds: float) -> float:
        """The estimated work in FLOPs; estimated times vary, because the speed is measured each time."""
        return float(seconds * estimate["speeds_flops_per_s"][0])

    half = work(guessed, guessed["seconds_at_most"])
    assert half < work(twice, twice["seconds_at_most"]) < 2 * half  # what prefixes take together does not double
    assert work(twice, twice["seconds_at_most"]) == pytest.approx(work(whole, whole["here"]["seconds"]))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--tolerance", "many"), "--tolerance is 'many'"),
        (("--budget", "0"), "--budget is '0'"),
        (("--level", "0.7"), "--level is 0.7"),
        (("--grid", "bottom-top,epochs=1,2"), "--grid of a search accepts only the axes bottom, top, strategy and lr"),
        (("--strategy", "autofreeze"), "strategy 'autofreeze': a search needs the FLOPs of each setting before"),
        (("--grid", "bottom=0"), "--grid leaves nothing to search"),
        (("--seed", "4294967292"), "seeds count up from --seed 4294967292, and there is none above 4294967295"),
    ],
)
def test_what_makes_no_sense_is_refused(search: CommandLine, arguments: tuple[str, str], told: str) -> None:
    said = search(*arguments, wide=False)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
