"""The built-in strategies. Each module defines one family of strategies, or several related families.

A family is a set of strategies whose names have a common form, such as `bottom<N>top<M>`.
"""

from collections.abc import Iterable

from alue_bench import StrategyFamily, hookimpl
from alue_bench_strategies import (
    adapters,
    autofreeze,
    bias_training,
    fisher_information,
    grades,
    gradual_unfreezing,
    greedy_selection,
    layer_dropping,
    layer_sets,
    layer_similarity,
    lisa,
    matched_compute,
    module_training,
    norm_training,
    partial_training,
    random_layers,
    relative_gradient,
    static_freezing,
    weight_spectrum,
)

MODULES = (
    static_freezing,
    matched_compute,
    layer_sets,
    partial_training,
    gradual_unfreezing,
    autofreeze,
    fisher_information,
    relative_gradient,
    layer_similarity,
    weight_spectrum,
    greedy_selection,
    random_layers,
    lisa,
    grades,
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
