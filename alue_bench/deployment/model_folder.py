"""The folder of a kept model (the saved model of a run), which transformers, MLflow and alue-bench all load.

    config.json, model.safetensors          as save_pretrained writes them, with label names and `problem_type`
    tokenizer.json, tokenizer_config.json   the tokenizer, with the run's maximum length and padding side
    alue_bench.json                         further data for alue-bench: see `description`
    MLmodel, requirements.txt, …            MLflow's description, with signature and input example: see `pyfunc`
    README.md                               the model card: see `model_card`

The weights are fp32, because training keeps fp32 weights in every number format. An adapter is merged into the weights.
If it cannot be merged, or the merged model does not reproduce the run's predictions, `base/` has the model without the
adapter and `adapter/` the adapter. transformers then refuses to load the folder, so that nobody uses the model without
its adapter by mistake.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import RunResult, RunSpec
from alue_bench.contract.task import TargetKind
from alue_bench.contract.transfer import transferred_logits
from alue_bench.deployment.adapters import merge_adapter, without_adapter, write_adapter
from alue_bench.deployment.description import ADAPTER, BASE, Description, write_description
from alue_bench.deployment.kept_model import KeptModel
from alue_bench.deployment.model_card import write_model_card
from alue_bench.deployment.normalisation import kept_normalisation
from alue_bench.deployment.pyfunc import write_mlflow_model
from alue_bench.evaluation.predictions import probabilities
from alue_bench.evaluation.spans import score_of_answer
from alue_bench.messages.redaction import redacted
from alue_bench.running.fine_tuning import Trained
from alue_bench.running.inputs import RunInputs
from alue_bench.training.pretrained.library import quiet_transformers

PROBLEM_TYPES: Mapping[TargetKind, str] = {
    TargetKind.BINARY: "single_label_classification",
    TargetKind.MULTICLASS: "single_label_classification",
    TargetKind.MULTILABEL: "multi_label_classification",
    TargetKind.REGRESSION: "regression",
}
"""The `problem_type` in config.json, by which a transformers pipeline chooses sigmoid, softmax or neither."""
CHECKED_ROWS = 64
"""The number of test rows for which the reloaded model's predictions are compared with those of the run."""
TOLERANCE = {"fp32": 1e-5, "tf32": 1e-2, "bf16": 3e-2, "fp16": 1e-2}
"""The largest accepted difference between a score of the reloaded model and the same score of the run, by number
format; relative to the largest score if that exceeds 1. Scores can differ because rounding depends on batch shapes."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run with its trained model, before the model is written to a folder."""

    run_id: str
    spec: RunSpec
    inputs: RunInputs
    trained: Trained
    result: RunResult


def write_model_folder(folder: Path, run: FinishedRun) -> Description:
    """Write the folder of a kept model, load it again, and check that it reproduces the run's predictions.

    The model in memory is not changed, because a later run may use it.

    Args:
        folder: The folder to write. It must be empty or not exist yet.
        run: The run, with its trained model.

    Returns:
        The model's description.

    Raises:
        TrainingError: The loaded model does not reproduce the run's predictions.
    """
    model, adapter = run.trained.stack.model, run.spec.adapter
    description = describe(run)
    folder.mkdir(parents=True, exist_ok=True)
    if adapter is None:
        _write(folder, model, description, run)
        _check(folder, run)
        return description
    try:
        _write(folder, merge_adapter(model), description, run)
        _check(folder, run)
    except (TrainingError, NotImplementedError, ValueError):  # peft raises the latter two
        _clear(folder)
        description = replace(description, adapter=asdict(adapter))
        _write(folder, model, description, run)
        _check(folder, run)
    return description


def describe(run: FinishedRun) -> Description:
    """Return the description of a run's trained model, on the assumption that an adapter will be merged."""
    spec, inputs, trained = run.spec, run.inputs, run.trained
    task, model = inputs.train_task, inputs.model
    scores = {name: value for name, value in run.result.metrics.items() if name.startswith(("test/", "selection/"))}
    content = spec.as_dict()
    if trained.probed is not None:
        content["freeze_plan"] = trained.probed.choice.plan.as_dict()
    return Description(
        task=task.name,
        title=task.title,
        languages=task.languages,
        labels=task.labels,
        primary=task.primary,
        is_pair=inputs.train_rows.splits["train"].examples[0].text_pair is not None,
        max_length=spec.hyper.max_length,
        padding=inputs.capabilities.padding,
        device=trained.device.name,
        precision=trained.device.precision,
        normalisation=kept_normalisation(model, dict(spec.providers)),
        run_id=run.run_id,
        fingerprint=spec.fingerprint,
        spec=redacted(content),
        scores=scores,
        versions=_versions(spec),
    )


def _versions(spec: RunSpec) -> dict[str, str]:
    from importlib.metadata import version

    from alue_bench.contract.version import __version__

    libraries = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    return {"alue-bench": __version__, **spec.providers, **libraries}


