"""The number of training steps of a run whose FLOPs are limited (`Strategy.compute_limit`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import DoesNotFit
from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import Outline, Strategy
from alue_bench.data.batches import steps_per_epoch
from alue_bench.measure.empty_models import EmptyModel

if TYPE_CHECKING:
    import numpy as np

EmptyModelOf = Callable[[Strategy, Outline], EmptyModel]
"""A function that returns the model that a strategy trains, without weights, in order to count its FLOPs."""


@dataclass(frozen=True)
class LimitedSteps:
    """The limited number of training steps of a run, with the other values that the note about the limit mentions."""

    strategy: str
    steps: int
    """The limited number of steps."""
    all_steps: int
    """The number of steps of all epochs."""
    epochs: int

    def __str__(self) -> str:
        """Return a sentence that states the limit, for the notes of a plan."""
        part = self.steps / self.all_steps
        return (
            f"{self.strategy} trains for {self.steps} of {self.all_steps} steps ({part * self.epochs:.3g} of "
            f"{self.epochs} epochs), with {part:.0%} of the FLOPs of full fine-tuning"
        )


def steps_within(
    strategy: Strategy,
    outline: Outline,
    like: tuple[Strategy, Outline] | None,
    empty: EmptyModelOf,
    lengths: np.ndarray[Any, Any],
    hyper: HyperParameters,
) -> LimitedSteps:
    """Return the number of training steps, at least one, whose FLOPs are nearest to the limit of a strategy.

    The FLOPs of the frozen prefix of `like` count once, and not once per epoch, as in the metric `flops/train_vs_full`.

    Args:
        strategy: The limited strategy, which trains everything.
        outline: The changes that the limited strategy makes to the model.
        like: The strategy whose FLOPs are the limit, with the changes that it makes to the model; None if the limit is
            a share of the FLOPs of full fine-tuning.
        empty: A function that returns the model that a strategy trains, without weights, in order to count its FLOPs.
        lengths: The lengths of the train examples in tokens, int64 [examples].
        hyper: The hyper-parameters; only the epochs and the batch size are used.

    Raises:
        DoesNotFit: The FLOPs of `like` are not known before its run, are not fewer than the FLOPs of full fine-tuning,
            or are limited themselves.
    """
    limit = strategy.compute_limit()
    assert limit is not None
    share = limit.share
    if like is not None:
        other, other_outline = like
        if other.revisions() is not None or other.chooses:
            raise DoesNotFit(
                f"{strategy.name}: {other.name} decides only in its run what to freeze, so its FLOPs are not known "
                "before the run; state a share instead, such as full@66%"
            )
        if other.compute_limit() is not None:
            raise DoesNotFit(f"{strategy.name}: {other.name} has limited FLOPs itself; use it, or state a share")
        size = hyper.epochs, hyper.batch_size
        share = empty(other, other_outline).training(lengths, *size) / empty(strategy, outline).training(lengths, *size)
        if share >= 1:
            raise DoesNotFit(
                f"{strategy.name}: {other.name} needs {share:.0%} of the FLOPs of full fine-tuning; compare it with "
                "full itself"
            )
    all_steps = steps_per_epoch(len(lengths), hyper.batch_size) * hyper.epochs
    return LimitedSteps(strategy.name, max(1, round(share * all_steps)), all_steps, hyper.epochs)


def trained_share(steps: int | None, examples: int, hyper: HyperParameters) -> float:
    """Return the fraction of the steps of all epochs that a run executes; 1 without a limit.

    Args:
        steps: The number of steps to which training is limited; None for no limit.
        examples: The number of train examples. In a task that tags words, each window counts as an example.
        hyper: The hyper-parameters; only the epochs and the batch size are used.
    """
    return 1.0 if steps is None else steps / (steps_per_epoch(examples, hyper.batch_size) * hyper.epochs)
