"""The declaration of a model: a pre-trained checkpoint and the text normalisation that it expects.

A model plugin returns `Model` values from the hook `alue_bench_models`. A model can be any encoder that
`AutoModelForSequenceClassification` of the transformers library loads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alue_bench.contract.naming import is_model_name
from alue_bench.contract.task import NAME
from alue_bench.contract.validation import (
    Kind,
    check_callable,
    check_languages,
    check_mapping,
    check_stated,
    check_texts,
    check_types,
)

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
"""The form of a hub id, "owner/name"; the ids of some old checkpoints have no owner."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A pre-trained checkpoint (a local folder, or a hub id and a revision) and the text normalisation it expects.

    Creating a model raises TypeError or ValueError, naming the field, if a field has a wrong type or value.
    """

    name: str
    """The name for the option `--model`: lower-case letters, digits, ".", "_" and "-", with a letter or digit first.
    The conformance check `alue_bench.testing.check_model` accepts ASCII letters only."""
    title: str
    """The name that lists and reports show to readers."""
    checkpoint: Path | str
    """The folder of the checkpoint (as a Path) or its hub id (as a string), such as "UBC-NLP/MARBERT"."""
    revision: str | None = None
    """The branch, tag or commit of the checkpoint on the hub; None for the newest commit. Each run records the commit
    that it used."""
    languages: tuple[str, ...] = ()
    """The languages that the model is made for, as BCP 47 codes such as "ar"."""
    licence: str = ""
    """The licence under which the checkpoint is published."""
    citation: str = ""
    """A reference to the publication that introduced the model."""
    normalise: Callable[[str], str] | None = None
    """The function that is applied to each text before tokenization, as the model's authors prescribe; None for no
    normalisation. The function should import the packages that it needs in its body, so that alue-bench, which imports
    all plugins, starts fast."""
    normalisation: str = "none beyond the tokenizer's own"
    """A sentence on what `normalise` does and who prescribes it; it is recorded with each run."""
    architecture: Mapping[str, object] = field(default_factory=dict)
    """The `model_type` and the fields of the published config.json that determine the computing cost of a layer. From
    them, the cost of runs is estimated before the checkpoint is downloaded. Training never uses this field."""
    requires: tuple[str, ...] = ()
    """The top-level Python modules that `normalise` imports, such as "pyarabic". If one is not installed, the model is
    unavailable, and messages name the missing module."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """The hyper-parameters with which this model should be trained, by their names in `HyperParameters`. They take
    precedence over the general defaults and the task's defaults."""

    def __post_init__(self) -> None:
        """Check the type and form of each field."""
        check_types("model", vars(self), {"name": str})
        if not NAME.fullmatch(self.name) and not is_model_name(self.name):
            raise ValueError(f"model name {self.name!r} must match {NAME.pattern}")
        owner = f"model {self.name!r}"
        kinds: dict[str, Kind] = {
            "title": str, "checkpoint": (Path, str), "revision": (str, type(None)), "licence": str, "citation": str,
            "normalisation": str,
        }  # fmt: skip
        check_types(owner, vars(self), kinds)
        check_stated(owner, vars(self), ("title", "checkpoint"))
        for name in ("defaults", "architecture"):
            check_mapping(owner, vars(self), name, object)
        check_texts(owner, vars(self), ("languages", "requires"))
        check_languages(owner, self.languages)
        if self.normalise is not None:
            check_callable(owner, "normalise", self.normalise)
        if self.revision is not None and (not self.revision.strip() or isinstance(self.checkpoint, Path)):
            raise ValueError(f"{owner}: revision {self.revision!r} names no revision of a hub checkpoint; leave it out")
        if isinstance(self.checkpoint, str) and not _HUB_ID.fullmatch(self.checkpoint):
            raise ValueError(
                f"{owner}: checkpoint {self.checkpoint!r} is not a hub id like 'owner/name'; give a folder as a Path"
            )
        if wrong := next((package for package in self.requires if not package.isidentifier()), None):
            raise ValueError(
                f"{owner}: {wrong!r} in requires cannot be imported; name the top-level module as in an import, such "
                "as 'pyarabic'"
            )
