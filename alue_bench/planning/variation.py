"""The hyper-parameters that differ within a list of runs, and the order in which runs are listed for people.

Runs of one task and model usually differ only in strategy and seed. A grid over learning rates, for example, varies a
hyper-parameter too. Scores are then averaged over the seeds for each value separately, never over the values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from alue_bench.contract.cells import cell_of
from alue_bench.contract.spec import HyperParameters, RunSpec

Settings = tuple[tuple[str, object], ...]
"""Pairs of a hyper-parameter's name and its value, one for each hyper-parameter that differs between runs."""


def varied_names(runs: Iterable[tuple[str, str, HyperParameters]]) -> tuple[str, ...]:
    """Return the names of the hyper-parameters that differ between runs of the same task and model.

    Args:
        runs: The name of the task, the name of the model and the hyper-parameters of each run.
    """
    values: defaultdict[tuple[str, str], list[HyperParameters]] = defaultdict(list)
    for task, model, hyper in runs:
        values[task, model].append(hyper)
    return tuple(
        one.name
        for one in fields(HyperParameters)
        if any(len({getattr(hyper, one.name) for hyper in group}) > 1 for group in values.values())
    )


def varied_names_of_specs(specs: Iterable[RunSpec]) -> tuple[str, ...]:
    """Return the names of the hyper-parameters that differ between these runs; see `varied_names`."""
    return varied_names((spec.task, spec.model, spec.hyper) for spec in specs)


def settings_of(hyper: HyperParameters, names: Sequence[str]) -> Settings:
    """Return the pairs (name, value) of the hyper-parameters of a run that have these names."""
    return tuple((name, getattr(hyper, name)) for name in names)


def describe(settings: Settings, *, between: str = ", ") -> str:
    """Return hyper-parameters as text, such as "lr 2e-05, epochs 3"; an empty string if there are none."""
    return between.join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings
    )


def labelled(spec: RunSpec, names: Sequence[str]) -> str:
    """Return a readable name of a run that includes its values of the named hyper-parameters."""
    return ", ".join(filter(None, (spec.label, describe(settings_of(spec.hyper, names)))))


def reading_order(specs: Sequence[RunSpec]) -> Mapping[str, int]:
    """Return the position of each run in lists for people, by the run's fingerprint (`RunSpec.fingerprint`).

    Runs are sorted by task, model, strategy, hyper-parameters that differ, seed and fold. Strategies that freeze a
    number of bottom and top layers come first, sorted by these numbers; all other strategies follow, sorted by name.
    """
    names = varied_names_of_specs(specs)

    def key(spec: RunSpec) -> tuple[object, ...]:
        cell = cell_of(spec.strategy)
        values = tuple(value for _, value in settings_of(spec.hyper, names))
        fold = (spec.fold.repeat, spec.fold.number) if spec.fold else (0, 0)
        return spec.task, spec.model, cell is None, cell or (0, 0), spec.strategy, values, spec.seed, fold

    return {spec.fingerprint: position for position, spec in enumerate(sorted(specs, key=key))}
