"""Predictions for the rows of a file, chunk by chunk, so that memory does not grow with the file.

check the whole file: columns, texts, gold labels            # so that nothing fails after an hour
for each chunk of rows:                                      # the next one is tokenized during prediction
    normalise, tokenize, sort by length, batch               # as in the evaluation of a run
    logits → prediction and scores
    write the rows and their predictions, in the file's order
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import DataError, UsageError
from alue_bench.contract.formats import csv_text, excerpt
from alue_bench.contract.task import TargetKind
from alue_bench.deployment.description import Description
from alue_bench.deployment.kept_model import CHUNK, KeptModel, TokenizedTexts
from alue_bench.deployment.pyfunc import PREDICTION, SCORE, columns_of
from alue_bench.deployment.table_files import (
    STDOUT,
    Chunk,
    ChunkedTable,
    Format,
    OutputFile,
    Stream,
    format_of,
    open_table,
)
from alue_bench.evaluation.label_cells import split_labels
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import decide
from alue_bench.training.device.host_memory import retain_freed_memory

if TYPE_CHECKING:
    import numpy as np

MAX_NAMED_ROWS = 5
"""The number of faulty rows that an error message lists; further ones are only counted."""
TEXT_COLUMNS, PAIR_COLUMNS = ("text",), ("pair", "text_pair")
"""The column names that are tried for the first and second texts if the user names no columns."""
OnRows = Callable[[int, int], None]
"""A function that is called during a prediction with the number of rows done so far and the total number of rows."""


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """A request to predict the texts in a file: the input file, its columns, the output file and its content."""

    source: Path
    output: str = STDOUT
    """The path of the output file; "-" means stdout."""
    text: str | None = None
    """The column of the texts. None means the column "text" or, if there is none, the only column of the file."""
    pair: str | None = None
    """The column of the second texts, for a model that reads pairs. None means the column "pair" or "text_pair"."""
    label: str | None = None
    """The column of the gold labels with which the predictions are scored. None means no scoring."""
    scores: bool = False
    """True to write the probability of each label in addition to the prediction."""
    prefix: str = ""
    """A prefix for the names of the columns that the output adds to those of the input."""
    skip_bad: bool = False
    """True to give rows without a text an empty prediction; False to treat them as an error."""
    overwrite: bool = False
    """True to replace an existing output file; False to treat it as an error."""


@dataclass
class Predicted:
    """The outcome of the prediction of a file: counts, time and metrics."""

    rows: int = 0
    bad: int = 0
    """The number of rows without a prediction, because a text or second text is missing."""
    truncated: int = 0
    """The number of truncated texts; see `TokenizedTexts.truncated`."""
    seconds: float = 0.0
    """The time in seconds from reading the first row to writing the last one, without the check of the file."""
    scored: int = 0
    """The number of rows whose gold label was compared with the prediction."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The metrics by name; empty without gold labels."""


@dataclass(frozen=True)
class _Columns:
    """The names of the columns to read from the file with texts."""

    text: str
    pair: str | None
    label: str | None

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name in (self.text, self.pair, self.label) if name is not None))


