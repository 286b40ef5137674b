"""Which hyper-parameters a list of runs varies, and an order in which people find the runs again.

Runs of one task and model usually differ in strategy and seed alone. A grid over learning rates, say, varies a
hyper-parameter too; then each of its values is a setting of its own, and nothing is averaged over them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from alue_bench.contract.cells import cell_of
from alue_bench.contract.spec import HyperParameters, RunSpec

Settings = tuple[tuple[str, object], ...]
"""Values of hyper-parameters that vary, by name."""


def varied(runs: Iterable[tuple[str, str, HyperParameters]]) -> tuple[str, ...]:
    """Return the names of the hyper-parameters that have several values with one task and model.

    Args:
        runs: the task's name, the model's name and the hyper-parameters of each run.
    """
    values: defaultdict[tuple[str, str], list[HyperParameters]] = defaultdict(list)
    for task, model, hyper in runs:
        values[task, model].append(hyper)
    return tuple(
        one.name
        for one in fields(HyperParameters)
        if any(len({getattr(hyper, one.name) for hyper in group}) > 1 for group in values.values())
    )


def varied_by_specs(specs: Iterable[RunSpec]) -> tuple[str, ...]:
    """Return `varied` of runs to do."""
    return varied((spec.task, spec.model, spec.hyper) for spec in specs)


def settings_of(hyper: HyperParameters, names: Sequence[str]) -> Settings:
    """Return a run's values of the hyper-parameters that vary."""
    return tuple((name, getattr(hyper, name)) for name in names)


def describe(settings: Settings, *, between: str = ", ") -> str:
    """Return settings in words, such as "lr 2e-05, epochs 3"; empty where nothing varies."""
    return between.join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings
    )


def labelled(spec: RunSpec, names: Sequence[str]) -> str:
    """Return a run's name for people, with its values of the hyper-parameters that vary."""
    return ", ".join(filter(None, (spec.label, describe(settings_of(spec.hyper, names)))))


def reading_order(specs: Sequence[RunSpec]) -> Mapping[str, int]:
    """Return each run's place, by fingerprint: by task, model, strategy (the cells of a grid from the fewest frozen
    layers, then others by name), hyper-parameters that vary, and seed."""
    names = varied_by_specs(specs)

    def key(spec: RunSpec) -> tuple[object, ...]:
        cell = cell_of(spec.strategy)
        values = tuple(value for _, value in settings_of(spec.hyper, names))
        return spec.task, spec.model, cell is None, cell or (0, 0), spec.strategy, values, spec.seed

    return {spec.fingerprint: place for place, spec in enumerate(sorted(specs, key=key))}
