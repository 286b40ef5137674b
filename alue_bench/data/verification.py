"""The verification of a task's files: bad rows, label counts, duplicates, and overlap between splits."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alue_bench.contract.errors import AlueBenchError, DataError
from alue_bench.contract.formats import Answers, BadRow, Example, Target, excerpt
from alue_bench.contract.tagged import is_tagged, tags_without_beginning
from alue_bench.contract.task import OUTSIDE, DataFile, Labels, TargetKind, Task
from alue_bench.data.location import DataFolder, user_data_folder
from alue_bench.messages.suggestion import command_line

Texts = tuple[str, str | None]
"""The text of an example and its second text, which is None if examples are single texts."""
MAX_NAMED_LABELS = 5
"""The largest number of labels that a message lists by name."""

SNIFFED_BYTES = 8192
"""The number of bytes at the beginning of a file that are examined to decide whether it is a text file."""

BINARY_SIGNATURES = (b"PK\x03\x04", b"PAR1", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"ARROW1")
"""The first bytes of ZIP files (XLSX files included) and of Parquet, gzip, bzip2, xz, zstd and Arrow files."""


@dataclass(frozen=True)
class ReadFile:
    """The content of a data file, as it was read: usable rows, bad rows and a digest."""

    path: Path
    examples: tuple[Example, ...]
    bad: tuple[BadRow, ...]
    sha256: str
    """The SHA-256 digest of the file's content; for a folder, the digest of an empty file."""
    has_lines: bool
    """True if the file is a text file, so that positions are line numbers; otherwise they are row numbers."""

    def row_location(self, row: Example | BadRow) -> str:
        """Return the position of a row, such as "train.tsv:7", for a message."""
        return row_location(self.path, row.line, has_lines=self.has_lines)


@dataclass
class FileReport:
    """A report on the content of one data file of a task."""

    split: str
    path: Path
    rows: int
    """The number of usable rows in the file."""
    labels: dict[str, int]
    """The number of rows with each label, by label; in a task that tags words, the number of words with each tag."""
    bad: tuple[BadRow, ...]
    duplicates: int
    """The number of rows whose texts occurred in an earlier row of the same file."""
    has_lines: bool
    """True if the file is a text file, so that positions are line numbers; otherwise they are row numbers."""
    gaps: tuple[str, ...] = ()
    """Sentences about labels that cannot be learnt from the file or scored on it; see the function `label_gaps`."""

    def row_location(self, row: BadRow) -> str:
        """Return the position of a row, such as "train.tsv:7", for a message."""
        return row_location(self.path, row.line, has_lines=self.has_lines)


@dataclass
class VerificationReport:
    """A report on all data files of a task: their content, and the errors in them."""

    task: str
    files: list[FileReport] = field(default_factory=list)
    overlaps: dict[str, int] = field(default_factory=dict)
    """The number of rows of one split whose texts also occur in another split, by a key such as "test in train"."""
    missing: list[str] = field(default_factory=list)
    """The files that do not exist, as paths below the data folder."""
    unusable: dict[str, str] = field(default_factory=dict)
    """The reasons why files cannot be read at all, by the path of the file below the data folder."""

    @property
    def bad_rows(self) -> int:
        """The number of bad rows in all files."""
        return sum(len(file.bad) for file in self.files)


def read_file(file: DataFile, path: Path, labels: Labels) -> ReadFile:
    """Read a whole data file.

    A row whose text or target cannot be used becomes a bad row, even if the reader yields it as an example. If the
    reader yields None for a row, this also becomes a bad row.

    Args:
        file: The declaration of the file, with its reader.
        path: The file on this machine.
        labels: The label space of the task.

    Raises:
        DataError: The file as a whole is unusable (for example missing, empty, in a wrong encoding, or without one of
            the declared columns), or the reader fails; the message then names the last row before the failure.
    """
    if not path.exists():
        raise DataError(f"{path}: the file is missing")
    content = path.read_bytes() if path.is_file() else b""
    has_lines = getattr(file.read, "has_lines", True) and path.is_file() and is_text(content)
    examples: list[Example] = []
    bad: list[BadRow] = []
    last: Example | BadRow | None = None
    try:
        rows = file.read(path)
        if rows is None:
            raise TypeError("it returned None; it must yield each row")
        for row in rows:
            last = _validated_row(row, labels, last)
            if isinstance(last, BadRow):
                bad.append(last)
            else:
                examples.append(last)
    except AlueBenchError:
        raise
    except Exception as error:  # a plugin's reader may raise anything; the message names the file
        where = f" after {_unit(has_lines)} {last.line}" if last is not None else ""
        raise DataError(
            f"{path}: the reader failed{where}: {type(error).__name__}: "
            f"{excerpt(str(error), quote=False, max_length=200)}"
        ) from error
    return ReadFile(path, tuple(examples), tuple(bad), hashlib.sha256(content).hexdigest(), has_lines)