def predict_file(
    model: KeptModel,
    request: PredictionRequest,
    *,
    on_rows: OnRows = lambda done, total: None,
    stdout: Stream | None = None,
) -> Predicted:
    """Predict the rows of a file with a trained model, and write the predictions to another file.

    Args:
        model: The model.
        request: The input file, its columns, and the output file.
        on_rows: A function that is called after each chunk with the number of rows done and the total number of rows.
        stdout: The stream to write to if the output is "-"; None for `sys.stdout`.

    Raises:
        UsageError: The input file or a column does not exist, the output exists and must not be overwritten, the input
            already has a column that would be added, or an option does not fit the model.
        DataError: The file is damaged or empty, or a row has no text (unless `skip_bad` is set) or an unknown gold
            label.
        UnavailableError: The output cannot be written.
    """
    description = model.description
    table = open_table(request.source)
    present = table.columns()
    columns = _columns(table.path, present, request, description)
    kind = _output_format(request)
    _check_words(request, kind, description)
    new = _new_columns(description, request)
    if taken := next((name for name in new if name in present), None):
        raise UsageError(
            f"{request.source} has a column {taken!r} already; give the new columns other names with --prefix"
        )
    total = _check_rows(table, columns, description, skip_bad=request.skip_bad)

    retain_freed_memory()
    done, began = Predicted(), time.perf_counter()
    scorer = _Scorer(description) if columns.label is not None else None
    with (
        OutputFile(request.output, kind, present, stdout, columns.text) as output,
        ThreadPoolExecutor(1, thread_name_prefix="tokenize") as thread,
    ):
        for chunk, texts, good in _tokenized_ahead(thread, table, columns, model):
            logits = model.logits_of(texts) if texts is not None else None
            of_texts = {} if texts is None or logits is None else _predicted(model, request, logits, texts)
            new_values = {name: _for_all_rows(of_texts.get(name, []), good, len(chunk)) for name in new}
            output.write(chunk, new_values)
            if scorer is not None and logits is not None:
                scorer.add(chunk.column(columns.label or ""), logits, good)
            done.rows += len(chunk)
            done.bad += len(chunk) - len(good)
            done.truncated += texts.truncated if texts is not None else 0
            on_rows(done.rows, total)
    done.seconds = time.perf_counter() - began
    if scorer is not None:
        done.scored, done.metrics = scorer.metrics()
    return done


# The file --------------------------------------------------------------------------------------------------------


def _columns(path: Path, present: Sequence[str], request: PredictionRequest, description: Description) -> _Columns:
    """Return the names of the columns to read.

    Raise UsageError if the file lacks one of them, or if the request names second texts for a model that reads single
    texts.

    Args:
        path: The file, for error messages.
        present: The names of all columns of the file.
        request: The request, in which the user may name columns.
        description: The description of the model.
    """
    listed = ", ".join(excerpt(name, quote=False) for name in present[:30])

    def chosen(given: str | None, option: str, usual: Sequence[str]) -> str:
        if given is not None:
            if given not in present:
                raise UsageError(f"{path} has no column {excerpt(given)} ({option}); it has {listed}")
            return given
        if name := next((name for name in usual if name in present), None):
            return name
        raise UsageError(f"{path}: say with {option} which column to read; it has {listed}")

    only = tuple(present) if len(present) == 1 else ()
    text = chosen(request.text, "--text", (*TEXT_COLUMNS, *only))
    if not description.is_pair and request.pair is not None:
        raise UsageError("--pair names second texts, but the model reads single ones; leave it out")
    pair = chosen(request.pair, "--pair", PAIR_COLUMNS) if description.is_pair else None
    label = chosen(request.label, "--label", ()) if request.label is not None else None
    return _Columns(text, pair, label)


def _output_format(request: PredictionRequest) -> Format:
    """Return the format of the output; on stdout, it is that of the input, but CSV instead of Parquet.

    Raise UsageError if the output file is the input file, or if it exists and must not be overwritten.
    """
    if request.output == STDOUT:
        kind = format_of(request.source)
        return "csv" if kind == "parquet" else kind
    path = Path(request.output)
    kind = format_of(path)
    if path.exists() and path.resolve() == request.source.resolve():
        raise UsageError(f"{path} is the file that is read; name another output")
    if path.exists() and not request.overwrite:
        raise UsageError(f"{path} exists; name another output, or say --overwrite")
    return kind


def _check_words(request: PredictionRequest, kind: Format, description: Description) -> None:
    """Raise UsageError if an option or a file format does not fit the model.

    Models that tag words or find spans accept neither `--scores` nor `--label`. A .conll file needs a model that
    tags words. Files without columns (.txt and .conll) cannot hold scores.
    """
    labels = description.labels
    if labels.reads_tokens and (request.scores or request.label is not None):
        option = "--scores" if request.scores else "--label"
        what = (
            "tags words, and predicts only tags" if labels.tags_words else "extracts spans, and predicts only answers"
        )
        raise UsageError(f"the model {what}; leave {option} out")
    if not labels.tags_words and "conll" in (format_of(request.source), kind):
        raise UsageError("a .conll file has a tag for each word, and the model predicts texts; use .txt or .csv files")
    if kind in ("txt", "conll") and request.scores:
        raise UsageError(f"{request.output}: such a file has only the predictions; name a .csv file for --scores")


