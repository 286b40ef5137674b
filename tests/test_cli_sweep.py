"""`alue-bench sweep`: a grid is run once, drawn, and one setting recommended; broken off, it is gone on with."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import SHORT, CommandLine, Finished
from rich.console import Console

from alue_bench.cli.commands.run import run as run_command
from alue_bench.cli.commands.sweep import sweep as sweep_command
from alue_bench.executors.outcome import Outcome
from alue_bench.planning.build import build_plan
from alue_bench.planning.grid import parse_grid
from alue_bench.planning.request import PlanRequest
from alue_bench.planning.sweep_order import POSITION_TAG
from alue_bench.reporting.grid import Recommendation
from alue_bench.studies.confirmation import FIXED_SEEDS_MESSAGE, ConfirmingSeeds
from alue_bench.views.grid_view import RUNNING, GridProgress

GRID = ("--grid", "bottom=0..4/2,top=0..2/2")
EPOCHS_OF_A_HEAD = "30"
"""The number of epochs in which the head of two layers, alone, learns the easy task with every seed."""
CELLS = {"full", "top2", "bottom2", "bottom2top2", "bottom4"}


@pytest.fixture
def sweep(alue_bench: CommandLine, store: str, experiment: str, tiny_bert: Path, easy: tuple[str, str]) -> CommandLine:
    """`alue-bench sweep` on an easy task with a tiny BERT, in an experiment of the test's own."""

    def call(*arguments: object) -> Finished:
        where = ("--tracking-uri", store, "--experiment", experiment)
        return alue_bench("sweep", *where, "--task", easy[0], "--model", tiny_bert, *SHORT, *arguments)

    return call


def scores(document: dict[str, Any]) -> dict[str, float]:
    return {done["strategy"]: done["metrics"]["test/score"] for done in document["runs"]}


def test_a_grid_is_run_drawn_and_concluded(
    sweep: CommandLine, run: CommandLine, runs: Callable[..., list[Any]], client: Any, tmp_path: Path
) -> None:
    run = partial(run, task="easy")
    said = sweep(*GRID, "--json", "--tolerance", "2%", "--confirm", "0")
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert {done["strategy"] for done in document["runs"]} == CELLS
    assert document["sweep"]["tolerance"] == 0.02
    (grid,) = document["sweep"]["grids"]
    recommended = grid["recommendation"]
    assert recommended["strategy"] in CELLS
    assert recommended["confirmation"] is None
    assert {point["strategy"] for point in grid["front"]} <= CELLS
    assert f"Recommended: {recommended['strategy']}, the fastest of" in said.err

    (parent,) = runs("tags.kind = 'plan'")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["sweep.order"] == document["sweep"]["order"]["description"]
    names = [file.path for file in client.list_artifacts(parent.info.run_id, "sweep")]
    assert names == [f"sweep/easy-tiny-bert-{figure}.png" for figure in ("pareto", "runtime", "score")]
    for name in names:
        file = Path(client.download_artifacts(parent.info.run_id, name, str(tmp_path)))
        assert file.read_bytes().startswith(b"\x89PNG")
    assert parent.data.metrics["recommended_saving/easy-tiny-bert"] == pytest.approx(recommended["saving"])
    positions = {done.data.tags[POSITION_TAG] for done in runs("tags.kind = 'run'")}
    assert positions == {f"{place}/5" for place in range(1, 6)}

    # The cells are the runs that `run` does: it finds them done, and alone they come to the same.
    separate = json.loads(run("-s", "bottom2top2", "-s", "full", "--json").out)["runs"]
    assert [done["status"] for done in separate] == ["reused", "reused"]
    (alone,) = json.loads(run("-s", "bottom2top2", "--json", "--rerun").out)["runs"]
    assert alone["metrics"]["test/score"] == scores(document)["bottom2top2"]

    again = json.loads(sweep(*GRID, "--json", "--confirm", "0").out)
    assert {done["status"] for done in again["runs"]} == {"reused"}
    assert scores(again) == scores(document)