def is_text(content: bytes) -> bool:
    """Return whether a file with this content is a text file, so that its rows have line numbers.

    A text does not begin with one of `BINARY_SIGNATURES`, and its beginning has almost no control characters when it is
    decoded as UTF-8. Bytes that are not UTF-8 are permitted: they belong to a damaged row, or to a text in a
    single-byte encoding.
    """
    beginning = content[:SNIFFED_BYTES]
    if beginning.startswith(BINARY_SIGNATURES):
        return False
    decoded = beginning.decode("utf-8", errors="replace")
    controls = sum(character < " " and character not in "\t\n\r\f" for character in decoded)
    return controls <= len(decoded) // 100


def row_location(path: Path, line: int, *, has_lines: bool) -> str:
    """Return the position of a row, for a message: "FILE:LINE", or "FILE, row 7" if the file is not a text file."""
    return f"{path}:{line}" if has_lines else f"{path}, row {line}"


def _unit(has_lines: bool) -> str:
    return "line" if has_lines else "row"


def _validated_row(row: Example | BadRow | None, labels: Labels, last: Example | BadRow | None) -> Example | BadRow:
    """Return a row unchanged if it is usable or already a bad row; otherwise return a bad row with the reason.

    Args:
        row: The value that the reader yielded.
        labels: The label space of the task.
        last: The previous row; None for the first row.
    """
    if row is None:
        return BadRow(last.line + 1 if last is not None else 1, "the reader yielded None instead of this row")
    if isinstance(row, BadRow):
        return row
    return bad_row_of(row, labels) or row


def bad_row_of(example: Example, labels: Labels) -> BadRow | None:
    """Return a `BadRow` that says why an example is unusable for a task; None if the example is usable.

    Raises:
        TypeError: `example` is not an Example, because the reader of the file yielded something else.
    """
    if not isinstance(example, Example):
        raise TypeError(f"it yielded {example!r:.80} instead of an Example or a BadRow")
    for text in (
        example.id,
        example.text,
        "" if example.text_pair is None else example.text_pair,
        *(example.words or ()),
    ):
        if not isinstance(text, str):
            return BadRow(example.line, f"{excerpt(repr(text), quote=False)} was read where a text was expected")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return BadRow(
                example.line,
                f"contains half of a surrogate pair ({excerpt(text[error.start])}), which is not a character",
            )
    if labels.extracts_spans and example.text_pair is None:
        return BadRow(example.line, "has no question; give it as text_pair, and the text that holds the answer as text")
    if example.words is not None and not labels.tags_words:
        return BadRow(example.line, "has words, but the task does not tag words; leave the words of the example out")
    target, kind = example.target, labels.kind
    if target is None:
        return None
    if kind is TargetKind.REGRESSION:
        number = isinstance(target, float | int) and not isinstance(target, bool)
        if not number or not (labels.minimum <= target <= labels.maximum and math.isfinite(target)):  # type: ignore[operator,arg-type]
            return BadRow(example.line, f"{excerpt(str(target), quote=False)} is not a number of the task's range")
    elif kind in (TargetKind.MULTILABEL, TargetKind.TOKENS):
        if kind is TargetKind.TOKENS and not is_tagged(example):
            return BadRow(
                example.line, f"{excerpt(str(target))} is not a tuple with a tag for each of the example's words"
            )
        if not isinstance(target, tuple):
            return BadRow(example.line, f"{excerpt(str(target))} is not a tuple of labels")
        if unknown := [name for name in target if name not in labels.names]:
            return BadRow(example.line, f"unknown label {excerpt(str(unknown[0]))}")
    elif labels.extracts_spans:
        if not isinstance(target, Answers):
            return BadRow(example.line, f"{excerpt(str(target))} is not an Answers value")
        if not target.texts and not labels.no_answer:
            return BadRow(example.line, "has no answer; declare Labels.span(no_answer=True)")
        bounds = zip(target.starts, target.ends, strict=True)
        if len(target.texts) != len(target.starts) or not all(0 <= a < b <= len(example.text) for a, b in bounds):
            return BadRow(example.line, f"the positions {target.starts} to {target.ends} are none of answers in it")
    elif target not in labels.names:
        return BadRow(example.line, f"unknown label {excerpt(str(target))}")
    return None


