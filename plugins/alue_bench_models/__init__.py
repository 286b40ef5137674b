"""The built-in models: the four models that Betka et al. compare, and a small model that needs no download."""

from collections.abc import Iterable

from alue_bench import Model, hookimpl
from alue_bench_models import arabert, camelbert, marbert, mini, qarib


@hookimpl
def alue_bench_models() -> Iterable[Model]:
    """Return the built-in models."""
    return [module.MODEL for module in (mini, arabert, camelbert, qarib, marbert)]
