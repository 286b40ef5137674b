"""The tokenization of texts. Token ids are cached in Arrow files, keyed by texts, model and maximal length.

Notation: n is the number of examples, t the number of tokens of all examples together.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.model import Model
from alue_bench.contract.spec import digest_of
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.data.cache_folder import CACHE_VARIABLE
from alue_bench.data.spans import SpanPositions, as_targets, encoded_questions, normalised_questions
from alue_bench.data.splits import SplitRows
from alue_bench.data.words import (
    IGNORED,
    WordPositions,
    encoded_words,
    gold_rows,
    places_of_words,
    targets_of_tokens,
    token_for_empty_text,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FORMAT = 2
"""The version of the format of cached token ids. Increase it when the content of the files changes."""
MANY_UNKNOWN = 0.05
"""The share of unknown tokens above which a note warns that the tokenizer may not know the texts' language."""
FIRST_TEXTS, FIRST_TOKENS = 64, 128
"""The largest number of texts, and the largest number of tokens in each of them, that are examined for unknown tokens
before any run begins."""


@dataclass(frozen=True)
class TokenizedSplit:
    """The token ids of a split, without padding, as one sequence in which the examples follow each other."""

    input_ids: Tensor  # int64 [t]
    token_type_ids: Tensor | None  # int64 [t]; None if the tokenizer gives none
    offsets: Tensor  # int64 [n + 1]; example i is input_ids[offsets[i]:offsets[i + 1]]
    targets: Tensor  # int64 [n] | float32 [n, labels] | float32 [n] | int64 [t], see `token_targets`
    ids: list[str]
    """The identifiers of the examples; see also `words` and `spans`."""
    truncated: int
    """The number of examples that were cut to the maximal length; 0 for tasks whose long texts are divided into
    windows."""
    unknown_share: float = 0.0
    """The share of unknown tokens among all tokens except the special tokens that the tokenizer adds to every text."""
    empty: int = 0
    """The number of examples with a text for which no token remains after normalisation and tokenization; 0 for a task
    that tags words. In span extraction, the number of questions in `SpanPositions.empty`."""
    all_rows: TokenizedSplit | None = None
    """The token ids of all rows that are divided into folds (see `SplitRows.all_rows`); None without
    cross-validation."""
    positions: Tensor | None = None  # int64 [n]
    """The positions in `all_rows` of this split's examples; None without cross-validation."""
    words: WordPositions | None = None
    """The words of a task that tags words; None for every other task. If it is not None, an example in the sense of
    this class is a window: a sentence, or a part of a sentence that is too long. `ids` are then the identifiers of the
    sentences."""
    spans: SpanPositions | None = None
    """The words of the contexts in span extraction; None for every other task. If it is not None, an example in the
    sense of this class is a window: a question with its context, or with a part of a context that is too long. `ids`
    are then the identifiers of the questions."""

    def __len__(self) -> int:
        """Return the number of examples in the split."""
        return len(self.offsets) - 1

    @property
    def tags_words(self) -> bool:
        """True if the model predicts a tag for each word."""
        return self.words is not None

    @property
    def token_targets(self) -> bool:
        """True if `targets` has a target for each token, int64 [t]; False if it has one for each example."""
        return self.words is not None or self.spans is not None

    @property
    def known_targets(self) -> Tensor:
        """The targets without the value `IGNORED`, which marks tokens from which nothing is predicted."""
        return self.targets[self.targets != IGNORED] if self.token_targets else self.targets

    @property
    def gold(self) -> np.ndarray[Any, Any]:
        """The gold targets, in the form that `evaluation.metrics.metrics` takes."""
        if self.spans is not None:
            return self.spans.gold
        return self.targets.numpy() if self.words is None else self.words.gold

    @property
    def decoding(self) -> np.ndarray[Any, Any] | SpanPositions | None:
        """The argument `decoding` of `evaluation.predictions.decide`, which converts logits into predictions.

        It is the number of words of each sentence (in a task that tags words), the words of the contexts (in span
        extraction), or None.
        """
        return self.spans if self.words is None else self.words.counts

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """The number of tokens of each example, int64 [n]."""
        return (self.offsets[1:] - self.offsets[:-1]).numpy()