def _write(folder: Path, model: Any, description: Description, run: FinishedRun) -> None:
    place = folder
    if description.adapter is not None:
        assert run.spec.adapter is not None
        place = folder / BASE
        place.mkdir()
        write_adapter(model, run.spec.adapter, folder / ADAPTER)
        model = without_adapter(model)
    with quiet_transformers():
        model.save_pretrained(place)
        for weights in place.glob("*.safetensors"):  # safetensors makes its files readable for their owner only
            weights.chmod((place / "config.json").stat().st_mode)
        run.trained.tokenizer.save_pretrained(folder)
    _complete_config(place, description)
    _complete_tokenizer(folder, description)
    write_description(folder, description)
    write_model_card(folder, description, run.inputs)
    write_mlflow_model(folder, description)


def _complete_config(folder: Path, description: Description) -> None:
    """Add label names and `problem_type` to a saved model's config.json, for transformers' pipelines.

    The path of the pre-trained model on this machine is removed from the file.
    """

    def complete(config: dict[str, Any]) -> None:
        config.pop("_name_or_path", None)
        names = description.columns
        config |= {
            "id2label": {str(place): name for place, name in enumerate(names)},
            "label2id": {name: place for place, name in enumerate(names)},
        }
        if not description.labels.reads_tokens:  # transformers has no such type for tags and spans
            config["problem_type"] = PROBLEM_TYPES[description.labels.kind]

    _edit(folder / "config.json", complete)


def _complete_tokenizer(folder: Path, description: Description) -> None:
    """Write the run's maximum length and padding side into the configuration of a saved model's tokenizer."""

    def complete(config: dict[str, Any]) -> None:
        config |= {"model_max_length": description.max_length, "padding_side": description.padding.side}
        config.pop("name_or_path", None)

    _edit(folder / "tokenizer_config.json", complete)


def _edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _check(folder: Path, run: FinishedRun) -> None:
    """Check that the saved model in a folder reproduces the run's predictions for the first `CHECKED_ROWS` test rows.

    Architectures whose predictions depend on the other texts of a batch are not checked.

    Raises:
        TrainingError: A score differs by more than the tolerance.
    """
    import numpy as np

    inputs, device = run.inputs, run.trained.device
    if not inputs.capabilities.independent:
        return
    rows = inputs.rows.splits["test"].examples[:CHECKED_ROWS]
    kept = KeptModel(folder, device=device.name, precision=device.precision, normalise=inputs.model.normalise)
    if kept.description.labels.tags_words:
        difference = _difference_of_tags(kept, run)
        _refuse_above(TOLERANCE[device.precision], difference)
        return
    if kept.description.labels.extracts_spans:
        _refuse_above(TOLERANCE[device.precision], _difference_of_answers(kept, run))
        return
    texts, pairs = [row.text for row in rows], [row.text_pair or "" for row in rows]
    logits = kept.logits(texts, pairs if kept.description.is_pair else None)
    logits = transferred_logits(logits, inputs.task, inputs.train_task)
    scores = probabilities(logits, inputs.task.labels)
    wanted = np.asarray(run.result.predictions.scores[:CHECKED_ROWS])
    difference = float(np.abs(scores - wanted).max())
    _refuse_above(TOLERANCE[device.precision] * max(1.0, float(np.abs(wanted).max())), difference)


def _difference_of_tags(kept: KeptModel, run: FinishedRun) -> float:
    """Compare the tags that the saved model and the run predict for the words of the first `CHECKED_ROWS` test rows.

    For each word, the run's tag has a probability according to the saved model, and so has the saved model's own tag.
    Return the largest difference between these two probabilities. It is 0 if all tags agree, and small if they differ
    only where both tags are almost equally probable.
    """
    import numpy as np

    labels, rows = kept.description.labels, run.inputs.rows.splits["test"].examples[:CHECKED_ROWS]
    scores = probabilities(kept.logits_of(kept.tokenized_words([row.words or () for row in rows])), labels)
    tags = [
        labels.names.index(tag)
        for row in run.result.predictions.predicted[:CHECKED_ROWS]
        for tag in str(row).split(" ")
    ]
    return float((scores.max(axis=1) - scores[np.arange(len(tags)), tags]).max())


def _difference_of_answers(kept: KeptModel, run: FinishedRun) -> float:
    """Compare the answers that the saved model and the run give to the questions of the first `CHECKED_ROWS` test rows.

    For each question, the run's answer has a score according to the saved model, and so has the saved model's own
    answer. Return the largest relative difference between these two scores. It is 0 if all answers agree, and small if
    they differ only where both answers have almost the same score.
    """
    rows = run.inputs.rows.splits["test"].examples[:CHECKED_ROWS]
    texts = kept.tokenized([row.text for row in rows], [row.text_pair or "" for row in rows])
    logits, places = kept.logits_of(texts), texts.split.spans
    assert places is not None
    worst = 0.0
    for question, (own, recorded) in enumerate(
        zip(
            kept.predictions_of_logits(logits, texts.split),
            run.result.predictions.predicted[:CHECKED_ROWS],
            strict=True,
        )
    ):
        if own != recorded:
            best, other = (score_of_answer(logits, places, question, text) for text in (own, recorded))
            worst = max(worst, (best - other) / max(1.0, abs(best)))
    return worst


def _refuse_above(tolerance: float, difference: float) -> None:
    """Raise TrainingError if the difference between scores of the saved model and of the run exceeds the tolerance."""
    if not difference <= tolerance:
        raise TrainingError(
            f"the saved model does not give the run's predictions: a score differs by {difference:.2g}; report this "
            "with the model's config.json"
        )


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
