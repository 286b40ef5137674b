"""A reader of data files for extractive question answering: JSON files in the format of SQuAD 1.1 and 2.0."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import Answers, BadRow, Example, csv_text, excerpt
from alue_bench.contract.validation import check_types


@dataclass(frozen=True, kw_only=True)
class SquadJson:
    """A reader of JSON files in the format of SQuAD 1.1 and 2.0, for extractive question answering.

    >>> SquadJson()

    The file has a list of articles (`data`), each with a list of `paragraphs`, and each of these with a `context` and a
    list of questions (`qas`). Each question becomes an `Example`: `text` is the context, `text_pair` is the question,
    and `target` is an `Answers` value, or None if the question has neither `answers` nor `is_impossible`. If a split is
    held out (`HeldOut`), all questions with the same context go to the same split.

    `answer_start`, the position of an answer in the context, counts characters (code points) from 0. If the answer is
    not at this position but occurs exactly once in the context (differences in white space are ignored), the position
    is corrected; `Answers.corrected` counts the corrections. If the position can be neither confirmed nor corrected,
    the question becomes a `BadRow`. The `line` of an example or bad row is the number of its question in the file,
    from 1.
    """

    no_answer: bool = True
    """True if questions without an answer are permitted, as in SQuAD 2.0; otherwise each of them is a bad row. A plugin
    need not set this field, because a task sets it from its labels (`Labels.span`)."""
    text_pair: ClassVar[str] = "question"
    """The key of the question in the file. Because it is not None, the examples of the task are pairs of texts
    (`Task.is_pair`)."""
    has_lines: ClassVar[bool] = False
    """False, because the numbers of the rows count questions: messages say "row 7" instead of "line 7"."""

    def __post_init__(self) -> None:
        """Raise TypeError if `no_answer` is not a bool."""
        check_types("SquadJson", vars(self), {"no_answer": bool})

    def __call__(self, path: Path) -> Iterator[Example | BadRow]:
        """Yield each question of the file `path` as an example, or as a bad row if it cannot be used; see `Reader`."""
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not valid JSON in UTF-8: {error}; correct the file") from error
        number = 0
        for context, question in _questions(path, content):
            number += 1
            yield self._row(number, context, question)
        if not number:
            raise DataError(f"{path}: the file has no questions; name a file in SQuAD's format")

    def _row(self, number: int, context: Any, question: Any) -> Example | BadRow:
        """Return a question as an example, or as a bad row with the reason why it cannot be used.

        Args:
            number: The number of the question in the file, from 1.
            context: The text that the question is about, as the JSON file contains it.
            question: The question's object in the JSON file.
        """
        if not isinstance(context, str) or not context.strip():
            return BadRow(number, "empty text: the paragraph has no context")
        if not isinstance(question, Mapping):
            return BadRow(number, f"{excerpt(repr(question))} is not a question, an object of JSON")
        text, given, impossible = (question.get(key) for key in ("question", "answers", "is_impossible"))
        if not isinstance(text, str) or not text.strip():
            return BadRow(number, "the question is empty")
        identifier = csv_text(question["id"]) if isinstance(question.get("id"), str | int) else str(number - 1)
        if given is None and impossible is None:
            return Example(identifier, context, text, None, number)
        if not isinstance(given, list | None):
            return BadRow(number, f"question {excerpt(identifier)}: 'answers' is not a list")
        if bool(given) and impossible is True:
            return BadRow(number, f"question {excerpt(identifier)} has answers, but is_impossible is true")
        if not given and not self.no_answer:
            return BadRow(number, f"question {excerpt(identifier)} has no answer; declare Labels.span(no_answer=True)")
        target = _answers(context, given or [])
        if isinstance(target, str):
            return BadRow(number, f"question {excerpt(identifier)}: {target}")
        return Example(identifier, context, text, target, number)


def _questions(path: Path, content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each question's context and JSON object. Raise DataError if the structure is not that of SQuAD.

    Args:
        path: The file, for error messages.
        content: The parsed JSON content of the file.
    """

    def listed(value: Any, key: str, where: str) -> list[Any]:
        entries = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(entries, list):
            raise DataError(f"{path}: {where} has no list {key!r}; the file is not in SQuAD's format")
        return entries

    for index, article in enumerate(listed(content, "data", "the file")):
        for paragraph in listed(article, "paragraphs", f"data[{index}]"):
            for question in listed(paragraph, "qas", f"a paragraph of data[{index}]"):
                yield paragraph.get("context"), question


def _answers(context: str, given: list[Any]) -> Answers | str:
    """Return the answers to a question with their positions in the context, or the reason why they cannot be used.

    Args:
        context: The text that contains the answers.
        given: The entries of the question's list `answers`.
    """
    texts, starts, ends, corrected = [], [], [], 0
    for answer in given:
        text, start = (answer.get(key) if isinstance(answer, Mapping) else None for key in ("text", "answer_start"))
        if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
            return f"{excerpt(repr(answer))} has no text with an answer_start"
        if not text.strip():
            return "an answer is empty"
        end = start + len(text)
        if start < 0 or context[start:end] != text:
            occurrences = _occurrences(context, text)
            if len(occurrences) != 1:
                times = f"{len(occurrences)} times" if occurrences else "nowhere"
                return f"answer {excerpt(text)} is not at position {start}, and occurs {times} in the context"
            ((start, end),) = occurrences
            corrected += 1
        texts.append(text)
        starts.append(start)
        ends.append(end)
    return Answers(tuple(texts), tuple(starts), tuple(ends), corrected)


def _occurrences(context: str, text: str) -> list[tuple[int, int]]:
    """Return the positions (start, end) of each occurrence of `text` in `context`; `end` is exclusive.

    A sequence of white space in `text` matches every sequence of white space in `context`.
    """
    pattern = r"\s+".join(map(re.escape, text.split()))
    return [(match.start(1), match.end(1)) for match in re.finditer(f"(?=({pattern}))", context)]
