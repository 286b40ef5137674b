"""The training loop.

    warm up (untimed, leaves weights and random state as they were)
    for each epoch:
        for each batch in this epoch's length-bucketed order:    timed
            logits, loss, gradients, clip, step, next learning rate
            at an evaluation point: ask the strategy, follow it
        score the dev split                                       not timed as training
        keep the trainable weights if the score is the best yet
    take back the selected epoch's weights

Nothing inside the timed region logs, touches the tracking store, or reads a value back from a GPU (the library's own
attention does, to see whether anything is padded, and recording a CUDA graph waits for it, once for each shape). Only a
strategy that looks at gradients waits for them, at its evaluation points; its own work is timed as training is, that of
a deeper frozen prefix as that of any prefix.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import NonFiniteLossError
from alue_bench.contract.spec import CurvePoint, HyperParameters
from alue_bench.contract.strategy import FreezePlan, Strategy
from alue_bench.contract.task import Labels
from alue_bench.data.batches import Padding, batches, evaluation_order, steps_per_epoch, training_order
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.checkpointing import CheckpointFile, Position, restore, save
from alue_bench.training.device.cuda_graphs import CudaRecorder, GraphRecorder
from alue_bench.training.device.errors import is_out_of_memory, release
from alue_bench.training.device.host_memory import keep_freed
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.forward import Forward
from alue_bench.training.freezing import apply_plan, training_mode
from alue_bench.training.optimizer import build_optimiser, learning_rate, loss_function
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.prefix.growing import GrowingPrefix
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.update import Updater

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Training:
    """What a training gave."""

    loop_s: float = 0.0
    """Seconds in training steps: forward, backward, update, batch assembly; without dev evaluation."""
    dev_s: float = 0.0
    steps: int = 0
    samples: int = 0
    tokens: int = 0
    """Tokens trained on, without padding."""
    padded_tokens: int = 0
    micro_batch: int = 0
    """Examples that were held in memory at a time: the batch size, or less where the memory was too small for it."""
    recorded_shapes: int = 0
    """Of how many shapes of batch a step was recorded and replayed."""
    skipped_updates: int = 0
    """Updates left out because a gradient was not finite, as happens in fp16."""
    curves: list[CurvePoint] = field(default_factory=list)
    dev_scores: list[float] = field(default_factory=list)
    dev_logits: list[np.ndarray[Any, Any]] = field(default_factory=list)
    """Of each epoch: [n, outputs] in the split's order."""
    selected_epoch: int = 0
    """The epoch, from 1, whose weights the model has now."""
    earlier_s: float = 0.0
    """Wall-clock of processes that were cut off, up to the checkpoint that this one went on from."""
    schedule: FreezeSchedule | None = None
    """What was frozen when, and which examples were trained on in the meantime."""


Scorer = Callable[["np.ndarray[Any, Any]"], dict[str, float]]
"""From dev logits [n, outputs] in the split's order to metrics; the entry "score" selects the epoch."""


