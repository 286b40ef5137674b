"""A training that was cut off, however often, ends as one that never was."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CommandLine, call_in

from alue_bench.contract.spec import RunResult
from alue_bench.planning.build import PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.fine_tuning import Trained
from alue_bench.running.run import execute
from alue_bench.training.checkpointing import Checkpointing, checkpoint_folder
from alue_bench.training.prefix.store import PrefixStore

Undisturbed = Callable[[PlannedRun], tuple[RunResult, Trained]]

STEPS = 12  # three epochs of four
OPTIONS = {"epochs": 3, "batch_size": 12, "max_length": 24, "lr": 1e-3}
CASES = [
    ("bert", "full"),
    ("bert", "bottom2"),
    ("bert", "autofreeze"),
    ("bert", "gradual-unfreeze"),
    ("bert", "bitfit"),
    ("bert", "bottom1-attention"),
    ("bert", "lisa-2"),
    ("bert", "grades-p90"),
    ("distilbert", "bottom1top1"),
    ("bert", "surgical-2"),
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for the whole file: what is computed once, such as token ids, serves every test."""
    with call_in(tmp_path_factory.mktemp("resumption")):
        yield


def forget_checkpoints() -> None:
    folder = checkpoint_folder()
    if folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_checkpoints() -> None:
    forget_checkpoints()


@pytest.fixture(scope="module")
def planned(tiny: Callable[[str], Path], registry: Any) -> Callable[..., PlannedRun]:
    def plan(architecture: str, strategy: str, **options: Any) -> PlannedRun:
        request = PlanRequest(
            tasks=("anger",), models=(str(tiny(architecture)),), strategies=(strategy,), sample=True, device="cpu",
            limit_train=48, limit_eval=24, overrides=(("test", OPTIONS | options),),
        )  # fmt: skip
        (run,) = build_plan(request, registry).runs
        return run

    return plan


@pytest.fixture(scope="module")
def undisturbed() -> Undisturbed:
    """A run that is left alone: done once for all tests that ask for it."""
    done: dict[str, tuple[RunResult, Trained]] = {}

    def of(planned: PlannedRun) -> tuple[RunResult, Trained]:
        key = planned.spec.fingerprint
        if key not in done:
            done[key] = execute(planned.spec, planned.inputs)
        return done[key]

    return of


def cut_off_at(planned: PlannedRun, *steps: int, every_s: float = 0.0) -> tuple[RunResult, Trained]:
    """The run, begun again after each of these steps."""
    for step in steps:
        cut_off(planned, step, every_s=every_s)
    inputs = replace(planned.inputs, checkpointing=Checkpointing(checkpoint_folder(), every_s))
    return execute(planned.spec, inputs)


