"""The conformance checks of strategies that change the frozen layers during training, made by simulating training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from alue_bench.contract.strategy import (
    BlockNorms,
    FreezePlan,
    MatrixChanges,
    Outline,
    Revisions,
    Strategy,
    StrategyFamily,
    TrainingProgress,
)
from alue_bench.testing.violations import cause

DEEP_ENCODER_LAYERS = 12
"""The number of layers of the encoder for which all of `COURSES` are simulated. For any other encoder, only the first
course is simulated, unless the strategy can be applied to this encoder only."""


@dataclass(frozen=True)
class _Course:
    """The course of a simulated training run: the dev scores and gradient norms that a strategy receives."""

    epochs: int
    score: Callable[[int], float]
    """A function that takes the number of an epoch, from 1, and returns the dev score after this epoch."""
    norm: Callable[[random.Random, int, int], float]
    """A function that returns the gradient norm of a layer, or the change of a matrix's gradient, at an evaluation
    point (call of `Strategy.revise`). Its arguments are a random generator, the number of the evaluation point, from 1,
    and the index of the layer (-1 for the embeddings)."""


COURSES = (
    _Course(2, lambda epoch: 0.5, lambda drawn, point, layer: drawn.uniform(1, 2)),
    _Course(40, lambda epoch: 1 - 0.8**epoch, lambda drawn, point, layer: 0.7 ** (point + layer)),
    _Course(40, lambda epoch: 0.99 - epoch / 50, lambda drawn, point, layer: 10.0),
    _Course(40, lambda epoch: 0.9, lambda drawn, point, layer: 0.0 if point > 20 else float(point * (layer + 2))),
    _Course(40, lambda epoch: 0.5 + 0.3 * (epoch % 3), lambda drawn, point, layer: drawn.uniform(1e-6, 1e3)),
)
"""The simulated training runs, short and long. Scores rise, fall, stay constant or oscillate; gradient norms decrease,
stay constant, drop to zero or are random."""


def check_revising(
    family: StrategyFamily, example: str, strategy: Strategy, outlines: Mapping[int, Outline]
) -> Iterator[str]:
    """Yield a violation if `revise` or `revisions` breaks its contract, which is checked in simulated training runs.

    Nothing is yielded for a strategy that does not change the frozen layers during training.

    Args:
        family: The family of the strategy.
        example: The name of the strategy.
        strategy: The strategy that `family.parse(example)` returned.
        outlines: The changes that the strategy makes to an encoder, by the encoder's number of layers.
    """
    subject = f"strategy {example!r}"
    try:
        revisions = strategy.revisions()
    except Exception as error:  # a plugin's method may raise anything
        yield f"{subject}: revisions raises {cause(error)}; return a Revisions or None"
        return
    revises = type(strategy).revise is not Strategy.revise
    if revisions is None:
        if revises:
            yield f"{subject}: revise is never called, since revisions returns None; return when it is to be called"
        return
    if not isinstance(revisions, Revisions):
        yield f"{subject}: revisions returns {revisions!r:.60}; return a Revisions or None"
        return
    if not revises:
        yield (
            f"{subject}: revisions returns {revisions!r:.60}, but there is no revise to call; define it, or remove both"
        )
        return
    acts = False
    for layers, outlined in outlines.items():
        for course in COURSES if layers == DEEP_ENCODER_LAYERS or len(outlines) == 1 else COURSES[:1]:
            outcome = _training(family, example, strategy, revisions, outlined.freeze_plan, course)
            if isinstance(outcome, str):
                yield f"{subject} on {layers} layer{'s' if layers > 1 else ''}: {outcome}"
                return
            acts = acts or outcome or outlined != Outline(FreezePlan(outlined.freeze_plan.shape), None, None)
    if not acts:
        yield (
            f"{subject}: nothing is frozen at first, and revise froze nothing in {len(COURSES)} simulated training "
            f"runs of up to {COURSES[-1].epochs} epochs; correct revise, or give an example that acts sooner"
        )


def _training(
    family: StrategyFamily, example: str, strategy: Strategy, revisions: Revisions, plan: FreezePlan, course: _Course
) -> bool | str:
    """Simulate a training run with an adaptive strategy.

    Args:
        family: The family of the strategy.
        example: The name of the strategy.
        strategy: The strategy.
        revisions: The result of the strategy's method `revisions`.
        plan: The strategy's freeze plan at the beginning of training.
        course: The dev scores and gradient norms of the training run.

    Returns:
        True if `revise` changed the freeze plan, False if it never did; or a string with a violation.
    """
    first, steps = plan, 10 * revisions.per_epoch
    drawn = random.Random(0)
    norms: list[BlockNorms] = []
    changes: list[MatrixChanges] = []
    changed = False
    for point in range(0 if revisions.at_start else 1, course.epochs * revisions.per_epoch):
        epoch = max(1, -(-point // revisions.per_epoch))
        ended = epoch if point and point % revisions.per_epoch == 0 else epoch - 1
        if revisions.gradient_norms and point:
            norms.append(_norms(plan, drawn, point, course))
        if revisions.matrix_changes and point:
            changes.append(_changes(plan, drawn, point, course))
        scores = tuple(course.score(one) for one in range(1, ended + 1))
        progress = TrainingProgress(
            epoch, course.epochs, 10 * point, course.epochs * steps, scores, tuple(norms), tuple(changes), data_seed=7
        )
        twin = family.parse(example)
        assert isinstance(twin, Strategy)
        try:
            revised, again = strategy.revise(plan, progress), twin.revise(plan, progress)
        except Exception as error:  # a plugin's method may raise anything
            return f"revise raises {cause(error)}; return a FreezePlan"
        if revised != again:
            return "revise gives different plans; it may depend only on its arguments"
        if not isinstance(revised, FreezePlan) or not revised.revises(plan):
            return f"revise returns {revised!r:.80}; return a FreezePlan of the same shape, `trained` and `names`"
        known = {name for layer in range(plan.shape.layers) for name in _matrices(layer)}
        if unknown := sorted(revised.frozen_parameters - plan.frozen_parameters - known):
            return (
                f"revise freezes the parameter {unknown[0]!r}, which occurs in no TrainingProgress.changes; take names "
                "from there"
            )
        if revisions.prefix_only_grows and (revised.prefix_layers or 0) < (plan.prefix_layers or 0):
            return "the frozen prefix shrinks, but revisions says prefix_only_grows; correct one of them"
        plan = revised
        changed = changed or plan != first
    return changed


def _matrices(layer: int) -> tuple[str, ...]:
    """Return the names of the simulated weight matrices of a layer."""
    return tuple(f"encoder.layer.{layer}.{part}.weight" for part in ("attention", "intermediate", "output"))


def _changes(plan: FreezePlan, drawn: random.Random, point: int, course: _Course) -> MatrixChanges:
    """Return simulated changes of the gradients of all matrices that train; none at the first evaluation point.

    Args:
        plan: The freeze plan.
        drawn: The random generator.
        point: The number of the evaluation point, from 1.
        course: The simulated training run.
    """

    def changes_in(layer: int) -> dict[str, float]:
        if point == 1 or layer in plan.frozen_layers:
            return {}
        trained = [name for name in _matrices(layer) if name not in plan.frozen_parameters]
        return {name: course.norm(drawn, point, layer) for name in trained}

    return MatrixChanges(tuple(changes_in(layer) for layer in range(plan.shape.layers)))


def _norms(plan: FreezePlan, drawn: random.Random, point: int, course: _Course) -> BlockNorms:
    """Return simulated gradient norms of the embeddings and layers that train; for the arguments, see `_changes`."""

    def norm(layer: int) -> float:
        return course.norm(drawn, point, layer)

    layers = tuple(None if layer in plan.frozen_layers else norm(layer) for layer in range(plan.shape.layers))
    return BlockNorms(None if plan.embeddings else norm(-1), layers)
