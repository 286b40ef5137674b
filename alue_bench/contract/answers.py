"""A reader for extractive question answering: JSON in the format of SQuAD 1.1 and 2.0."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import Answers, BadRow, Example, shown, text_of
from alue_bench.contract.validation import check_types


@dataclass(frozen=True, kw_only=True)
class SquadJson:
    """A reader of SQuAD's JSON: articles (`data`), their `paragraphs`, and in each a `context` with questions (`qas`).

    >>> SquadJson()

    An example is a question. Its `text` is the context and its `text_pair` the question, so that the questions about a
    context stay together when a split is held out. Its target is an `Answers` value.

    An answer must be in the context at its `answer_start`, which counts characters (code points). If it is not there
    but occurs exactly once in the context, its position is corrected; white space may differ. Corrected positions are
    counted in `Answers.corrected`. If the position of an answer can be neither confirmed nor corrected, its question is
    a bad row. As JSON has no rows, questions are counted from 1.
    """

    no_answer: bool = True
    """A flag: questions without an answer are permitted, as in SQuAD 2.0. A plugin need not set it, because a task sets
    it from its labels."""
    text_pair: ClassVar[str] = "question"
    """The key of the second text; it tells the task that its examples are pairs."""
    has_lines: ClassVar[bool] = False
    """A flag: messages name the number of a question, because a row of JSON has no line."""

    def __post_init__(self) -> None:
        """Check the type of the field."""
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
        """Return a question as an example, or as a bad row with the reason why it cannot be used."""
        if not isinstance(context, str) or not context.strip():
            return BadRow(number, "empty text: the paragraph has no context")
        if not isinstance(question, Mapping):
            return BadRow(number, f"{shown(repr(question))} is not a question, an object of JSON")
        text, given, impossible = (question.get(key) for key in ("question", "answers", "is_impossible"))
        if not isinstance(text, str) or not text.strip():
            return BadRow(number, "the question is empty")
        identifier = text_of(question["id"]) if isinstance(question.get("id"), str | int) else str(number - 1)
        if given is None and impossible is None:
            return Example(identifier, context, text, None, number)
        if not isinstance(given, list | None):
            return BadRow(number, f"question {shown(identifier)}: 'answers' is not a list")
        if bool(given) and impossible is True:
            return BadRow(number, f"question {shown(identifier)} has answers, but is_impossible is true")
        if not given and not self.no_answer:
            return BadRow(number, f"question {shown(identifier)} has no answer; declare Labels.span(no_answer=True)")
        target = _answers(context, given or [])
        if isinstance(target, str):
            return BadRow(number, f"question {shown(identifier)}: {target}")
        return Example(identifier, context, text, target, number)


def _questions(path: Path, content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each question with its context. Raise DataError if the file has a different structure."""

    def listed(value: Any, key: str, where: str) -> list[Any]:
        entries = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(entries, list):
            raise DataError(f"{path}: {where} has no list {key!r}; the file is not in SQuAD's format")
        return entries

    for place, article in enumerate(listed(content, "data", "the file")):
        for paragraph in listed(article, "paragraphs", f"data[{place}]"):
            for question in listed(paragraph, "qas", f"a paragraph of data[{place}]"):
                yield paragraph.get("context"), question


def _answers(context: str, given: list[Any]) -> Answers | str:
    """Return the answers to a question with their positions in the context, or the reason why they cannot be used."""
    texts, starts, ends, corrected = [], [], [], 0
    for answer in given:
        text, start = (answer.get(key) if isinstance(answer, Mapping) else None for key in ("text", "answer_start"))
        if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
            return f"{shown(repr(answer))} has no text with an answer_start"
        if not text.strip():
            return "an answer is empty"
        end = start + len(text)
        if start < 0 or context[start:end] != text:
            places = _places(context, text)
            if len(places) != 1:
                times = f"{len(places)} times" if places else "nowhere"
                return f"answer {shown(text)} is not at position {start}, and occurs {times} in the context"
            ((start, end),) = places
            corrected += 1
        texts.append(text)
        starts.append(start)
        ends.append(end)
    return Answers(tuple(texts), tuple(starts), tuple(ends), corrected)


def _places(context: str, text: str) -> list[tuple[int, int]]:
    """Return the (start, end) positions of a text in its context; `end` is exclusive, and white space may differ."""
    pattern = r"\s+".join(map(re.escape, text.split()))
    return [(match.start(1), match.end(1)) for match in re.finditer(f"(?=({pattern}))", context)]
