"""The MLflow flavour of a saved model: `mlflow.pyfunc.load_model` and `mlflow models serve` load its folder.

The folder that alue-bench writes is itself an MLflow model. MLflow loads it by calling `_load_pyfunc` of this module,
so that the folder contains neither pickle files nor code. To load it, alue-bench and the plugin of the model's text
normalisation must be installed; requirements.txt states their versions.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.task import TargetKind
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.deployment.description import Description
from alue_bench.deployment.kept_model import KeptModel
from alue_bench.evaluation.label_cells import join_labels
from alue_bench.evaluation.predictions import probabilities

MODULE = "alue_bench.deployment.pyfunc"
TEXT, PAIR = "text", "pair"
"""The columns of MLflow's input data frame: first and second texts."""
PREDICTION, SCORE = "prediction", "score_"
"""The name of the column with predictions in MLflow's output, and the prefix of the names of its score columns."""
EXAMPLES = {
    "ar": ("الخدمة ممتازة والتوصيل سريع", "وصل الطلب في الموعد"),
    "en": ("The service was excellent and fast.", "The order arrived on time."),
}
"""Texts for MLflow's input example, by language: a text and a second text. They are invented, since the texts of a data
set may be under a licence that forbids redistribution."""


class KeptModelFunction:
    """The object that MLflow calls to get a kept model's predictions."""

    def __init__(self, model: KeptModel) -> None:
        """Store a loaded kept model, which makes the predictions."""
        self.model = model

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Return a data frame with the column `prediction`, and the column `score_LABEL` for each label.

        For a regression, and for a model that tags words or extracts spans, the only column is `prediction`. The tags
        of a sentence are joined by spaces.

        Args:
            model_input: A data frame with the column `text`, and `pair` for a model that reads pairs; or the texts, as
                a list, a series or an array.
            params: Ignored; MLflow requires this parameter.

        Raises:
            UsageError: The input lacks a column, or a text is not a string.
        """
        import pandas as pd

        texts, pairs = _texts(model_input, is_pair=self.model.description.is_pair)
        scores = not self.model.description.labels.reads_tokens
        parts = [
            pd.DataFrame(columns_of(self.model, self.model.logits_of(part), part.split, scores=scores))
            for part in self.model.chunks(texts, pairs)
        ]
        if not parts:
            return pd.DataFrame({name: [] for name in (PREDICTION, *_score_columns(self.model.description))})
        return pd.concat(parts, ignore_index=True)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> KeptModelFunction:
    """Load a kept model; `mlflow.pyfunc.load_model` calls this function.

    Args:
        path: The model's folder.
        model_config: Keyword arguments for `KeptModel`, such as `device` and `precision`; None for none.
    """
    return KeptModelFunction(KeptModel(Path(path), **(model_config or {})))


def _score_columns(description: Description) -> list[str]:
    """Return the names of the score columns in MLflow's output; an empty list for a model without scores."""
    labels = description.labels
    without = labels.kind is TargetKind.REGRESSION or labels.reads_tokens
    return [] if without else [f"{SCORE}{name}" for name in labels.names]


def columns_of(model: KeptModel, logits: Any, split: TokenizedSplit, *, scores: bool) -> dict[str, list[Any]]:
    """Return the columns `prediction` and `score_LABEL`, in the form in which a run's predictions are recorded.

    Args:
        model: The model.
        logits: The model's outputs for the texts, as `KeptModel.logits_of` returns them.
        split: The tokenized texts.
        scores: True to add the probability of each label. Regressions and models that tag words have no such columns;
            for a model that extracts spans, it must be False.
    """
    import numpy as np

    labels = model.description.labels
    decided = model.predictions_of_logits(logits, split)
    if labels.tags_words:
        return {PREDICTION: [" ".join(tags) for tags in decided]}
    several = labels.kind is TargetKind.MULTILABEL
    columns: dict[str, list[Any]] = {PREDICTION: [join_labels(names) for names in decided] if several else decided}
    if scores and labels.kind is not TargetKind.REGRESSION:
        # Eight decimals keep the precision of fp32; written out as doubles, the values would have about 17 digits.
        values = np.around(probabilities(logits, labels).astype("float64"), 8).T.tolist()
        columns |= {f"{SCORE}{name}": column for name, column in zip(labels.names, values, strict=True)}
    return columns


