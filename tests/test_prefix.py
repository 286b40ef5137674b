"""The outputs of a frozen prefix, computed once, change the time of a training and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gallery import gallery_model
from tiny_models import ARCHITECTURES

from alue_bench.contract.byte_sizes import parse_size
from alue_bench.contract.spec import RunResult
from alue_bench.data.batches import Padding
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.executors.replan import rebuild_run, source_of
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import Plan, PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.fine_tuning import Trained, train
from alue_bench.running.run import execute
from alue_bench.training.architecture.encoder_stack import view_as_stack
from alue_bench.training.device.precision import Device
from alue_bench.training.forward import choose_forward
from alue_bench.training.prefix.frozen_prefix import FrozenPrefix
from alue_bench.training.prefix.store import PrefixStore

PlanRuns = Callable[..., Plan]


@pytest.fixture
def plan_runs(tiny: Callable[[str], Path], registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanRuns:
    """A plan on sample data with a tiny encoder, dropout on, and a cache of the test's own."""
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))

    def build(*strategies: str, architecture: str = "bert", task: str = "anger", **options: Any) -> Plan:
        hyper = {"epochs": 2, "max_length": 24, "lr": 1e-3, "batch_size": 8} | options.pop("hyper", {})
        request = {"precision": "fp32", "limit_train": 40, "limit_eval": 30} | options
        return build_plan(
            PlanRequest(
                tasks=(task,),
                models=(str(tiny(architecture)),),
                strategies=strategies,
                overrides=(("test", hyper),),
                sample=True,
                **request,
            ),
            registry,
        )

    return build


def do(planned: PlannedRun) -> tuple[RunResult, Trained]:
    return execute(planned.spec, planned.inputs)


def curve(result: RunResult, name: str = "train/loss") -> list[float]:
    return [point.value for point in result.curves if point.metric == name]


def scores(result: RunResult) -> Any:
    return np.asarray(result.predictions.scores)


def entries(planned: PlannedRun) -> list[Any]:
    return planned.inputs.prefixes.entries()


