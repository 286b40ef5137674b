"""The built-in models: the four models that Betka et al. compare, three more recent ones, and a small one.

The small model comes with the package and needs no download.
"""

from collections.abc import Iterable

from alue_bench import Model, hookimpl
from alue_bench_models import arabert, aramodernbert, camelbert, marbert, marbertv2, mini, mmbert, qarib


@hookimpl
def alue_bench_models() -> Iterable[Model]:
    """Return the built-in models."""
    return [module.MODEL for module in (mini, arabert, camelbert, qarib, marbert, marbertv2, aramodernbert, mmbert)]