def cut_off(planned: PlannedRun, step: int, *, every_s: float = 0.0) -> None:
    """Begins the run, or goes on with it, and leaves it after this step."""
    inputs = replace(planned.inputs, checkpointing=Checkpointing(checkpoint_folder(), every_s))

    def stop(done: int, total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(planned.spec, inputs, on_step=stop)


def measured(result: RunResult) -> dict[str, float]:
    """All that does not depend on the clock or on the memory of the machine."""
    circumstances = ("runtime/", "throughput/", "energy/", "memory/")
    return {n: v for n, v in result.metrics.items() if not n.startswith(circumstances) or n.endswith("padding_share")}


def assert_same(one: tuple[RunResult, Trained], other: tuple[RunResult, Trained]) -> None:
    weights, others = one[1].stack.model.state_dict(), other[1].stack.model.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert measured(one[0]) == measured(other[0])
    assert one[0].curves == other[0].curves
    assert one[0].freezing == other[0].freezing
    assert (one[0].predictions.scores == other[0].predictions.scores).all()
    assert (one[0].dev_predictions.scores == other[0].dev_predictions.scores).all()


@pytest.mark.parametrize(("architecture", "strategy"), CASES)
def test_cut_off_in_the_middle_and_at_the_end_of_epochs(
    planned: Callable[..., PlannedRun], undisturbed: Undisturbed, architecture: str, strategy: str
) -> None:
    run = planned(architecture, strategy)
    alone = undisturbed(run)
    # Step 2 is in the first epoch; step 5 the first of the second, whose checkpoint is the first epoch's last; that of
    # step 12 is in the last epoch.
    resumed = cut_off_at(run, 2, 5, 12)
    assert_same(resumed, alone)
    assert any("continued from step 11" in note for note in resumed[0].notes)
    if run.inputs.strategy.revisions() is not None:  # else it would show nothing of such strategies
        assert len(alone[1].training.schedule.segments) > 1
    assert not any("continued from" in note for note in alone[0].notes)


def test_checkpoints_now_and_then_lose_steps_but_change_nothing(
    planned: Callable[..., PlannedRun], undisturbed: Undisturbed
) -> None:
    run = planned("bert", "bottom2")
    assert_same(cut_off_at(run, 6, 10, every_s=0.05), undisturbed(run))


@pytest.mark.parametrize("strategy", ["bottom2", "autofreeze"])
def test_evaluations_within_epochs_and_an_early_stop_are_those_of_a_run_left_alone(
    planned: Callable[..., PlannedRun], undisturbed: Undisturbed, strategy: str
) -> None:
    run = planned("bert", strategy, eval_every=0.5, patience=2, lr=1e-30)  # the first score stays the best
    alone = undisturbed(run)
    assert (alone[1].training.stopped_early, alone[1].training.evaluated_at) == (True, [2, 4, 6])
    assert_same(cut_off_at(run, 3, 5), alone)


def test_the_last_epoch_can_be_the_selected_one(planned: Callable[..., PlannedRun], undisturbed: Undisturbed) -> None:
    run = planned("bert", "full", select="last")
    assert_same(cut_off_at(run, 6), undisturbed(run))


def test_what_is_kept_may_change_in_between_and_is_counted_as_it_was(planned: Callable[..., PlannedRun]) -> None:
    """Cut off with stored states of the prefix, gone on with where nothing is stored."""
    run = planned("bert", "bottom2")
    cut_off(run, 6)
    nothing_kept = replace(run, inputs=replace(run.inputs, prefixes=PrefixStore(Path("nowhere"), 0, print)))
    result, trained = cut_off_at(nothing_kept)
    segments = trained.training.schedule.segments
    assert [(segment.depth, len(segment.batches)) for segment in segments] == [(2, 5), (0, STEPS - 5)]
    always, never = (execute(one.spec, one.inputs)[0].metrics["flops/train"] for one in (run, nothing_kept))
    assert always < result.metrics["flops/train"] < never


def test_times_add_up(planned: Callable[..., PlannedRun]) -> None:
    run = planned("bert", "full")
    result, trained = cut_off_at(run, 11)
    assert trained.training.loop_s > 0
    assert trained.training.earlier_s > 0
    assert result.metrics["runtime/total_s"] > trained.training.earlier_s + result.metrics["runtime/test_s"]
    assert trained.training.steps == STEPS


class TestADamagedCheckpoint:
    @pytest.mark.parametrize("where", ["beginning", "middle", "end", "emptied", "cut"])
    def test_is_removed_with_a_note(self, tmp_path: Path, where: str) -> None:
        Checkpointing(tmp_path, 0.0).of("key", pytest.fail).save({"weights": [torch.arange(1000.0), 1]})
        notes: list[str] = []
        file = Checkpointing(tmp_path, 0.0).of("key", notes.append)
        content = bytearray(file.path.read_bytes())
        if where in ("emptied", "cut"):
            content = content[: 0 if where == "emptied" else len(content) // 2]
        else:
            content[{"beginning": 3, "middle": len(content) // 2, "end": -1}[where]] ^= 0xFF
        file.path.write_bytes(content)
        assert file.load() is None
        assert not file.path.exists()
        (note,) = notes
        assert "is damaged" in note

    def test_lets_the_training_start_from_the_beginning(
        self, planned: Callable[..., PlannedRun], undisturbed: Undisturbed
    ) -> None:
        run = planned("bert", "full")
        cut_off(run, 5)
        (path,) = checkpoint_folder().iterdir()
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        resumed = cut_off_at(run)
        assert any("is damaged" in note and "started from the beginning" in note for note in resumed[0].notes)
        assert_same(resumed, undisturbed(run))

    def test_of_another_training_is_not_taken(self, planned: Callable[..., PlannedRun]) -> None:
        run, other = planned("bert", "full"), planned("bert", "full", lr=2e-3)
        cut_off(run, 5)
        result, _ = cut_off_at(other)
        assert not any("continued from" in note for note in result.notes)


def test_a_folder_that_takes_no_checkpoint_is_noted_and_the_run_goes_on(planned: Callable[..., PlannedRun]) -> None:
    run = planned("bert", "full")
    checkpoint_folder().parent.mkdir(parents=True, exist_ok=True)
    checkpoint_folder().write_text("")
    result, _ = cut_off_at(run)
    assert any("no checkpoint was written" in note for note in result.notes)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    file = Checkpointing(tmp_path, 0.0).of("key", pytest.fail)
    state: dict[str, Any] = {
        "a/b": {"c": torch.arange(3), "tensor": 1},
        "list": [torch.tensor(0.1), [-math.inf, None, "x"]],
        "none": {},
    }
    file.save(state)
    again = Checkpointing(tmp_path, 0.0).of("key", pytest.fail).load()
    assert again is not None
    assert torch.equal(again["a/b"].pop("c"), state["a/b"].pop("c"))
    assert torch.equal(again["list"].pop(0), state["list"].pop(0))
    assert again == state


def test_what_was_half_written_when_its_process_was_killed_does_not_stay(tmp_path: Path) -> None:
    file = Checkpointing(tmp_path, 0.0).of("key", lambda problem: None)
    half = tmp_path / f".{file.path.name}.1"
    for over in (file.load, file.remove):
        file.save({"weights": {"x": torch.zeros(2)}})
        half.write_bytes(b"half")
        over()
        assert not half.exists()
    assert list(tmp_path.iterdir()) == []


def test_by_the_command_line_a_finished_run_leaves_no_checkpoint(
    run: CommandLine, runs: Callable[..., list[Any]]
) -> None:
    said = run("-s", "full", "--checkpoint-every", "0")
    assert said.code == 0, said.err
    assert runs()[0].info.status == "FINISHED"
    assert list(checkpoint_folder().iterdir()) == []
    assert "--checkpoint-every is -1.0; it must be at least 0" in run("--checkpoint-every", "-1").err


def test_a_choice_of_layers_is_made_once(planned: Callable[..., PlannedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed training keeps the layers that the interrupted one chose, even if it would choose others now."""
    run = planned("bert", "random-2")
    kind = type(run.inputs.strategy)
    scores = iter([[3.0, 0.0, 1.0, 2.0], [0.0, 3.0, 2.0, 1.0]])
    monkeypatch.setattr(kind, "scores", lambda strategy, probe: next(scores))
    cut_off(run, 1, every_s=60.0)  # before the first checkpoint
    cut_off(run, 5)
    result, trained = cut_off_at(run)
    assert [one.score for one in result.layer_scores] == [3.0, 0.0, 1.0, 2.0]
    assert trained.training.schedule.segments[0].plan.frozen_layers == {1, 2}
    assert result.metrics["runtime/total_s"] > result.metrics["runtime/train_s"] > result.metrics["runtime/probe_s"] > 0
    assert trained.file is not None
    trained.file.remove()
    assert not list(checkpoint_folder().iterdir())
    assert [one.score for one in cut_off_at(run)[0].layer_scores] == [0.0, 3.0, 2.0, 1.0], (
        "nothing was left of the choice"
    )


def test_a_damaged_choice_is_made_again(planned: Callable[..., PlannedRun], undisturbed: Undisturbed) -> None:
    run = planned("bert", "random-2")
    cut_off(run, 1, every_s=60.0)
    (kept,) = checkpoint_folder().glob("*.choice.json")
    for content in ("{", '{"plan": {}}'):
        kept.write_text(content)
        resumed = cut_off_at(run)
        assert_same(resumed, undisturbed(run))
        assert any("damaged" in note for note in resumed[0].notes)
