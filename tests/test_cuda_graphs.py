"""Recorded steps: what is replayed reads each batch anew and gives what a step gives that is not recorded.

Recorded and replayed here is the work itself, by a recorder that does it again over the same tensors. What a GPU does
is seen on a real one, or on a simulated one where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CommandLine
from tiny_models import tiny_config

from alue_bench import FreezePlan, Labels
from alue_bench.contract.errors import TrainingError, UsageError
from alue_bench.contract.spec import HyperParameters
from alue_bench.data.batches import Padding, batches
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.bert.dropout import DropoutMasks
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.cuda_graphs import Work
from alue_bench.training.device.precision import Device, resolve_graphs
from alue_bench.training.forward import Forward, choose_forward
from alue_bench.training.freezing import apply_plan
from alue_bench.training.optimizer import build_optimiser
from alue_bench.training.prefix.frozen_prefix import Examples, FrozenPrefix
from alue_bench.training.prefix.growing import FixedData
from alue_bench.training.prefix.store import PrefixStore
from alue_bench.training.result import TrainingResult
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.session import TrainingSession, fine_tune
from alue_bench.training.update import Updater

LABELS = Labels.binary("no", "yes")
HYPER = HyperParameters(epochs=3, batch_size=4, lr=1e-3, select="last")
CPU = Device("cpu", "fp32")
NONE: frozenset[int] = frozenset()
PLANS = {"full": (NONE, False), "bottom1top1": (frozenset({0, 3}), True), "head-only": (frozenset(range(4)), True)}


class Again:
    """A recorder that does the work again. It counts."""

    def __init__(self) -> None:
        self.run_at_once = self.recorded = self.replayed = 0

    def run(self, work: Work) -> None:
        self.run_at_once += 1
        work()

    def record(self, work: Work) -> Work:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


class Refusing(Again):
    """A recorder that fails as CUDA does with a step that it cannot record."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self.said = said

    def record(self, work: Work) -> Work:
        raise RuntimeError(self.said)


def split_of(lengths: list[int]) -> TokenizedSplit:
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(rng.integers(5, 60, sum(lengths)))
    return TokenizedSplit(
        input_ids=ids,
        token_type_ids=torch.zeros_like(ids),
        offsets=torch.tensor([0, *np.cumsum(lengths)]),
        targets=torch.from_numpy(rng.integers(0, 2, len(lengths))),
        ids=[str(place) for place in range(len(lengths))],
        truncated=0,
    )


SPLIT = split_of([9, 5, 7, 3, 9, 4, 8, 8, 6, 5, 4, 9, 12, 3, 8, 8, 7, 5])


@pytest.fixture
def trained(tmp_path: Any) -> Callable[..., tuple[TrainingResult, dict[str, torch.Tensor]]]:
    """A training of three epochs, and the weights behind it. Dropout is on, masks are drawn one by one."""

    def train(
        plan: str = "bottom1top1",
        recorder: Any = None,
        device: Device = CPU,
        kept: list[Any] | None = None,
        **more: Any,
    ) -> tuple[TrainingResult, dict[str, torch.Tensor]]:
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_config(tiny_config("bert")).to(device.name)
        stack: EncoderStack = view_as_stack(model)
        if kept is not None:
            kept.append(model)
        layers, embeddings = PLANS[plan]
        freeze = FreezePlan(stack.shape, layers, embeddings=embeddings)
        apply_plan(stack, freeze)
        forward = choose_forward(stack, device.compute, recorded=True)
        prefix = FrozenPrefix(
            stack, forward, freeze.prefix_layers, store=PrefixStore(tmp_path, 1 << 20, pytest.fail), device=device
        )
        session = TrainingSession(
            stack,
            forward,
            FreezeSchedule(stack, freeze),
            FixedData(prefix.examples(SPLIT, Padding(0), {}), Examples(SPLIT)),
            TrainingConfig(LABELS, replace(HYPER, **more), data_seed=1, device=device, padding=Padding(0)),
            score=lambda logits: {"score": 0.0},
            recorder=recorder and (lambda: recorder),
        )
        training = fine_tune(session)
        return training, {name: p.detach().cpu().clone() for name, p in stack.model.named_parameters()}

    return train


class TestAReplayedTraining:
    @pytest.mark.parametrize("plan", PLANS)
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_ends_where_the_plain_one_does(self, trained: Any, plan: str, precision: Any) -> None:
        device, recorder = Device("cpu", precision), Again()
        plain, expected = trained(plan, device=device)
        recorded, weights = trained(plan, recorder, device)
        assert plain.recorded_shapes == 0
        assert 0 < recorder.recorded == recorded.recorded_shapes < recorder.replayed
        assert recorder.replayed + recorder.run_at_once == 2 + recorded.steps  # two to warm up on
        assert all(torch.equal(weights[name], value) for name, value in expected.items())
        assert losses(recorded) == losses(plain)

    def test_and_with_clipping_by_component_and_no_clipping(self, trained: Any) -> None:
        for how in ({"clip": 0.0}, {"clip": 0.01, "clip_by": "component"}):
            (_, expected), (_, weights) = trained(**how), trained(recorder=Again(), **how)
            assert all(torch.equal(weights[name], value) for name, value in expected.items())

    def test_says_why_a_step_cannot_be_recorded(self, trained: Any) -> None:
        with pytest.raises(TrainingError, match=r"operation not permitted.*leave out --cuda-graphs"):
            trained(recorder=Refusing("operation not permitted when stream is capturing"))

    def test_goes_on_unrecorded_where_the_memory_holds_a_step_but_no_recording(self, trained: Any) -> None:
        (_, expected) = trained(recorder=Again())
        training, weights = trained(recorder=Refusing("CUDA error: out of memory"))
        assert (training.micro_batch, training.recorded_shapes) == (HYPER.batch_size, 0)
        assert all(torch.equal(weights[name], value) for name, value in expected.items())

    def test_leaves_no_gradients_behind(self, trained: Any) -> None:
        kept: list[Any] = []
        trained(recorder=Again(), kept=kept)
        (model,) = kept
        assert all(parameter.grad is None for parameter in model.parameters())


