"""The rows (texts and labels, or words and tags) on which models are trained, from a task's files or a JSON file.

The JSON file can be read without the package `datasets`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from alue_bench.contract.errors import DataError, UsageError
from alue_bench.contract.formats import Example
from alue_bench.contract.task import OUTSIDE, Labels
from benchmarks.timing.checkpoint import tokenizer_of
from benchmarks.timing.settings import Setup, chosen_setup


class Row(NamedTuple):
    """A text and its gold label, or the words of a text and their gold tags."""

    text: str
    label: str | tuple[str, ...]
    """The gold label of the text, or the gold tag of each of its words."""
    words: tuple[str, ...] | None = None
    """The words of the text if they have tags; None if the text has a label."""


@dataclass(frozen=True)
class Rows:
    """The rows on which models are trained, and the held-out rows on which the trained models are scored."""

    train: tuple[Row, ...]
    held_out: tuple[Row, ...]
    source: str
    """The origin of the rows as reports show it: the task and the kind of its files, or the name of the JSON file."""

    @property
    def labels(self) -> Labels:
        """The names of all labels in the rows; if words have tags, "O" and the tags B-… and I-… of all entity types."""
        rows = (*self.train, *self.held_out)
        if rows[0].words is None:
            return Labels.multiclass(*sorted({str(row.label) for row in rows}))
        types = sorted({tag[2:] for row in rows for tag in row.label if tag != OUTSIDE})
        return Labels.tokens(OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in "BI"), scheme="IOB2")


def chosen_rows(options: argparse.Namespace) -> tuple[Rows, Setup]:
    """Return the rows that the command-line options name, and the settings with the actual numbers of rows.

    Raises:
        DataError: There are too few rows.
        UsageError: An option is invalid, or official files are missing.
    """
    setup = chosen_setup(options)
    rows = read_rows(options.rows_json, setup.rows, setup.eval_rows) if options.rows_json else task_rows(options)
    if setup.longest:
        rows = without_long_ones(rows, tokenizer_of(setup), setup.longest)
    return rows, replace(setup, rows=len(rows.train), eval_rows=len(rows.held_out))


def read_rows(file: Path, train: int, held_out: int) -> Rows:
    """Read rows from a file that `write_rows` wrote.

    Args:
        file: The file.
        train: The largest number of train rows, which are taken from the start of the file.
        held_out: The number of held-out rows, which are taken from the end of the file.

    Raises:
        DataError: The file has another format, too few rows, or only one label.
    """
    try:
        all_rows = [_row_of(entry) for entry in json.loads(file.read_text("utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f'{file} is not a list of {{"text": …, "label": …}} or {{"words": […], "tags": […]}}; --write-rows makes '
            f"such a file ({error!r})"
        ) from error
    if len(all_rows) <= held_out:
        raise DataError(f"{file} has {len(all_rows)} rows; take fewer than that as --eval-rows")
    rows = Rows(tuple(all_rows[:-held_out][:train]), tuple(all_rows[-held_out:]), file.name)
    if len({row.label for row in all_rows}) < 2:
        raise DataError(f"{file} has one label only; there is nothing to learn")
    return rows


def _row_of(entry: dict[str, Any]) -> Row:
    """Return the row that an entry of a JSON file describes."""
    if "words" not in entry:
        return Row(str(entry["text"]), str(entry["label"]))
    words, tags = (tuple(map(str, entry[name])) for name in ("words", "tags"))
    if len(words) != len(tags):
        raise ValueError(f"{len(words)} words with {len(tags)} tags")
    return Row(" ".join(words), tags, words)


def _entry_of(row: Row) -> dict[str, Any]:
    """Return the entry of a JSON file that describes a row."""
    return {"text": row.text, "label": row.label} if row.words is None else {"words": row.words, "tags": row.label}


def _row_of_example(example: Example) -> Row:
    if isinstance(example.target, tuple):
        return Row(example.text, tuple(map(str, example.target)), example.words)
    return Row(example.text, str(example.target))


def task_rows(options: argparse.Namespace) -> Rows:
    """Return the rows of the task that the options name, with its dev split as held-out rows.

    Raises:
        UsageError: There are no official files, and the sample was not requested.
    """
    from alue_bench.contract.registry import load_registry
    from alue_bench.data.location import given_data_folder, locate
    from alue_bench.data.splits import load_rows

    task = load_registry().task(options.task)
    given = None if options.sample else given_data_folder(options.data_dir)
    folder = locate(task, given=given, sample=options.sample)
    if folder.kind == "sample" and not options.sample:
        raise UsageError(
            f"there are no official files of {task.name}; name their folder with --data-dir or ALUE_BENCH_DATA, "
            "take rows from a file with --rows-json, or try the benchmark itself with --sample"
        )
    splits = load_rows(task, folder, drop_bad=False, limit_train=options.rows, limit_eval=options.eval_rows).splits
    train, dev = (tuple(map(_row_of_example, splits[name].examples)) for name in ("train", "dev"))
    return Rows(train, dev, f"{task.name} ({folder.kind})")


def without_long_ones(rows: Rows, tokenizer: Any, longest: int) -> Rows:
    """Return the rows whose texts have at most `longest` tokens.

    Args:
        rows: The rows.
        tokenizer: The tokenizer.
        longest: The largest number of tokens, special tokens included.

    Raises:
        DataError: No held-out row remains, or the remaining rows have fewer than two labels.
    """

    def short(given: tuple[Row, ...]) -> tuple[Row, ...]:
        encoded = tokenizer([row.text for row in given])["input_ids"]
        return tuple(row for row, ids in zip(given, encoded, strict=True) if len(ids) <= longest)

    remaining = replace(rows, train=short(rows.train), held_out=short(rows.held_out))
    if not remaining.held_out or len({row.label for row in remaining.train}) < 2:
        raise DataError(f"too few rows have at most {longest} tokens; allow more with --longest")
    return remaining


def write_rows(rows: Rows, file: Path) -> None:
    """Write rows to a JSON file that `read_rows` can read."""
    content = [_entry_of(row) for row in (*rows.train, *rows.held_out)]
    file.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


@contextmanager
def rows_on_disk(rows: Rows) -> Iterator[Path]:
    """Write rows to a temporary JSON file for measuring processes; the file is deleted after the `with` block."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        write_rows(rows, file)
        yield file