def fine_tune(
    stack: EncoderStack,
    plan: FreezePlan,
    forward: Forward,
    train: Examples,
    dev: Examples,
    *,
    labels: Labels,
    hyper: HyperParameters,
    data_seed: int,
    device: Device,
    padding: Padding,
    score: Scorer,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    strategy: Strategy | None = None,
    growing: GrowingPrefix | None = None,
    file: CheckpointFile | None = None,
    recorder: Callable[[], GraphRecorder] | None = None,
) -> Training:
    """Train the model in place.

    strategy: is asked again as the model trains, where it says so. growing: gives, in place of `train` and `dev`, the
    splits behind a prefix that became deeper. file: the training goes on from what it holds, and is written to it
    from time to time. recorder: gives what the steps are recorded with; by default CUDA's, where `device` wants
    graphs and the way through the model can be recorded.

    The result depends on the weights given, the data, `hyper`, `data_seed` and `device`, and on nothing that ran
    before in this process. Raises NonFiniteLossError where the loss is not finite.
    """
    import numpy as np
    import torch

    keep_freed()
    rng = np.random.default_rng(data_seed)
    split = train.split
    total_steps = steps_per_epoch(len(split), hyper.batch_size) * hyper.epochs
    optimiser = build_optimiser(stack, hyper)
    schedule = FreezeSchedule(stack, plan, strategy)
    schedule.begin_segment(train.depth)
    if recorder is None and device.graphs and forward.recordable:
        recorder = partial(CudaRecorder, forward.generators)
    few_lengths = device.few_lengths or device.graphs  # each shape is recorded
    updater = Updater(forward, train, optimiser, loss_function(labels), hyper, device, schedule.watch, recorder)
    if growing is not None:
        train = dev = Examples(split)  # the states are its own, to let go of when it has deeper ones
    training_mode(stack, plan)
    # On a GPU the longest examples, so that the clock sees neither one-off costs nor the search for a batch that fits.
    # On a CPU nothing is found out by trying, and the shortest ones pay the one-off costs as well.
    by_length = np.argsort(split.lengths, kind="stable")
    first = by_length[-hyper.batch_size :] if device.name == "cuda" else by_length[: hyper.batch_size]
    updater.warm_up(next(batches(split, [first], padding, few_lengths=few_lengths)))
    forward.seed(data_seed)  # dropout; the order of the data has the generator above

    training = Training(schedule=schedule)
    ask = partial(_ask, schedule, training, updater, forward, hyper, total_steps, growing, train)
    follow = partial(_follow, schedule, updater, hyper, growing, train)
    resumed = restore(file, training, stack, forward, updater, follow) if file else None
    best = resumed.best if resumed else None
    for epoch in range(resumed.epoch if resumed else 1, hyper.epochs + 1):
        training_mode(stack, schedule.plan)
        losses, norms, done = [], [], 0
        if resumed is not None:
            losses, norms, done = resumed.losses, resumed.norms, resumed.place
            rng.bit_generator.state = resumed.order_state
            resumed = None
        device.synchronise()
        started = time.perf_counter()
        order_state = rng.bit_generator.state
        order = training_order(split.lengths, hyper.batch_size, rng)
        for place, batch in enumerate(batches(split, order[done:], padding, few_lengths=few_lengths), done + 1):
            loss, norm = updater.update(batch, learning_rate(training.steps, total_steps, hyper))
            losses.append(loss)
            norms.append(norm)
            training.steps += 1
            training.samples += len(batch.indices)
            training.tokens += batch.tokens
            training.padded_tokens += batch.input_ids.numel()
            schedule.trained_on(batch.indices)
            on_step(training.steps, total_steps)
            if device.name == "cpu" and not math.isfinite(loss):
                break  # on a GPU, to look at every step would cost a wait at every step
            if place < len(order) and schedule.is_due(place, len(order)):
                device.synchronise()
                training.loop_s += time.perf_counter() - started
                ask(epoch)
                started = time.perf_counter()
            if file is not None and file.is_due():
                device.synchronise()
                training.loop_s += time.perf_counter() - started
                position = Position(epoch, place, dict(order_state), losses, norms, best)
                save(file, position, training, stack, forward, updater)
                started = time.perf_counter()
        device.synchronise()
        training.loop_s += time.perf_counter() - started
        training.micro_batch = updater.micro_batch
        training.recorded_shapes = updater.recorded_shapes

        found = torch.stack([torch.stack(losses), torch.stack(norms)]).float().cpu().tolist()
        _record(training, found[0], found[1], total_steps, hyper)
        started = time.perf_counter()
        dev_examples = growing.examples("dev") if growing else dev
        training.dev_logits.append(predict_logits(stack, forward, dev_examples, device=device, padding=padding))
        metrics = score(training.dev_logits[-1])
        training.dev_s += time.perf_counter() - started
        training.dev_scores.append(metrics["score"])
        training.curves += [CurvePoint(f"dev/{name}", value, training.steps) for name, value in metrics.items()]
        # A score that is not a number (a constant prediction has no correlation) is never better than one that is.
        comparable = metrics["score"] if math.isfinite(metrics["score"]) else -math.inf
        if hyper.select == "last" or best is None or comparable > best[0]:
            training.selected_epoch = epoch
            if hyper.select == "best" and epoch < hyper.epochs:
                best = (comparable, _weights(stack, everything=schedule.revisions is not None))
            else:
                best = (comparable, {})
        if epoch < hyper.epochs and schedule.is_due(len(order), len(order)):
            ask(epoch)
    if best is not None and best[1]:
        with torch.no_grad():
            for name, parameter in stack.model.named_parameters():
                if name in best[1]:
                    parameter.copy_(best[1][name])
        forward.follow()
    updater.let_go()
    training.earlier_s = file.earlier_s if file else 0.0
    return training


