"""From rows to token ids, once per (texts, tokeniser, length), kept as Arrow files in the cache folder.

Notation: n examples, t tokens of all of them together.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.model import Model
from alue_bench.contract.spec import digest_of
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.data.location import CACHE_VARIABLE
from alue_bench.data.splits import SplitRows

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FORMAT = 2
"""Increase when the content of the cached files changes."""
MANY_UNKNOWN = 0.05
"""The part of unknown tokens above which readers are told: the tokeniser may not know the texts' language or script."""
FIRST_TEXTS, FIRST_TOKENS = 64, 128
"""How many texts, and tokens of each, a plan looks at to tell of unknown tokens before its runs begin."""


@dataclass(frozen=True)
class TokenisedSplit:
    """Token ids of a split, without padding, one example after the other."""

    input_ids: Tensor  # int64 [t]
    token_type_ids: Tensor | None  # int64 [t]; None where the model has none
    offsets: Tensor  # int64 [n + 1]; example i is input_ids[offsets[i]:offsets[i + 1]]
    targets: Tensor  # int64 [n] | float32 [n, labels] | float32 [n]
    ids: list[str]
    truncated: int
    """How many examples were cut to the maximal length."""
    unknown_share: float = 0.0
    """The part of the tokens, without those that the tokeniser adds to any text, that stand for unknown words."""
    empty: int = 0
    """How many examples have a text of which normalisation and tokenisation left nothing."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens of each example: int64 [n]."""
        return (self.offsets[1:] - self.offsets[:-1]).numpy()


class TokenCache:
    """Token ids of splits, kept in memory for the runs of a plan and on disk for later invocations.

    On disk an entry's key is a digest of the normalised texts, the tokeniser and the length: it cannot be stale.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: dict[tuple[str, ...], TokenisedSplit] = {}

    def tokenised(
        self, rows: SplitRows, *, labels: Labels, model: Model, model_digest: str, tokenizer: Any, max_length: int
    ) -> TokenisedSplit:
        """The split as token ids, with targets encoded for these labels."""
        key = (rows.digest, model.name, model_digest, str(max_length), *labels.names)
        if key not in self._kept:
            texts = _normalised(rows, model)
            folder = self.folder / "tokens" / digest_of([FORMAT, texts, model_digest, max_length])
            tokens = _load(folder)
            if tokens is None:
                tokens = _tokenised(texts, tokenizer, max_length)
                _save(tokens, folder)
            self._kept[key] = _as_split(tokens, rows, labels, tokenizer)
        return self._kept[key]


def unread_notes(split: TokenisedSplit, name: str) -> list[str]:
    """Return sentences on texts that the model cannot read: many unknown tokens, nothing left of a text."""
    return _unread_notes(split.unknown_share, split.empty, f"{len(split)} {name} texts", f"the {name} texts")


def first_texts_notes(rows: SplitRows, model: Model, tokenizer: Any, name: str) -> list[str]:
    """Return the notes of `unread_notes` on a split's first texts, for a plan."""
    first = SplitRows(rows.examples[:FIRST_TEXTS], "")
    texts = _normalised(first, model)
    encoded = _encoded(texts, tokenizer, FIRST_TOKENS)
    ids = [token for example in encoded["input_ids"] for token in example]
    what = f"the first {len(first.examples)} {name} texts"
    return _unread_notes(_unknown_share(ids, tokenizer), sum(encoded["empty"]), what, what)


def _unread_notes(unknown_share: float, empty: int, counted: str, texts: str) -> list[str]:
    notes = []
    if unknown_share > MANY_UNKNOWN:
        notes.append(f"{100 * unknown_share:.0f} % of the tokens of {texts} are unknown to the tokeniser")
    if empty:
        notes.append(f"{empty} of {counted} had nothing left after normalisation and tokenisation")
    return notes


def _unknown_share(ids: Any, tokenizer: Any) -> float:
    import numpy as np

    around = {*tokenizer("")["input_ids"], *tokenizer("", "")["input_ids"]}  # what is put around any text
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in around:
        return 0.0
    ids = np.asarray(ids, dtype="int64")
    own = len(ids) - int(np.isin(ids, sorted(around)).sum())
    return int((ids == unknown).sum()) / own if own else 0.0


def _as_split(tokens: Any, rows: SplitRows, labels: Labels, tokenizer: Any) -> TokenisedSplit:
    import torch

    columns = tokens.with_format("arrow")[:]
    ids = columns["input_ids"].combine_chunks()
    type_ids = None
    if "token_type_ids" in tokens.column_names:
        type_ids = torch.from_numpy(columns["token_type_ids"].combine_chunks().values.to_numpy().astype("int64"))
    return TokenisedSplit(
        input_ids=torch.from_numpy(ids.values.to_numpy().astype("int64")),
        token_type_ids=type_ids,
        offsets=torch.from_numpy(ids.offsets.to_numpy().astype("int64")),
        targets=encode_targets(rows, labels),
        ids=[example.id for example in rows.examples],
        truncated=int(columns["truncated"].to_numpy().sum()),
        unknown_share=_unknown_share(ids.values.to_numpy(), tokenizer),
        empty=int(columns["empty"].to_numpy().sum()),
    )


