"""The combinations for one task and one model: every strategy with every seed and all hyper-parameters of the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

from alue_bench.contract.errors import DoesNotFit, UsageError
from alue_bench.contract.model import Model
from alue_bench.contract.registry import Origin, Registry
from alue_bench.contract.spec import HyperParameters, ResolvedHyperParameters, resolve_hyper_parameters
from alue_bench.contract.strategy import Outline, Strategy
from alue_bench.contract.task import Task
from alue_bench.planning.grid import Grid
from alue_bench.planning.request import DEFAULT_STRATEGIES, PlanRequest

Strategies = Mapping[str, tuple[Strategy, Origin]]
"""Strategies by name, each with the plugin that declares it."""


@dataclass(frozen=True)
class Combination:
    """A strategy, a seed and hyper-parameters, which together define one run of a task (or fold) and a model."""

    strategy: Strategy
    origin: Origin
    """The plugin that declares the strategy."""
    outline: Outline
    """The changes that the strategy makes to the model."""
    hyper: ResolvedHyperParameters
    seed: int


@dataclass(frozen=True)
class UnfitStrategy:
    """A strategy that cannot be applied to the model, with the reason.

    It is listed only once among the skipped runs, with the first requested seed.
    """

    strategy: str
    seed: int
    reason: str


def named_strategies(request: PlanRequest, registry: Registry) -> Strategies:
    """Return the strategies that the request names, or the default ones if it has neither strategies nor a grid.

    Raises:
        UsageError: A name is unknown.
    """
    return _strategies(request.strategies or (() if request.grid else DEFAULT_STRATEGIES), registry)


def strategies_for(request: PlanRequest, registry: Registry, layers: int) -> Strategies:
    """Return the strategies that the request names and the strategies of its grid.

    Args:
        request: The request.
        registry: The plugins' strategies.
        layers: The number of layers of the model, on which the strategies of the grid depend.
    """
    grid = request.grid or Grid()
    return {**named_strategies(request, registry), **_strategies(grid.strategy_names(layers), registry)}


def _strategies(names: Iterable[str], registry: Registry) -> Strategies:
    """Return the strategies with these names; two spellings of a name give one entry, under the canonical name."""
    strategies: dict[str, tuple[Strategy, Origin]] = {}
    for name in names:
        strategy, origin = registry.strategy(name)
        if (limit := strategy.compute_limit()) is not None and limit.like is not None:
            registry.strategy(limit.like)
        strategies.setdefault(strategy.name, (strategy, origin))
    return strategies


def check_hyper_parameters(request: PlanRequest) -> None:
    """Raise UsageError if a requested hyper-parameter is invalid for every task and model.

    This function is called before tasks and models are looked up. Otherwise the error would be reported for each task
    and model, as the reason to skip it.
    """
    for variant in (request.grid or Grid()).variants():
        resolve_hyper_parameters(_user_settings(request, variant))


def settings_of(request: PlanRequest, task: Task, model: Model, limit: int | None) -> list[ResolvedHyperParameters]:
    """Return the hyper-parameters of a task's runs with a model, one set for each combination of the grid's values.

    Args:
        request: The request.
        task: The task that the model is trained on.
        model: The model.
        limit: The largest number of tokens that the model accepts; None if it has no limit. A default `max_length`
            above the limit is lowered to it.

    Raises:
        UsageError: A value is invalid, or the `max_length` that the user requested exceeds the limit.
    """
    variants = (request.grid or Grid()).variants()
    return [_resolved(request, task, model, limit, variant) for variant in variants]


def _resolved(
    request: PlanRequest, task: Task, model: Model, limit: int | None, variant: Mapping[str, object]
) -> ResolvedHyperParameters:
    """Return the hyper-parameters for one combination of the grid's values (`variant`); see `settings_of`."""
    defaults = [(f"task {task.name}", task.defaults), (f"model {model.name}", model.defaults)]
    overrides = _user_settings(request, variant)
    resolved = resolve_hyper_parameters([*defaults, *overrides])
    if limit is not None and resolved.values.max_length > limit:
        asked_by = resolved.origins["max_length"]
        if asked_by in dict(overrides):
            raise UsageError(
                f"{asked_by}: max_length is {resolved.values.max_length}, but model {model.name!r} takes at most "
                f"{limit} tokens"
            )
        origins = {**resolved.origins, "max_length": f"the model's limit of {limit} tokens"}
        return ResolvedHyperParameters(replace(resolved.values, max_length=limit), origins)
    return resolved


