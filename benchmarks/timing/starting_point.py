"""The starting point of all training runs: initial weights, tokenized rows, and the layers to freeze."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import Example
from alue_bench.contract.strategy import EncoderShape, FreezePlan
from alue_bench.contract.task import Labels
from benchmarks.timing.checkpoint import checkpoint_in, tokenizer_of
from benchmarks.timing.rows import Row, Rows
from benchmarks.timing.settings import Setup

if TYPE_CHECKING:
    import torch

    from alue_bench.data.tokenization import TokenizedSplit
    from alue_bench.training.architecture.encoder_stack import EncoderStack

MODEL_SEED = 20_201_124
"""The seed of randomly initialised weights: all weights, or only those of the head if there is a checkpoint."""
POSITIONS = 512
"""The smallest number of position embeddings of a model with random weights."""


@dataclass(frozen=True)
class StartingPoint:
    """The initial model and the data, which are the same for all training runs."""

    setup: Setup
    tokenizer: Any
    labels: Labels
    train: TokenizedSplit
    held_out: TokenizedSplit
    longest: TokenizedSplit
    """One batch of the longest examples of `train`, for warm-up."""

    def fresh_stack(self, plan: FreezePlan) -> EncoderStack:
        """Return a new model with the initial weights, on the device, in which the plan's parameters are frozen."""
        from alue_bench.training.architecture.encoder_stack import view_as_stack
        from alue_bench.training.freezing import apply_plan

        stack = view_as_stack(_initial_model(self.setup, self.tokenizer, self.labels).to(self.setup.device))
        apply_plan(stack, plan)
        return stack


def prepared(setup: Setup, rows: Rows) -> StartingPoint:
    """Return the initial model and the tokenized data for the training runs that are compared.

    Args:
        setup: The settings that all training runs share.
        rows: The train rows and the held-out rows.

    Raises:
        UnavailableError: The checkpoint is missing.
        UsageError: The device is missing.
    """
    import numpy as np

    from alue_bench.training.device.selection import resolve_device

    resolve_device(setup.device)  # reports a missing device before anything is loaded
    tokenizer = tokenizer_of(setup)
    split = partial(tokenized, tokenizer=tokenizer, max_length=setup.max_length, labels=rows.labels)
    train = split(rows.train)
    longest = np.argsort(train.lengths, kind="stable")[-setup.batch_size :]
    return StartingPoint(setup, tokenizer, rows.labels, train, split(rows.held_out), chosen(train, longest))


def tokenized(rows: Sequence[Row], tokenizer: Any, max_length: int, labels: Labels) -> TokenizedSplit:
    """Tokenize rows without the package `datasets`, which alue-bench itself uses for tokenization.

    Args:
        rows: The rows: texts with labels, or words with tags.
        tokenizer: The tokenizer.
        max_length: The number of tokens to which longer texts are truncated. Longer texts whose words have tags are
            divided into windows of this many tokens instead.
        labels: The names of all labels or tags.
    """
    import torch

    from alue_bench.data.tokenization import TokenizedSplit
    from alue_bench.data.words import encoded_words, places_of_words, targets_of_tokens

    examples = [Example(str(i), row.text, None, row.label, i + 1, row.words) for i, row in enumerate(rows)]
    if labels.tags_words:
        encoded = encoded_words([row.words or () for row in rows], tokenizer, max_length)
    else:
        encoded = tokenizer([row.text for row in rows], truncation=True, max_length=max_length)
    lengths = torch.tensor([len(ids) for ids in encoded["input_ids"]])

    def joined(name: str) -> torch.Tensor:
        return torch.tensor(list(chain.from_iterable(encoded[name])))

    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    if labels.tags_words:
        targets = targets_of_tokens(examples, labels, encoded, offsets)
    else:
        targets = torch.tensor([labels.names.index(str(row.label)) for row in rows])
    return TokenizedSplit(
        input_ids=joined("input_ids"),
        token_type_ids=joined("token_type_ids") if "token_type_ids" in encoded else None,
        offsets=offsets,
        targets=targets,
        ids=[example.id for example in examples],
        truncated=0,
        words=places_of_words(examples, encoded, labels) if labels.tags_words else None,
    )


def chosen(split: TokenizedSplit, indices: Iterable[int]) -> TokenizedSplit:
    """Return a split that contains only the examples of `split` at the given indices.

    If words are tagged, an example is a window of a sentence. The result treats each window as a sentence that consists
    of the words whose tags are predicted in this window.
    """
    import numpy as np
    import torch

    from alue_bench.data.words import IGNORED, as_rows

    selected = list(indices)
    lengths = split.offsets.diff()[selected]
    tokens = torch.cat([torch.arange(*split.offsets[index : index + 2].tolist()) for index in selected])
    words, targets = None, split.targets[tokens if split.tags_words else selected]
    if split.words is not None:
        counts = np.array([int((part != IGNORED).sum()) for part in torch.split(targets, lengths.tolist())])
        words = replace(
            split.words,
            counts=counts,
            gold=as_rows(targets[targets != IGNORED].numpy(), counts),
            predicted=np.arange(counts.sum()),
            windowed=0,
            cut=0,
        )
    return replace(
        split,
        input_ids=split.input_ids[tokens],
        token_type_ids=None if split.token_type_ids is None else split.token_type_ids[tokens],
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        targets=targets,
        ids=[str(index) for index in selected],
        words=words,
    )


def encoder_shape(setup: Setup) -> EncoderShape:
    """Return the model's number of layers and hidden size without loading its weights."""
    if setup.checkpoint is None:
        return EncoderShape(setup.layers, setup.hidden)
    from alue_bench.training.pretrained.loading import encoder_shape, load_config

    return encoder_shape(load_config(checkpoint_in(setup.checkpoint)))


def freeze_plan(strategy: str, shape: EncoderShape) -> FreezePlan:
    """Return the freeze plan of a static freezing strategy (see `FreezePlan`) for a model.

    Args:
        strategy: The name of the strategy.
        shape: The model's number of layers and hidden size.

    Raises:
        DoesNotFit: The model has too few layers.
        UsageError: There is no such strategy.
    """
    from alue_bench_strategies.static_freezing import FAMILIES

    freezing = next((parsed for family in FAMILIES if (parsed := family.parse(strategy)) is not None), None)
    if freezing is None:
        raise UsageError(f"unknown strategy {strategy!r}; they are written {'; '.join(f.grammar for f in FAMILIES)}")
    return freezing.freeze_plan(shape)


def _initial_model(setup: Setup, tokenizer: Any, labels: Labels) -> Any:
    """Return the initial model of the training runs that are compared, whose weights are the same in every process."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

    from alue_bench.training.pretrained.library import quiet_transformers
    from alue_bench.training.pretrained.loading import head_options, load_model

    if setup.checkpoint:
        return load_model(checkpoint_in(setup.checkpoint), labels, init_seed=MODEL_SEED)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=setup.hidden,
        num_hidden_layers=setup.layers,
        num_attention_heads=setup.heads,
        intermediate_size=4 * setup.hidden,
        max_position_embeddings=max(POSITIONS, setup.max_length),
        pad_token_id=tokenizer.pad_token_id,
        **head_options(labels),
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(MODEL_SEED)
        return BertForTokenClassification(config) if labels.tags_words else BertForSequenceClassification(config)
