"""Whole training steps on an accelerator: gathered, computed and replayed there, with few kernels and no waits.

The accelerator is a simulated one (`simulated_cuda/`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from simulated_cuda import H200, Activity, Machine
from tiny_models import tiny_config

from alue_bench import FreezePlan, Labels
from alue_bench.contract.errors import NonFiniteLossError, TrainingError
from alue_bench.contract.spec import HyperParameters
from alue_bench.data.batches import Padding, collate
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.architecture.encoder_stack import view_as_stack
from alue_bench.training.bert.dropout import StepDropout
from alue_bench.training.bert.forward import LeanForward
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.cuda_graphs import CudaRecorder, padded_lengths
from alue_bench.training.device.finite import STEPS_PER_CHECK
from alue_bench.training.device.precision import Device
from alue_bench.training.device.resident import ResidentSplit
from alue_bench.training.forward import choose_forward
from alue_bench.training.freezing import apply_plan
from alue_bench.training.prefix.frozen_prefix import Examples, FrozenPrefix
from alue_bench.training.prefix.growing import FixedData
from alue_bench.training.prefix.store import PrefixStore
from alue_bench.training.result import TrainingResult
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.session import MAX_LENGTHS, TrainingSession, fine_tune
from alue_bench.training.update import clip_gradients

LABELS = Labels.binary("no", "yes")
HYPER = HyperParameters(epochs=2, batch_size=4, lr=1e-3, select="last")
NONE: frozenset[int] = frozenset()
FULL, CACHED = (NONE, False), (frozenset({0, 1, 2, 8, 9, 10, 11}), True)
"""Frozen layers and embeddings: none, and those of bottom3top4."""
REFUSED = "CUDA error: operation not permitted when stream is capturing"
CPU = Device("cpu", "fp32")


def split_of(lengths: list[int]) -> TokenizedSplit:
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(rng.integers(5, 60, sum(lengths)))
    return TokenizedSplit(
        input_ids=ids,
        token_type_ids=ids % 2,
        offsets=torch.tensor([0, *np.cumsum(lengths)]),
        targets=torch.from_numpy(rng.integers(0, 2, len(lengths))),
        ids=[str(place) for place in range(len(lengths))],
        truncated=0,
    )


SPLIT = split_of([9, 5, 17, 3, 9, 4, 8, 8, 6, 5, 4, 9, 12, 30, 8, 8, 7, 5])


@dataclass(frozen=True)
class Outcome:
    """A training."""

    result: TrainingResult
    weights: dict[str, torch.Tensor]
    steps: list[Activity]
    """The costs of each step but the first, from one call of `on_step` to the next."""
    cached: int
    """The bytes that the allocator of the device keeps for reuse after the first step."""


def session_of(
    folder: Path,
    device: Device,
    plan: tuple[frozenset[int], bool] = FULL,
    *,
    split: TokenizedSplit = SPLIT,
    layers: int = 1,
    dropout: float = 0.0,
    hyper: HyperParameters = HYPER,
) -> TrainingSession:
    """Return a training of a tiny BERT before its first step."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    config = tiny_config("bert", layers=layers, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    stack = view_as_stack(AutoModelForSequenceClassification.from_config(config).to(device.name))
    freeze = FreezePlan(stack.shape, plan[0], embeddings=plan[1])
    apply_plan(stack, freeze)
    forward = choose_forward(stack, device.compute)
    store = PrefixStore(folder / device.name, 1 << 20, pytest.fail)
    prefix = FrozenPrefix(stack, forward, freeze.prefix_layers, store=store, device=device)
    return TrainingSession(
        stack,
        forward,
        FreezeSchedule(stack, freeze),
        FixedData(prefix.examples(split, Padding(0), {}), Examples(SPLIT)),
        TrainingConfig(LABELS, hyper, data_seed=1, device=device, padding=Padding(0)),
        score=lambda logits: {"score": 0.0},
    )


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Outcome]:
    """A function that trains a tiny BERT."""

    def trained(
        device: Device, plan: tuple[frozenset[int], bool] = FULL, machine: Machine | None = None, **options: Any
    ) -> Outcome:
        session = session_of(tmp_path, device, plan, **options)
        seen: list[Activity] = []
        cached: list[int] = []

        def on_step(done: int, total: int) -> None:
            if machine is not None:
                seen.append(machine.activity.copy())
                cached.append(machine.memory.reserved - machine.memory.allocated)

        result = fine_tune(session, on_step=on_step)
        weights = {name: p.detach().cpu().clone() for name, p in session.stack.model.named_parameters()}
        steps = [after - before for before, after in itertools.pairwise(seen)]
        return Outcome(result, weights, steps, cached[0] if cached else 0)

    return trained


