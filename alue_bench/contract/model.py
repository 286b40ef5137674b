"""What a model is: a pre-trained checkpoint and the text normalisation it expects.

A model plugin returns `Model` values from the hook `alue_bench_models`. Any encoder that
`AutoModelForSequenceClassification` loads can be one.
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
"""An identifier on the hub; that of some old checkpoints has no owner."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A pre-trained checkpoint (local folder or hub id + revision) and the text normalisation it expects."""

    name: str
    title: str
    checkpoint: Path | str
    """A folder (as a Path) or a hub id (as a string), such as "UBC-NLP/MARBERT"."""
    revision: str | None = None
    """The hub revision; None takes the newest, and the run records which one that was."""
    languages: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""
    normalise: Callable[[str], str] | None = None
    """Applied to each text before tokenisation, as the model's authors prescribe. Import what it needs inside it."""
    normalisation: str = "none beyond the tokeniser's own"
    """What `normalise` does and who prescribes it, in a sentence; recorded with each run."""
    architecture: Mapping[str, object] = field(default_factory=dict)
    """The published `model_type` and those fields of config.json that decide the cost of a layer, so that a plan can be
    estimated before the checkpoint is downloaded; a run never reads it."""
    requires: tuple[str, ...] = ()
    """Importable packages that `normalise` needs; where one is missing the model is unavailable, with a reason."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Hyper-parameters this model prefers to the task's and the general defaults."""

    def __post_init__(self) -> None:
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
