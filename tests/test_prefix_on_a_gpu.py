"""The output of a frozen prefix on an accelerator: where it is kept, how batches get it, and what reaches the disk.

The device is simulated; its results are compared with the CPU's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from simulated_cuda import H200 as BIG
from simulated_cuda import Machine
from tiny_models import tiny_config

from alue_bench.data.batches import Batch, Padding, collate
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.measure import peak
from alue_bench.planning.build import Plan, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import _attainable, execute
from alue_bench.training.architecture.encoder_stack import view_as_stack
from alue_bench.training.device.precision import Device
from alue_bench.training.forward import choose_forward
from alue_bench.training.inference import predict_logits
from alue_bench.training.prefix import transfer
from alue_bench.training.prefix.frozen_prefix import FrozenPrefix
from alue_bench.training.prefix.placement import Rates, Sizes, choose_placement, worth_storing
from alue_bench.training.prefix.states import PrefixStates, ResidentRows, rows_of
from alue_bench.training.prefix.store import PrefixStore, StoredStates
from alue_bench.training.prefix.transfer import available_host_bytes, bandwidths

GB, M = 10**9, 10**6
CPU, GPU = Device("cpu", "fp32"), Device("cuda", "fp32")
H200 = Rates(compute=8 * M, to_device=50 * GB, to_host=50 * GB, gather=8 * GB, read=0)
T4 = Rates(compute=0.1 * M, to_device=10 * GB, to_host=10 * GB, gather=8 * GB, read=0)


@pytest.mark.parametrize(
    ("rates", "size", "passes", "free", "host", "read", "expected"),
    [
        # The rates, GB of states (3 KB a token), passes, GB free on device and host, GB/s of the disk if it has them.
        (H200, 1, 3, 100, 100, 0, ("resident", False)),
        (H200, 1, 3, 100, 0, 0, ("resident", False)),
        (H200, 1, 3, 100, 100, 2, ("resident", False)),  # computing is faster than the disk
        (T4, 1, 3, 10, 100, 2, ("resident", True)),
        (T4, 1, 1, 10, 100, 0, ("resident", False)),
        (H200, 48, 3, 90, 1000, 2, ("recomputed", False)),  # and faster than gathering on the host
        (T4, 48, 3, 10, 1000, 0, ("pinned", False)),
        (T4, 48, 3, 10, 1000, 2, ("pinned", True)),
        (T4, 48, 1, 10, 1000, 0, ("recomputed", False)),  # nothing to save in a single pass
        (T4, 48, 3, 10, 100, 2, ("recomputed", False)),  # too large for the host
        (T4, 1, 3, -1, 0, 0, ("recomputed", False)),  # no memory is left, and none can be pinned
    ],
)
def test_states_are_kept_where_the_training_is_fastest(
    rates: Rates, size: float, passes: int, free: float, host: float, read: float, expected: tuple[str, bool]
) -> None:
    rates = replace(rates, read=read * GB)
    sizes = Sizes(int(size * GB) // 3000, int(size * GB), passes, int(free * GB), int(host * GB), stored=read > 0)
    placement = choose_placement(sizes, rates)
    assert (placement.location, placement.read) == expected, placement
    assert str(placement).startswith(f"{expected[0]}, because {size}.0 GB")
    assert worth_storing(sizes, rates) == (rates.compute == T4.compute and read > 0)


def split_of(lengths: list[int]) -> TokenizedSplit:
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(rng.integers(5, 60, sum(lengths)))
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    names = [str(place) for place in range(len(lengths))]
    return TokenizedSplit(ids, torch.zeros_like(ids), offsets, torch.ones(len(lengths)), names, truncated=0)


SPLIT = split_of([9, 5, 7, 3, 9, 4, 8, 8, 6, 5, 4, 9, 12, 3, 8, 8, 7, 5])


def prefix_of(device: Device, store: PrefixStore | Path, depth: int = 2, *, shared: bool = False) -> FrozenPrefix:
    """The lowest layers of a tiny encoder, which is the same on each device."""
    store = PrefixStore(store, GB, pytest.fail) if isinstance(store, Path) else store
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(tiny_config("bert")).to(device.name)
    stack = view_as_stack(model)
    forward = choose_forward(stack, device.compute)
    return FrozenPrefix(stack, forward, depth, store=store, device=device, shared=shared)


def short_of_memory(machine: Machine, prefix: FrozenPrefix, states: int) -> None:
    """Leave no room on the device for so many bytes of states, beside what the optimiser will take."""
    bandwidths(GPU)
    trained = sum(parameter.nbytes for parameter in prefix._stack.model.parameters())
    machine.memory.limit = machine.memory.allocated + 3 * trained + 2 * states - 1024


LONG = split_of([60] * 300)
"""Three batches of 8,192 tokens."""


def states_on(device: Device, side: Literal["right", "left"], *, first_only: bool, resident: bool) -> PrefixStates:
    """The states of SPLIT, which tell the row that they are of."""
    starts, lengths = rows_of(SPLIT, first_only=first_only)
    kept = torch.arange(int(lengths.sum()) * 2.0).view(-1, 2)
    rows = ResidentRows.of(starts, lengths, side, device) if resident else None
    kept = device.copied_from_host(kept) if resident else kept.pin_memory() if device.pins_memory else kept
    return PrefixStates(2, StoredStates(kept, 1.0), kept, starts, lengths, False, first_only, rows)


def tokens_of(states: torch.Tensor | None, batch: Batch) -> torch.Tensor:
    """The states of a batch without padding, where states of all its tokens are kept."""
    assert states is not None
    return states if states.shape[1] == 1 else states[batch.attention_mask.bool()]


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("first_only", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_gets_its_states_without_a_wait(
    side: Literal["right", "left"], first_only: bool, resident: bool, simulated_cuda: Machine
) -> None:
    here = states_on(GPU, side, first_only=first_only, resident=resident)
    there = states_on(CPU, side, first_only=first_only, resident=False)
    fold = torch.tensor([1, 12, 2, 3, 17])
    fold_split = split_of(SPLIT.lengths[fold].tolist())
    for split, ours, expected, indices in (
        (SPLIT, here, there, [12, 3, 0, 17, 5]),
        (fold_split, here.select(fold), there.select(fold), [0, 4, 2]),
        (fold_split, here.select(fold), there.select(fold), [1]),
    ):
        batch = collate(split, np.array(indices), Padding(0, side))
        moved = batch.to("cuda", pinned=True)
        with simulated_cuda.watch() as seen:
            states = ours.of(moved)
        assert (seen.waits, seen.unpinned) == ({}, {})
        assert seen.launches <= 4
        assert torch.equal(tokens_of(states.cpu(), batch), tokens_of(expected.of(batch), batch))
        assert ours.seconds == expected.seconds


@pytest.mark.parametrize("width", [12, 16])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_graph_gathers_the_states_of_each_batch(
    side: Literal["right", "left"], width: int, simulated_cuda: Machine
) -> None:
    prefix = states_on(GPU, side, first_only=False, resident=True)
    indices = torch.zeros(4, dtype=torch.int64, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        states = prefix.gather(indices, width)
    for chosen in ([12, 3, 0, 17], [5, 5, 1, 2]):
        indices.copy_(torch.tensor(chosen).pin_memory(), non_blocking=True)
        graph.replay()
        batch = collate(SPLIT, np.array(chosen), Padding(0, side))
        longest = batch.attention_mask.shape[1]
        kept = states.cpu()[:, :longest] if side == "right" else states.cpu()[:, width - longest :]
        on_cpu = states_on(CPU, side, first_only=False, resident=False).of(batch)
        assert torch.equal(tokens_of(kept, batch), tokens_of(on_cpu, batch))


@pytest.mark.parametrize("place", ["resident", "pinned", "recomputed"])
@pytest.mark.parametrize("depth", [2, 4])
def test_the_states_are_those_of_a_cpu(place: str, depth: int, tmp_path: Path, simulated_cuda: Machine) -> None:
    expected = prefix_of(CPU, tmp_path / "cpu", depth).examples(SPLIT, Padding(0), {})
    assert expected.prefix is not None
    prefix = prefix_of(GPU, tmp_path / "gpu", depth)
    if place != "resident":
        short_of_memory(simulated_cuda, prefix, expected.prefix.states.nbytes)
    examples = prefix.examples(SPLIT, Padding(0), {}, passes=1 if place == "recomputed" else 1000)
    assert examples.placement is not None
    assert (examples.placement.location, examples.depth) == (place, 0 if place == "recomputed" else depth)
    assert not (tmp_path / "gpu").exists()
    batch = collate(SPLIT, np.array([12, 3, 0, 17, 5]), Padding(0))
    states = examples.states(batch.to("cuda", pinned=True))
    if states is not None:
        torch.testing.assert_close(tokens_of(states.cpu(), batch), tokens_of(expected.states(batch), batch))


def test_the_host_does_not_wait_for_each_batch_of_a_pass(tmp_path: Path, simulated_cuda: Machine) -> None:
    prefix = prefix_of(GPU, tmp_path)
    prefix.examples(SPLIT, Padding(0), {})
    seen = []
    for split in (SPLIT, LONG):
        with simulated_cuda.watch() as filling:
            examples = prefix.examples(split, Padding(0), {})
        with simulated_cuda.watch() as scoring:
            predict_logits(prefix._stack, prefix._forward, examples, device=GPU, padding=Padding(0))
        assert filling.unpinned + scoring.unpinned == {}
        seen.append((filling.waits.total(), scoring.waits.total()))
    assert seen[0] == seen[1] == (2, 1), "a wait before and behind each pass over texts, and one for the logits"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("targets", [torch.arange(18), torch.arange(18.0), torch.arange(54.0).view(18, 3)])
@pytest.mark.parametrize("types", [True, False])
def test_a_batch_is_moved_by_one_copy(
    side: Literal["right", "left"], targets: torch.Tensor, types: bool, simulated_cuda: Machine
) -> None:
    split = replace(SPLIT, targets=targets, token_type_ids=SPLIT.token_type_ids if types else None)
    whole = collate(split, np.array([12, 3, 0, 17, 5]), Padding(0, side))
    for batch in (whole, whole.rows(slice(1, 4))):
        with simulated_cuda.watch() as seen:
            moved = batch.to("cuda", pinned=True)
        assert (seen.copies, seen.waits, seen.unpinned, seen.launches) == (1, {}, {}, 0)
        for name in ("input_ids", "attention_mask", "token_type_ids", "targets"):
            before, after = getattr(batch, name), getattr(moved, name)
            assert (after is None) == (before is None)
            if before is not None:
                assert (after.device.type, after.dtype) == ("cuda", before.dtype)
                assert torch.equal(after.cpu(), before)
        assert moved.device_indices is not None
        assert torch.equal(moved.device_indices.cpu(), batch.indices)
        assert moved.indices is batch.indices


@pytest.fixture
def plan_runs(
    tiny: Callable[[str], Path], registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Plan]:
    """A plan on sample data with a tiny encoder, and a cache of the test's own."""
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(peak.SIZE, "cuda", 64)
    hyper = {"epochs": 1, "max_length": 24, "lr": 1e-3, "batch_size": 8}

    def build(*strategies: str, device: str = "cuda") -> Plan:
        request = PlanRequest(
            tasks=("anger",),
            models=(str(tiny("bert")),),
            strategies=strategies,
            overrides=(("test", hyper),),
            sample=True,
            precision="fp32",
            limit_train=16,
            limit_eval=10,
            device=device,
        )
        return build_plan(request, registry)

    return build