def label_counts(targets: Sequence[Target]) -> dict[str, int]:
    """Return the number of examples with each label, sorted by label.

    An example with several labels counts for each of them. In a task that tags words, words are counted instead of
    examples. The targets of a regression are not counted.
    """
    counts: Counter[str] = Counter()
    for target in targets:
        if isinstance(target, tuple):
            counts.update(target)
        elif isinstance(target, str):
            counts[target] += 1
    return dict(sorted(counts.items()))


def label_gaps(split: str, targets: Sequence[Target], labels: Labels) -> list[str]:
    """Return sentences about labels that a model cannot learn from this split, or whose scores on it are meaningless.

    Such labels occur in no row or in every row. For a regression, there is a sentence if all rows have the same value.
    `_gaps_of_tags` and `_gaps_of_answers` describe the sentences about tags of words and about span extraction. If no
    row has a gold label, there are no sentences.

    Args:
        split: The name of the split, such as "train".
        targets: The targets of its rows.
        labels: The label space of the task.
    """
    gold = [target for target in targets if target is not None]
    if not gold:
        return []
    trains = split == "train"
    if labels.kind is TargetKind.REGRESSION:
        effect = "there is nothing to learn" if trains else "a correlation with them is undefined"
        return [f"all {len(gold)} {split} rows have the value {gold[0]}: {effect}"] if len(set(gold)) == 1 else []
    if labels.tags_words:
        return _gaps_of_tags(split, gold, labels)
    if labels.extracts_spans:
        return _gaps_of_answers(split, gold, labels)
    counts = label_counts(gold)
    sentences = []
    absent = [name for name in labels.names if name not in counts]
    if absent:
        named = ", ".join(excerpt(name) for name in absent[:MAX_NAMED_LABELS])
        more = f" and {len(absent) - MAX_NAMED_LABELS} more" if len(absent) > MAX_NAMED_LABELS else ""
        effect = "they cannot be learnt" if trains else "macro-F1 leaves out those that are not predicted either"
        sentences.append(f"labels of no {split} row: {named}{more} (of {len(labels.names)}); {effect}")
    of_all = [name for name, count in counts.items() if count == len(gold)]
    if of_all:
        what = "the label" if labels.kind is TargetKind.MULTILABEL else "no label but"
        effect = "there is nothing to learn about it" if trains else "scores do not tell whether it was learnt"
        sentences += [
            f"all {len(gold)} {split} rows have {what} {excerpt(name)}: {effect}" for name in of_all[:MAX_NAMED_LABELS]
        ]
    return sentences


def _gaps_of_tags(split: str, targets: Sequence[Target], labels: Labels) -> list[str]:
    """Return the sentences of `label_gaps` for tags of words: on absent types and I- tags that continue no entity."""
    counts, sentences = label_counts(targets), []
    trains, entities = split == "train", labels.scheme is not None
    occurring = {name[2:] for name in counts if name != OUTSIDE} if entities else set(counts)
    if absent := [name for name in labels.types if name not in occurring]:
        what = "entity types" if entities else "tags"
        named = ", ".join(excerpt(name) for name in absent[:MAX_NAMED_LABELS])
        more = f" and {len(absent) - MAX_NAMED_LABELS} more" if len(absent) > MAX_NAMED_LABELS else ""
        effect = "they cannot be learnt" if trains else "macro-F1 leaves out those that are not predicted either"
        sentences.append(f"{what} of no {split} sentence: {named}{more} (of {len(labels.types)}); {effect}")
    if entities and (lost := sum(tags_without_beginning(tags) for tags in targets if isinstance(tags, tuple))):
        tags = "1 I- tag continues" if lost == 1 else f"{lost} I- tags continue"
        sentences.append(f"{tags} no entity of the same type in {split}; each is read as the beginning of an entity")
    return sentences


