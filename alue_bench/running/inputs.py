"""The inputs of a run (task, rows, model, strategy and checkpoint), and the tokenization of its splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alue_bench.contract.model import Model
from alue_bench.contract.spec import RunSpec
from alue_bench.contract.strategy import Strategy
from alue_bench.contract.task import Task
from alue_bench.data.splits import TaskRows
from alue_bench.data.tokenization import TokenCache, TokenizedSplit
from alue_bench.running.companion import Companion
from alue_bench.training.architecture.capabilities import Capabilities
from alue_bench.training.architecture.encoder_stack import EncoderStack, check_ids
from alue_bench.training.checkpointing import Checkpointing
from alue_bench.training.prefix.frozen_prefix import PlannedDepths
from alue_bench.training.prefix.store import PrefixStore
from alue_bench.training.pretrained.loading import Checkpoint
from alue_bench.training.pretrained.model_cache import ModelCache


@dataclass(frozen=True)
class RunInputs:
    """The objects that a `RunSpec` refers to by name, such as task and model, loaded once for all runs of a plan."""

    task: Task
    """The task whose test split is scored."""
    rows: TaskRows
    train_task: Task
    """The task whose train and dev splits train the model: `task` itself, unless it has no training rows."""
    train_rows: TaskRows
    model: Model
    strategy: Strategy
    checkpoint: Checkpoint
    capabilities: Capabilities
    """The inputs and number formats that the model supports, found by a test with its tokenizer."""
    tokens: TokenCache
    prefixes: PrefixStore
    """The on-disk store for outputs of frozen layers."""
    models: ModelCache = field(default_factory=ModelCache)
    checkpointing: Checkpointing | None = None
    """The folder and frequency of checkpoints; None if no checkpoints are written."""
    depths: PlannedDepths = field(default_factory=PlannedDepths)
    """The numbers of frozen lowest layers of all planned runs that start from this model and use this training data."""
    companions: tuple[Companion, ...] = ()
    """The other tasks on whose test splits the trained model is scored."""
    yardstick: bool = False
    """True if the run records the scores of a linear model on TF-IDF features (`evaluation.yardstick`)."""


def tokenized(rows: TaskRows, split: str, spec: RunSpec, inputs: RunInputs, tokenizer: Any) -> TokenizedSplit:
    """Tokenize a split for the run's model; the token ids are cached on disk.

    Args:
        rows: The rows that contain the split: `inputs.rows` for the scored task, or `inputs.train_rows` for the task
            that trains the model.
        split: The name of the split, such as "train".
        spec: The run, which determines the largest number of tokens of a text.
        inputs: The run's inputs.
        tokenizer: The tokenizer of the run's model.
    """
    task = inputs.task if rows is inputs.rows else inputs.train_task
    return inputs.tokens.tokenized(
        rows.splits[split],
        labels=task.labels,
        model=inputs.model,
        model_digest=spec.model_digest,
        tokenizer=tokenizer,
        max_length=spec.hyper.max_length,
    )


def tokenized_for(
    stack: EncoderStack, rows: TaskRows, split: str, spec: RunSpec, inputs: RunInputs, tokenizer: Any
) -> TokenizedSplit:
    """Tokenize a split as `tokenized` does, and check that the model has an embedding for each token id.

    Raises:
        TrainingError: The tokenizer gives a token id for which the model has no embedding.
    """
    tokens = tokenized(rows, split, spec, inputs, tokenizer)
    check_ids(stack, tokens, f"model {spec.model!r}")
    return tokens


def cache_description(spec: RunSpec, split: str) -> dict[str, str]:
    """Return the human-readable description of a split's entry in the store for outputs of frozen layers."""
    return {"task": spec.train_task, "split": split, "model": spec.model}