def contents(store: PrefixStore) -> dict[tuple[str, str], torch.Tensor]:
    """The states in a store, by split and depth."""
    stored = {
        (entry.description["split"], entry.description["depth"]): store.open(entry.key) for entry in store.entries()
    }
    return {place: entry.states.clone() for place, entry in stored.items() if entry is not None}


@pytest.mark.parametrize("simulated_cuda", [replace(BIG, count=2)], indirect=True)
def test_rates_are_measured_once_on_each_gpu(simulated_cuda: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peak.SIZE, "cuda", 64)
    transfer._bandwidths.cache_clear()
    measured = []
    for number in (0, 1, 0, 1):
        with torch.cuda.device(number), simulated_cuda.watch() as seen:
            bandwidths(GPU)
            peak.attainable_flops_per_s("cuda", torch.float32)
        measured.append((seen.copies > 0, seen.kernels["mm"] > 0))
    assert measured == [(True, True), (True, True), (False, False), (False, False)]


def test_a_container_has_the_memory_that_its_limit_leaves(tmp_path: Path) -> None:
    unlimited = available_host_bytes(tmp_path)
    assert unlimited > 0
    for limit, expected in (("3000", 2000), ("500", 0), ("max", None), (str(10**18), None)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("1000\n")
        found = available_host_bytes(tmp_path)
        assert found > 3000 if expected is None else found == expected
    (tmp_path / "memory.max").write_text("3000\n")
    for statistics, more in (("anon 100\ninactive_file 600\nactive_file 50\n", 600), ("anon 100\n", 0), ("?", 0)):
        (tmp_path / "memory.stat").write_text(statistics)
        assert available_host_bytes(tmp_path) == 2000 + more, "page cache that can be freed is available"


class TestTheStore:
    def test_gets_what_another_run_will_read_after_the_training(
        self, plan_runs: Callable[..., Plan], simulated_cuda: Machine
    ) -> None:
        plan = plan_runs("bottom2", "bottom2top1", "bottom1")
        store = plan.runs[0].inputs.prefixes
        assert plan.runs[0].inputs.depths.shared == {2}

        def on_step(done: int, total: int) -> None:
            assert peak._measured.cache_info().currsize == 1, "the device's speed is measured before"
            assert not store.entries() or done_before

        done_before = []
        for run in plan.runs[:2]:
            result, trained = execute(run.spec, run.inputs, on_step=on_step)
            done_before.append(result.metrics)
            assert result.metrics["runtime/prepare_s"] == 0
            assert result.environment["engine"]["prefix"].startswith("resident, because ")
            assert result.environment["engine"]["prefix_rates"]["compute"] > 0
            for one in trained.prefixes.values():
                assert one.prefix is not None
                assert one.prefix.states.numel() == 0, "the memory is free again"
        assert [metrics["runtime/prefix_reused"] for metrics in done_before] == [0, 1]
        first, second = (metrics["runtime/prefix_s"] for metrics in done_before)
        assert first == second > 0, "whoever computed it"
        stored = contents(store)
        assert set(stored) == {(split, "2") for split in ("train", "dev", "test")}

        (on_cpu,) = plan_runs("bottom2", device="cpu").runs
        assert on_cpu.inputs.depths.shared == set()
        store.clear()
        execute(on_cpu.spec, on_cpu.inputs)
        for place, states in contents(store).items():
            torch.testing.assert_close(stored[place], states, msg=lambda text, place=place: f"{place}: {text}")

    @pytest.mark.parametrize(("shared", "limit", "entries"), [(True, GB, 1), (False, GB, 0), (True, 1000, 0)])
    def test_gets_nothing_that_no_other_run_wants_or_for_which_it_has_no_room(
        self, shared: bool, limit: int, entries: int, tmp_path: Path, simulated_cuda: Machine
    ) -> None:
        problems: list[str] = []
        store = PrefixStore(tmp_path, limit, problems.append)
        prefix = prefix_of(GPU, store, shared=shared)
        assert prefix.examples(SPLIT, Padding(0), {"split": "train"}).depth == 2
        assert not store.entries()
        prefix.store_computed()
        prefix.store_computed()
        assert len(store.entries()) == entries
        assert ["--cache-size" in problem for problem in problems] == [True] * (limit < GB)

    def test_is_read_where_that_is_faster(self, tmp_path: Path, simulated_cuda: Machine) -> None:
        store = PrefixStore(tmp_path, GB, pytest.fail)
        first, again = (prefix_of(GPU, store, shared=shared) for shared in (True, False))
        computed = first.examples(SPLIT, Padding(0), {"split": "train"})
        first.store_computed()
        for place, passes in (("resident", 1), ("pinned", 1000)):
            if place == "pinned":
                assert computed.prefix is not None
                short_of_memory(simulated_cuda, again, computed.prefix.states.nbytes)
            read = again.examples(SPLIT, Padding(0), {}, passes=passes)
            assert read.placement is not None
            assert (read.placement.location, read.placement.read) == (place, True)
            assert read.prefix is not None
            assert read.prefix.reused
            batch = collate(SPLIT, np.array([12, 3, 0, 17, 5]), Padding(0))
            states = (one.states(batch.to("cuda", pinned=True)) for one in (read, computed))
            ours, expected = (tokens_of(one.cpu() if one is not None else None, batch) for one in states)
            assert torch.equal(ours, expected)


class TestTheAttainableSpeed:
    def test_is_measured_in_the_memory_that_is_free(self, simulated_cuda: Machine) -> None:
        simulated_cuda.memory.limit = 150 << 20
        assert peak._size(GPU, torch.float32) == 1024
        simulated_cuda.memory.limit = 64 << 30
        assert peak._size(GPU, torch.float32) == 8192

    def test_fails_no_run_where_there_is_none(self, simulated_cuda: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        simulated_cuda.memory.limit = 6 << 20
        problems: list[str] = []
        assert _attainable(GPU, problems) is None
        assert "speed could not be measured: OutOfMemoryError" in problems[0]
