"""The training loop, from the warm-up to restoring the selected weights.

    warm up                                                  # untimed; changes no weights
    continue from the last checkpoint, if there is one
    for each epoch:
        for each batch, in this epoch's order:               # timed as training
            logits, loss, gradients, clip, update
            if `eval_every` requires it: evaluate as below
            if an adaptive strategy is to be asked now: ask it what to freeze
            if a checkpoint is due: write it                 # not timed
        evaluate: score the dev split                        # timed separately
                  copy the weights if their score is the best so far
                  stop if `patience` evaluations in a row did not improve the score
        if the strategy is adaptive and an epoch follows: ask it what to freeze
    restore the weights of the selected evaluation

`fine_tune` is this loop; `TrainingSession` holds the model, data, optimiser and random states. Nothing in the timed
region writes logs, accesses MLflow or waits for a value from a GPU, with three exceptions:

- with some architectures, transformers waits for the GPU to inspect the padding mask;
- an adaptive strategy that uses gradients waits for their norms when it is asked what to freeze;
- CUDA graphs are captured again after an adaptive strategy has changed the freeze plan.

The work of the strategy and this capture count as training time. When further layers are frozen, the time to compute
and store their outputs does not: it is measured separately.

On an accelerator the train split is copied to the device before the clock starts, if it is small enough
(`ResidentSplit.fits`), and batches are gathered there. If the forward pass can be captured, the batches gathered there
are padded to at most `MAX_LENGTHS` different lengths, whether or not CUDA graphs are used. So the use of graphs changes
neither the batches nor the random numbers. Padding itself changes only rounding, because attention ignores it and
losses do not depend on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import NonFiniteLossError
from alue_bench.contract.spec import CurvePoint
from alue_bench.data.batches import Batch, batches, steps_per_epoch, training_order
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.checkpointing import CheckpointFile
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.cuda_graphs import CudaRecorder, GraphRecorder, padded_lengths
from alue_bench.training.device.finite import FiniteCheck
from alue_bench.training.device.host_memory import retain_freed_memory
from alue_bench.training.device.precision import Device
from alue_bench.training.device.resident import ResidentBatch, ResidentSplit
from alue_bench.training.forward import Forward
from alue_bench.training.freezing import apply_plan, training_mode
from alue_bench.training.inference import predict_logits
from alue_bench.training.optimizer import build_optimiser, learning_rate, load_optimiser_state, optimiser_state
from alue_bench.training.prefix.growing import TrainingData
from alue_bench.training.result import TrainingResult
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.selection import Selection, evaluation_points
from alue_bench.training.update import Updater

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MAX_LENGTHS = 8
"""The largest number of different lengths to which batches are padded on an accelerator. Each length costs one eager
step, one capture of a CUDA graph, and up to a hundred megabytes for a large model. Ten lengths would hardly reduce the
padding any further."""
Scorer = Callable[["np.ndarray[Any, Any]"], dict[str, float]]
"""A function that returns metrics by name for the dev logits that `predict_logits` returned. The metric "score" decides
which weights are selected."""
OnStep = Callable[[int, int], None]
"""A function that is called after every training step, with the number of steps done and the total number of steps."""


def fine_tune(
    session: TrainingSession, *, file: CheckpointFile | None = None, on_step: OnStep = lambda done, total: None
) -> TrainingResult:
    """Train the session's model in place.

    The final weights and scores depend only on the initial weights, the data and the session's configuration, not on
    earlier work in this process.

    Args:
        session: The training session, before its first step.
        file: The checkpoint file. If it exists, training resumes from it; new checkpoints replace it. None for no
            checkpoints.
        on_step: A function that is called after every step, within the timed region.

    Raises:
        NonFiniteLossError: A loss, or an output of the model for the dev split, is not finite.
        TrainingError: The memory is too small for a single example; or an adaptive strategy returned a plan that is
            invalid or contradicts its `revisions()`; or the user requires CUDA graphs and a step cannot be captured.
    """
    epochs = session.epochs
    session.warm_up()
    if file is not None:
        _resume(session, file)
    for epoch in range(session.epoch.number, epochs + 1):
        session.train_epoch(epoch, on_step, file)
        if not session.selection.stops:
            session.evaluate()
        if session.selection.stops:
            break
        if epoch < epochs:
            session.revise_freezing()
    return session.finish()


def _resume(session: TrainingSession, file: CheckpointFile) -> None:
    """Restore the session from its checkpoint file, if the file exists. The loaded tensors are released on return."""
    state = file.load()
    if state is not None:
        session.load_state_dict(state)
    session.result.earlier_s = file.earlier_s


@dataclass
class EpochProgress:
    """The progress within the current epoch: its number, the number of batches done and their losses."""

    number: int = 1
    """The number of the epoch, from 1."""
    done: int = 0
    """The number of batches of this epoch trained on so far."""
    order_state: dict[str, Any] = field(default_factory=dict)
    """The state that the random generator for the order of examples had when this epoch began. Drawing from this state
    again gives the same order."""
    losses: list[Tensor] = field(default_factory=list)
    """The loss of each batch of this epoch so far, on the device."""
    norms: list[Tensor] = field(default_factory=list)
    """The gradient norm, before clipping, of each batch of this epoch so far, on the device."""


class TrainingSession:
    """A model in training, with its data, optimiser, freeze schedule and random state.

    `fine_tune` calls the methods in the right order. A session can be used for one fine-tuning run only.
    """

    def __init__(
        self,
        stack: EncoderStack,
        forward: Forward,
        schedule: FreezeSchedule,
        data: TrainingData,
        config: TrainingConfig,
        score: Scorer,
        recorder: Callable[[], GraphRecorder] | None = None,
    ) -> None:
        """Create a session before its first step; build the optimiser over the trainable parameters.

        Args:
            stack: The model, to which `apply_plan` has applied the first plan of the schedule.
            forward: The implementation of the forward pass.
            schedule: The initial freeze plan, and the strategy that may change it.
            data: The train and dev splits.
            config: The hyper-parameters, seed, device and padding.
            score: A function that computes metrics from the dev logits of an evaluation.
            recorder: A function that creates a recorder, which captures training steps and replays them. With None,
                CUDA graphs are used if `config.device.captures_graphs` is true and the forward pass is `recordable`;
                otherwise steps are not captured.
        """
        import numpy as np

        retain_freed_memory()
        given = recorder is not None
        if recorder is None and config.device.captures_graphs and forward.recordable:
            recorder = partial(CudaRecorder, forward.generators)
        examples = data.examples("train")
        self.stack, self.forward, self.schedule, self.data, self.config = stack, forward, schedule, data, config
        self.epoch = EpochProgress()
        self.selection = Selection(config.hyper.select, config.hyper.patience, copy_all=schedule.adaptive)
        self._score = score
        self._split = examples.split
        per_epoch = steps_per_epoch(len(self._split), config.hyper.batch_size)
        self._steps = per_epoch * config.hyper.epochs if config.steps is None else config.steps
        self.epochs = math.ceil(self._steps / per_epoch)
        """The number of epochs; the last one is incomplete if `config.steps` ends within it."""
        self._evaluate_after = frozenset(evaluation_points(per_epoch, config.hyper.eval_every))
        self.result = TrainingResult(schedule, per_epoch)
        self._clock = _Clock(config.device, self.result)
        self._order_rng = np.random.default_rng(config.data_seed)
        self._resident = None
        if given or ResidentSplit.fits(self._split, config.device):
            self._resident = ResidentSplit(self._split, config.padding, config.device, masked=forward.recordable)
        self._widths: tuple[int, ...] = ()
        self._typical: ResidentBatch | None = None
        self._shapes = self._batch_shapes() if self._resident is not None and forward.recordable else []
        self._updater = Updater(
            forward, examples, build_optimiser(stack, config.hyper), config, schedule.watch, recorder
        )
        schedule.begin_segment(examples.depth)

    def warm_up(self) -> None:
        """Find the micro-batch size that fits into memory, and incur one-off costs, before the clock starts.

        On an accelerator, a trial step with the longest examples finds a micro-batch size that fits all batches; then
        the training step is captured for each batch shape. On a CPU, a trial step with the shortest examples is enough
        to incur the one-off costs, and no micro-batch size is searched for.
        """
        import numpy as np

        config, split = self.config, self._split
        training_mode(self.stack, self.schedule.plan)
        by_length = np.argsort(split.lengths, kind="stable")
        size = config.hyper.batch_size
        chosen = by_length[-size:] if config.device.accelerated else by_length[:size]
        self._updater.warm_up(next(iter(self._batches([chosen]))))
        self._updater.capture(self._shapes, self._typical)
        self.result.graph_use = self._updater.graph_use
        self.forward.seed(config.data_seed)  # dropout; the order of examples has a separate generator

    def _batch_shapes(self) -> list[ResidentBatch]:
        """Choose the lengths to which batches are padded, and return a batch of each length, the longest first.

        The lengths are chosen to suit the batches of one epoch in a random order. This order, which does not depend on
        the seed, is used for nothing else.
        """
        import numpy as np
        import torch

        assert self._resident is not None
        lengths, size = self._split.lengths, min(self.config.hyper.batch_size, len(self._split))
        order = self._draw_order(size, np.random.default_rng(0))
        needed = [self._resident.width_for(int(lengths[indices].max())) for indices in order]
        widths = padded_lengths([*needed, self._resident.width_for(int(lengths.max()))], MAX_LENGTHS)
        by_length = np.argsort(lengths, kind="stable")
        shapes = []
        for width in reversed(widths):
            short = by_length[: np.searchsorted(lengths[by_length], width, side="right")]
            shapes.append(
                self._resident.ungathered_batch(torch.from_numpy(np.resize(short[::-1], size)), widths=[width])
            )
        self._widths = widths
        padded = [min(width for width in widths if width >= length) for length in needed]
        frequent = max(widths, key=padded.count)
        self._typical = next(shape for shape in shapes if shape.width == frequent)
        return shapes

    def _draw_order(self, batch_size: int, rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
        """Draw the batches of one epoch: for each batch, the indices of its examples in the train split."""
        by_length = self.config.hyper.batch_order == "length"
        return training_order(self._split.lengths, batch_size, rng, by_length=by_length)

    def _batches(self, order: Sequence[np.ndarray[Any, Any]]) -> Iterable[Batch | ResidentBatch]:
        """Return batches of the train split.

        If the split lies in an accelerator's memory, each batch is a `ResidentBatch`, which has the indices of its
        examples; the examples are gathered on the accelerator when the batch is used.

        Args:
            order: For each batch, the indices of its examples in the train split.
        """
        if self._resident is not None:
            return self._resident.epoch_batches(order, self._widths)
        round_lengths = self.config.device.rounds_lengths
        return batches(self._split, list(order), self.config.padding, round_lengths=round_lengths)

    def train_epoch(self, epoch: int, on_step: OnStep, file: CheckpointFile | None) -> None:
        """Train for one epoch; in a resumed epoch, only on the remaining examples.

        The dev split is evaluated within the epoch if `eval_every` requires it. The epoch ends early if such an
        evaluation stops training, or if a loss is infinite or NaN, which is noticed some steps later on a GPU.

        Args:
            epoch: The number of the epoch, from 1.
            on_step: A function that is called after every step.
            file: The checkpoint file to write; None for no checkpoints.

        Raises:
            NonFiniteLossError: A loss, or an output of the model for the dev split, is not finite.
            TrainingError: See `fine_tune`.
        """
        if epoch != self.epoch.number:
            self.epoch = EpochProgress(epoch)
        device, progress = self.config.device, self.epoch
        training_mode(self.stack, self.schedule.plan)
        device.synchronise()
        with self._clock.running():
            progress.order_state = dict(self._order_rng.bit_generator.state)
            order = self._draw_order(self.config.hyper.batch_size, self._order_rng)
            order = order[: self._steps - (self.result.steps - progress.done)]
            finite = FiniteCheck(device)
            for batch in self._batches(order[progress.done :]):
                loss = self._train_on(batch)
                on_step(self.result.steps, self._steps)
                if not finite.add_and_check(loss):
                    break
                if progress.done < len(order):
                    if progress.done in self._evaluate_after:
                        with self._clock.paused():
                            self.evaluate()
                            training_mode(self.stack, self.schedule.plan)
                        if self.selection.stops:
                            break
                    if self.schedule.is_due(progress.done, len(order)):
                        with self._clock.paused():
                            self.revise_freezing()
                if file is not None and file.is_due():
                    with self._clock.paused():
                        file.save(self.state_dict())
        self.result.micro_batch = self._updater.micro_batch
        self.result.recorded_shapes, self.result.graph_use = self._updater.recorded_shapes, self._updater.graph_use
        self._record_losses()

    def evaluate(self) -> None:
        """Evaluate the model on the dev split and record the scores.

        `selection` keeps a copy of the model's weights if its rule chooses them, such as for the best score so far.
        The model is left in eval mode. No random number is drawn, so that additional evaluations do not change the
        training.
        """
        started = time.perf_counter()
        dev = self.data.examples("dev")
        config = self.config
        logits = predict_logits(self.stack, self.forward, dev, device=config.device, padding=config.padding)
        metrics = self._score(logits)
        self.result.add_evaluation(logits, metrics, time.perf_counter() - started)
        self.selection.offer(metrics["score"], self.stack.model, is_last=self.result.steps == self._steps)

    def revise_freezing(self) -> None:
        """Ask an adaptive strategy for a new freeze plan and apply it; leave the model in training mode.

        Nothing happens if the strategy is not adaptive. The training clock must be stopped when this is called. It runs
        while the strategy decides, but not while outputs of newly frozen layers are computed and stored.

        Raises:
            TrainingError: The strategy returned a plan that is invalid or contradicts its `revisions()`.
        """
        schedule, result = self.schedule, self.result
        if not schedule.adaptive:
            return
        with self._clock.running():
            changed = schedule.ask_strategy(
                epoch=self.epoch.number,
                epochs=self.config.hyper.epochs,
                step=result.steps,
                steps=self._steps,
                dev_scores=result.epoch_scores,
            )
            result.curves.append(CurvePoint("train/frozen_layers", len(schedule.plan.frozen_layers), result.steps))
            if changed:
                apply_plan(self.stack, schedule.plan)
                self.forward.refresh_weight_copies()
                optimiser = build_optimiser(self.stack, self.config.hyper, self._updater.optimiser)
                with self._clock.paused():
                    self.data.adapt_to_plan(schedule.plan)
                examples = self.data.examples("train")
                self._updater.continue_with(examples, optimiser)
                schedule.begin_segment(examples.depth)
                training_mode(self.stack, schedule.plan)
                self._capture_again()
            training_mode(self.stack, schedule.plan)

    def _capture_again(self) -> None:
        """Capture the training step for all batch shapes again, after a change of the freeze plan.

        The state of the random generators does not change.
        """
        if self._shapes:
            random = self.forward.random_state()
            self._updater.capture(self._shapes)
            self.forward.set_random_state(random)

    def finish(self) -> TrainingResult:
        """Load the selected weights into the model, release gradients and captured steps, and return the result."""
        self.result.selected = self.selection.selected
        self.result.stopped_early = self.result.steps < self._steps
        if self.selection.restore(self.stack.model):
            self.forward.refresh_weight_copies()
        self._updater.release()
        self._resident, self._shapes = None, []
        return self.result

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to resume training after the latest step, as tensors and JSON values.

        The tensors are not copied: later steps change them.
        """
        import torch

        progress = self.epoch
        return {
            # Parameters that are frozen now may have trained before, if the strategy is adaptive.
            "weights": {
                name: parameter
                for name, parameter in self.stack.model.named_parameters()
                if parameter.requires_grad or self.schedule.adaptive
            },
            "optimizer": optimiser_state(self._updater.optimiser, self.stack),
            "updater": self._updater.state_dict(),
            "schedule": self.schedule.state_dict(),
            "selection": self.selection.state_dict(),
            "result": self.result.state_dict(),
            "random": self.forward.random_state(),
            "epoch": {
                "number": progress.number,
                "done": progress.done,
                "order_state": progress.order_state,
                "losses": torch.stack(progress.losses) if progress.done else torch.zeros(0),
                "norms": torch.stack(progress.norms) if progress.done else torch.zeros(0),
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned. Call this after `warm_up`, which reseeds dropout."""
        import torch

        device, schedule = self.config.device.name, self.schedule
        with torch.no_grad():
            for name, parameter in self.stack.model.named_parameters():
                if name in state["weights"]:
                    parameter.copy_(state["weights"][name])
        before = schedule.plan
        schedule.load_state_dict(state["schedule"])
        if schedule.plan != before:
            apply_plan(self.stack, schedule.plan)
        self.data.adapt_to_plan(schedule.plan)
        examples = self.data.examples("train")
        self._updater.continue_with(examples, build_optimiser(self.stack, self.config.hyper))
        if examples.depth != schedule.segments[-1].depth:  # outputs of more or fewer layers are stored than before
            schedule.begin_segment(examples.depth)
        self.forward.refresh_weight_copies()
        load_optimiser_state(self._updater.optimiser, self.stack, state["optimizer"])
        self._updater.load_state_dict(state["updater"])
        training_mode(self.stack, schedule.plan)
        self._capture_again()
        self.forward.set_random_state(state["random"])
        self.selection.load_state_dict(state["selection"], device)
        self.result.load_state_dict(state["result"])
        epoch = state["epoch"]
        losses, norms = (list(epoch[name].to(device).unbind()) for name in ("losses", "norms"))
        self.epoch = EpochProgress(epoch["number"], epoch["done"], epoch["order_state"], losses, norms)
        self._order_rng.bit_generator.state = epoch["order_state"]

    def _train_on(self, batch: Batch | ResidentBatch) -> Tensor:
        """Make one training step with a batch, and return the mean loss of the batch, on the device."""
        rate = learning_rate(self.result.steps, self._steps, self.config.hyper)
        loss, norm = self._updater.update(batch, rate)
        self.epoch.losses.append(loss)
        self.epoch.norms.append(norm)
        self.epoch.done += 1
        self.result.count(batch)
        return loss

    def _record_losses(self) -> None:
        """Add the losses and gradient norms of an epoch that has ended to the result.

        Raises:
            NonFiniteLossError: A loss is not finite.
        """
        import torch

        progress, hyper = self.epoch, self.config.hyper
        losses, norms = torch.stack([torch.stack(progress.losses), torch.stack(progress.norms)]).float().cpu().tolist()
        first_step = self.result.steps - len(losses)
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), first_step):
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"the loss is {loss} at step {step + 1} of {self._steps} (learning rate "
                    f"{learning_rate(step, self._steps, hyper):.2e}, gradient norm {norm:.3g}); try a smaller --lr"
                )
        self.result.add_losses(losses, norms)


class _Clock:
    """The stopwatch of the training loop. Before it stops, it waits for the device, so that queued work is timed."""

    def __init__(self, device: Device, result: TrainingResult) -> None:
        """Create a stopped clock, whose running time is added to `result.loop_s`."""
        self._device, self._result = device, result
        self._started = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the training clock within the `with` block."""
        self._start()
        yield
        self._stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the training clock within the `with` block."""
        self._stop()
        yield
        self._start()

    def _start(self) -> None:
        self._started = time.perf_counter()

    def _stop(self) -> None:
        self._device.synchronise()
        self._result.loop_s += time.perf_counter() - self._started
