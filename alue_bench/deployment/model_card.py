"""The model card of a saved model: README.md in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alue_bench.contract.task import TargetKind
from alue_bench.deployment.description import ADAPTER, BASE, Description
from alue_bench.evaluation.spans import MAX_WORDS
from alue_bench.messages.display import markdown
from alue_bench.running.inputs import RunInputs

FILE = "README.md"
KINDS = {
    TargetKind.BINARY: "one of two labels",
    TargetKind.MULTICLASS: "one label",
    TargetKind.MULTILABEL: "any number of labels",
    TargetKind.REGRESSION: "a number",
    TargetKind.TOKENS: "one tag",
}
PIPELINES = {TargetKind.TOKENS: "token-classification", TargetKind.SPAN: "question-answering"}
"""The names of tasks on the Hugging Face hub, by kind of labels. For all other kinds, the task is
"text-classification"."""


def write_model_card(folder: Path, description: Description, inputs: RunInputs) -> None:
    """Write a saved model's card: use, data, training, scores, limits and versions.

    Args:
        folder: The model's folder.
        description: The model's description.
        inputs: The inputs of the run that trained the model: task, pre-trained model and data.
    """
    parts = [
        _front_matter(description, inputs),
        *_about(description, inputs),
        *_use(description),
        *_data(description, inputs),
        *_training(description, inputs),
        *_scores(description),
        *_limits(description, inputs),
        *_versions(description),
    ]
    (folder / FILE).write_text("\n".join(parts) + "\n", encoding="utf-8", errors="backslashreplace")


def _front_matter(description: Description, inputs: RunInputs) -> str:
    """Return the model card's YAML header, which model hubs read."""
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": PIPELINES.get(description.labels.kind, "text-classification"),
        "language": sorted({one.partition("-")[0] for one in description.languages}),
        "tags": ["alue-bench"],
    }
    if isinstance(inputs.model.checkpoint, str):
        fields["base_model"] = inputs.model.checkpoint
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _about(description: Description, inputs: RunInputs) -> Iterator[str]:
    yield f"# {markdown(description.title)}: {markdown(inputs.model.title)}"
    yield ""
    what = "a pair of texts" if description.is_pair else "a text"
    if description.labels.tags_words:
        what = "each word of a sentence"
    names = f": {', '.join(markdown(name) for name in description.labels.names)}" if description.labels.names else ""
    if description.labels.extracts_spans:
        yield "Answers a question (the second text) by a part of a text (the first text)."
    else:
        yield f"Predicts {KINDS[description.labels.kind]} for {what}{names}."
    if description.spec.get("data", {}).get("source") == "sample":
        yield ""
        yield (
            "**Trained on the embedded sample data**, which were written for demonstration: the model is of no use for "
            "the real task."
        )


def _use(description: Description) -> Iterator[str]:
    column = "--pair COLUMN " if description.is_pair else ""
    pairs = ', ["A second text."]' if description.is_pair else ""
    frame = '{"text": ["A text."], "pair": ["A second text."]}' if description.is_pair else '{"text": ["A text."]}'
    one = '{"text": "A text.", "text_pair": "A second text."}' if description.is_pair else '"A text."'
    yield "\n## Use\n"
    yield "`DIR` is this folder.\n"
    yield "```sh"
    scores = "" if description.labels.reads_tokens else " --scores"
    yield f"alue-bench predict DIR new.csv --text COLUMN {column}-o out.csv{scores}"
    yield "mlflow models serve -m DIR --env-manager local"
    yield "```\n"
    yield "```python"
    yield "from alue_bench import load"
    yield f'load("DIR").predict(["A text."]{pairs})\n'
    yield "import mlflow, pandas as pd"
    yield f'mlflow.pyfunc.load_model("DIR").predict(pd.DataFrame({frame}))'
    if description.adapter is None and not description.labels.reads_tokens:  # a pipeline splits texts differently
        yield ""
        yield "from transformers import pipeline"
        yield f'pipeline("text-classification", model="DIR", truncation=True, top_k=None)({one})'
    yield "```"
    if description.normalisation is not None:
        yield ""
        yield (
            "**Text normalisation.** Texts were normalised before tokenization: "
            f"{markdown(description.normalisation.description)}. alue-bench and MLflow's pyfunc apply it. A pipeline "
            "of transformers does not: pass it normalised texts, or its predictions differ."
        )
    if description.adapter is not None:
        yield ""
        yield (
            f"**Adapter.** The adapter ({markdown(str(description.adapter['kind']))}) could not be merged exactly. "
            f"`{BASE}/` is the model without it and `{ADAPTER}/` the adapter. alue-bench and MLflow's pyfunc join "
            f"them; with transformers alone, load `{BASE}/` and put `{ADAPTER}/` on it with peft."
        )


