"""The models that the benchmark compares, with their names in reports, and a plugin registry that contains them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from alue_bench.contract.errors import UsageError
from alue_bench.contract.model import Model
from alue_bench.contract.registry import Declared, Origin, Registry
from alue_bench.contract.task import NAME
from alue_bench.contract.version import __version__

BUNDLED = "mini"
ORIGIN = Origin("alue-bench", __version__, "benchmarks", "benchmarks.quality")


def chosen_models(options: Sequence[str], registry: Registry) -> list[Model]:
    """Return the models that the options `--model NAME=MODEL` name, in the order of the options.

    All models that no plugin declares, such as models in folders, get the same hyper-parameters: those of the first
    model if a plugin declares it, otherwise those of the bundled model.

    Raises:
        UsageError: A name is invalid or given twice.
    """
    chosen = [_named_model(option, registry) for option in options]
    names = [model.name for model, _ in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--model: {twice!r} is given twice; tell the two apart with NAME=MODEL")
    first, first_is_declared = chosen[0]
    recipe = first.defaults if first_is_declared else registry.model(BUNDLED).defaults
    return [model if declared else replace(model, defaults=recipe) for model, declared in chosen]


def _named_model(option: str, registry: Registry) -> tuple[Model, bool]:
    """Return the model that an option `NAME=MODEL` names, and whether the model comes from a plugin."""
    from alue_bench.planning.available import resolve_model

    name, equals, value = option.partition("=")
    if not equals:
        return resolve_model(option, registry), option in registry.models
    if not NAME.fullmatch(name):
        raise UsageError(f"--model {option}: {name!r} is not a name (small letters, digits, dots and dashes)")
    return replace(resolve_model(value, registry), name=name), value in registry.models


def with_models(registry: Registry, models: Iterable[Model]) -> Registry:
    """Return a copy of a plugin registry with additional models, so that a plan can name them."""
    known = [declared.value for declared in registry.models.values()]
    added = {model.name: Declared(model, ORIGIN) for model in models if model not in known}
    return replace(registry, models={**registry.models, **added})
