"""Short training runs on a part of a probe's examples, scored on the rest: `Probe.train_and_score`."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.probe import HeldOutScore
from alue_bench.contract.strategy import FreezePlan
from alue_bench.contract.task import Labels
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.data.words import IGNORED
from alue_bench.running.work import flops_done
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.errors import collect_and_release
from alue_bench.training.forward import choose_forward
from alue_bench.training.freezing import apply_plan
from alue_bench.training.optimizer import loss_function
from alue_bench.training.prefix.growing import FixedData
from alue_bench.training.prefix.states import Examples
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.session import Scorer, TrainingSession, fine_tune

HELD_OUT_DIVISOR = 5
"""The reciprocal of the share of examples that are held out for scoring: 5 means one fifth."""


@dataclass
class ShortTrainings:
    """Training runs of copies of a model under different freeze plans, on the same few examples.

    Hyper-parameters, optimiser, number format and the rule that selects the final weights are those of the run. Outputs
    of frozen layers are not cached, and steps are not captured as CUDA graphs.
    """

    stack: EncoderStack
    """The loaded model, which is copied and not changed."""
    train: TokenizedSplit
    held_out: TokenizedSplit
    """The examples that are scored. As in a run's dev split, their scores also select the final weights."""
    score: Scorer
    """The function that computes metrics from the logits of the held-out examples."""
    config: TrainingConfig
    flops: float = 0.0
    """The training FLOPs of all copies trained so far, computed like those of a run; scoring is not included."""

    def __call__(self, plan: FreezePlan) -> HeldOutScore:
        """Train a copy of the model under a freeze plan; return the held-out score and loss of its final weights.

        Raises:
            NonFiniteLossError: A loss is not finite.
            TrainingError: The plan is not a `FreezePlan` for this number of layers.
        """
        if not isinstance(plan, FreezePlan) or plan.shape != self.stack.shape:
            raise TrainingError(
                f"train_and_score got {plan!r:.120}; give a FreezePlan for {self.stack.shape.layers} layers"
            )
        stack = view_as_stack(copy.deepcopy(self.stack.model))
        apply_plan(stack, plan)
        config = replace(self.config, device=replace(self.config.device, graphs="off"))
        forward = choose_forward(stack, config.device.compute)
        data = FixedData(Examples(self.train), Examples(self.held_out))
        schedule = FreezeSchedule(stack, plan)
        session = TrainingSession(stack, forward, schedule, data, config, self.score)
        training = fine_tune(session)
        self.flops += flops_done(
            stack, schedule.segments, self.train.lengths, config.hyper, last_layer=forward.last_layer
        )
        collect_and_release(config.device.name)
        loss = mean_loss(training.selected_dev_logits, self.held_out, config.labels)
        return HeldOutScore(training.selected_dev_score, loss)


def mean_loss(logits: Any, split: TokenizedSplit, labels: Labels) -> float:
    """Return the mean loss over the predictions of a split, without class weights.

    Args:
        logits: The logits of the split, as `predict_logits` returns them.
        split: The split.
        labels: The label space.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    outputs, loss = torch.from_numpy(logits), loss_function(labels)
    if not split.token_targets:
        return float(loss(outputs, split.targets))
    predicted = outputs if split.words is None else outputs[torch.from_numpy(split.words.predicted)]
    # The end of each window but the last, as an index into the known targets.
    ends = (split.targets != IGNORED).cumsum(0)[split.offsets[1:-1] - 1]
    padded = pad_sequence(list(predicted.tensor_split(ends)), batch_first=True)
    targets = pad_sequence(list(split.known_targets.tensor_split(ends)), batch_first=True, padding_value=IGNORED)
    return float(loss(padded, targets))
