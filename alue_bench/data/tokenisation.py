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

from alue_bench.data.location import CACHE_VARIABLE
from alue_bench.data.splits import SplitRows
from alue_bench.model import Model
from alue_bench.spec import digest_of
from alue_bench.task import Labels, TargetKind

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FORMAT = 1
"""Increase when the content of the cached files changes."""


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
            self._kept[key] = _as_split(tokens, rows, labels)
        return self._kept[key]


def _as_split(tokens: Any, rows: SplitRows, labels: Labels) -> TokenisedSplit:
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
        whole = tokenizer(batch["text"], batch.get("text_pair"), truncation=True, max_length=max_length)
        encoded = {name: whole[name] for name in ("input_ids", "token_type_ids") if name in whole}
        if whole.encodings is not None:
            encoded["truncated"] = [bool(encoding.overflowing) for encoding in whole.encodings]
        else:  # a tokeniser without the fast backend does not tell what it cut
            uncut = tokenizer(batch["text"], batch.get("text_pair"), truncation=False)["input_ids"]
            encoded["truncated"] = [len(ids) > max_length for ids in uncut]
        return encoded

    # Rows are passed in memory and the result is saved under our own key; the library's own cache stays off.
    table = datasets.Dataset.from_dict(columns)
    return table.map(encode, batched=True, batch_size=1000, remove_columns=list(columns), keep_in_memory=True)


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
