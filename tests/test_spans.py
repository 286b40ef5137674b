"""Span extraction: files in SQuAD's format, and the metrics of answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alue_bench import Answers, BadRow, DataFile, Delimited, Example, HeldOut, Labels, Splits, SquadJson, Task
from alue_bench.contract.errors import DataError
from alue_bench.data.location import DataFolder
from alue_bench.data.spans import GoldAnswers
from alue_bench.data.splits import load_rows
from alue_bench.data.verification import bad_row_of, label_gaps
from alue_bench.evaluation.additive import additive
from alue_bench.evaluation.answers import scores
from alue_bench.evaluation.metrics import metrics

SPAN, SPAN_OR_NONE = Labels.span(), Labels.span(no_answer=True)
CONTEXT = "Salma lives in  Cairo, and Omar in Oslo. Omar is old."

# Gold answers, the predicted answer, and exact match and F1, computed by hand by the definition of SQuAD's script.
TRICKY: list[tuple[tuple[str, ...], str, float, float]] = [
    (("Cairo",), "Cairo", 1, 1),
    (("Cairo",), "cairo", 1, 1),
    (("Cairo",), "Cairo,", 1, 1),
    (("the Nile",), "Nile", 1, 1),
    (("Nile",), "a an the Nile", 1, 1),
    (("Nile",), "then Nile", 0, 2 / 3),
    (("another day",), "day", 0, 2 / 3),
    (("New York",), "York New", 0, 1),
    (("New York",), "New York City", 0, 0.8),
    (("New York", "New York City"), "New York City", 1, 1),
    (("York", "Cairo"), "York Cairo", 0, 2 / 3),
    (("a b b",), "b", 0, 2 / 3),
    (("b b",), "b b b", 0, 0.8),
    (("b",), "b b b", 0, 0.5),
    (("1,000",), "1000", 1, 1),
    (("U.S.",), "us", 1, 1),
    (("well-known",), "well known", 0, 0),
    (("well-known",), "wellknown", 1, 1),
    (("  New \t York ",), "New York", 1, 1),
    (("New\xa0York",), "New York", 1, 1),
    ((), "", 1, 1),
    ((), "Cairo", 0, 0),
    (("Cairo",), "", 0, 0),
    (("the",), "", 1, 1),
    (("the", "Cairo"), "", 0, 0),
    ((), "the", 1, 1),
    (("...", "Oslo"), "Oslo", 1, 1),
    (("القاهرة",), "القاهرة", 1, 1),
    (("القاهرة",), "القاهرة،", 0, 0),
    (("مدينة القاهرة",), "مدينة قاهرة", 0, 0.5),
]


def objects(values: list[Any]) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def given(gold: Any) -> Any:
    """Gold answers to questions, of which each four are about one text."""
    return objects([GoldAnswers(texts, number // 4) for number, texts in enumerate(gold)])


class TestMetrics:
    def test_are_those_of_the_script(self) -> None:
        gold, predicted, equal, f1 = zip(*TRICKY, strict=True)
        assert len(TRICKY) == 30
        assert scores("exact_match", gold, predicted).tolist() == list(equal)
        assert scores("f1", gold, predicted).tolist() == pytest.approx(list(f1))
        values = metrics(given(gold), objects(list(predicted)), SPAN_OR_NONE)
        assert values["exact_match"] == pytest.approx(np.mean(equal))
        assert values["f1"] == pytest.approx(np.mean(f1))

    @pytest.mark.parametrize(
        ("gold", "predicted", "f1"),
        [
            ("القاهرة", "قاهرة", 1),
            ("القاهرة", "القاهرة،", 1),
            ("مُحَمَّد", "محمد", 1),
            ("مـحـمد", "محمد", 1),
            ("\u0627\u0654حمد", "أحمد", 1),
            ("أحمد", "احمد", 0),
            ("الله", "له", 1),
            ("الف", "ف", 0),
            ("مدينة القاهرة", "القاهرة", 2 / 3),
            ("والقاهرة", "القاهرة", 0),
            ("مثال", "مث", 0),
            ("The «Nile»", "nile", 1),
            ("", "؟", 1),
        ],
    )
    def test_of_arabic_answers_ignore_articles_and_diacritics(self, gold: str, predicted: str, f1: float) -> None:
        for one, other in ((gold, predicted), (predicted, gold)):
            assert scores("f1_arabic", [(one,)], [other]).tolist() == pytest.approx([f1])
            assert scores("exact_match_arabic", [(one,)], [other]).tolist() == [float(f1 == 1)]

    def test_are_means_over_questions_of_which_those_about_a_text_are_left_out_together(self) -> None:
        gold, predicted = given([row[0] for row in TRICKY]), objects([row[1] for row in TRICKY])
        kept = np.arange(30) // 4 != 7
        for name, value in metrics(gold, predicted, SPAN).items():
            system = additive(name, gold, predicted, SPAN)
            assert system is not None
            assert system.score == pytest.approx(value)
            assert len(system.parts) == 8
            left_out = system.value(system.parts.sum(axis=0) - system.parts[7])
            assert left_out == pytest.approx(metrics(gold[kept], predicted[kept], SPAN)[name])


def squad(*questions: dict[str, Any], context: str = CONTEXT) -> str:
    named = [{"id": str(n), "question": f"question {n}?"} | one for n, one in enumerate(questions)]
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": named}]}]})


def answer(text: Any, start: Any) -> dict[str, Any]:
    return {"answers": [{"text": text, "answer_start": start}]}


class TestFiles:
    @pytest.mark.parametrize(
        ("question", "expected"),
        [
            (answer("Cairo", 16), Answers(("Cairo",), (16,), (21,))),
            (answer("Cairo", 15), Answers(("Cairo",), (16,), (21,), corrected=1)),
            (answer("in Cairo", 12), Answers(("in Cairo",), (12,), (21,), corrected=1)),
            (answer("Omar", 41), Answers(("Omar",), (41,), (45,))),
            ({"answers": [*answer("Oslo", 35)["answers"], *answer("in Oslo", -1)["answers"]]},
             Answers(("Oslo", "in Oslo"), (35, 32), (39, 39), corrected=1)),
            ({"answers": [], "is_impossible": True}, Answers()),
            ({"is_impossible": True, "plausible_answers": []}, Answers()),
            ({}, None),
            (answer("Omar", 0), "'Omar' is not at position 0, and occurs 2 times"),
            (answer("Rome", 3), "occurs nowhere in the context"),
            (answer(" ", 3), "an answer is empty"),
            (answer("Cairo", "16"), "has no text with an answer_start"),
            (answer("Cairo", 16) | {"is_impossible": True}, "has answers, but is_impossible is true"),
            ({"answers": 3}, "'answers' is not a list"),
            ({"question": " "}, "the question is empty"),
        ],
    )  # fmt: skip
    def test_hold_questions(self, question: dict[str, Any], expected: Any, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text(squad(question, answer("Salma", 0)))
        first, second = SquadJson()(tmp_path / "x.json")
        assert second == Example("1", CONTEXT, "question 1?", Answers(("Salma",), (0,), (5,)), 2)
        if isinstance(expected, str):
            assert isinstance(first, BadRow)
            assert first.line == 1
            assert expected in first.reason
        else:
            assert first == Example("0", CONTEXT, "question 0?", expected, 1)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [("{", "not valid JSON"), ("[]", "no list 'data'"), ('{"data": [{}]}', "no list 'paragraphs'"),
         ('{"data": []}', "no questions")],
    )  # fmt: skip
    def test_of_another_structure_are_refused(self, content: str, reason: str, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(DataError, match=reason):
            list(SquadJson()(tmp_path / "x.json"))

    def test_keep_the_questions_about_a_text_in_one_split(self, tmp_path: Path) -> None:
        content = [
            {"context": f"Omar {n} is here", "qas": [
                {"id": f"{n}-{m}", "question": f"who {m}?", **answer(f"Omar {n}", 1 if n == 3 else 0)} for m in range(3)
            ]} for n in range(20)
        ]  # fmt: skip
        (tmp_path / "train.json").write_text(json.dumps({"data": [{"paragraphs": content}]}))
        (tmp_path / "test.json").write_text(squad({"answers": []}, answer("Salma", 0)))
        splits = load_rows(
            task_of(SPAN_OR_NONE), DataFolder(tmp_path, "real"), drop_bad=False, limit_train=None, limit_eval=None
        ).splits
        texts = {name: {one.text for one in rows.examples} for name, rows in splits.items()}
        assert len(splits["dev"].examples) == 6
        assert not texts["train"] & texts["dev"]
        everything = [one.target for name in ("train", "dev") for one in splits[name].examples]
        assert any("3 answers are not at the given position" in one for one in label_gaps("train", everything, SPAN))
        assert label_gaps("test", [one.target for one in splits["test"].examples], SPAN_OR_NONE) == []
        with pytest.raises(DataError, match=r"row 1: question '0' has no answer; .*Labels.span\(no_answer=True\)"):
            load_rows(task_of(SPAN), DataFolder(tmp_path, "real"), drop_bad=False, limit_train=None, limit_eval=None)


def task_of(labels: Labels, read: Any = None) -> Task:
    return Task(
        name="q", title="Questions", languages=("en",), labels=labels, source="here", licence="MIT", citation="none",
        splits=Splits(
            train=DataFile("train.json", read or SquadJson()), dev=HeldOut(0.1),
            test=DataFile("test.json", read or SquadJson()),
        ),
    )  # fmt: skip


class TestDeclaration:
    def test_has_two_outputs_for_a_token(self) -> None:
        task = task_of(SPAN)
        assert (task.labels.outputs, task.primary, task.is_pair) == (2, "f1", True)
        assert not task.splits.train.read.no_answer  # type: ignore[union-attr]
        assert task_of(SPAN_OR_NONE).splits.train.read.no_answer  # type: ignore[union-attr]

    def test_and_reader_fit_together(self) -> None:
        with pytest.raises(ValueError, match="needs SquadJson"):
            task_of(SPAN, Delimited(text=0, target=1, columns=2))
        with pytest.raises(ValueError, match=r"declare Labels\.span"):
            task_of(Labels.binary("no", "yes"))

    @pytest.mark.parametrize(
        ("pair", "target", "reason"),
        [
            (None, Answers(), "has no question"),
            ("who?", ("Omar",), "not an Answers value"),
            ("who?", Answers(), "has no answer"),
            ("who?", Answers(("Omar",), (3,), (99,)), "positions"),
        ],
    )
    def test_refuses_examples_of_a_readers_own(self, pair: str | None, target: Any, reason: str) -> None:
        bad = bad_row_of(Example("0", CONTEXT, pair, target, 1), SPAN)
        assert bad is not None
        assert reason in bad.reason