def losses(training: TrainingResult) -> list[float]:
    return [point.value for point in training.curves if point.metric == "train/loss"]


def whole_model(recorder: Any) -> tuple[EncoderStack, Forward, Updater]:
    """All of a model trains."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    stack = view_as_stack(AutoModelForSequenceClassification.from_config(tiny_config("bert")))
    apply_plan(stack, FreezePlan(stack.shape))
    forward = choose_forward(stack, torch.float32, recorded=True)
    config = TrainingConfig(LABELS, HYPER, data_seed=0, device=CPU, padding=Padding(0))
    updater = Updater(forward, Examples(SPLIT), build_optimiser(stack, HYPER), config, recorder=recorder)
    return stack, forward, updater


def test_where_something_else_trains_steps_are_recorded_anew() -> None:
    recorder = Again()
    stack, forward, updater = whole_model(lambda: recorder)
    batch = next(batches(SPLIT, [np.arange(4)], Padding(0)))
    for _ in range(3):
        updater.update(batch, 1e-3)
    assert (recorder.run_at_once, recorder.recorded, recorder.replayed) == (1, 1, 2)
    apply_plan(stack, FreezePlan(stack.shape, frozenset({0}), embeddings=True))
    forward.follow()
    updater.continue_with(Examples(SPLIT), build_optimiser(stack, HYPER, updater.optimiser))
    before = [p.detach().clone() for p in stack.layers[0].parameters()]
    for _ in range(2):
        updater.update(batch, 1e-3)
    assert (recorder.run_at_once, recorder.recorded, recorder.replayed) == (2, 2, 3)
    assert all(
        p.grad is None and torch.equal(p, old) for p, old in zip(stack.layers[0].parameters(), before, strict=True)
    )


def test_a_mask_drawn_by_itself_takes_its_own_numbers_only() -> None:
    masks = DropoutMasks(1, "cpu", in_bulk=False)
    first, second = masks.draw((3, 5), 0.5), masks.draw((7,), 0.5)
    again = DropoutMasks(1, "cpu", in_bulk=False)
    assert torch.equal(again.draw((3, 5), 0.5), first)
    resumed = DropoutMasks(2, "cpu", in_bulk=False)
    resumed.go_to(again.state())
    assert torch.equal(resumed.draw((7,), 0.5), second)


def test_a_cpu_has_none(run: CommandLine) -> None:
    with pytest.raises(UsageError, match="needs a CUDA device"):
        resolve_graphs(wanted=True, device="cpu")
    done = run("--cuda-graphs", "--device", "cpu", "--dry-run")
    assert (done.code, "--cuda-graphs needs a CUDA device" in done.err) == (2, True)


def test_parts_of_a_batch_are_not_recorded() -> None:
    """The state is as after a checkpoint of a training with too little memory: each part counts for its share."""
    batch, updates = next(batches(SPLIT, [np.arange(4)], Padding(0))), []
    for recorder in (None, Again):
        *_, updater = whole_model(recorder)
        updater.micro_batch = 2
        for _ in range(3):
            loss, norm = updater.update(batch, 1e-3)
        updates.append((float(loss), float(norm), updater.recorded_shapes))
    assert updates[0] == updates[1]


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> str:
    """A GPU: a real one, or a simulated one where there is none. Returns "real" or "simulated"."""
    if torch.cuda.is_available():
        return "real"
    request.getfixturevalue("simulated_cuda")
    return "simulated"


class TestOnAGpu:
    @pytest.mark.parametrize("plan", PLANS)
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_a_recorded_training_ends_where_the_plain_one_does(
        self, gpu: str, trained: Any, plan: str, precision: Any
    ) -> None:
        """On a real GPU twice in one process, where sums within a kernel may take another order."""
        tolerance = {"fp32": 1e-3, "bf16": 3e-2, "fp16": 3e-2}[precision] if gpu == "real" else 0.0
        device = Device("cuda", precision, graphs=True)
        _, expected = trained(plan, Again(), device)
        for _ in range(2 if gpu == "real" else 1):
            recorded, weights = trained(plan, None, device)
            assert recorded.recorded_shapes > 0
            for name, value in expected.items():
                torch.testing.assert_close(weights[name], value, rtol=tolerance, atol=tolerance)
