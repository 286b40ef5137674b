"""Notes: sentences that are recorded with a run for readers of its results."""

from __future__ import annotations

import math
from collections.abc import Mapping

from alue_bench.contract.spec import RunSpec
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.contract.transfer import label_map_note
from alue_bench.data.spans import SpanPositions
from alue_bench.data.tokenization import TokenizedSplit, unread_notes
from alue_bench.data.verification import label_gaps
from alue_bench.measure.flops import FlopsMethod
from alue_bench.running.inputs import RunInputs
from alue_bench.training.device.precision import Device
from alue_bench.training.result import TrainingResult

NO_GRAPHS = "trained without CUDA graphs: only layers of the BERT family can be recorded"


def model_notes(inputs: RunInputs) -> list[str]:
    """Return notes on the pre-trained model and its tokenizer."""
    return [*inputs.models.notes(inputs.checkpoint), *inputs.capabilities.notes]


def flops_notes(method: FlopsMethod) -> list[str]:
    """Return a note if the FLOPs come from formulas that could not be compared with torch's counter."""
    if not method.problem:
        return []
    return [f"FLOPs computed by formulas that could not be compared with torch's counter: {method.problem}"]


def training_notes(
    spec: RunSpec, inputs: RunInputs, device: Device, training: TrainingResult, splits: Mapping[str, TokenizedSplit]
) -> list[str]:
    """Return notes on a finished training run, and on the train and dev splits.

    Args:
        spec: The run.
        inputs: The run's inputs.
        device: The device; its `graphs` is "off" if the model does not support CUDA graphs.
        training: The result of the training.
        splits: The train and dev split, by name.
    """
    notes = []
    if training.resumed_at is not None:
        notes.append(
            f"the training was interrupted and continued from step {training.resumed_at}: energy and peak memory are "
            "measured from there"
        )
    if spec.steps is not None:
        epochs = spec.steps / training.steps_per_epoch
        notes.append(
            f"{spec.strategy} trained for at most {spec.steps} steps, {epochs:.3g} of {spec.hyper.epochs} epochs, over "
            "which the learning rate decays"
        )
    if training.stopped_early:
        done, planned = training.steps / training.steps_per_epoch, spec.hyper.epochs
        notes.append(
            f"stopped early after {done:.3g} of {planned} epochs: the dev score had not risen for "
            f"{spec.hyper.patience} evaluation{'s' if spec.hyper.patience > 1 else ''}"
        )
    notes += [note for name, split in splits.items() for note in unread_notes(split, name)]
    notes += [note for name, split in splits.items() for note in _truncation(spec, split, name)]
    if training.graph_use is not None and not training.graph_use.used:
        notes.append(f"trained without CUDA graphs: {training.graph_use.reason}")
    if training.skipped_updates:
        notes.append(f"{training.skipped_updates} of {training.steps} updates were skipped: gradients overflowed")
    if training.micro_batch < spec.hyper.batch_size:
        notes.append(
            f"a batch of {spec.hyper.batch_size} did not fit into memory: gradients were accumulated over parts of "
            f"{training.micro_batch}"
        )
    if inputs.checkpoint.pickled:
        notes.append("the checkpoint has pickled weights only (read without running code from them)")
    return notes


def transfer_notes(inputs: RunInputs) -> list[str]:
    """Return a note that describes the label map, if the model was trained on a task with different labels."""
    mapped = label_map_note(inputs.task, inputs.train_task)
    return [] if mapped is None else [mapped]


def scoring_notes(spec: RunSpec, inputs: RunInputs, test: TokenizedSplit, score: float) -> list[str]:
    """Return notes on labels without rows, on unreadable or truncated test texts, and on an undefined test score."""
    notes = [*_label_gaps(inputs), *unread_notes(test, "test"), *_truncation(spec, test, "test")]
    if not math.isfinite(score):
        notes.append(f"test/{inputs.task.primary} is undefined: {_why_undefined(inputs.task.labels)}")
    return notes


def _truncation(spec: RunSpec, split: TokenizedSplit, name: str) -> list[str]:
    """Return notes if texts of the split called `name` were truncated or divided into windows."""
    if split.spans is not None:
        return _span_notes(spec, split.spans, f"{len(split.ids)} {name} questions")
    if split.words is not None:
        notes, most = [], spec.hyper.max_length
        if split.words.windowed:
            notes.append(
                f"{split.words.windowed} of {len(split.ids)} {name} sentences, longer than {most} tokens, were divided "
                "into overlapping windows; each word is predicted in one of them"
            )
        if split.words.cut:
            notes.append(f"{split.words.cut} {name} words, longer than {most} tokens, were cut to their first tokens")
        return notes
    if not split.truncated:
        return []
    return [f"{split.truncated} of {len(split)} {name} texts cut to {spec.hyper.max_length} tokens"]


def _span_notes(spec: RunSpec, spans: SpanPositions, questions: str) -> list[str]:
    """Return notes on questions that, together with their contexts, exceed the maximal number of tokens.

    Args:
        spec: The run.
        spans: The words of the tokenized split, with the numbers of questions and words that do not fit.
        questions: The number of questions with the name of the split, such as "702 test questions".
    """
    notes, most = [], spec.hyper.max_length
    if spans.windowed:
        notes.append(
            f"{spans.windowed} of {questions}, with contexts longer than {most} tokens, were divided into overlapping "
            "windows; the best answer of all windows counts"
        )
    if spans.cut:
        notes.append(f"{spans.cut} of {questions} were cut to half of the {most} tokens; the context gets the rest")
    if spans.unread:
        notes.append(
            f"{spans.unread} words of contexts have too many tokens for a window; no answer can begin or end there"
        )
    if spans.unlearnt:
        notes.append(f"{spans.unlearnt} of {questions} have an answer that no window shows as a whole")
    return notes


def _label_gaps(inputs: RunInputs) -> list[str]:
    """Return notes on labels that no row of the train, dev or test split has."""
    parts = [(split, inputs.train_rows, inputs.train_task) for split in ("train", "dev")]
    parts.append(("test", inputs.rows, inputs.task))
    return [
        sentence
        for split, rows, task in parts
        for sentence in label_gaps(split, [example.target for example in rows.splits[split].examples], task.labels)
    ]


def _why_undefined(labels: Labels) -> str:
    """Return the reason for which the primary metric can be NaN in a task with these labels."""
    if labels.kind is TargetKind.REGRESSION:
        return "the predictions or the gold values are constant"
    return "no test row has a label, and none is predicted"
