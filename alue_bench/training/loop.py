"""The training loop.

    warm up (untimed, leaves weights and random state as they were)
    for each epoch:
        for each batch in this epoch's length-bucketed order:    timed
            logits, loss, gradients, clip, step, next learning rate
        score the dev split                                       not timed as training
        keep the trainable weights if the score is the best yet
    take back the selected epoch's weights

Nothing inside the timed region reads a value back from the device, logs, or touches the disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alue_bench.data.batches import Batch, batches, evaluation_order, steps_per_epoch, training_order
from alue_bench.data.tokenisation import TokenisedSplit
from alue_bench.errors import TrainingError
from alue_bench.spec import CurvePoint, HyperParameters
from alue_bench.strategy import FreezePlan
from alue_bench.task import Labels
from alue_bench.training.encoder_stack import EncoderStack
from alue_bench.training.freezing import training_mode
from alue_bench.training.precision import Precision, autocast
from alue_bench.training.recipe import build_optimiser, learning_rate, loss_function

if TYPE_CHECKING:
    import numpy as np

EVALUATION_TOKENS = 8192
"""Padded tokens in one evaluation batch: enough to keep the device busy, little enough for its memory."""


@dataclass(frozen=True)
class Device:
    """Where and in which number format to compute."""

    name: str
    precision: Precision

    def synchronise(self) -> None:
        """Wait for the device, so that a clock read next tells the truth."""
        if self.name == "cuda":
            import torch

            torch.cuda.synchronize()


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
    curves: list[CurvePoint] = field(default_factory=list)
    dev_scores: list[float] = field(default_factory=list)
    selected_epoch: int = 0
    """The epoch, from 1, whose weights the model has now."""


Scorer = Callable[["np.ndarray[Any, Any]"], dict[str, float]]
"""From dev logits [n, outputs] in the split's order to metrics; the entry "score" selects the epoch."""


def fine_tune(
    stack: EncoderStack,
    plan: FreezePlan,
    train: TokenisedSplit,
    dev: TokenisedSplit,
    *,
    labels: Labels,
    hyper: HyperParameters,
    data_seed: int,
    device: Device,
    pad_id: int,
    score: Scorer,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Training:
    """Train the model in place.

    The result depends on the weights given, the data, `hyper`, `data_seed` and `device`, and on nothing that ran
    before in this process. Raises TrainingError where the loss is not finite.
    """
    import numpy as np
    import torch

    rng = np.random.default_rng(data_seed)
    torch.manual_seed(data_seed)  # dropout; the order of the data has the generator above
    loss_of = loss_function(labels)
    trainable = [parameter for parameter in stack.model.parameters() if parameter.requires_grad]
    total_steps = steps_per_epoch(len(train), hyper.batch_size) * hyper.epochs
    _warm_up(stack, plan, train, hyper, device, pad_id, loss_of)
    optimiser = build_optimiser(stack.model, hyper)
    scaler = torch.amp.GradScaler(device.name, enabled=device.precision == "fp16")

    training = Training()
    best: tuple[float, dict[str, Any]] | None = None
    for epoch in range(1, hyper.epochs + 1):
        training_mode(stack, plan)
        losses = []
        device.synchronise()
        started = time.perf_counter()
        for batch in batches(train, training_order(train.lengths, hyper.batch_size, rng), pad_id):
            batch = batch.to(device.name)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(training.steps, total_steps, hyper)
            with autocast(device.name, device.precision):
                logits = stack.logits(batch)
            loss = loss_of(logits, batch.targets)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if hyper.clip:
                scaler.unscale_(optimiser)
                torch.nn.utils.clip_grad_norm_(trainable, hyper.clip)
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            training.steps += 1
            training.samples += len(batch.indices)
            training.tokens += batch.tokens
            training.padded_tokens += batch.input_ids.numel()
            on_step(training.steps, total_steps)
        device.synchronise()
        training.loop_s += time.perf_counter() - started

        _record_losses(training, torch.stack(losses).float().cpu().tolist(), total_steps, hyper)
        started = time.perf_counter()
        metrics = score(predict_logits(stack, dev, device=device, pad_id=pad_id))
        training.dev_s += time.perf_counter() - started
        training.dev_scores.append(metrics["score"])
        training.curves += [CurvePoint(f"dev/{name}", value, training.steps) for name, value in metrics.items()]
        # A score that is not a number (a constant prediction has no correlation) is never better than one that is.
        comparable = metrics["score"] if math.isfinite(metrics["score"]) else -math.inf
        if hyper.select == "last" or best is None or comparable > best[0]:
            training.selected_epoch = epoch
            if hyper.select == "best" and epoch < hyper.epochs:
                best = (comparable, _trainable_weights(stack))
            else:
                best = (comparable, {})
    if best is not None and best[1]:
        with torch.no_grad():
            for name, parameter in stack.model.named_parameters():
                if name in best[1]:
                    parameter.copy_(best[1][name])
    return training


def predict_logits(stack: EncoderStack, split: TokenisedSplit, *, device: Device, pad_id: int) -> np.ndarray[Any, Any]:
    """Logits [n, outputs] in fp32, in the split's own order. Batches go from short to long to save padding."""
    import numpy as np
    import torch

    stack.model.eval()
    parts, order = [], evaluation_order(split.lengths, EVALUATION_TOKENS)
    with torch.inference_mode(), autocast(device.name, device.precision):
        for batch in batches(split, order, pad_id):
            parts.append(stack.logits(batch.to(device.name)).float())
    logits = torch.cat(parts).cpu().numpy()
    result = np.empty_like(logits)
    result[np.concatenate(order)] = logits
    return result


def _warm_up(
    stack: EncoderStack,
    plan: FreezePlan,
    train: TokenisedSplit,
    hyper: HyperParameters,
    device: Device,
    pad_id: int,
    loss_of: Callable[[Any, Any], Any],
) -> None:
    """One forward and backward pass on the longest examples, so that the clock does not see one-off costs."""
    import numpy as np
    import torch

    longest = np.argsort(train.lengths, kind="stable")[-hyper.batch_size :]
    batch: Batch = next(batches(train, [longest], pad_id)).to(device.name)
    devices = [torch.cuda.current_device()] if device.name == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        training_mode(stack, plan)
        with autocast(device.name, device.precision):
            logits = stack.logits(batch)
        loss_of(logits, batch.targets).backward()
    stack.model.zero_grad(set_to_none=True)
    device.synchronise()


def _record_losses(training: Training, losses: list[float], total_steps: int, hyper: HyperParameters) -> None:
    first_step = training.steps - len(losses)
    for offset, loss in enumerate(losses):
        if not math.isfinite(loss):
            step = first_step + offset
            raise TrainingError(
                f"the loss is {loss} at step {step + 1} of {total_steps} "
                f"(learning rate {learning_rate(step, total_steps, hyper):.2e}); try a smaller --lr or --precision fp32"
            )
    # At most some fifty points an epoch: a curve for people, not a log of every step.
    stride = max(1, len(losses) // 50)
    for start in range(0, len(losses), stride):
        part = losses[start : start + stride]
        training.curves.append(CurvePoint("train/loss", sum(part) / len(part), first_step + start + len(part)))
    training.curves.append(CurvePoint("train/epoch_loss", sum(losses) / len(losses), training.steps))


def _trainable_weights(stack: EncoderStack) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in stack.model.named_parameters() if p.requires_grad}