def test_where_full_learnt_nothing_no_setting_is_recommended(
    sweep: CommandLine, runs: Callable[..., list[Any]]
) -> None:
    """At such a rate every setting ends where it began: one score for all, and freezing all saves most."""
    idle = ("--grid", "bottom=0..4/2,lr=1e-9", "--json")
    said = sweep(*idle)
    assert said.code == 0  # every run is done
    (grid,) = json.loads(said.out)["sweep"]["grids"]
    assert grid["recommendation"] is None
    assert grid["nothing_learnt"]["reference"] == "full"
    told = " ".join(said.err.split())
    assert "Nothing learnt: full did not learn: its dev score 0.333 is not above the trivial score 0.333; no" in told
    assert "no setting can be recommended; try more data, more epochs or another --lr" in told
    assert "Recommended" not in said.err
    (parent,) = runs("tags.kind = 'plan'")
    assert not [name for name in parent.data.metrics if name.startswith("recommended")]
    # Each grid for itself.
    both = sweep("--grid", "bottom=0..4/2,lr=1e-9,1e-2", "--json", "--confirm", "0")
    assert both.code == 0
    chosen = {grid["settings"]["lr"]: grid["recommendation"] for grid in json.loads(both.out)["sweep"]["grids"]}
    assert chosen[1e-9] is None
    assert chosen[1e-2] is not None


