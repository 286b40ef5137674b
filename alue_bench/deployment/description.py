"""The file `alue_bench.json` of a saved model: the data that predictions need in addition to weights and tokenizer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.data.batches import Padding

FILE = "alue_bench.json"
FORMAT = 1
"""The version of the format of `alue_bench.json`. Increase it when older versions of alue-bench could not read the
new format."""
BASE, ADAPTER = "base", "adapter"
"""The subfolders of a saved model's folder for the base model and for the adapter. They exist only if the adapter could
not be merged into the base model, or if the merged model did not reproduce the run's predictions."""


@dataclass(frozen=True, kw_only=True)
class KeptNormalisation:
    """A description of a saved model's text normalisation. Its code is in a plugin, not in the model's folder."""

    model: str
    """The name of the pre-trained model; the plugin that declares this model also declares its normalisation."""
    description: str
    requires: tuple[str, ...] = ()
    """The Python packages that must be importable for the normalisation."""
    providers: Mapping[str, str] = field(default_factory=dict)
    """The versions of the packages (alue-bench or plugins) that declare the task, the pre-trained model and the
    strategy with which the saved model was trained, by package name."""
    probe: str = ""
    """A digest of the normalised example texts `normalisation.PROBE`. It usually changes if the code of the
    normalisation changes."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `alue_bench.json`, which describes a saved model."""

    task: str
    title: str
    """The title of the model's task."""
    languages: tuple[str, ...]
    labels: Labels
    primary: str
    """The name of the task's primary metric, by which the best epoch was selected on the dev split."""
    is_pair: bool
    """True if the model reads pairs of texts."""
    max_length: int
    """The largest number of tokens of an input. Longer texts are truncated; a model that tags words or extracts spans
    reads them in several windows instead."""
    padding: Padding
    device: str
    """The device on which the model was trained."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    """The number format in which the model was trained. The weights are stored in fp32 in every case."""
    normalisation: KeptNormalisation | None = None
    """The text normalisation before tokenization; None if there is none."""
    adapter: Mapping[str, Any] | None = None
    """The adapter that is stored in a separate file; None if there is none, or if it was merged into the weights."""
    run_id: str = ""
    fingerprint: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The specification of the run that trained the model, as in the file config.json among the run's MLflow artifacts.
    For a selector, it has the layers that were chosen at the start of the run."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """The dev and test metrics of the run that trained the model, by name."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of alue-bench, plugins and libraries that trained the model."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the outputs: the labels; ("value",) for a regression; ("start", "end") for span extraction."""
        return self.labels.names or ("value",)


def write_description(folder: Path, description: Description) -> None:
    """Write a saved model's description into its folder, as `alue_bench.json`."""
    content: dict[str, Any] = {"format": FORMAT, **asdict(description)}
    content["labels"] = {name: _or_none(value) for name, value in content["labels"].items()}
    content["scores"] = {name: _or_none(value) for name, value in description.scores.items()}
    text = json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8", errors="backslashreplace")


def _or_none(value: Any) -> Any:
    """Return None for a nan or infinite number, which JSON cannot express; return any other value unchanged."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_description(folder: Path) -> Description:
    """Read a saved model's description from its folder.

    Raises:
        UsageError: The folder holds no model that alue-bench saved.
        UnavailableError: The file is damaged, or was written by a later version of alue-bench.
    """
    path = folder / FILE
    if not path.is_file():
        what = "is not a folder" if not folder.is_dir() else f"has no {FILE}"
        raise UsageError(
            f"{folder} {what}, so that it is no model that alue-bench kept; write one with: alue-bench keep RUN_ID DIR"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (version := content.pop("format")) > FORMAT:
            raise UnavailableError(
                f"{path} is of format {version}, and this alue-bench reads up to {FORMAT}; update it"
            )
        labels = content.pop("labels")
        labels["kind"], labels["names"] = TargetKind(labels["kind"]), tuple(labels["names"])
        labels = {name: value for name, value in labels.items() if value is not None}
        normalisation = content.pop("normalisation")
        if normalisation is not None:
            normalisation = KeptNormalisation(**{**normalisation, "requires": tuple(normalisation["requires"])})
        content["languages"] = tuple(content["languages"])
        content["scores"] = {name: math.nan if v is None else v for name, v in content["scores"].items()}
        padding = Padding(**content.pop("padding"))
        return Description(**content, labels=Labels(**labels), padding=padding, normalisation=normalisation)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnavailableError(f"{path} cannot be read ({error}); copy the whole folder again") from error