def gap(one: Outcome, other: Outcome) -> float:
    return max(float((one.weights[name] - value).abs().max()) for name, value in other.weights.items())


class TestGraphs:
    @pytest.mark.parametrize("plan", [FULL, (frozenset({0}), True)], ids=["full", "one-layer-frozen"])
    def test_replayed_and_eager_steps_end_alike_with_dropout(
        self, train: Any, simulated_cuda: Machine, plan: Any
    ) -> None:
        """The choice between both changes neither batches nor random numbers, and the CPU pads otherwise."""
        eager = train(Device("cuda", "fp32", "off"), plan, layers=2, dropout=0.1)
        replayed = train(Device("cuda", "fp32", "on"), plan, simulated_cuda, layers=2, dropout=0.1)
        assert 1 < replayed.result.recorded_shapes <= MAX_LENGTHS
        assert sum(step.replays for step in replayed.steps) in (7, 8)  # all but one smaller batch an epoch
        assert gap(replayed, eager) < 1e-6

    def test_are_of_the_kernels_of_eager_steps_in_batches_without_padding_too(
        self, train: Any, simulated_cuda: Machine
    ) -> None:
        """Attention with a mask is another kernel than without one, and draws other random numbers for dropout."""
        eager, hyper = Device("cuda", "fp32", "off"), replace(HYPER, epochs=1)
        launched = []
        for lengths in ([8] * 16, [8, 7] * 8):
            trained = train(eager, machine=simulated_cuda, split=split_of(lengths), hyper=hyper, dropout=0.1)
            launched.append([step.kernels for step in trained.steps])
            assert trained.result.tokens == sum(lengths)
        assert launched[0] == launched[1]

    def test_give_back_what_eager_steps_took(self, train: Any, simulated_cuda: Machine) -> None:
        split = split_of([8] * 16)
        cached = {}
        for graphs in ("off", "on", "auto"):
            torch.cuda.empty_cache()
            trained = train(Device("cuda", "fp32", graphs), machine=simulated_cuda, split=split)  # type: ignore[arg-type]
            cached[graphs] = trained.cached
            assert graphs != "auto" or trained.result.graph_use.used  # a replayed step of the simulation is faster
        assert max(cached["on"], cached["auto"]) < cached["off"] / 10

    def test_are_not_captured_of_a_split_that_takes_too_much_memory(
        self, tmp_path: Path, simulated_cuda: Machine
    ) -> None:
        split = split_of([30] * 2000)  # 1 MB
        session_of(tmp_path, Device("cuda", "fp32", "auto")).warm_up()
        peak = simulated_cuda.memory.peak
        for limit, used in ((1 << 30, True), (4 * peak, False)):
            simulated_cuda.memory.limit = limit
            session = session_of(tmp_path, Device("cuda", "fp32", "on"), split=split)
            session.warm_up()
            use = session.result.graph_use
            assert use is not None
            reason = "--cuda-graphs on" if used else "the train split takes too much of the device's memory"
            assert (use.used, use.reason) == (used, reason)

    def test_that_follow_a_schedule_with_rates_by_layer(self, train: Any, simulated_cuda: Machine) -> None:
        hyper = replace(HYPER, llrd=0.9, warmup=0.3, clip=0.05, clip_by="component", weight_decay=0.1)
        expected = train(CPU, layers=2, hyper=hyper)
        assert gap(train(Device("cuda", "fp32", "on"), layers=2, hyper=hyper), expected) < 1e-5

    def test_that_cannot_be_captured_end_the_run_only_if_they_were_asked_for(
        self, train: Any, simulated_cuda: Machine
    ) -> None:
        expected = train(Device("cuda", "fp32", "off"), dropout=0.1)
        simulated_cuda.refuses_capture = REFUSED
        fallen_back = train(Device("cuda", "fp32", "auto"), dropout=0.1)
        assert gap(fallen_back, expected) < 1e-6
        use = fallen_back.result.graph_use
        assert use is not None
        assert (use.used, fallen_back.result.recorded_shapes) == (False, 0)
        assert "operation not permitted when stream is capturing" in use.reason
        with pytest.raises(TrainingError, match=r"cannot be recorded.*leave out --cuda-graphs on"):
            train(Device("cuda", "fp32", "on"))

    def test_are_used_if_they_are_faster(self, train: Any, simulated_cuda: Machine) -> None:
        outcome = train(Device("cuda", "fp32", "auto"), dropout=0.1)
        use = outcome.result.graph_use
        assert use is not None
        assert use.eager_step_s
        assert use.replayed_step_s
        assert use.used == (use.replayed_step_s < use.eager_step_s) == (outcome.result.recorded_shapes > 0)
        # The steps that were timed left no trace.
        assert gap(outcome, train(Device("cuda", "fp32", "off"), dropout=0.1)) < 1e-6

    @pytest.mark.parametrize("refused", ["", REFUSED], ids=["captured", "refused"])
    def test_leave_no_memory_behind(self, train: Any, simulated_cuda: Machine, refused: str) -> None:
        simulated_cuda.refuses_capture = refused
        train(Device("cuda", "fp32", "auto"))
        assert simulated_cuda.memory.allocated == 0
        assert not simulated_cuda.pools, "the allocator still takes memory from the pool of a failed capture"

    @pytest.mark.parametrize("simulated_cuda", [replace(H200, count=2)], indirect=True)
    def test_are_captured_on_a_stream_of_the_current_device(self, simulated_cuda: Machine) -> None:
        for number in (0, 1):
            with torch.cuda.device(number):
                total = torch.zeros((), device="cuda")

                def work(total: torch.Tensor = total) -> None:
                    total.add_(1)

                CudaRecorder(lambda: []).record(work)()
                assert float(total) == 1


