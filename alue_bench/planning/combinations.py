"""The combinations of a plan: for one task and one model, every strategy with every seed and setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from alue_bench.contract.errors import DoesNotFit, UsageError
from alue_bench.contract.model import Model
from alue_bench.contract.registry import Origin, Registry
from alue_bench.contract.spec import Resolved, resolve_hyper_parameters
from alue_bench.contract.strategy import Outline, Strategy
from alue_bench.contract.task import Task
from alue_bench.planning.grid import Grid
from alue_bench.planning.request import DEFAULT_STRATEGIES, PlanRequest

Strategies = Mapping[str, tuple[Strategy, Origin]]
"""Strategies by name, with the plugins that they come from."""


@dataclass(frozen=True)
class Combination:
    """A strategy, a seed and hyper-parameters: all that distinguishes the runs of one task and model."""

    strategy: Strategy
    origin: Origin
    """The plugin that the strategy comes from."""
    outline: Outline
    """The changes that the strategy makes to the model."""
    hyper: Resolved
    seed: int


@dataclass(frozen=True)
class Unfit:
    """A strategy that cannot be applied to the model, with the reason and the first of the requested seeds."""

    strategy: str
    seed: int
    reason: str


def named_strategies(request: PlanRequest, registry: Registry) -> Strategies:
    """Return the strategies that the request names. Raise UsageError if a name is unknown."""
    return _strategies(request.strategies or (() if request.grid else DEFAULT_STRATEGIES), registry)


def strategies_for(request: PlanRequest, registry: Registry, layers: int) -> Strategies:
    """Return the strategies asked for by name, and the cells of the grid that a model with so many layers has."""
    grid = request.grid or Grid()
    return {**named_strategies(request, registry), **_strategies(grid.strategy_names(layers), registry)}


def _strategies(names: Iterable[str], registry: Registry) -> Strategies:
    """Return strategies by their own names, each once."""
    strategies: dict[str, tuple[Strategy, Origin]] = {}
    for name in names:
        strategy, origin = registry.strategy(name)
        strategies.setdefault(strategy.name, (strategy, origin))
    return strategies


def check_hyper_parameters(request: PlanRequest) -> None:
    """Raise UsageError for a hyper-parameter that is invalid for every task and model.

    This is checked once, before tasks and models are looked up. Otherwise each of them would be skipped for it.
    """
    for variant in (request.grid or Grid()).variants():
        resolve_hyper_parameters(_asked_for(request, variant))


def settings_of(request: PlanRequest, task: Task, model: Model, limit: int | None) -> list[Resolved]:
    """Return the hyper-parameters of a task's runs with a model: one for each combination of the grid's axes.

    Args:
        request: the plan's request.
        task: the task that trains the model.
        model: the model.
        limit: the largest number of tokens that the model can take; None if it has no such limit.

    Raises:
        UsageError: a value is wrong, or more tokens were asked for than the model takes.
    """
    variants = (request.grid or Grid()).variants()
    return [_resolved(request, task, model, limit, variant) for variant in variants]


def _resolved(
    request: PlanRequest, task: Task, model: Model, limit: int | None, variant: Mapping[str, object]
) -> Resolved:
    """Return the hyper-parameters for one combination of the grid's axes."""
    defaults = [(f"task {task.name}", task.defaults), (f"model {model.name}", model.defaults)]
    overrides = _asked_for(request, variant)
    resolved = resolve_hyper_parameters([*defaults, *overrides])
    if limit is not None and resolved.values.max_length > limit:
        asked_by = resolved.origins["max_length"]
        if asked_by in dict(overrides):
            raise UsageError(
                f"{asked_by}: max_length is {resolved.values.max_length}, but model {model.name!r} takes at most "
                f"{limit} tokens"
            )
        origins = {**resolved.origins, "max_length": f"the model's limit of {limit} tokens"}
        return Resolved(replace(resolved.values, max_length=limit), origins)
    return resolved


def _asked_for(request: PlanRequest, variant: Mapping[str, object]) -> list[tuple[str, Mapping[str, object]]]:
    """Return the hyper-parameters that the user gives, by origin, weakest first."""
    return [*request.overrides, *([("grid", variant)] if variant else [])]


def combinations(
    strategies: Strategies,
    settings: Sequence[Resolved],
    seeds: Sequence[int],
    outline: Callable[[Strategy, Origin], Outline],
) -> tuple[list[Combination], list[Unfit]]:
    """Cross settings, seeds and strategies, in this order, for one task and one model.

    Args:
        strategies: the strategies by name.
        settings: the hyper-parameters, one for each combination of the grid's axes.
        seeds: the seeds.
        outline: returns the changes that a strategy makes to the model; raises DoesNotFit if it cannot be applied.

    Returns:
        The combinations, and the strategies that do not fit the model, each once.
    """
    fitting: list[Combination] = []
    unfit: dict[str, Unfit] = {}
    for hyper, seed in product(settings, seeds):
        for strategy, origin in strategies.values():
            try:
                outlined = outline(strategy, origin)
            except DoesNotFit as error:
                unfit.setdefault(strategy.name, Unfit(strategy.name, seed, str(error)))
                continue
            fitting.append(Combination(strategy, origin, outlined, hyper, seed))
    return fitting, list(unfit.values())