def _new_columns(description: Description, request: PredictionRequest) -> list[str]:
    is_number = description.labels.kind is TargetKind.REGRESSION
    scores = [] if is_number or not request.scores else [f"{SCORE}{name}" for name in description.labels.names]
    return [request.prefix + name for name in (PREDICTION, *scores)]


def _check_rows(table: ChunkedTable, columns: _Columns, description: Description, *, skip_bad: bool) -> int:
    """Check all texts and gold labels of the file to predict, and return its number of rows.

    Raises:
        DataError: The file has no rows, or a row has no text (unless `skip_bad` is set) or an unknown gold label.
    """
    rows, bad, unknown = 0, 0, 0
    problems: list[str] = []
    for chunk in table.chunks(CHUNK, columns.names):
        rows += len(chunk)
        good = set(_usable_rows(chunk, columns))
        if len(good) < len(chunk) and not skip_bad:
            bad += len(chunk) - len(good)
            problems += [
                f"{table.row_location(chunk.lines[place])}: no text" for place in range(len(chunk)) if place not in good
            ]
        if columns.label is not None:
            for place, value in enumerate(chunk.column(columns.label)):
                problem = _label_problem(value, description) if place in good else None
                if problem and not (skip_bad and _is_missing(value)):
                    unknown += 1
                    if len(problems) < MAX_NAMED_ROWS:
                        problems.append(f"{table.row_location(chunk.lines[place])}: {problem}")
        del problems[MAX_NAMED_ROWS:]
    if not rows:
        raise DataError(f"{table.path}: the file has no rows")
    if problems:
        more = bad + unknown - len(problems)
        also = f"; and {more} more rows" if more else ""
        remedy = "mend them, or leave their predictions empty with --skip-bad" if not unknown else "mend them"
        raise DataError(f"{'; '.join(problems)}{also}; {remedy}")
    return rows


def _usable_rows(chunk: Chunk, columns: _Columns) -> list[int]:
    """Return the positions of a chunk's rows that have a text and, if the model reads pairs, a second text."""
    texts = chunk.column(columns.text)
    pairs = texts if columns.pair is None else chunk.column(columns.pair)
    return [
        place
        for place, (text, pair) in enumerate(zip(texts, pairs, strict=True))
        if isinstance(text, str) and isinstance(pair, str) and text.strip() and pair.strip()
    ]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def _label_problem(value: Any, description: Description) -> str | None:
    """Return a description of what is wrong with a gold label; None if it is valid."""
    kind = description.labels.kind
    if _is_missing(value) and kind is not TargetKind.MULTILABEL:
        return "no gold label"
    try:
        named = _gold_of(value, description)
    except (ValueError, TypeError):
        return f"{excerpt(str(value))} is no {'number' if kind is TargetKind.REGRESSION else 'list of labels'}"
    if kind is TargetKind.REGRESSION:
        return None
    wrong = next((name for name in named if name not in description.labels.names), None)
    if wrong is None:
        return None
    return f"label {excerpt(wrong)} is not a label of the model: {', '.join(description.labels.names)}"


def _gold_of(value: Any, description: Description) -> Any:
    """Convert a value from the file's label column to a number (regression) or a tuple of label names."""
    kind = description.labels.kind
    if kind is TargetKind.REGRESSION:
        return float(value)
    if kind is TargetKind.MULTILABEL:
        if _is_missing(value):
            return ()
        if isinstance(value, list | tuple):
            return tuple(_name_of(one, description) for one in value)
        return split_labels(csv_text(value))
    return (_name_of(value, description),)


def _name_of(value: Any, description: Description) -> str:
    """Return the label name for a value from the file. The number 1.0 stands for "1" if there is no label "1.0"."""
    name, names = csv_text(value), description.labels.names
    try:
        number = float("nan" if name in names else name)
    except ValueError:
        return name
    whole = str(int(number)) if number.is_integer() else name
    return whole if whole in names else name


# Predicting ------------------------------------------------------------------------------------------------------

