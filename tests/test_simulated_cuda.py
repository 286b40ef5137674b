"""The training engine on a simulated CUDA device: the CPU's weights, no host waits, no copies from pageable memory.

Each training is made on the CPU and on the simulated device (`simulated_cuda/`), without dropout, whose random numbers
differ between the two. `check` is what all trainings must pass; the planted faults at the end show that it tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from simulated_cuda import Activity, Machine
from tiny_models import tiny_config

from alue_bench import Adapter, EncoderShape, FreezePlan, Labels, Revisions, Strategy, TrainingProgress
from alue_bench.contract.spec import HyperParameters
from alue_bench.data.batches import Padding
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.checkpointing import CheckpointFile
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.precision import Device
from alue_bench.training.forward import LibraryForward, choose_forward
from alue_bench.training.freezing import apply_plan
from alue_bench.training.inference import predict_logits
from alue_bench.training.prefix.frozen_prefix import FrozenPrefix
from alue_bench.training.prefix.growing import GrowingPrefix
from alue_bench.training.prefix.store import PrefixStore
from alue_bench.training.result import TrainingResult
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.session import TrainingSession, fine_tune
from alue_bench.training.surgery import operate

KERNELS = {"full": 900, "bottom3top4": 600, "head-only": 60}
"""The most kernels that a step of BERT-base's structure may launch in bf16, by strategy; prefixes are cached."""
LIBRARY_WAITS = {"bert": 1, "distilbert": 1, "modernbert": 2}
"""The times that a step through transformers' own modules waits for the device, by architecture."""

# -- trainings

NONE: frozenset[int] = frozenset()
PLANS = {
    "full": (NONE, False, "weights"),
    "bottom1top1": (frozenset({0, 3}), True, "weights"),
    "head-only": (frozenset(range(4)), True, "weights"),
    "lora": (NONE, True, "adapters"),
    "bitfit": (NONE, True, "biases"),
}
LABELS = {
    "single": Labels.multiclass("a", "b", "c"),
    "pair": Labels.binary("no", "yes"),
    "several": Labels.multilabel("a", "b", "c"),
    "number": Labels.regression(0, 1),
}
HYPER = HyperParameters(epochs=3, batch_size=4, lr=1e-3, select="last")
LENGTHS = [9, 5, 7, 3, 9, 4, 8, 8, 6, 5, 4, 9, 12, 3, 8, 8, 7, 5]
STEPS = 5  # an epoch


@dataclass(frozen=True)
class Case:
    """A training, in what can differ between two of them."""

    targets: str = "single"
    plan: str = "full"
    precision: Any = "fp32"
    graphs: bool = False
    cached: bool = True
    architecture: str = "bert"
    library: bool = False
    """True for transformers' own modules."""
    adaptive: bool = False
    """True for a strategy that freezes more and more layers."""
    dropout: float = 0.0
    layers: int = 4
    hyper: dict[str, Any] = field(default_factory=dict)
    class_weights: tuple[float, ...] | None = None

    @property
    def through_library(self) -> bool:
        return self.library or self.architecture not in ("bert", "roberta") or self.plan == "lora"

    def __str__(self) -> str:
        differs = [f"{n}={v}" for n, v in vars(self).items() if v != getattr(Case(), n)]
        return " ".join(differs).replace("=True", "") or "plain"


@dataclass(frozen=True)
class Trained:
    """The outcome of a training."""

    result: TrainingResult
    weights: dict[str, torch.Tensor]
    test_logits: np.ndarray[Any, Any]
    steps: list[Activity]
    """The costs of each step on the device but the first of an epoch, from one call of `on_step` to the next."""
    forward: str
    depth: int
    problems: list[str]