def _data(description: Description, inputs: RunInputs) -> Iterator[str]:
    task, rows = inputs.train_task, inputs.train_rows.splits
    test = inputs.rows.splits["test"]
    yield "\n## Data\n"
    counts = f"{len(rows['train'].examples)} train, {len(rows['dev'].examples)} dev, {len(test.examples)} test rows"
    yield f"- {markdown(task.title)} ({markdown(task.name)}): {counts}"
    yield f"- Source: {markdown(task.source)}"
    yield f"- Licence: {markdown(task.licence)}"
    yield f"- Protocol: {markdown(inputs.train_rows.protocol or task.splits.protocol)}"
    if (fold := inputs.train_rows.fold) is not None:
        again = f", repeat {fold.repeat}" if fold.repeat > 1 else ""
        yield f"- Fold: {fold.number} of {fold.folds}{again}. The rows of this fold took no part in the training"
    yield f"- Reference: {markdown(task.citation)}"


def _training(description: Description, inputs: RunInputs) -> Iterator[str]:
    spec = description.spec
    hyper = ", ".join(f"{name} {value}" for name, value in spec["hyper"].items())
    yield "\n## Training\n"
    licence = markdown(inputs.model.licence or "not stated")
    yield f"- Pre-trained model: {markdown(inputs.model.title)}; licence: {licence}"
    yield f"- Strategy: {markdown(str(spec['strategy']))} ({markdown(_outline(description))})"
    yield f"- Hyper-parameters: {markdown(hyper)}"
    yield f"- Seeds: head {spec['init_seed']}, data order and dropout {spec['data_seed']}"
    yield f"- Number format: {description.precision} on {description.device}; the weights here are fp32"
    yield f"- Longest input: {description.max_length} tokens"
    yield f"- Run: {description.run_id or 'not recorded'}, fingerprint {description.fingerprint}"


def _outline(description: Description) -> str:
    plan, kept = description.spec["freeze_plan"], description.spec.get("kept_layers")
    frozen = ", ".join(map(str, plan["frozen_layers"])) or "none"
    outline = f"{plan['layers']} layers, frozen: {frozen}; embeddings {'frozen' if plan['embeddings'] else 'trained'}"
    if plan["trained"] != "weights" and description.spec.get("adapter") is None:
        outline += f"; in the other layers only the {', '.join(plan.get('names', [plan['trained']]))} trained"
    if kept is not None:
        outline += f"; kept of the pre-trained layers, counted from 0: {', '.join(map(str, kept))}"
    if description.spec.get("adapter") is not None:
        outline += f"; adapter {description.spec['adapter']['kind']}"
    return outline


def _scores(description: Description) -> Iterator[str]:
    yield "\n## Scores\n"
    yield "| metric | value |"
    yield "| --- | ---: |"
    for name, value in description.scores.items():
        yield f"| {markdown(name)} | {value:.4f} |" if math.isfinite(value) else f"| {markdown(name)} | undefined |"
    yield ""
    yield f"The epoch was selected by the dev {markdown(description.primary)}; the test split was scored once."


def _limits(description: Description, inputs: RunInputs) -> Iterator[str]:
    yield "\n## Limits\n"
    if description.labels.tags_words:
        yield f"- A sentence beyond {description.max_length} tokens is read in overlapping windows."
        yield "- Words are separated by spaces; a word's tag is predicted from its first subword."
    elif description.labels.extracts_spans:
        yield f"- A text beyond {description.max_length} tokens, with its question, is read in overlapping windows."
        yield f"- An answer has at most {MAX_WORDS} words."
    else:
        yield f"- Texts beyond {description.max_length} tokens are cut; `truncation=True` makes a pipeline do the same."
    if description.precision != "fp32":
        yield (
            f"- The run's test predictions were computed in {description.precision}; fp32 gives slightly other "
            "probabilities."
        )
    if not inputs.capabilities.independent:
        yield "- With this architecture, predictions depend slightly on the other texts of a batch."
    if inputs.task.label_map:
        yield f"- The scores are for {markdown(inputs.task.name)}, with mapped labels; the model's labels are above."


def _versions(description: Description) -> Iterator[str]:
    yield "\n## Versions\n"
    yield ", ".join(f"{markdown(name)} {markdown(number)}" for name, number in description.versions.items())
