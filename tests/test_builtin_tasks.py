"""The built-in tasks read the official files whole, and the sample without a bad row.

The counts are those that the publishers' files have; nothing else about the real data is stated here.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import alue_bench_tasks
import pytest

from alue_bench import Example, HeldOut, TargetKind, Task

TASKS = {task.name: task for task in alue_bench_tasks.alue_bench_tasks()}

ALUE = {"mq2q", "oold", "ohsd", "svreg", "sec", "fid", "xnli", "mdd", "diag"}
OF_THE_PAPER = {"anger", "mdd-algiers-amman"}
DIALECTS = {f"arbanking77-{name}" for name in ("palestinian", "saudi", "moroccan", "tunisian")}
TEST_ONLY = {"mlma-offensive", "mlma-hateful", "qadi"} | DIALECTS
OUT_OF_DOMAIN = {"arsarcasm", "arbanking77"} | TEST_ONLY
OF_TOKENS = {"arabicner", "arcd"}

ROWS = {
    "mq2q": {"train": 11_997, "submission": 3_715},
    "oold": {"train": 7_000, "test": 1_000, "submission": 2_000},
    "ohsd": {"train": 7_000, "test": 1_000, "submission": 2_000},
    "sec": {"train": 2_278, "dev": 585, "test": 1_518},
    "anger": {"train": 2_278, "dev": 585, "test": 1_518},
    "svreg": {"train": 932, "dev": 138, "test": 730},
    "fid": {"train": 4_024, "test": 1_006},
    "xnli": {"train": 5_010, "test": 2_490},
    "mdd": {"train": 41_600, "dev": 5_200, "test": 5_200},
    "arabicner": {"train": 1_114, "dev": 158, "test": 357},
    "arcd": {"train": 693, "test": 702},
    # Two of the 26 balanced classes.
    "mdd-algiers-amman": {"train": 41_600 * 2 // 26, "dev": 5_200 * 2 // 26, "test": 5_200 * 2 // 26},
    "arsarcasm": {"train": 12_548, "test": 3_000},
    "mlma-offensive": {"test": 3_353 - 282 - 404},
    "mlma-hateful": {"test": 3_353 - 282},
    "qadi": {"test": 3_503},
    "arbanking77": {"train": 21_559 - 41, "dev": 2_464, "test": 3_574},
    "arbanking77-palestinian": {"test": 3_807},
    "arbanking77-saudi": {"test": 3_580},
    "arbanking77-moroccan": {"test": 3_574},
    "arbanking77-tunisian": {"test": 999},
}

LABELS = {
    "mq2q": {"train": {"different": 6_600, "similar": 5_397}},
    "oold": {"train": {"OFF": 1_410}, "test": {"OFF": 179}},
    "ohsd": {"train": {"HS": 361}, "test": {"HS": 44}},
    "sec": {"train": {"anger": 899}, "dev": {"anger": 215}, "test": {"anger": 609}},
    "anger": {"train": {"anger": 899}, "dev": {"anger": 215}, "test": {"anger": 609}},
    "fid": {"train": {"ironic": 2_091}, "test": {"ironic": 523}},
    "arabicner": {"train": {"B-PERS": 199, "O": 12_454}, "dev": {"B-PERS": 40}, "test": {"B-PERS": 69}},
    "arsarcasm": {"train": {"sarcastic": 2_168}, "test": {"sarcastic": 821}},
    "mlma-offensive": {"test": {"normal": 915}},
    "qadi": {"test": {"EG": 200, "PL": 173, "TN": 154}},
}
BALANCED = ("xnli", "mdd", "mdd-algiers-amman")


BAD_ROWS = {("arbanking77", "train"): 41}
"""Rows with quotation marks inside a quoted cell that are not doubled; `--drop-bad` leaves them out."""


def examples(task: Task, split: str, root: Path) -> list[Example]:
    """The rows of a split's file, every one of which must be readable, except those that are known to be bad."""
    file = task.splits.files()[split]
    rows = list(file.read(root / file.path))
    readable = [row for row in rows if isinstance(row, Example)]
    known = BAD_ROWS.get((task.name, split), 0) if root != task.sample else 0
    assert len([row for row in rows if not isinstance(row, Example)]) == known
    return readable


def label_counts(rows: list[Example]) -> Counter[str]:
    return Counter(
        label
        for row in rows
        for label in (row.target if isinstance(row.target, tuple) else (row.target,))
        if isinstance(label, str)
    )