def split_of(targets: str, seed: int = 1) -> TokenizedSplit:
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(5, 60, sum(LENGTHS)))
    second = torch.from_numpy(np.concatenate([np.arange(n) >= n // 2 for n in LENGTHS]).astype(np.int64))
    labels, n = LABELS[targets], len(LENGTHS)
    values: np.ndarray[Any, Any] = rng.integers(0, labels.outputs if targets != "number" else 2, n)
    if targets == "several":
        values = rng.integers(0, 2, (n, 3)).astype(np.float32)
    if targets == "number":
        values = rng.random(n).astype(np.float32)
    return TokenizedSplit(
        input_ids=ids,
        token_type_ids=second if targets == "pair" else torch.zeros_like(ids),
        offsets=torch.tensor([0, *np.cumsum(LENGTHS)]),
        targets=torch.from_numpy(values),
        ids=[str(place) for place in range(n)],
        truncated=0,
    )


def model_of(case: Case) -> Any:
    from transformers import AutoModelForSequenceClassification

    p = case.dropout
    options: dict[str, Any] = {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p}
    if case.architecture == "distilbert":
        options = {"dropout": p, "attention_dropout": p, "seq_classif_dropout": p}
    if case.architecture == "modernbert":
        options = {"mlp_dropout": p}
    outputs = LABELS[case.targets].outputs
    torch.manual_seed(3)
    config = tiny_config(case.architecture, layers=case.layers, num_labels=outputs, **options)
    return AutoModelForSequenceClassification.from_config(config)


def train(
    case: Case, folder: Path, machine: Machine | None = None, *, file: CheckpointFile | None = None, stop_at: int = 0
) -> Trained:
    """Fine-tune a tiny model, score the dev split after each epoch, and another split at the end.

    Args:
        case: The training.
        folder: The folder for stored outputs of frozen layers.
        machine: The simulated device; None for the CPU.
        file: The checkpoint file.
        stop_at: The step after which the training is interrupted; 0 for none.
    """
    device = Device("cuda" if machine else "cpu", case.precision, case.graphs and machine is not None)
    stack: EncoderStack = view_as_stack(model_of(case))
    if case.plan == "lora":
        stack = operate(stack, None, Adapter("LORA", {"r": 2, "lora_dropout": 0.0}))
    stack.model.to(device.name)
    strategy = OneLayerAnEpoch() if case.adaptive else None
    frozen, embeddings, trained = PLANS[case.plan]
    plan = FreezePlan(stack.shape, frozen, embeddings=embeddings, trained=trained)  # type: ignore[arg-type]
    apply_plan(stack, plan)
    forward = LibraryForward(stack) if case.library else choose_forward(stack, device.compute, recorded=device.graphs)
    problems: list[str] = []
    store = PrefixStore(folder, (1 << 20) * case.cached, problems.append)
    padding = Padding(int(stack.model.config.pad_token_id))  # type: ignore[arg-type]

    def behind(depth: int | None) -> FrozenPrefix:
        return FrozenPrefix(stack, forward, depth, store=store, device=device)

    train_split, test_split = split_of(case.targets), split_of(case.targets, seed=2)
    prefix = behind(plan.prefix_layers)
    data = GrowingPrefix(
        prefix,
        plan,
        {"train": train_split, "dev": test_split},
        behind,
        lambda prefix, name, split: prefix.examples(split, padding, {"split": name}),
    )
    config = TrainingConfig(LABELS[case.targets], replace(HYPER, **case.hyper), 1, device, padding, case.class_weights)
    schedule = FreezeSchedule(stack, plan, strategy)
    session = TrainingSession(stack, forward, schedule, data, config, score=lambda logits: {"score": 0.0})
    steps: list[Activity] = []
    last: list[Activity] = []

    def on_step(done: int, total: int) -> None:
        if machine is not None:
            if done % STEPS != 1:
                steps.append(machine.activity - last[0])
            last[:] = [machine.activity.copy()]
        if done == stop_at:
            raise KeyboardInterrupt

    result = fine_tune(session, file=file, on_step=on_step)
    after = behind(None) if schedule.adaptive else prefix
    test = after.examples(split_of(case.targets, seed=3), padding, {"split": "test"})
    logits = predict_logits(stack, forward, test, device=device, padding=padding)
    if machine is not None:
        assert {p.device.type for p in (*stack.model.parameters(), *stack.model.buffers())} == {"cuda"}
    return Trained(
        result,
        {name: p.detach().cpu().clone() for name, p in stack.model.named_parameters()},
        logits,
        steps,
        forward.name,
        data.examples("train").depth,
        problems,
    )


class OneLayerAnEpoch(Strategy):
    """Freezes a further layer after each epoch, and asks for gradient norms, as AutoFreeze does."""

    name = "one-layer-an-epoch"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape)

    def revisions(self) -> Revisions:
        return Revisions(per_epoch=1, gradient_norms=True, prefix_only_grows=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        assert all(norm and norm > 0 for norm in progress.norms[-1].layers[plan.bottom :])
        return FreezePlan(plan.shape, frozenset(range(plan.bottom + 1)), embeddings=True)


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Trained]:
    """The same training on the CPU, once for all tests that ask for it."""
    known: dict[str, Trained] = {}

    def of(case: Case) -> Trained:
        case = replace(case, graphs=False)
        if str(case) not in known:
            known[str(case)] = train(case, tmp_path_factory.mktemp("cpu"))
        return known[str(case)]

    return of


def check(case: Case, expected: Trained, folder: Path, machine: Machine) -> Trained:
    """Train on the device; the weights and logits must be the CPU's, and no step may wait or copy unpinned memory."""
    trained = train(case, folder, machine)
    tolerance = {"fp32": 1e-5, "bf16": 1e-4, "fp16": 1e-4}[case.precision]
    for name, weight in expected.weights.items():
        torch.testing.assert_close(
            trained.weights[name], weight, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
    np.testing.assert_allclose(trained.test_logits, expected.test_logits, rtol=0, atol=30 * tolerance)
    assert trained.result.steps == expected.result.steps == HYPER.epochs * STEPS
    assert (trained.depth, trained.problems) == (expected.depth, [])
    assert len(trained.steps) == HYPER.epochs * (STEPS - 1)
    allowed = LIBRARY_WAITS.get(case.architecture, 0) if case.through_library else 0
    for step in trained.steps:
        assert step.waits.total() <= allowed + step.captures, step.waits
        assert not step.unpinned, step.unpinned
    if case.graphs and not case.through_library:
        assert sum(step.replays for step in trained.steps) > 0
    return trained


COVERING = [
    Case(),
    Case("pair", graphs=True),
    Case("several", "bottom1top1"),
    Case("number", "bottom1top1", graphs=True),
    Case("single", "bottom1top1", "bf16", graphs=True, cached=False, class_weights=(0.5, 1.0, 2.0)),
    Case("pair", "head-only", graphs=True, hyper={"clip": 0.01, "clip_by": "component"}),
    Case("several", "bottom1top1", "fp16", graphs=True),
    Case("number", "full", "fp16", architecture="roberta"),
    Case("pair", "bitfit", "bf16", hyper={"clip": 0.0}),
    Case("single", "bottom1top1", library=True),
    Case("pair", "full", "bf16", library=True, cached=False),
    Case("several", "bottom1top1", architecture="distilbert"),
    Case("number", "full", "fp16", architecture="modernbert"),
    Case("single", "lora"),
    Case("single", "full", graphs=True, adaptive=True),
    Case("pair", "full", adaptive=True, library=True, cached=False),
]
"""Each value of each feature once, and each pair of values of which one could spoil the other."""


@pytest.mark.parametrize("case", COVERING, ids=str)
def test_a_training_ends_with_the_weights_of_the_cpu_and_never_waits(
    case: Case, on_cpu: Callable[[Case], Trained], tmp_path: Path, simulated_cuda: Machine
) -> None:
    check(case, on_cpu(case), tmp_path, simulated_cuda)
