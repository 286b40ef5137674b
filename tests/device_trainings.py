"""Small trainings on the CPU or on a CUDA device, and the checks that every training on a device must pass."""

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
from alue_bench.data.spans import ENDS, MAY_END, MAY_START, STARTS, GoldAnswers, SpanPositions
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.data.words import IGNORED, WordPositions, as_rows
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.checkpointing import CheckpointFile, Checkpointing
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
from alue_bench.training.surgery import modify_model

LIBRARY_WAITS = {"modernbert": 2}
"""The times that a step through transformers' own modules waits for the device, by architecture."""

LAYER_SETS: dict[str, Callable[[int], set[int]]] = {
    "full": lambda layers: set(),
    "bottom1top1": lambda layers: {0, layers - 1},
    "bottom3top4": lambda layers: {0, 1, 2, *range(layers - 4, layers)},
    "head-only": lambda layers: set(range(layers)),
}
TRAINED: dict[str, Any] = {"lora": "adapters", "bitfit": "biases"}
LABELS = {
    "single": Labels.multiclass("a", "b", "c"),
    "pair": Labels.binary("no", "yes"),
    "several": Labels.multilabel("a", "b", "c"),
    "number": Labels.regression(0, 1),
    "words": Labels.tokens("a", "b", "c"),
    "spans": Labels.span(),
}
HYPER = HyperParameters(epochs=2, batch_size=4, lr=1e-3, select="last")
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
    turns: list[Activity]
    """The costs from the last step of an epoch to the first one of the next, with an evaluation between them."""
    training_peak: int
    """The peak of the device's memory until the first step, in bytes."""
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
    words = None
    if targets == "words":  # every second token begins a word; the last example has none
        counts = np.array([length // 2 for length in LENGTHS[:-1]] + [0])
        tags = rng.integers(0, 3, counts.sum())
        values, words = (
            np.full(sum(LENGTHS), IGNORED),
            WordPositions(counts, as_rows(tags, counts), np.arange(len(tags)), 0, 0, 0),
        )
        starts = np.cumsum([0, *LENGTHS])[:-1]
        firsts = [start + 2 * word for start, count in zip(starts, counts, strict=True) for word in range(count)]
        values[np.array(firsts)] = tags
    spans = None
    if targets == "spans":  # the answer is the last two tokens, or the null candidate, in every other example
        values = np.full(sum(LENGTHS), MAY_START | MAY_END)
        for number, end in enumerate(np.cumsum(LENGTHS).tolist()):
            first, last = (end - 2, end - 1) if number % 2 else (end - LENGTHS[number],) * 2
            values[first] |= STARTS
            values[last] |= ENDS
        nothing = np.zeros(0, dtype="int64")
        gold = np.array([GoldAnswers((), number) for number in range(n)], dtype=object)
        spans = SpanPositions([""] * n, gold, np.arange(n), *[nothing] * 6, 0, 0, 0, 0, 0)
    return TokenizedSplit(
        input_ids=ids,
        token_type_ids=second if targets == "pair" else torch.zeros_like(ids),
        offsets=torch.tensor([0, *np.cumsum(LENGTHS)]),
        targets=torch.from_numpy(values),
        ids=[str(place) for place in range(n)],
        truncated=0,
        words=words,
        spans=spans,
    )


def model_of(case: Case) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    p = case.dropout
    options: dict[str, Any] = {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p}
    if case.architecture == "distilbert":
        options = {"dropout": p, "attention_dropout": p, "seq_classif_dropout": p}
    if case.architecture == "modernbert":
        options = {"mlp_dropout": p}
    outputs = LABELS[case.targets].outputs
    torch.manual_seed(3)
    config = tiny_config(case.architecture, layers=case.layers, num_labels=outputs, **options)
    kind = AutoModelForTokenClassification if LABELS[case.targets].reads_tokens else AutoModelForSequenceClassification
    return kind.from_config(config)


def plan_of(case: Case, shape: EncoderShape) -> FreezePlan:
    if case.plan in TRAINED:
        return FreezePlan(shape, embeddings=True, trained=TRAINED[case.plan])
    frozen = LAYER_SETS[case.plan](case.layers)
    return FreezePlan(shape, frozenset(frozen), embeddings=bool(frozen))


def train(
    case: Case,
    folder: Path,
    machine: Machine | None = None,
    *,
    file: CheckpointFile | None = None,
    stop_at: int = 0,
    recorder: Any = None,
) -> Trained:
    """Fine-tune a tiny model, score the dev split after each epoch, and another split at the end.

    Args:
        case: The training.
        folder: The folder for stored outputs of frozen layers.
        machine: The simulated device; None for the CPU.
        file: The checkpoint file.
        stop_at: The step after which the training is interrupted; 0 for none.
        recorder: A factory of recorders of graphs; None for the engine's own.
    """
    device = Device("cuda" if machine else "cpu", case.precision, "on" if case.graphs and machine else "off")
    stack: EncoderStack = view_as_stack(model_of(case))
    if case.plan == "lora":
        stack = modify_model(stack, None, Adapter("LORA", {"r": 2, "lora_dropout": 0.0}))
    stack.model.to(device.name)
    strategy = OneLayerAnEpoch() if case.adaptive else None
    plan = plan_of(case, stack.shape)
    apply_plan(stack, plan)
    forward = LibraryForward(stack) if case.library else choose_forward(stack, device.compute)
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
    session = TrainingSession(
        stack, forward, schedule, data, config, score=lambda logits: {"score": 0.0}, recorder=recorder
    )
    steps: list[Activity] = []
    turns: list[Activity] = []
    last: list[Activity] = []
    peaks: list[int] = []

    def on_step(done: int, total: int) -> None:
        if machine is not None:
            if last:
                (turns if done % STEPS == 1 else steps).append(machine.activity - last[0])
            last[:] = [machine.activity.copy()]
            peaks.append(machine.memory.peak)
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
        turns,
        peaks[0] if peaks else 0,
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


def check(case: Case, expected: Trained, folder: Path, machine: Machine) -> Trained:
    """Train on the device; the weights and logits must be the CPU's, and no step may wait or copy unpinned memory."""
    trained = train(case, folder, machine)
    # In low precision, the device rounds at other places: it has kernels that the CPU lacks.
    tolerance = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 2e-3}[case.precision]
    for name, weight in expected.weights.items():
        if name == "classifier.bias" and case.targets == "spans":  # no influence on a softmax over tokens: only noise
            continue
        torch.testing.assert_close(
            trained.weights[name], weight, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
    for logits, wanted in (
        (trained.test_logits, expected.test_logits),
        *zip(trained.result.dev_logits, expected.result.dev_logits, strict=True),
    ):
        if case.targets == "spans":  # as above
            logits, wanted = (values - values.mean(axis=0) for values in (logits, wanted))
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=30 * tolerance)
    assert trained.result.steps == expected.result.steps == HYPER.epochs * STEPS
    assert (trained.depth, trained.problems) == (expected.depth, [])
    assert len(trained.steps) == HYPER.epochs * (STEPS - 1)
    check_costs(case, trained)
    return trained


def check_costs(case: Case, trained: Trained) -> None:
    """No step may wait for the device or copy unpinned memory, but for the known waits of transformers' modules."""
    allowed = LIBRARY_WAITS.get(case.architecture, 0) if case.through_library else 0
    for step in trained.steps:
        assert step.waits.total() <= allowed + step.captures, step.waits
        assert not step.unpinned, step.unpinned
    if not case.adaptive:
        for turn in trained.turns:
            assert not turn.unpinned, turn.unpinned
            assert not [wait for wait in turn.waits if wait.startswith("blocking copy")], turn.waits
    if case.through_library:  # where they wait less often, LIBRARY_WAITS must follow
        assert max(step.waits.total() for step in trained.steps) == allowed
    if case.graphs and not case.through_library:
        # The small batch of an epoch may be of a shape that is not captured.
        assert sum(step.replays != 1 for step in trained.steps) <= HYPER.epochs


class WithoutGraphs:
    """A recorder whose recording is the work itself: it is done again by Python."""

    def run(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return work


def check_graphs(case: Case, folder: Path, machine: Machine) -> None:
    """Train with and without graphs; the random numbers of dropout, and so the weights, must be the same."""
    plain = train(case, folder / "plain", machine, recorder=WithoutGraphs)
    recorded = train(case, folder / "recorded", machine)
    for name, weight in plain.weights.items():
        torch.testing.assert_close(recorded.weights[name], weight, rtol=0, atol=1e-5)
    check_costs(case, recorded)


def check_resumption(case: Case, folder: Path, machine: Machine) -> None:
    """Train without interruption, and with one and a resumption from the checkpoint; the weights must be the same."""
    whole = train(case, folder / "whole", machine)
    checkpointing = Checkpointing(folder / "checkpoints", every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(case, folder / "parts", machine, file=checkpointing.of("key", pytest.fail), stop_at=STEPS + 2)
    resumed = train(case, folder / "parts", machine, file=checkpointing.of("key", pytest.fail))
    assert resumed.result.resumed_at == STEPS + 1
    for name, weight in whole.weights.items():
        torch.testing.assert_close(resumed.weights[name], weight, rtol=0, atol=0)