def encode_targets(rows: SplitRows, labels: Labels) -> Tensor:
    """Class indices [n], marks of 0 and 1 [n, labels], or numbers [n]. Of rows without gold labels, zeros: nothing may
    read them."""
    import torch

    targets: list[Any] = [example.target for example in rows.examples]
    if None in targets:
        return torch.zeros(len(targets), dtype=torch.long)
    if labels.kind is TargetKind.REGRESSION:
        return torch.tensor(targets, dtype=torch.float32)
    position = {name: index for index, name in enumerate(labels.names)}
    if labels.kind is TargetKind.MULTILABEL:
        marks = torch.zeros(len(targets), len(position))
        for row, names in enumerate(targets):
            for name in names:
                marks[row, position[name]] = 1.0
        return marks
    return torch.tensor([position[target] for target in targets])


def _normalised(rows: SplitRows, model: Model) -> dict[str, list[str]]:
    clean = model.normalise or (lambda text: text)
    columns = {"text": [clean(example.text) for example in rows.examples]}
    if rows.examples[0].text_pair is not None:
        columns["text_pair"] = [clean(example.text_pair or "") for example in rows.examples]
    return columns


def _tokenised(columns: dict[str, list[str]], tokenizer: Any, max_length: int) -> Any:
    import datasets

    datasets.disable_progress_bars()  # one bar for the whole plan is enough

    def encode(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        return _encoded(batch, tokenizer, max_length)

    # Rows are passed in memory and the result is saved under our own key; the library's own cache stays off.
    table = datasets.Dataset.from_dict(columns)
    return table.map(encode, batched=True, batch_size=1000, remove_columns=list(columns), keep_in_memory=True)


def _encoded(batch: dict[str, list[str]], tokenizer: Any, max_length: int) -> dict[str, list[Any]]:
    """Token ids, and token types where the tokeniser gives any; which examples were cut, which have an empty text."""
    texts, pairs = batch["text"], batch.get("text_pair")
    whole = tokenizer(texts, pairs, truncation=True, max_length=max_length)
    encoded = {name: list(whole[name]) for name in ("input_ids", "token_type_ids") if name in whole}
    sides = {0} if pairs is None else {0, 1}
    if whole.encodings is not None:
        encoded["truncated"] = [bool(encoding.overflowing) for encoding in whole.encodings]
        encoded["empty"] = [not sides <= set(encoding.sequence_ids) for encoding in whole.encodings]
    else:  # a tokeniser without the fast backend tells neither what it cut nor which token is of which text
        uncut = tokenizer(texts, pairs, truncation=False)["input_ids"]
        encoded["truncated"] = [len(ids) > max_length for ids in uncut]
        alone = [tokenizer(column, add_special_tokens=False)["input_ids"] for column in (texts, pairs) if column]
        encoded["empty"] = [not all(example) for example in zip(*alone, strict=True)]
    for place, ids in enumerate(encoded["input_ids"]):
        if not ids:  # where nothing is put around a text, an empty one would be an example without any token
            encoded["input_ids"][place] = [_of_nothing(tokenizer)]
            if "token_type_ids" in encoded:
                encoded["token_type_ids"][place] = [0]
    return encoded


def _of_nothing(tokenizer: Any) -> int:
    """The token that stands for an empty text."""
    ends = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    return int(next(token for token in ends if token is not None))


def _load(folder: Path) -> Any | None:
    import datasets

    if not folder.is_dir():
        return None
    try:
        return datasets.Dataset.load_from_disk(str(folder))
    except Exception:  # a damaged entry: what a crash or a full disk leaves; it is computed again
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _save(tokens: Any, folder: Path) -> None:
    """Written beside its place and moved there whole, so that a reader never sees half an entry. A disk that is full
    costs the next run some seconds, and is told of; a folder that cannot be written at all was refused before."""
    scratch: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        tokens.save_to_disk(str(scratch))
    except OSError as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        warnings.warn(
            f"token ids are not kept in {folder.parent} ({error.strerror or error}); make room, or choose another "
            f"cache folder with {CACHE_VARIABLE}",
            stacklevel=2,
        )
        return
    try:
        os.replace(scratch, folder)
    except OSError:  # another process was faster: its entry is equal to ours
        shutil.rmtree(scratch, ignore_errors=True)
