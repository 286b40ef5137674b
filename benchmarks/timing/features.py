"""Examples in the form that `Trainer` and torch's data loaders expect."""

from __future__ import annotations

from typing import Any

from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.data.words import IGNORED

Features = list[dict[str, Any]]
"""A list of examples in the form that `Trainer` expects: for each one a dictionary from the name of a model input, such
as "input_ids", to a list of numbers. "labels" is the class of a text, or, if its words are tagged, the tag of each
token."""


def features(split: TokenizedSplit, pad_id: int, pad_to: int | None) -> Features:
    """Return the examples of a split in the form that `Trainer` expects.

    Args:
        split: The tokenized split.
        pad_id: The id of the padding token.
        pad_to: The number of tokens to which each example is padded; None for no padding.
    """
    examples = []
    for index, (start, end) in enumerate(zip(split.offsets[:-1], split.offsets[1:], strict=True)):
        length = int(end - start)
        padding = max(0, (pad_to or 0) - length)
        tags = split.targets[start:end].tolist()
        example = {
            "input_ids": split.input_ids[start:end].tolist() + [pad_id] * padding,
            "attention_mask": [1] * length + [0] * padding,
            "labels": tags + [IGNORED] * padding if split.tags_words else int(split.targets[index]),
        }
        if split.token_type_ids is not None:
            example["token_type_ids"] = split.token_type_ids[start:end].tolist() + [0] * padding
        examples.append(example)
    return examples