@pytest.fixture(params=TASKS.values(), ids=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    chosen: Task = request.param
    return chosen


def real_data(task: str, split: str) -> Path:
    """The folder of the real files; skips where it has none for this split."""
    folder = os.environ.get("ALUE_BENCH_DATA")
    if not folder:
        pytest.skip("ALUE_BENCH_DATA is not set to the folder of the official files")
    path = TASKS[task].splits.files()[split].path
    if not (Path(folder) / path).exists():
        pytest.skip(f"ALUE_BENCH_DATA has no {path}")
    return Path(folder)


def test_commands_run_the_tasks_of_alue_and_of_the_paper_unless_others_are_named() -> None:
    assert TASKS.keys() == ALUE | OF_THE_PAPER | OF_TOKENS | OUT_OF_DOMAIN
    assert {name for name, task in TASKS.items() if not task.only_by_name} == ALUE | OF_THE_PAPER
    assert {name for name, task in TASKS.items() if task.is_test_only} == TEST_ONLY


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "split"), [(name, split) for name in ROWS for split in ROWS[name]])
def test_official_file_has_as_many_rows_as_published(name: str, split: str) -> None:
    root = real_data(name, split)
    assert len(examples(TASKS[name], split, root)) == ROWS[name][split]


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "split"), [(name, split) for name in LABELS for split in LABELS[name]])
def test_official_file_has_the_published_label_counts(name: str, split: str) -> None:
    counts = label_counts(examples(TASKS[name], split, real_data(name, split)))
    assert {label: counts[label] for label in LABELS[name][split]} == LABELS[name][split]


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "split"), [(name, split) for name in BALANCED for split in ROWS[name]])
def test_official_file_is_balanced(name: str, split: str) -> None:
    counts = label_counts(examples(TASKS[name], split, real_data(name, split)))
    names = TASKS[name].labels.names
    assert counts == dict.fromkeys(names, ROWS[name][split] // len(names))


@pytest.mark.real_data
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_official_valence_is_a_number_from_0_to_1(split: str) -> None:
    values = [row.target for row in examples(TASKS["svreg"], split, real_data("svreg", split))]
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in values)


class TestSample:
    def test_every_file_is_there_and_every_row_is_read(self, task: Task) -> None:
        assert task.sample is not None
        for split in task.splits.files():
            assert examples(task, split, task.sample)

    def test_every_label_occurs_in_train_and_test(self, task: Task) -> None:
        assert task.sample is not None
        for split in task.splits.files().keys() & {"train", "test"}:
            occurring = label_counts(examples(task, split, task.sample)).keys()
            if task.labels.extracts_spans:
                continue  # the labels are the outputs of the head; files hold answers
            if task.labels.scheme is not None:
                occurring = {tag[2:] for tag in occurring if tag != "O"}
            assert occurring == set(task.labels.types)

    def test_a_submission_file_has_texts_and_no_gold_labels(self, task: Task) -> None:
        assert task.sample is not None
        if task.splits.submission is not None:
            assert {row.target for row in examples(task, "submission", task.sample)} == {None}

    def test_identifiers_are_distinct(self, task: Task) -> None:
        assert task.sample is not None
        for split in task.splits.files():
            rows = examples(task, split, task.sample)
            assert len({row.id for row in rows}) == len(rows)


class TestDeclaration:
    def test_only_pairs_of_texts_are_pairs(self, task: Task) -> None:
        assert task.is_pair == (task.name in {"mq2q", "xnli", "diag", "arcd"})

    def test_dev_is_official_where_its_publishers_give_one(self, task: Task) -> None:
        official = {"sec", "svreg", "anger", "mdd", "mdd-algiers-amman", "arabicner", "arbanking77"}
        if task.name in official:
            assert not isinstance(task.splits.dev, HeldOut)
        elif task.splits.train is not None:
            assert task.splits.dev == HeldOut(0.1)

    def test_a_split_that_is_not_official_is_told(self, task: Task) -> None:
        official = "official train, dev and test files"
        held_out = isinstance(task.splits.dev, HeldOut) or isinstance(task.splits.test, HeldOut)
        assert task.splits.protocol != official or not held_out

    def test_only_mq2q_tests_on_a_part_of_train(self, task: Task) -> None:
        assert (task.splits.test == HeldOut(0.2)) == (task.name == "mq2q")

    def test_the_positive_class_is_the_second(self, task: Task) -> None:
        positive = {"mq2q": "similar", "oold": "OFF", "ohsd": "HS", "fid": "ironic", "anger": "anger"}
        if task.name in positive:
            assert task.labels.names[1] == positive[task.name]

    def test_the_primary_metric_of_classification_is_macro_f1_but_where_the_leaderboard_differs(
        self, task: Task
    ) -> None:
        others = {
            "xnli": "accuracy",
            "diag": "mcc",
            "sec": "jaccard_samples",
            "svreg": "pearson",
            "arabicner": "f1_micro",
            "arcd": "f1",
        }
        assert task.primary == others.get(task.name, "f1_macro")

    def test_diagnostics_are_scored_with_the_inference_model(self) -> None:
        diag, xnli = TASKS["diag"], TASKS["xnli"]
        assert diag.trained_on == "xnli"
        assert diag.labels == xnli.labels
        assert {task.name for task in TASKS.values() if task.trained_on} == {"diag"}

    def test_emotions_are_predicted_above_the_threshold_of_alue(self) -> None:
        assert TASKS["sec"].labels.kind is TargetKind.MULTILABEL
        assert TASKS["sec"].labels.threshold == 0.25