@pytest.mark.parametrize(("plan", "most"), [(FULL, 600), (CACHED, 400)], ids=["full", "bottom3top4"])
def test_a_step_of_twelve_layers_launches_few_kernels_and_one_graph(
    train: Any, simulated_cuda: Machine, plan: Any, most: int
) -> None:
    """In bf16, with dropout, as BERT-base is trained."""
    options = {"split": split_of([5, 8, 7, 8] * 3), "hyper": replace(HYPER, epochs=1), "layers": 12, "dropout": 0.1}
    for graphs in ("off", "on"):
        device = Device("cuda", "bf16", graphs)  # type: ignore[arg-type]
        steps = train(device, plan, simulated_cuda, **options).steps
        costs = sorted((step.replays, step.launches) for step in steps)
        print(plan, graphs, costs)
        assert not any(step.waits or step.unpinned for step in steps)
        if graphs == "off":
            assert costs[-1][1] <= most
        else:
            assert (1, 3) in costs  # the learning rates, the indices and the reported loss
            assert costs[-1][0] == 1


def test_a_loss_that_is_not_finite_is_noticed_within_the_epoch(train: Any, simulated_cuda: Machine) -> None:
    split = split_of([5] * 120)
    done: list[int] = []
    hyper = replace(HYPER, batch_size=1, lr=1e30, warmup=0.0, clip=0.0)
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan at step \d of 240"):
        train(Device("cuda", "fp32", "off"), split=split, hyper=hyper)
    done.append(simulated_cuda.activity.kernels["_fused_adamw_"])
    assert 0 < done[0] <= 2 * 2 * (STEPS_PER_CHECK + 2)  # two parameter groups


