"""The built-in models: the four that Betka et al. compare, three others (MARBERTv2, AraModernBERT, mmBERT), and `mini`.

`mini` is a small model whose weights are part of this package, so that it needs no download.
"""

from collections.abc import Iterable

from alue_bench import Model, hookimpl
from alue_bench_models import arabert, aramodernbert, camelbert, marbert, marbertv2, mini, mmbert, qarib


@hookimpl
def alue_bench_models() -> Iterable[Model]:
    """Return the built-in models."""
    return [module.MODEL for module in (mini, arabert, camelbert, qarib, marbert, marbertv2, aramodernbert, mmbert)]