class TokenCache:
    """A cache of the token ids of splits, in memory for the runs of one command and on disk for later commands.

    On disk, the key of an entry is a digest of the normalised texts, the model's digest (which covers its tokenizer)
    and the maximal length. An entry is therefore never out of date.
    """

    def __init__(self, folder: Path) -> None:
        """Create a cache that keeps its files below `folder`."""
        self.folder = folder
        self._splits_in_memory: dict[tuple[str, ...], TokenizedSplit] = {}
        """The tokenized splits in memory, except the splits of folds."""
        self._tables: dict[tuple[str, ...], Any] = {}
        """The token ids of all rows that a cross-validation divides into folds, as Arrow tables; empty without
        cross-validation."""

    def tokenized(
        self, rows: SplitRows, *, labels: Labels, model: Model, model_digest: str, tokenizer: Any, max_length: int
    ) -> TokenizedSplit:
        """Return the token ids of a split, with its targets as numbers.

        Args:
            rows: The rows of the split.
            labels: The label space in which targets are encoded.
            model: The model, whose normalisation is applied to the texts.
            model_digest: The digest of the model's weights, configuration and tokenizer.
            tokenizer: The model's tokenizer.
            max_length: The maximal number of tokens of an example, special tokens included.
        """
        made_by = (model.name, model_digest, str(max_length))
        if rows.all_rows is not None:  # splits of folds are not cached: selecting their rows is fast
            table = (rows.all_rows.digest, *made_by)
            if table not in self._tables:
                self._tables[table] = self._columns(rows.all_rows, labels, model, model_digest, tokenizer, max_length)
            whole = self.tokenized(
                rows.all_rows, labels=labels, model=model, model_digest=model_digest, tokenizer=tokenizer,
                max_length=max_length,
            )  # fmt: skip
            part, places = _rows_of_examples(self._tables[table], rows.positions)
            return replace(_as_split(part, rows, labels, tokenizer), all_rows=whole, positions=_as_tensor(places))
        key = (rows.digest, *made_by, *labels.names)
        if key not in self._splits_in_memory:
            columns = self._columns(rows, labels, model, model_digest, tokenizer, max_length)
            self._splits_in_memory[key] = _as_split(columns, rows, labels, tokenizer)
        return self._splits_in_memory[key]

    def _columns(
        self, rows: SplitRows, labels: Labels, model: Model, model_digest: str, tokenizer: Any, max_length: int
    ) -> Any:
        """Return the token ids of the rows as an Arrow table. They are read from the disk cache if it has them."""
        texts = _questions(rows, model) if labels.extracts_spans else _normalised(rows, model)
        folder = self.folder / "tokens" / digest_of([FORMAT, texts, model_digest, max_length])
        tokens = _load(folder)
        if tokens is None:
            tokens = _tokenized(texts, tokenizer, max_length)
            _save(tokens, folder)
        return tokens.with_format("arrow")[:]


def unread_notes(split: TokenizedSplit, name: str) -> list[str]:
    """Return notes for the user about many unknown tokens in a split, and about texts and words without a token.

    Args:
        split: The split.
        name: The name of the split.
    """
    counted = f"{len(split.ids)} {name} texts"
    notes = _unread_notes(split.unknown_share, split.empty, counted, f"the {name} texts")
    if split.words is None:
        return notes
    return [*notes, *_word_notes(split.words.unread, int(split.words.counts.sum()), f"the {name} texts")]


def first_texts_notes(rows: SplitRows, model: Model, tokenizer: Any, name: str) -> list[str]:
    """Return the notes of `unread_notes` for the first texts of a split only, which is fast."""
    first = SplitRows(rows.examples[:FIRST_TEXTS], "")
    texts = _normalised(first, model)
    what = f"the first {len(first.examples)} {name} texts"
    if "words" in texts:
        windows = encoded_words(texts["words"], tokenizer, FIRST_TOKENS)
        ids = [token for window in windows["input_ids"] for token in window]
        notes = _unread_notes(_unknown_share(ids, tokenizer), 0, what, what)
        total = sum(map(len, texts["words"]))
        return [*notes, *_word_notes(total - sum(map(len, windows["words"])), total, what)]
    encoded = _encoded(texts, tokenizer, FIRST_TOKENS)
    ids = [token for example in encoded["input_ids"] for token in example]
    return _unread_notes(_unknown_share(ids, tokenizer), sum(encoded["empty"]), what, what)


def _unread_notes(unknown_share: float, empty: int, counted: str, texts: str) -> list[str]:
    notes = []
    if unknown_share > MANY_UNKNOWN:
        notes.append(f"{100 * unknown_share:.0f} % of the tokens of {texts} are unknown to the tokenizer")
    if empty:
        notes.append(f"{empty} of {counted} had nothing left after normalisation and tokenization")
    return notes


def _word_notes(unread: int, total: int, texts: str) -> list[str]:
    if not unread:
        return []
    return [
        f"{unread} of the {total} words of {texts} had nothing left after normalisation and tokenization; they "
        "are predicted to be outside entities, or to have the task's first tag"
    ]


def _unknown_share(ids: Any, tokenizer: Any) -> float:
    """Return the share of unknown tokens among the token ids, without the special tokens around a text."""
    import numpy as np

    around = {*tokenizer("")["input_ids"], *tokenizer("", "")["input_ids"]}  # the special tokens around a text
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in around:
        return 0.0
    ids = np.asarray(ids, dtype="int64")
    own = len(ids) - int(np.isin(ids, sorted(around)).sum())
    return int((ids == unknown).sum()) / own if own else 0.0


