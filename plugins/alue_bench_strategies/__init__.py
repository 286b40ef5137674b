"""The built-in strategies, one module a family."""

from collections.abc import Iterable

from alue_bench import StrategyFamily, hookimpl
from alue_bench_strategies import partial_training, static_freezing


@hookimpl
def alue_bench_strategies() -> Iterable[StrategyFamily]:
    return (*static_freezing.FAMILIES, *partial_training.FAMILIES)
