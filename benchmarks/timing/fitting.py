"""Fine-tuning one model by transformers' `Trainer` or by our engine, and measuring the cost."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UnavailableError
from alue_bench.contract.strategy import FreezePlan
from alue_bench.data.batches import Padding
from benchmarks.machine import peaks
from benchmarks.timing.starting_point import StartingPoint, chosen

if TYPE_CHECKING:
    from alue_bench.data.tokenization import TokenizedSplit
    from alue_bench.training.architecture.encoder_stack import EncoderStack
    from alue_bench.training.device.precision import Device
    from alue_bench.training.forward import Forward
    from alue_bench.training.prefix.frozen_prefix import Examples
    from alue_bench.training.result import TrainingResult

CACHE_LIMIT = "100GB"
"""The largest size of the store for the outputs of frozen layers."""


@dataclass(frozen=True)
class Fitted:
    """A trained model, and the cost of its training."""

    stack: EncoderStack
    forward: Forward
    losses: Sequence[tuple[int, float]]
    """Pairs of the number of steps done so far and the mean loss of the steps since the previous pair."""
    costs: Mapping[str, Any]
    """The seconds, memory and other costs of the training, by the names of the fields of `Measurement`."""
    recorded_shapes: int = 0
    """The number of batch shapes for which the step was replayed as a CUDA graph; 0 without graphs."""


def fit_by_trainer(start: StartingPoint, plan: FreezePlan, way: str, seed: int, device: Device) -> Fitted:
    """Fine-tune a model by transformers' `Trainer`, and measure the cost.

    Args:
        start: The initial model and data.
        plan: The freeze plan.
        way: The way of padding examples, such as "trainer-grouped", see `trainer_baseline`.
        seed: The seed of data order and dropout.
        device: The device and the number format.
    """
    from alue_bench.training.architecture.encoder_stack import view_as_stack
    from alue_bench.training.forward import LibraryForward
    from benchmarks.timing import trainer_baseline

    run = trainer_baseline.fit(
        lambda: start.fresh_stack(plan).model,
        start.train,
        start.longest,
        way=way,
        tokenizer=start.tokenizer,
        hyper=start.setup.hyper,
        seed=seed,
        device=device,
    )
    costs = {
        "seconds": run.seconds,
        "setup_s": run.setup_s,
        "steps": len(run.losses),
        "padded_tokens": run.padded_tokens,
        **peaks(device.name),
    }
    stack = view_as_stack(run.model)
    return Fitted(stack, LibraryForward(stack), list(enumerate(run.losses, start=1)), costs)


def fit_by_engine(
    start: StartingPoint,
    plan: FreezePlan,
    seed: int,
    device: Device,
    *,
    cached: bool,
    store: Path | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Fine-tune a model by our engine, and measure the cost.

    Args:
        start: The initial model and data.
        plan: The freeze plan.
        seed: The seed of data order and dropout.
        device: The device and the number format.
        cached: Whether the output of the frozen bottom layers is computed once and cached, instead of at every step.
        store: The folder of the cache, which may hold outputs of earlier training runs; None for a new, empty folder.
        on_step: A function that is called after each step with the number of steps done and the total number.
    """
    from alue_bench.measure.flops import training_flops
    from alue_bench.training.device.precision import number_format
    from alue_bench.training.forward import choose_forward

    with tempfile.TemporaryDirectory() as folder, number_format(device):
        stack = start.fresh_stack(plan)
        forward = choose_forward(stack, device.compute)
        with_states = partial(with_prefix, start, stack, forward, plan, device)
        if cached:
            with_states(start.longest, Path(folder) / "warm-up")
        device.reset_peak()
        device.synchronise()
        started = time.perf_counter()
        examples = with_states(start.train, (store or Path(folder) / "store") if cached else None)
        prefix_s = time.perf_counter() - started
        training = fine_tune(start, plan, stack, forward, examples, seed, device, on_step)
        measured = peaks(device.name)
    flops = partial(training_flops, stack, lengths=start.train.lengths, epochs=start.setup.epochs)
    prefix, last_layer = examples.prefix, forward.last_layer
    costs = {
        "seconds": prefix_s + training.loop_s,
        "prefix_s": prefix_s,
        "build_s": prefix.entry.build_s if prefix else 0.0,
        "prefix_reused": bool(prefix and prefix.reused),
        "steps": training.steps,
        "padded_tokens": training.padded_tokens,
        "flops": flops(plan, prefix_cached=prefix is not None, last_layer=last_layer),
        "flops_full": flops(FreezePlan(stack.shape), last_layer=last_layer),
        **measured,
    }
    losses = [(point.step, point.value) for point in training.curves if point.metric == "train/loss"]
    return Fitted(stack, forward, losses, costs, training.recorded_shapes)


def with_prefix(
    start: StartingPoint,
    stack: EncoderStack,
    forward: Forward,
    plan: FreezePlan,
    device: Device,
    split: TokenizedSplit,
    folder: Path | None,
) -> Examples:
    """Return the examples of a split, with the stored output of the frozen bottom layers (the frozen prefix).

    Args:
        start: The initial model and data.
        stack: The model.
        forward: The implementation of the forward pass.
        plan: The freeze plan.
        device: The device and the number format.
        split: The tokenized examples.
        folder: The folder of the store, from which the output is read or to which it is written. If None, the examples
            are returned without stored output, so that the frozen layers are computed at every step.

    Raises:
        UnavailableError: The store cannot hold the output.
    """
    from alue_bench.contract.byte_sizes import parse_size
    from alue_bench.training.prefix import frozen_prefix
    from alue_bench.training.prefix.store import PrefixStore

    if folder is None:
        return frozen_prefix.Examples(split)
    problems: list[str] = []
    store = PrefixStore(folder, parse_size(CACHE_LIMIT), problems.append)
    frozen = frozen_prefix.FrozenPrefix(stack, forward, plan.prefix_layers, store=store, device=device)
    examples = frozen.examples(split, Padding(start.tokenizer.pad_token_id), {})
    if problems:
        raise UnavailableError(problems[0])
    return examples


def fine_tune(
    start: StartingPoint,
    plan: FreezePlan,
    stack: EncoderStack,
    forward: Forward,
    examples: Examples,
    seed: int,
    device: Device,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingResult:
    """Fine-tune by our engine's training loop.

    The dev split has only one example, since no dev scores are needed.

    Args:
        start: The initial model and data. Only the labels, the tokenizer, the hyper-parameters and the held-out
            examples are used.
        plan: The freeze plan.
        stack: The model to train, which `start` returned. It is changed in place.
        forward: The implementation of the forward pass of `stack`.
        examples: The train split, with or without stored output of the frozen bottom layers; see `with_prefix`.
        seed: The seed of data order and dropout.
        device: The device and the number format.
        on_step: A function that is called after each step with the number of steps done and the total number.
    """
    from alue_bench.training import session
    from alue_bench.training.config import TrainingConfig
    from alue_bench.training.prefix.frozen_prefix import Examples
    from alue_bench.training.prefix.growing import FixedData
    from alue_bench.training.schedule import FreezeSchedule

    data = FixedData(examples, Examples(chosen(start.held_out, [0])))
    padding = Padding(start.tokenizer.pad_token_id)
    config = TrainingConfig(start.labels, start.setup.hyper, data_seed=seed, device=device, padding=padding)
    schedule = FreezeSchedule(stack, plan)
    training = session.TrainingSession(stack, forward, schedule, data, config, score=lambda logits: {"score": 0.0})
    return session.fine_tune(training, on_step=on_step)