def test_broken_off_and_repeated_it_ends_with_the_same_table(
    sweep: CommandLine, runs: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from alue_bench.executors import runner

    whole, count = runner.execute, iter(range(1))

    def until_interrupted(*arguments: Any, **options: Any) -> Any:
        if next(count, None) is None:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    column = ("--grid", "bottom=0..4/2", "--json", "--confirm", "0")
    monkeypatch.setattr(runner, "execute", until_interrupted)
    broken = sweep(*column)
    assert broken.code == 130
    assert len(json.loads(broken.out)["runs"]) == 1
    assert json.loads(broken.out)["sweep"]["grids"] == []
    monkeypatch.setattr(runner, "execute", whole)
    resumed = json.loads(sweep(*column).out)
    assert sorted(done["status"] for done in resumed["runs"]) == ["finished"] * 2 + ["reused"]
    at_once = json.loads(sweep(*column, "--rerun").out)
    assert scores(resumed) == scores(at_once)
    assert [done["strategy"] for done in resumed["runs"]] == [done["strategy"] for done in at_once["runs"]]
    assert {done.info.status for done in runs("tags.kind = 'run'")} == {"FINISHED", "KILLED"}


def test_what_a_confirmation_cannot_do_is_said_before_the_sweep_begins(sweep: CommandLine) -> None:
    grid = ("--grid", "bottom=0..4/4", "--dry-run")
    refused = sweep(*grid, "--margin", "pearsn=0.02")
    assert refused.code == 2
    assert "--margin pearsn=0.02: no planned task has this metric" in refused.err
    planned = sweep(*grid, "--init-seed", "1", "--data-seed", "2")
    assert "confirmation: none (--init-seed and --data-seed fix both random seeds" in planned.err


def test_with_fixed_seeds_a_recommendation_names_them_and_does_not_advise_more_seeds() -> None:
    fixed = ConfirmingSeeds((), 0, FIXED_SEEDS_MESSAGE)
    chosen = Recommendation("bottom3", "full", 0.01, 0.8, -0.01, 1.0, 0.5, candidates=1, settings=2, seeds=1)
    assert fixed.explained(chosen).loss_sentence() == f"Not confirmed: {FIXED_SEEDS_MESSAGE}"
    assert "--confirm" in ConfirmingSeeds((), 0).explained(chosen).loss_sentence()
    assert fixed.explained(replace(chosen, strategy="full")).confirmation is None


def test_a_recommendation_is_confirmed_with_fresh_seeds_and_only_these_are_compared(
    alue_bench: CommandLine,
    store: str,
    experiment: str,
    tiny: Callable[..., Path],
    easy: tuple[str, str],
    runs: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from alue_bench.executors import runner

    whole, count = runner.execute, iter(range(5))

    def until_interrupted(*arguments: Any, **options: Any) -> Any:
        if next(count, None) is None:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    # So wide a tolerance is met by the fastest setting that has learnt the task: the head on stored outputs.
    where = ("--tracking-uri", store, "--experiment", experiment)
    what = ("--task", easy[0], "--model", tiny("bert", 2), *SHORT[2:], "--epochs", EPOCHS_OF_A_HEAD)
    given = (*where, *what, "--grid", "bottom=0..2/2", "--tolerance", "70%", "--margin", "0.5", "--json")
    sweep = partial(alue_bench, "sweep")
    planned = sweep(*given, "--dry-run")
    most = json.loads(planned.out)
    assert most["sweep"]["confirm"] == {"seeds": [43, 44, 45], "runs_at_most": 6}
    assert most["estimate"]["confirmation"]["flops"] == pytest.approx(3 * most["estimate"]["here"]["flops"])
    assert "at most 6 further runs, of each recommended setting and of full with 3 seeds (43, 44, 45)" in planned.err
    assert "with the confirmation: at most 6 runs more" in planned.err

    monkeypatch.setattr(runner, "execute", until_interrupted)
    broken = sweep(*given)
    assert broken.code == 130
    assert "interrupted: 3 runs are left" in broken.err
    (grid,) = json.loads(broken.out)["sweep"]["grids"]
    strategy, reference = grid["recommendation"]["strategy"], grid["recommendation"]["reference"]
    assert (strategy, reference, grid["recommendation"]["confirmation"]) == ("bottom2", "full", None)
    monkeypatch.setattr(runner, "execute", whole)
    said = sweep(*given)
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert [done["status"] for done in document["runs"]].count("finished") == 3
    confirmation = document["sweep"]["grids"][0]["recommendation"]["confirmation"]
    by_seed = {(done["strategy"], done["seed"]): done["metrics"]["test/score"] for done in document["runs"]}
    fresh = [by_seed[strategy, seed] - by_seed["full", seed] for seed in (43, 44, 45)]
    assert confirmation["seeds"] == [43, 44, 45]
    assert confirmation["difference"] == pytest.approx(sum(fresh) / 3)
    assert len(confirmation["run_ids"]) == 6
    assert (confirmation["margin"], document["sweep"]["margin"]) == (0.5, "0.5")
    told = " ".join(said.err.split())
    assert "Expected loss, from 3 seeds that took no part in the choice: test score" in told
    assert f"Verdict: {confirmation['verdict']}" in told

    tagged = {run.data.params["strategy"]: run for run in runs("tags.`selection.chosen_in` != ''")}
    parents = runs("tags.kind = 'plan'")
    assert set(tagged) == {strategy}
    assert (tagged[strategy].data.params["seed"], len(runs("tags.kind = 'run'"))) == ("42", 9)  # one was interrupted
    finished = next(parent for parent in parents if parent.info.status == "FINISHED")
    assert tagged[strategy].data.tags["selection.chosen_in"] == finished.info.run_id
    assert finished.data.metrics["recommended_test_score/easy-tiny-bert2"] == pytest.approx(confirmation["test_score"])
    compared = alue_bench("compare", *where, "--parent", finished.info.run_id, "--margin", "0.5", "--format", "json")
    (block,) = json.loads(compared.out)["blocks"]
    row = next(row for row in block["rows"] if row["strategy"] == strategy)
    assert (row["common_seeds"], row["difference"]) == (3, pytest.approx(confirmation["difference"]))
    assert (row["verdict"], row["loss_bound"]) == (confirmation["verdict"], confirmation["loss_bound"])


def test_each_value_of_a_hyper_parameter_is_told_apart_everywhere(
    alue_bench: CommandLine, store: str, experiment: str, tiny_bert: Path, runs: Callable[..., list[Any]]
) -> None:
    rates, epochs = (1e-4, 1e-3), (1, 2)
    what = ("--task", "anger", "--model", tiny_bert, "--limit-train", "48", "--limit-eval", "32", "--max-length", "24")
    where = ("--tracking-uri", store, "--experiment", experiment, "--json")
    axes = ("--grid", "bottom=0..4/4,lr=1e-3,1e-4,epochs=2,1")
    planned = alue_bench("sweep", *what, *where, *axes, "--dry-run")
    assert "lr=0.0001 or 0.001 [grid]" in planned.err
    assert "epochs=1 or 2 [grid]" in planned.err
    estimated = [one["settings"] for one in json.loads(planned.out)["estimate"]["runs"]]
    assert len({tuple(one.items()) for one in estimated}) == 4
    said = alue_bench("sweep", *what, *where, *axes, "--confirm", "0")
    document = json.loads(said.out)
    assert document["varied"] == {"epochs": list(epochs), "lr": list(rates)}
    listed = [(done["strategy"], done["params"]["epochs"], done["params"]["lr"]) for done in document["runs"]]
    assert listed == [(name, epoch, rate) for name in ("full", "bottom4") for epoch in epochs for rate in rates]
    assert [grid["settings"] for grid in document["sweep"]["grids"]] == [
        {"lr": rate, "epochs": epoch} for rate in rates for epoch in epochs
    ]
    assert "/full/seed42, epochs 2, lr 0.0001 [sample data]: finished" in said.err
    (parent,) = runs("tags.kind = 'plan'")
    for done in document["runs"]:
        name = f"mean_score/{done['strategy']}/epochs {done['params']['epochs']}/lr {done['params']['lr']:g}"
        assert parent.data.metrics[name] == pytest.approx(done["metrics"]["test/score"])


def test_without_a_grid_it_is_all_of_it_and_a_plan_is_shown(sweep: CommandLine) -> None:
    said = sweep("--dry-run", "--json")
    assert said.code == 0, said.err
    assert len(json.loads(said.out)["planned"]) == 15
    assert "order: 4 rounds over the depths of frozen prefixes" in said.err


def test_a_study_may_hold_the_grid(sweep: CommandLine, run: CommandLine, tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text('grid = ["bottom=0..1", "lr=1e-4,1e-3"]\ntolerance = "5%"\nseeds = 2\n')
    planned = json.loads(sweep("--config", study, "--dry-run", "--json").out)
    assert len(planned["planned"]) == 2 * 2 * 2
    assert planned["sweep"]["tolerance"] == 0.05
    refused = run("--config", study)
    assert refused.code == 2
    assert "grid is an option of: alue-bench sweep" in refused.err


def test_an_axis_wins_over_a_recipe_and_is_said_once_otherwise(sweep: CommandLine, tmp_path: Path) -> None:
    axis = ("--grid", "bottom=0..1,lr=1e-4,1e-3", "--dry-run", "--json")
    planned = json.loads(sweep(*axis, "--recipe", "devlin").out)["planned"]
    assert [one["hyper"]["lr"] for one in planned].count(1e-4) == 2
    assert {one["hyper"]["lr"] for one in planned} == {1e-4, 1e-3}
    assert {one["hyper"]["warmup"] for one in planned} == {0.1}
    study = tmp_path / "study.toml"
    study.write_text("lr = 1e-5\n")
    refused = sweep(*axis, "--config", study)
    assert refused.code == 2
    assert f"lr of study {study} and --grid lr=… set the same value twice" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--grid", "bottom=9..5"), "bottom=9..5 ends before it begins"),
        (("--grid", "lr=1e-4,1e-3", "--lr", "1e-5"), "--lr and --grid lr=… set the same value twice"),
        (("--grid", "bottom-top,seed=1..3", "--seeds", "2"), "--seeds and --grid seed=… set the same value twice"),
        (("--grid", "bottom=0,lr=0"), "grid: lr"),
        (("--grid", "lr=1e-4,1e-3"), "--grid does not say what to freeze; add bottom-top"),
        (("--grid", "bottom=9..11"), "--grid freezes more layers than the 4 of tiny-bert; use smaller numbers"),
        (("--grid", "strategy=nonsense"), "nonsense"),
        (("--tolerance", "a little"), "'a little' is not a share of full fine-tuning's score; write it as 1%"),
        (("--margin", "pearsn=0.02"), "--margin pearsn=0.02: no planned task has this metric"),
        (("--tolerance", "0.01"), "is not a share of full fine-tuning's score"),
    ],
)
def test_misuse_is_told_in_a_sentence(sweep: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    told = sweep(*arguments)
    assert told.code == 2
    assert said in told.err
    assert "Traceback" not in told.err


def test_a_terminal_shows_the_grid_filling_in(tiny_bert: Path, registry: Any, folders_of_its_own: None) -> None:
    request = PlanRequest(tasks=("anger",), models=(str(tiny_bert),), grid=parse_grid(["bottom-top"]), sample=True)
    plan = build_plan(request, registry)
    console = Console(width=120, force_terminal=True, record=True)
    progress = GridProgress(plan, console)
    first, second = plan.runs[:2]
    metrics = {"test/score": 0.4321, "runtime/train_s": 1.0}
    with progress:
        progress.started(first)
        progress.ended(Outcome(first, "finished", "id", metrics))
        progress.started(second)
        above = progress.table_above_bar()
    console.print(above)
    shown = console.export_text()
    assert "anger tiny-bert: test scores so far" in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()[:2].strip().isdigit()}
    assert rows["0"] == [".432", RUNNING, "·", "·", "·"]
    assert rows["4"] == ["·"]


def test_it_takes_every_option_of_run() -> None:
    taken, offered = (set(inspect.signature(command).parameters) for command in (run_command, sweep_command))
    assert offered - taken == {"grid", "tolerance", "confirm"}
    assert taken - offered == {"tune", "tune_seeds"}  # a sweep varies hyper-parameters by its grid
