"""The built-in strategies; each module holds one family of strategies or several related families."""

from collections.abc import Iterable

from alue_bench import StrategyFamily, hookimpl
from alue_bench_strategies import (
    adapters,
    autofreeze,
    bias_training,
    grades,
    gradual_unfreezing,
    layer_dropping,
    layer_sets,
    lisa,
    matched_compute,
    module_training,
    norm_training,
    partial_training,
    selectors,
    static_freezing,
)

MODULES = (
    static_freezing,
    matched_compute,
    layer_sets,
    partial_training,
    gradual_unfreezing,
    autofreeze,
    lisa,
    grades,
    selectors,
    layer_dropping,
    module_training,
    bias_training,
    norm_training,
    adapters,
)


@hookimpl
def alue_bench_strategies() -> Iterable[StrategyFamily]:
    """Return the built-in families of strategies."""
    return [family for module in MODULES for family in module.FAMILIES]