def _as_tensor(positions: Sequence[int]) -> Tensor:
    import torch

    return torch.tensor(positions, dtype=torch.int64)


def _rows_of_examples(table: Any, positions: Sequence[int]) -> tuple[Any, Sequence[int]]:
    """Select the rows of the given examples from a table of token ids, and return them with their positions in it.

    Args:
        table: The token ids of all examples, as an Arrow table.
        positions: The positions of the examples, in ascending order. A sentence with tags, or a question about a text,
            has a row for each of its windows.
    """
    import pyarrow as pa

    owner = next((name for name in ("sentence", "question") if name in table.column_names), None)
    if owner is None:
        return table.take(list(positions)), positions
    number = {sentence: place for place, sentence in enumerate(positions)}
    sentences = table[owner].to_pylist()
    rows = [row for row, sentence in enumerate(sentences) if sentence in number]
    renumbered = pa.array([number[sentences[row]] for row in rows], pa.int64())
    part = table.take(rows)
    return part.set_column(part.column_names.index(owner), owner, renumbered), rows


def _as_split(columns: Any, rows: SplitRows, labels: Labels, tokenizer: Any) -> TokenizedSplit:
    """Convert an Arrow table of token ids to a tokenized split with targets.

    Args:
        columns: The token ids of the rows, as an Arrow table.
        rows: The rows.
        labels: The label space in which targets are encoded.
        tokenizer: The tokenizer, for the ids of unknown and special tokens.
    """
    import torch

    ids = columns["input_ids"].combine_chunks()
    type_ids = None
    if "token_type_ids" in columns.column_names:
        type_ids = torch.from_numpy(columns["token_type_ids"].combine_chunks().values.to_numpy().astype("int64"))
    offsets = torch.from_numpy(ids.offsets.to_numpy().astype("int64"))
    words = spans = None
    if "sentence" in columns.column_names:
        of_windows = {name: columns[name].to_pylist() for name in ("sentence", "words", "firsts", "cut")}
        words = places_of_words(rows.examples, of_windows, labels)
        targets = targets_of_tokens(rows.examples, labels, of_windows, offsets)
    elif "question" in columns.column_names:
        targets, spans = as_targets(rows.examples, columns)
    else:
        targets = encode_targets(rows, labels)
    has_flags = words is None and spans is None
    return TokenizedSplit(
        input_ids=torch.from_numpy(ids.values.to_numpy().astype("int64")),
        token_type_ids=type_ids,
        offsets=offsets,
        targets=targets,
        ids=[example.id for example in rows.examples],
        truncated=int(columns["truncated"].to_numpy().sum()) if has_flags else 0,
        unknown_share=_unknown_share(ids.values.to_numpy(), tokenizer),
        empty=int(columns["empty"].to_numpy().sum()) if has_flags else 0 if spans is None else spans.empty,
        words=words,
        spans=spans,
    )


def encode_targets(rows: SplitRows, labels: Labels) -> Tensor:
    """Encode the gold labels of rows as a tensor of training targets.

    Returns:
        Class indices, int64 [n]; for a multi-label task 0 and 1 for each label, float32 [n, labels]; for a regression
        the numbers, float32 [n]; for tags of words int64 [n, longest], see `words.as_rows`. If any row has no gold
        label, the tensor is zeros [n], which must not be used.
    """
    import torch

    targets: list[Any] = [example.target for example in rows.examples]
    if None in targets:
        return torch.zeros(len(targets), dtype=torch.long)
    if labels.kind is TargetKind.REGRESSION:
        return torch.tensor(targets, dtype=torch.float32)
    if labels.tags_words:
        return torch.from_numpy(gold_rows(rows.examples, labels))
    position = {name: index for index, name in enumerate(labels.names)}
    if labels.kind is TargetKind.MULTILABEL:
        marks = torch.zeros(len(targets), len(position))
        for row, names in enumerate(targets):
            for name in names:
                marks[row, position[name]] = 1.0
        return marks
    return torch.tensor([position[target] for target in targets])


def _normalised(rows: SplitRows, model: Model) -> dict[str, list[Any]]:
    """Return the normalised texts as columns: "text" and, for pairs, "text_pair"; or "words", a list for each text."""
    clean = model.normalise or (lambda text: text)
    if rows.examples[0].words is not None:
        known = {word: clean(word) for example in rows.examples for word in example.words or ()}
        return {"words": [[known[word] for word in example.words or ()] for example in rows.examples]}
    columns = {"text": [clean(example.text) for example in rows.examples]}
    if rows.examples[0].text_pair is not None:
        columns["text_pair"] = [clean(example.text_pair or "") for example in rows.examples]
    return columns