def _gaps_of_answers(split: str, targets: Sequence[Target], labels: Labels) -> list[str]:
    """Return the sentences of `label_gaps` for span extraction.

    If the task permits questions without an answer, there is a sentence if all questions, or no questions, have an
    answer. Another sentence is about the answers that are not at the position that the file states, so that the reader
    corrected their position.
    """
    answers = [target for target in targets if isinstance(target, Answers)]
    without = sum(not answer.texts for answer in answers)
    sentences = []
    if labels.no_answer and without in (0, len(answers)):
        kind = "an answer" if not without else "no answer"
        effect = "the other case cannot be learnt" if split == "train" else "scores say nothing about the other case"
        sentences.append(f"all {len(answers)} {split} questions have {kind}: {effect}")
    if corrected := sum(answer.corrected for answer in answers):
        what = "1 answer is" if corrected == 1 else f"{corrected} answers are"
        sentences.append(
            f"{what} not at the given position in {split}; it was corrected, because the answer occurs once in its text"
        )
    return sentences


def verify(task: Task, folder: DataFolder) -> VerificationReport:
    """Read all files of a task, including the unlabelled test file of a leaderboard, and report on them.

    Files that are missing or unusable as a whole are part of the report; they raise no error.
    """
    report = VerificationReport(task.name)
    texts: dict[str, Counter[Texts]] = {}
    for split, file in task.splits.files().items():
        path = folder.file(file)
        if not path.exists():
            report.missing.append(file.path)
            continue
        try:
            read = read_file(file, path, task.labels)
        except DataError as error:
            report.unusable[file.path] = str(error)
            continue
        texts[split] = Counter((example.text, example.text_pair) for example in read.examples)
        report.files.append(
            FileReport(
                split=split,
                path=path,
                rows=len(read.examples),
                labels=label_counts([example.target for example in read.examples]),
                bad=read.bad,
                duplicates=len(read.examples) - len(texts[split]),
                gaps=tuple(label_gaps(split, [example.target for example in read.examples], task.labels)),
                has_lines=read.has_lines,
            )
        )
    report.overlaps = _overlaps(texts)
    return report


def _overlaps(texts: Mapping[str, Counter[Texts]]) -> dict[str, int]:
    """Return `VerificationReport.overlaps`, given how often each text occurs in each split."""
    overlaps: dict[str, int] = {}
    order = [split for split in ("train", "dev", "test") if split in texts]
    for index, earlier in enumerate(order):
        for later in order[index + 1 :]:
            rows = sum(count for key, count in texts[later].items() if key in texts[earlier])
            if rows:
                overlaps[f"{later} in {earlier}"] = rows
    return overlaps


def reject_bad_rows(task: Task, folder: DataFolder, read: ReadFile, *, drop: bool, limit: int = 5) -> None:
    """Raise DataError if a file has bad rows, unless bad rows are dropped.

    Args:
        task: The task.
        folder: The folder that contains the file. The error message suggests a command that verifies this folder.
        read: The content of the file.
        drop: Whether bad rows are dropped; then no error is raised.
        limit: The largest number of bad rows that the error message names.
    """
    if not read.bad or drop:
        return
    named = "; ".join(f"{read.row_location(row)}: {row.reason}" for row in read.bad[:limit])
    more = f"; and {len(read.bad) - limit} more" if len(read.bad) > limit else ""
    raise DataError(
        f"{named}{more}. Correct the file, or leave bad rows out with --drop-bad (to list them: "
        f"{_verify_command(task, folder)})"
    )


def _verify_command(task: Task, folder: DataFolder) -> str:
    """Return the `alue-bench` command that lists every bad row of a task."""
    if not folder.options:
        return command_line("data", "verify", task.name, options=_options_for(folder))
    named = [folder.options["task"]] if "task" in folder.options else []
    return command_line("data", "verify", *named, options={} if named else folder.options)


def _options_for(folder: DataFolder) -> dict[str, object]:
    """Return the command-line options that make `alue-bench data verify` read the files of this folder."""
    if folder.kind == "sample":
        return {"sample": True}
    return {"data_dir": None if folder.path == user_data_folder() else folder.path}