def _ask(
    schedule: FreezeSchedule,
    training: Training,
    updater: Updater,
    forward: Forward,
    hyper: HyperParameters,
    total_steps: int,
    growing: GrowingPrefix | None,
    train: Examples,
    epoch: int,
) -> None:
    """Ask the strategy what to freeze, and follow it. Timed as training, but for what a deeper prefix takes."""
    started = time.perf_counter()
    changed = schedule.ask(
        epoch=epoch,
        epochs=hyper.epochs,
        step=training.steps,
        steps=total_steps,
        dev_scores=training.dev_scores,
    )
    training.curves.append(CurvePoint("train/frozen_layers", len(schedule.plan.frozen_layers), training.steps))
    if changed:
        apply_plan(schedule.stack, schedule.plan)
        forward.follow()
        optimiser = build_optimiser(schedule.stack, hyper, updater.optimiser)
        training.loop_s += time.perf_counter() - started
        if growing:
            growing.follow(schedule.plan)
            train = growing.examples("train")
        started = time.perf_counter()
        updater.go_on_with(train, optimiser)
        schedule.begin_segment(train.depth)
    training_mode(schedule.stack, schedule.plan)
    training.loop_s += time.perf_counter() - started


def _follow(
    schedule: FreezeSchedule, updater: Updater, hyper: HyperParameters, growing: GrowingPrefix | None, train: Examples
) -> None:
    """Go on with what the plan of a training that was cut off lets train."""
    if growing:
        growing.follow(schedule.plan)
        train = growing.examples("train")
    updater.go_on_with(train, build_optimiser(schedule.stack, hyper))
    if train.depth != schedule.segments[-1].depth:  # there is more or less room for its outputs than there was
        schedule.begin_segment(train.depth)


def predict_logits(
    stack: EncoderStack, forward: Forward, examples: Examples, *, device: Device, padding: Padding
) -> np.ndarray[Any, Any]:
    """Logits [n, outputs] in fp32, in the split's own order. Batches go from short to long to save padding, and become
    smaller where the memory is short.

    Raises NonFiniteLossError where a logit is not finite: the training diverged, or the number format is too narrow.
    """
    import numpy as np

    stack.model.eval()
    tokens = device.tokens_at_once
    while True:
        order = evaluation_order(examples.split.lengths, tokens)
        try:
            logits = _in_order(order, forward, examples, device, padding)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(order) == len(examples.split):
                raise
        tokens //= 2
        release(device.name)
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits)).any(1).sum())
        raise NonFiniteLossError(
            f"the model's outputs are not finite for {bad} of {len(logits)} texts; try a smaller --lr"
        )
    result = np.empty_like(logits)
    result[np.concatenate(order)] = logits
    return result


def _in_order(
    order: list[np.ndarray[Any, Any]], forward: Forward, examples: Examples, device: Device, padding: Padding
) -> np.ndarray[Any, Any]:
    import torch

    parts = []
    with torch.no_grad(), autocast(device):
        for batch in batches(examples.split, order, padding, few_lengths=device.few_lengths):
            parts.append(examples.logits(forward, batch.to(device.name)).float())
    logits: np.ndarray[Any, Any] = torch.cat(parts).cpu().numpy()
    return logits


def _record(
    training: Training, losses: list[float], norms: list[float], total_steps: int, hyper: HyperParameters
) -> None:
    """Losses of an epoch as curves; raises NonFiniteLossError at the first that is not finite."""
    first_step = training.steps - len(losses)
    for offset, loss in enumerate(losses):
        if not math.isfinite(loss):
            step = first_step + offset
            raise NonFiniteLossError(
                f"the loss is {loss} at step {step + 1} of {total_steps} "
                f"(learning rate {learning_rate(step, total_steps, hyper):.2e}, gradient norm {norms[offset]:.3g}); "
                "try a smaller --lr"
            )
    # At most some fifty points an epoch: a curve for people, not a log of every step.
    stride = max(1, len(losses) // 50)
    for start in range(0, len(losses), stride):
        end = min(start + stride, len(losses))
        for name, values in (("train/loss", losses), ("train/gradient_norm", norms)):
            # In fp16 the scaler skips updates whose gradients overflow, and tries a smaller scale.
            if part := [value for value in values[start:end] if math.isfinite(value)]:
                training.curves.append(CurvePoint(name, sum(part) / len(part), first_step + end))
    training.skipped_updates += sum(not math.isfinite(norm) for norm in norms)
    training.curves.append(CurvePoint("train/epoch_loss", sum(losses) / len(losses), training.steps))


def _weights(stack: EncoderStack, *, everything: bool) -> dict[str, Any]:
    """A copy of those that train, or, where that may change later, of all."""
    return {name: p.detach().clone() for name, p in stack.model.named_parameters() if everything or p.requires_grad}