def _questions(rows: SplitRows, model: Model) -> dict[str, list[Any]]:
    """Return the normalised questions and contexts of span extraction, as columns; see `normalised_questions`."""
    return normalised_questions(rows.examples, model.normalise or (lambda text: text))


def _tokenized(columns: dict[str, list[Any]], tokenizer: Any, max_length: int) -> Any:
    """Return the token ids of normalised texts, words or questions as a `datasets.Dataset`."""
    import datasets

    datasets.disable_progress_bars()  # alue-bench shows one progress bar for the whole plan
    if "words" in columns:
        windows = encoded_words(columns["words"], tokenizer, max_length)
        number = datasets.Value("int64")
        kinds = {name: number if name in ("sentence", "cut") else datasets.List(number) for name in windows}
        return datasets.Dataset.from_dict(windows, features=datasets.Features(kinds))
    if "question" in columns:
        return datasets.Dataset(encoded_questions(columns, tokenizer, max_length))

    def encode(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        return _encoded(batch, tokenizer, max_length)

    # The texts are passed in memory and the result is saved by `_save`; the library's own disk cache is not used.
    table = datasets.Dataset.from_dict(columns)
    return table.map(encode, batched=True, batch_size=1000, remove_columns=list(columns), keep_in_memory=True)


def _encoded(batch: dict[str, list[str]], tokenizer: Any, max_length: int) -> dict[str, list[Any]]:
    """Tokenize a batch of texts, and return the result as columns of an Arrow table.

    The columns are "input_ids", "token_type_ids" if the tokenizer gives any, and two flags for each example:
    "truncated", and "empty" if one of its texts gives no token.

    Args:
        batch: The normalised texts, in the columns "text" and, for pairs, "text_pair".
        tokenizer: The tokenizer.
        max_length: The maximal number of tokens of an example, special tokens included.
    """
    texts, pairs = batch["text"], batch.get("text_pair")
    whole = token_ids(texts, pairs, tokenizer, max_length)
    encoded = {name: whole[name] for name in ("input_ids", "token_type_ids") if name in whole}
    sides = {0} if pairs is None else {0, 1}
    if whole.encodings is not None:
        encoded["truncated"] = [bool(encoding.overflowing) for encoding in whole.encodings]
        encoded["empty"] = [not sides <= set(encoding.sequence_ids) for encoding in whole.encodings]
    else:  # a slow tokenizer reports neither what it cut nor which text a token belongs to
        uncut = tokenizer(texts, pairs, truncation=False)["input_ids"]
        encoded["truncated"] = [len(ids) > max_length for ids in uncut]
        alone = [tokenizer(column, add_special_tokens=False)["input_ids"] for column in (texts, pairs) if column]
        encoded["empty"] = [not all(example) for example in zip(*alone, strict=True)]
    return encoded


def token_ids(texts: list[str], pairs: list[str] | None, tokenizer: Any, max_length: int) -> Any:
    """Tokenize normalised texts; every example gets at least one token.

    Args:
        texts: The texts.
        pairs: The second texts; None for single texts.
        tokenizer: The tokenizer.
        max_length: The maximal number of tokens of an example, special tokens included.

    Returns:
        The tokenizer's output. If an example would have no token, because its texts are empty and the tokenizer adds no
        special tokens, it gets one token that represents an empty text.
    """
    encoded = tokenizer(texts, pairs, truncation=True, max_length=max_length, return_attention_mask=False)
    for place, ids in enumerate(encoded["input_ids"]):
        if not ids:
            encoded["input_ids"][place] = [token_for_empty_text(tokenizer)]
            if "token_type_ids" in encoded:
                encoded["token_type_ids"][place] = [0]
    return encoded


def _load(folder: Path) -> Any | None:
    """Return the Arrow dataset in a folder; None if there is none. A damaged folder is deleted."""
    import datasets

    if not folder.is_dir():
        return None
    try:
        return datasets.Dataset.load_from_disk(str(folder))
    except Exception:  # a crash or a full disk damaged the entry; it is computed again
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _save(tokens: Any, folder: Path) -> None:
    """Save an Arrow dataset of token ids in the cache folder.

    The token ids are written to a temporary folder, which is then renamed to `folder`, so that readers never see an
    incomplete entry. If the disk is full, a warning is given, and a later command tokenizes the texts again. A cache
    folder that cannot be written at all has been rejected before (`check_cache_folder`).
    """
    scratch: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        tokens.save_to_disk(str(scratch))
    except OSError as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        warnings.warn(
            f"token ids are not kept in {folder.parent} ({error.strerror or error}); free some space, or choose "
            f"another cache folder with {CACHE_VARIABLE}",
            stacklevel=2,
        )
        return
    try:
        os.replace(scratch, folder)
    except OSError:  # another process has created the same entry in the meantime
        shutil.rmtree(scratch, ignore_errors=True)