def _texts(given: Any, *, is_pair: bool) -> tuple[list[str], list[str] | None]:
    """Return the texts of an input that MLflow passes, and the second texts (None if the model reads single texts)."""
    import pandas as pd

    if isinstance(given, dict) or (isinstance(given, list) and given and isinstance(given[0], dict)):
        given = pd.DataFrame(given)
    if isinstance(given, pd.DataFrame):
        wanted = [TEXT, PAIR] if is_pair else [TEXT]
        if not is_pair and TEXT not in given.columns and len(given.columns) == 1:
            wanted = list(given.columns)
        missing = [name for name in wanted if name not in given.columns]
        if missing:
            raise UsageError(f"the input has no column {missing[0]!r}; it has {', '.join(map(str, given.columns))}")
        columns = [given[name].tolist() for name in wanted]
        return columns[0], columns[1] if is_pair else None
    if is_pair:
        raise UsageError(f"the model reads pairs; give a data frame with the columns {TEXT!r} and {PAIR!r}")
    return list(given.tolist() if hasattr(given, "tolist") else given), None


def write_mlflow_model(folder: Path, description: Description, **identity: Any) -> None:
    """Write MLflow's files into the folder of a model: MLmodel, requirements, signature and input example.

    Args:
        folder: The model's folder.
        description: The model's description.
        **identity: Further fields of `mlflow.models.Model`, such as `run_id` and `model_id`.
    """
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.models.utils import _save_example
    from mlflow.pyfunc import add_to_model
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.utils.environment import _PythonEnv

    text, pair = EXAMPLES["ar" if any(one.startswith("ar") for one in description.languages) else "en"]
    example = {TEXT: [text], **({PAIR: [pair]} if description.is_pair else {})}
    is_number = description.labels.kind is TargetKind.REGRESSION
    outputs = [ColSpec(DataType.double if is_number else DataType.string, PREDICTION)]
    outputs += [ColSpec(DataType.double, name) for name in _score_columns(description)]
    signature = ModelSignature(Schema([ColSpec(DataType.string, name) for name in example]), Schema(outputs))

    model = Model(signature=signature, metadata={"alue_bench.fingerprint": description.fingerprint}, **identity)
    _save_example(model, pd.DataFrame(example), str(folder))
    requirements = _requirements(description)
    (folder / "requirements.txt").write_text("".join(f"{one}\n" for one in requirements), encoding="utf-8")
    environment = _PythonEnv(
        python=".".join(map(str, sys.version_info[:3])),
        build_dependencies=["pip"],
        dependencies=["-r requirements.txt"],
    )
    environment.to_yaml(str(folder / "python_env.yaml"))
    add_to_model(model, loader_module=MODULE, python_env="python_env.yaml")
    model.save(str(folder / "MLmodel"))


def _requirements(description: Description) -> list[str]:
    """Return pip requirements for loading the model, with the versions that trained it."""
    from importlib.metadata import PackageNotFoundError, distributions, version

    # The provider of a task that was defined in Python is not an installed distribution.
    installed = {one.name for one in distributions()} | {"alue-bench"}
    pinned = {name: number for name, number in description.versions.items() if number and name in installed}
    pinned["mlflow"] = version("mlflow")
    for package in [*(description.normalisation.requires if description.normalisation else ()), *_peft(description)]:
        try:
            pinned[package] = version(package)
        except PackageNotFoundError:  # a module whose distribution has another name
            pinned.setdefault(package, "")
    return [f"{name}=={number.partition('+')[0]}" if number else name for name, number in pinned.items()]


def _peft(description: Description) -> tuple[str, ...]:
    return ("peft",) if description.adapter is not None else ()