@pytest.mark.parametrize("strategy", ["bottom2", "bottom1top2", "head-only"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_losses_and_predictions_are_those_without_a_cache(
    architecture: str, strategy: str, plan_runs: PlanRuns
) -> None:
    (cached,) = plan_runs(strategy, architecture=architecture).runs
    (recomputed,) = plan_runs(strategy, architecture=architecture, cache_size="0").runs
    (with_cache, trained), (without, _) = do(cached), do(recomputed)
    assert trained.prefixes["train"].depth == {"bottom2": 2, "bottom1top2": 1, "head-only": 4}[strategy]
    assert len(entries(cached)) == 3
    np.testing.assert_allclose(curve(with_cache), curve(without), rtol=2e-4)
    np.testing.assert_allclose(scores(with_cache), scores(without), rtol=1e-2, atol=1e-4)


def test_in_bf16_too(plan_runs: PlanRuns) -> None:
    (cached,) = plan_runs("bottom2", precision="bf16").runs
    (recomputed,) = plan_runs("bottom2", precision="bf16", cache_size="0").runs
    np.testing.assert_allclose(curve(do(cached)[0]), curve(do(recomputed)[0]), rtol=2e-2)


def test_the_result_is_the_same_to_the_last_bit_whatever_was_in_the_cache(plan_runs: PlanRuns) -> None:
    def outcome() -> tuple[list[float], Any, bool]:
        (planned,) = plan_runs("bottom2").runs
        result, trained = do(planned)
        return curve(result), scores(result), trained.prefixes["train"].prefix.reused  # type: ignore[union-attr]

    cold = outcome()
    warm = outcome()
    (planned,) = plan_runs("bottom2").runs
    folder = planned.inputs.prefixes.folder
    planned.inputs.prefixes.clear()
    do(plan_runs("bottom1").runs[0])
    on_top = outcome()
    for damaged in folder.glob("*/states.bin"):
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
    rebuilt = outcome()
    assert [reused for *_, reused in (cold, warm, on_top, rebuilt)] == [False, True, False, False]
    for losses, predictions, _ in (warm, on_top, rebuilt):
        assert losses == cold[0]
        assert np.array_equal(predictions, cold[1])


def test_a_damaged_entry_is_told_in_the_runs_notes(plan_runs: PlanRuns) -> None:
    (planned,) = plan_runs("bottom2").runs
    do(planned)
    for damaged in planned.inputs.prefixes.folder.glob("*/states.bin"):
        damaged.write_bytes(b"short")
    (again,) = plan_runs("bottom2").runs
    assert any("damaged" in note for note in do(again)[0].notes)


def test_its_cost_is_charged_whoever_paid_it(plan_runs: PlanRuns) -> None:
    (planned,) = plan_runs("bottom2").runs
    (first, _), (second, _) = do(planned), do(planned)
    assert (first.metrics["runtime/prefix_reused"], second.metrics["runtime/prefix_reused"]) == (0, 1)
    assert first.metrics["runtime/prefix_s"] == second.metrics["runtime/prefix_s"] > 0
    for result in (first, second):
        assert result.metrics["runtime/train_s"] == pytest.approx(
            result.metrics["runtime/loop_s"] + result.metrics["runtime/prefix_s"]
        )


def test_runs_of_one_depth_share_it_and_a_deeper_one_starts_from_it(plan_runs: PlanRuns) -> None:
    plans = [plan_runs(strategy) for strategy in ("bottom2", "bottom2top1", "bottom3")]
    results = [do(plan.runs[0]) for plan in plans]
    assert [r.metrics["runtime/prefix_reused"] for r, _ in results] == [0, 1, 0]
    assert len(entries(plans[0].runs[0])) == 6
    two, three = results[0][0].metrics["runtime/prefix_s"], results[2][0].metrics["runtime/prefix_s"]
    assert three > two, "the cost of what it was computed from is part of its own"


@pytest.mark.parametrize(("architecture", "precision"), [("bert", "fp32"), ("modernbert", "fp32")])
def test_one_pass_for_all_depths_of_a_plan_stores_what_each_depth_alone_would(
    architecture: str, precision: str, plan_runs: PlanRuns
) -> None:
    strategies = ("bottom2", "full", "bottom1", "bottom3", "head-only")

    def contents(planned: PlannedRun) -> dict[str, bytes]:
        folder = planned.inputs.prefixes.folder
        return {entry.key: (folder / entry.key / "states.bin").read_bytes() for entry in entries(planned)}

    together = plan_runs(*strategies, architecture=architecture, precision=precision)
    result, _ = do(together.runs[0])
    at_once = contents(together.runs[0])
    assert len(at_once) == 4 * 3  # depths, splits
    assert result.metrics["runtime/prefix_reused"] == 0
    assert result.metrics["runtime/prepare_s"] > result.metrics["runtime/prefix_s"]
    outcomes = [result, *(do(planned)[0] for planned in together.runs[1:])]
    assert contents(together.runs[0]) == at_once  # nothing was computed again

    for strategy, outcome in zip(strategies, outcomes, strict=True):
        alone = plan_runs(strategy, architecture=architecture, precision=precision)
        together.runs[0].inputs.prefixes.clear()
        (again, _), kept = do(alone.runs[0]), contents(alone.runs[0])
        assert kept.items() <= at_once.items()
        assert curve(again) == curve(outcome)
        assert np.array_equal(scores(again), scores(outcome))


def test_an_entry_of_the_one_pass_is_charged_the_layers_below_it_and_no_others(plan_runs: PlanRuns) -> None:
    plan = plan_runs("bottom1", "bottom4", limit_train=None)
    shallow, deep = (do(planned)[0].metrics for planned in plan.runs)
    assert 0 < shallow["runtime/prefix_s"] < deep["runtime/prefix_s"]
    assert deep["runtime/prepare_s"] == 0 or deep["runtime/prepare_s"] < shallow["runtime/prepare_s"]
    assert shallow["runtime/train_s"] == pytest.approx(shallow["runtime/loop_s"] + shallow["runtime/prefix_s"])


def test_where_the_store_has_no_room_for_every_depth_each_run_computes_its_own(plan_runs: PlanRuns) -> None:
    size = max(entry.bytes for entry in (do(plan_runs("bottom1").runs[0]), *entries(plan_runs("bottom1").runs[0]))[1:])
    plan = plan_runs("bottom1", "bottom2", "bottom3", cache_size=f"{5 * size / 1000:.3f}KB", seeds=(7,))
    plan.runs[0].inputs.prefixes.clear()
    results = [do(planned)[0] for planned in plan.runs]
    assert all(result.metrics["runtime/prefix_reused"] == 0 for result in results)
    assert sum(entry.bytes for entry in entries(plan.runs[0])) <= 5 * size


def test_a_worker_tries_to_store_every_depth_once(plan_runs: PlanRuns, registry: Any) -> None:
    plan, shelf = plan_runs("bottom1", "bottom2", "bottom3"), PlanCache()
    first, second = (rebuild_run(run.spec, source_of(run, registry), registry, shelf) for run in plan.runs[:2])
    do(first)
    assert len(entries(first)) == 3 * 3  # depths, splits
    first.inputs.prefixes.clear()  # as other plans may, where there is little room
    do(second)
    assert len(entries(second)) == 3


def test_other_weights_texts_or_formats_have_entries_of_their_own(plan_runs: PlanRuns) -> None:
    (planned,) = plan_runs("bottom2").runs
    do(planned)
    for options in ({"precision": "bf16"}, {"task": "oold"}, {"architecture": "electra"}, {"limit_train": 39}):
        (other,) = plan_runs("bottom2", **options).runs  # type: ignore[arg-type]
        assert do(other)[0].metrics["runtime/prefix_reused"] == 0
    (other_seed,) = plan_runs("bottom2", seeds=(7,)).runs
    assert do(other_seed)[0].metrics["runtime/prefix_reused"] == 1


def test_nothing_is_kept_where_nothing_below_is_frozen(plan_runs: PlanRuns) -> None:
    for strategy in ("full", "top2", "bottom2-trainemb"):
        (planned,) = plan_runs(strategy).runs
        result, trained = do(planned)
        assert trained.prefixes["train"].depth == 0
        assert result.metrics["runtime/prefix_s"] == 0
        assert not entries(planned)


def test_without_room_it_is_computed_at_every_step_and_the_run_says_so(plan_runs: PlanRuns) -> None:
    (planned,) = plan_runs("bottom2", cache_size="1KB").runs
    result, trained = do(planned)
    assert trained.prefixes["train"].depth == 0
    assert any("--cache-size" in note for note in result.notes)
    (unlimited,) = plan_runs("bottom2").runs
    np.testing.assert_allclose(curve(result), curve(do(unlimited)[0]), rtol=2e-4)


def test_a_head_that_reads_the_first_token_has_only_that_kept(plan_runs: PlanRuns) -> None:
    (lean,) = plan_runs("head-only").runs
    do(lean)
    sizes = {entry.bytes for entry in entries(lean)}
    assert sizes == {rows * 32 * 4 for rows in (40, 30)}


def test_frozen_layers_cost_no_time_after_the_first_epoch(plan_runs: PlanRuns) -> None:
    """Counted, not timed: no layer of the prefix is called in training."""
    (planned,) = plan_runs("bottom2", architecture="distilbert").runs
    spec, inputs = planned.spec, planned.inputs
    do(planned)
    trained = train(spec, inputs)
    called: list[int] = []
    for index, layer in enumerate(trained.stack.layers):
        layer.register_forward_hook(lambda module, args, output, index=index: called.append(index))
    examples = trained.prefixes["dev"]
    from alue_bench.training.inference import predict_logits

    predict_logits(trained.stack, trained.forward, examples, device=trained.device, padding=Padding(0))
    # The layers passed over are called, and hand on what they are given; their parts are not.
    inner: list[int] = []
    for index, layer in enumerate(trained.stack.layers):
        next(layer.children()).register_forward_hook(lambda module, args, output, index=index: inner.append(index))
    predict_logits(trained.stack, trained.forward, examples, device=trained.device, padding=Padding(0))
    assert set(called) == {0, 1, 2, 3}
    assert set(inner) == {2, 3}


def test_states_of_every_example_come_back_to_it(plan_runs: PlanRuns) -> None:
    from alue_bench.data.batches import batches, collate

    (planned,) = plan_runs("bottom2").runs
    _, trained = do(planned)
    examples = trained.prefixes["train"]
    split, prefix = examples.split, examples.prefix
    assert prefix is not None
    trained.stack.model.eval()
    order = [np.array([3, 17, 5]), np.array([0]), np.array([39, 1])]
    with torch.no_grad():
        for batch in batches(split, order, Padding(0)):
            stored = prefix.of(batch)
            for row, index in enumerate(batch.indices.tolist()):
                length = int(split.lengths[index])
                alone = trained.forward.prefix(collate(split, np.array([index]), Padding(0)), 2)
                torch.testing.assert_close(stored[row, :length], alone[0], atol=1e-5, rtol=1e-4)


def test_a_store_of_another_process_is_used(plan_runs: PlanRuns) -> None:
    (planned,) = plan_runs("bottom2").runs
    do(planned)
    fresh = PrefixStore(planned.inputs.prefixes.folder, parse_size("1GB"), lambda message: None)
    again = dataclasses.replace(planned.inputs, prefixes=fresh)
    assert execute(planned.spec, again)[0].metrics["runtime/prefix_reused"] == 1


def prefix_of(name: str, folder: Path) -> tuple[TokenizedSplit, FrozenPrefix, PrefixStore, list[str]]:
    """Three texts, the two lowest layers of a model of the gallery, their store, and what it reports."""
    stack = view_as_stack(gallery_model(name))
    problems: list[str] = []
    store = PrefixStore(folder, parse_size("1GB"), problems.append)
    device = Device("cpu", "fp32")
    prefix = FrozenPrefix(stack, choose_forward(stack, torch.float32), 2, store=store, device=device)
    ids = torch.randint(5, 60, (17,), generator=torch.Generator().manual_seed(0))
    split = TokenizedSplit(ids, None, torch.tensor([0, 9, 14, 17]), torch.zeros(3), ["a", "b", "c"], 0)
    return split, prefix, store, problems


class TestWhereItCannotBeDone:
    """Models that cannot start from stored states compute them at every step, with a note."""

    @pytest.mark.parametrize("name", ["xlm", "fnet"])
    def test_architectures_that_carry_something_past_their_layers(self, name: str, tmp_path: Path) -> None:
        split, prefix, store, problems = prefix_of(name, tmp_path)
        assert prefix.examples(split, Padding(0), {}).depth == 0
        assert prefix.examples(split, Padding(0), {}).depth == 0
        assert len(problems) == 1, "told once"
        assert "ForSequenceClassification cannot be started" in problems[0]
        assert not store.entries()

    @pytest.mark.parametrize("name", ["rembert", "esm-rotary", "deberta-v3", "nomic_bert", "gpt2", "llama"])
    def test_what_stands_between_embeddings_and_layers_is_no_obstacle(self, name: str, tmp_path: Path) -> None:
        """Projections, rotary positions, a convolution beside layer 0, poolers registered before the layers."""
        split, prefix, _, problems = prefix_of(name, tmp_path)
        assert prefix.examples(split, Padding(0), {}).depth == 2
        assert problems == []

    def test_a_shallower_prefix_gives_way_where_it_takes_the_room(self, plan_runs: PlanRuns) -> None:
        (alone,) = plan_runs("bottom3").runs
        do(alone)
        largest = max(entry.bytes for entry in entries(alone))
        alone.inputs.prefixes.clear()
        limit = f"{int(largest * 1.5)}B"
        for strategy, depth in (("bottom2", 2), ("bottom3", 3)):
            (planned,) = plan_runs(strategy, cache_size=limit).runs
            trained = train(planned.spec, planned.inputs)
            assert trained.prefixes["train"].depth == depth, strategy

    def test_a_memory_too_small_for_it(self, plan_runs: PlanRuns, monkeypatch: pytest.MonkeyPatch) -> None:
        from alue_bench.training.bert.forward import LeanForward

        whole = LeanForward.prefix

        def limited(self: Any, batch: Any, depth: int, *rest: Any) -> Any:
            if depth == 2 and batch.input_ids.numel() > 200:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return whole(self, batch, depth, *rest)

        monkeypatch.setattr(LeanForward, "prefix", limited)
        (planned,) = plan_runs("bottom2").runs
        result, trained = do(planned)
        assert trained.prefixes["train"].depth == 0
        assert any("memory is too small" in note for note in result.notes)