def with_strategy_settings(
    combination: Combination, request: PlanRequest, strategy_settings: Mapping[str, object], limit: int | None
) -> Combination:
    """Return the combination with the hyper-parameters that the user set for its strategy alone.

    Options of the command line and of the grid override them.

    Args:
        combination: The combination, with the hyper-parameters that apply to all strategies.
        request: The request.
        strategy_settings: The hyper-parameters that the user set for the strategy alone, by name.
        limit: The largest number of tokens that the model accepts; None if it has no limit.

    Raises:
        UsageError: `max_length` exceeds the limit.
    """
    hyper = combination.hyper
    above = {"grid", *(origin for origin, _ in request.overrides[-1:])}
    used = {name: value for name, value in strategy_settings.items() if hyper.origins[name] not in above}
    origin = f"strategy {combination.strategy.name}"
    resolved = resolve_hyper_parameters([("", asdict(hyper.values)), (origin, used)])
    if limit is not None and resolved.values.max_length > limit:
        raise UsageError(
            f"{origin}: max_length is {resolved.values.max_length}, but the model takes at most {limit} tokens"
        )
    origins = {name: origin if name in used else hyper.origins[name] for name in hyper.origins}
    return replace(combination, hyper=ResolvedHyperParameters(resolved.values, origins))


def without_unused_settings(combination: Combination) -> Combination:
    """Return the combination with the default of `probe_rows`, unless its strategy chooses its layers by a probe.

    The hyper-parameter `probe_rows` is the number of train examples in the probe. Without a probe, it does not affect
    the run, and must not affect the run's fingerprint.
    """
    if combination.strategy.chooses:
        return combination
    hyper, default = combination.hyper, HyperParameters().probe_rows
    if hyper.values.probe_rows == default:
        return combination
    origins = {**hyper.origins, "probe_rows": "default"}
    return replace(combination, hyper=ResolvedHyperParameters(replace(hyper.values, probe_rows=default), origins))


def _user_settings(request: PlanRequest, variant: Mapping[str, object]) -> list[tuple[str, Mapping[str, object]]]:
    """Return the hyper-parameters that the user set, as pairs of origin and values; a later pair takes precedence."""
    return [*request.overrides, *([("grid", variant)] if variant else [])]


def combinations(
    strategies: Strategies,
    settings: Sequence[ResolvedHyperParameters],
    seeds: Sequence[int],
    outline: Callable[[Strategy, Origin], Outline],
    *,
    first: int = 0,
) -> tuple[list[Combination], list[UnfitStrategy]]:
    """Combine all hyper-parameters, seeds and strategies for one task and one model; the strategy varies fastest.

    The order of the strategies alternates: it is reversed for the second seed, the fourth and so on. A machine that
    becomes slower or faster during the plan then favours no strategy. Moreover, the last strategy of one seed is the
    first of the next seed, so that the cached outputs of its frozen layers are used twice in a row.

    Args:
        strategies: The strategies by name.
        settings: The sets of hyper-parameters, one for each combination of the grid's values.
        seeds: The seeds.
        outline: A function that returns the changes that a strategy makes to the model, or raises DoesNotFit.
        first: The number of pairs of hyper-parameters and seed that earlier calls have combined, for other folds of the
            same task. If it is odd, this call begins with the reversed order.

    Returns:
        The combinations, and the strategies that cannot be applied to the model, each once.
    """
    fitting: list[Combination] = []
    unfit: dict[str, UnfitStrategy] = {}
    for index, (hyper, seed) in enumerate(product(settings, seeds), start=first):
        given = list(strategies.values())
        for strategy, origin in reversed(given) if index % 2 else given:
            try:
                outlined = outline(strategy, origin)
            except DoesNotFit as error:
                unfit.setdefault(strategy.name, UnfitStrategy(strategy.name, seed, str(error)))
                continue
            fitting.append(Combination(strategy, origin, outlined, hyper, seed))
    return fitting, list(unfit.values())