_TokenizedChunk = tuple[Chunk, TokenizedTexts | None, list[int]]
"""A chunk of rows, its texts as token ids (None if no row has a text), and the positions of the rows with a text."""


def _tokenized_ahead(
    thread: ThreadPoolExecutor, table: ChunkedTable, columns: _Columns, model: KeptModel
) -> Iterator[_TokenizedChunk]:
    """Yield the chunks of a file with their token ids, while `thread` reads and tokenizes the next chunk."""
    chunks = table.chunks(CHUNK)

    def following() -> _TokenizedChunk | None:
        chunk = next(chunks, None)
        if chunk is None:
            return None
        good = _usable_rows(chunk, columns)
        if not good:
            return chunk, None, good
        texts, pairs = chunk.column(columns.text), chunk.column(columns.pair) if columns.pair is not None else None
        chosen = [texts[place] for place in good]
        return chunk, model.tokenized(chosen, None if pairs is None else [pairs[place] for place in good]), good

    ahead: Future[_TokenizedChunk | None] = thread.submit(following)
    while (ready := ahead.result()) is not None:
        ahead = thread.submit(following)
        yield ready


def _predicted(
    model: KeptModel, request: PredictionRequest, logits: np.ndarray[Any, Any], texts: TokenizedTexts
) -> dict[str, Sequence[Any]]:
    """Return the new columns for the rows with a text: predictions and scores, by column name.

    Args:
        model: The model.
        request: The request, which determines the names of the columns and whether scores are among them.
        logits: The model's outputs for the texts.
        texts: The tokenized texts.
    """
    columns = columns_of(model, logits, texts.split, scores=request.scores).values()
    return dict(zip(_new_columns(model.description, request), columns, strict=True))


def _for_all_rows(column: Sequence[Any], positions: list[int], count: int) -> Sequence[Any]:
    """Extend a column from the rows with a text to all rows of a chunk; the rows without a text get None.

    Args:
        column: The values for the rows with a text.
        positions: The positions of these rows in the chunk.
        count: The number of rows of the chunk.
    """
    if len(column) == count:
        return column
    values: list[Any] = [None] * count
    for place, value in zip(positions, column, strict=True):
        values[place] = value
    return values


class _Scorer:
    """A collector of gold labels and predictions from all chunks, from which it computes the metrics."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self._label_indices = {name: place for place, name in enumerate(description.labels.names)}
        self._gold: list[np.ndarray[Any, Any]] = []
        self._predicted: list[np.ndarray[Any, Any]] = []

    def add(self, values: list[Any], logits: np.ndarray[Any, Any], good: list[int]) -> None:
        """Add the gold labels and predictions of a chunk's rows that have both.

        Args:
            values: The gold labels of all rows of the chunk.
            logits: The model's outputs for the rows with a text.
            good: The positions of the rows with a text.
        """
        several = self._description.labels.kind is TargetKind.MULTILABEL
        labelled = [row for row, place in enumerate(good) if several or not _is_missing(values[place])]
        if labelled:
            self._gold.append(self._encoded([values[good[row]] for row in labelled]))
            self._predicted.append(decide(logits[labelled], self._description.labels))

    def metrics(self) -> tuple[int, dict[str, float]]:
        """Return the number of rows with a gold label and a prediction, and the metrics over them."""
        import numpy as np

        if not self._gold:
            return 0, {}
        gold, predicted = np.concatenate(self._gold), np.concatenate(self._predicted)
        return len(gold), metrics(gold, predicted, self._description.labels)

    def _encoded(self, values: list[Any]) -> np.ndarray[Any, Any]:
        import numpy as np

        kind = self._description.labels.kind
        gold = [_gold_of(value, self._description) for value in values]
        if kind is TargetKind.REGRESSION:
            return np.array(gold, dtype="float32")
        if kind is TargetKind.MULTILABEL:
            marks = np.zeros((len(gold), len(self._label_indices)), dtype="int64")
            for row, names in enumerate(gold):
                marks[row, [self._label_indices[name] for name in names]] = 1
            return marks
        return np.array([self._label_indices[name] for (name,) in gold], dtype="int64")
