"""The text normalisation of a saved model: its code is in a plugin, and must not have changed since training."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from alue_bench.contract.errors import UnavailableError
from alue_bench.contract.model import Model
from alue_bench.contract.registry import Registry, load_registry
from alue_bench.contract.spec import digest_of
from alue_bench.deployment.description import KeptNormalisation
from alue_bench.messages.extras import command_for_module

PROBE = (
    "الكِتَابُ الجديدُ في المـــكتبة!! 😀 https://example.org/a?b=1 @someone someone@example.org #وسم_طويل",
    "رااااائع جدًا،،، ٢٠٢٦ 2026 ﷺ <br> هههههه ى ة أ إ آ",
    "An ordinary sentence, with Punctuation… and 3.5 numbers.",
)
"""Example texts that contain everything that normalisations of Arabic and of tweets usually change, such as diacritics
and URLs. If the code of a normalisation changes, its results for these texts usually change too."""


def kept_normalisation(model: Model, providers: dict[str, str]) -> KeptNormalisation | None:
    """Return a description of a model's text normalisation, to be stored with the model; None if there is none.

    Args:
        model: The pre-trained model.
        providers: The versions of the packages (alue-bench or plugins) that declare the task, the model and the
            strategy of the training, by package name.
    """
    if model.normalise is None:
        return None
    return KeptNormalisation(
        model=model.name,
        description=model.normalisation,
        requires=model.requires,
        providers=providers,
        probe=_probe_digest(model.normalise),
    )


def normalise_of(kept: KeptNormalisation | None, registry: Registry | None = None) -> Callable[[str], str] | None:
    """Return the function that normalises a text for a saved model; None if the model has no normalisation.

    Args:
        kept: The description of the normalisation that is stored with the model; None if there is none.
        registry: The declarations of the plugins; None loads those of the installed plugins.

    Raises:
        UnavailableError: The plugin or a package that it needs is not installed, or the normalisation has changed.
    """
    if kept is None:
        return None
    declared = (registry or load_registry()).models.get(kept.model)
    from_where = " or ".join(f"{name} {version}" for name, version in kept.providers.items())
    if declared is None or declared.value.normalise is None:
        raise UnavailableError(
            f"the model needs the text normalisation of {kept.model!r}, which no installed plugin declares; install "
            f"the plugin that the model was trained with ({from_where})"
        )
    for package in kept.requires:
        if importlib.util.find_spec(package) is None:
            raise UnavailableError(
                f"the model's text normalisation needs the package {package!r}; install it with: "
                f"{command_for_module(package)}"
            )
    if _probe_digest(declared.value.normalise) != kept.probe:
        raise UnavailableError(
            f"the text normalisation of {kept.model!r} has changed since the model was trained, so its predictions "
            f"would differ; install the versions used in training ({from_where}"
            f"{''.join(f', {package}' for package in kept.requires)})"
        )
    return declared.value.normalise


def _probe_digest(normalise: Callable[[str], str]) -> str:
    return digest_of([normalise(text) for text in PROBE])