class TestResidentSplit:
    @pytest.mark.parametrize("side", ["right", "left"])
    def test_gathers_what_is_collated_on_the_host(self, side: Any) -> None:
        padding = Padding(3, side, type_id=1)
        resident = ResidentSplit(SPLIT, padding, CPU)
        order = [np.array([4, 2, 0]), np.array([3, 13]), np.array([5])]
        for draw, indices in zip(resident.epoch_batches(order), order, strict=True):
            batch, expected = draw.to("cpu"), collate(SPLIT, indices, padding)
            cut = slice(0, expected.width) if side == "right" else slice(batch.width - expected.width, None)
            assert batch.width == min(-(-expected.width // 8) * 8, 30)
            for name in ("input_ids", "attention_mask", "token_type_ids"):
                assert torch.equal(getattr(batch, name)[:, cut], getattr(expected, name))
            assert int(batch.attention_mask.sum()) == batch.tokens == expected.tokens
            assert torch.equal(batch.targets, expected.targets)
            part = draw.rows(slice(0, 2))
            assert part.indices.tolist() == indices[:2].tolist()
            assert part.tokens == int(SPLIT.lengths[indices[:2]].sum())

    def test_pads_to_the_lengths_that_need_least_padding(self) -> None:
        rng = np.random.default_rng(0)
        lengths = [int(length) for length in rng.integers(1, 12, 40)]

        def padding(chosen: tuple[int, ...]) -> int:
            return sum(min(one for one in chosen if one >= length) - length for length in lengths)

        rest = sorted(set(lengths))[:-1]
        for most in (1, 2, 3):
            every = [(*some, max(lengths)) for some in itertools.combinations(rest, most - 1)]
            assert padding(padded_lengths(lengths, most)) == min(map(padding, every))
        assert padded_lengths(lengths, 99) == tuple(sorted(set(lengths)))


@pytest.mark.parametrize("frozen", [NONE, frozenset({1}), frozenset({0, 1, 2})], ids=str)
@pytest.mark.parametrize("longest", [9, 12], ids=["unpadded", "padded"])
def test_layers_with_few_kernels_compute_what_the_others_compute(frozen: frozenset[int], longest: int) -> None:
    """Logits and every gradient, without dropout, in fp32."""
    from transformers import AutoModelForSequenceClassification

    split = split_of([9, 9, longest])
    batch = collate(split, np.arange(3), Padding(0))
    found = []
    for few in (False, True):
        torch.manual_seed(3)
        config = tiny_config("bert", layers=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        stack = view_as_stack(AutoModelForSequenceClassification.from_config(config))
        apply_plan(stack, FreezePlan(stack.shape, frozen, embeddings=len(frozen) > 1))
        forward = LeanForward(stack, torch.float32)
        if few:
            forward._masks = StepDropout(0, torch.device("cpu"))
        logits = forward.logits(batch)
        torch.nn.functional.cross_entropy(logits, batch.targets).backward()
        found.append((logits, {name: p.grad for name, p in stack.model.named_parameters()}))
    (expected, gradients), (logits, others) = found
    torch.testing.assert_close(logits, expected)
    for name, gradient in gradients.items():
        assert (gradient is None) == (others[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_masks_of_a_step_are_zero_as_often_as_asked_and_leave_nothing_for_the_next() -> None:
    masks = StepDropout(1, torch.device("cpu"))
    masks.draw({0.25: 40_000})
    state = masks.state()
    kept = masks.take((200, 200), 0.25)
    assert abs(float(kept.float().mean()) - 0.75) < 0.01
    assert float(kept.float().mean()) * masks.factor(0.25) == pytest.approx(1, abs=0.02)
    masks.draw({0.25: 8})
    again = StepDropout(2, torch.device("cpu"))
    again.set_state(state)
    again.draw({0.25: 8})
    assert torch.equal(masks.take((8,), 0.25), again.take((8,), 0.25))


@pytest.mark.parametrize("clip_by", ["global", "component"])
def test_clipping_on_a_device_clips_as_on_the_cpu(simulated_cuda: Machine, clip_by: Any) -> None:
    hyper = replace(HYPER, clip=0.5, clip_by=clip_by)
    norms, gradients = [], []
    for device in (CPU, Device("cuda", "fp32")):
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 300), (7,), (2, 2, 2), (1,)) * 10]
        for place, parameter in enumerate(parameters):
            parameter.grad = torch.randn(parameter.shape) * 0.1 ** (place % 4)
        moved = [torch.nn.Parameter(parameter.detach().to(device.name)) for parameter in parameters]
        for parameter, source in zip(moved, parameters, strict=True):
            parameter.grad = source.grad.to(device.name)  # type: ignore[union-attr]
        with simulated_cuda.watch() as seen:
            norms.append(clip_gradients(moved, hyper, device))
        assert not seen.waits
        assert seen.launches < 12  # not one for each of 40 gradients
        gradients.append([parameter.grad.cpu() for parameter in moved])  # type: ignore[union-attr]
    torch.testing.assert_close(norms[1].cpu(), norms[0])
    torch.testing.assert_close(gradients[1], gradients[0])
