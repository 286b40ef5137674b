"""The tests of this plugin: its declarations pass alue-bench's checks for plugins, and its parts work as described."""

import alue_bench_example
import pytest
from alue_bench_example import answers, names
from alue_bench_example.model import normalise
from alue_bench_example.strategy import EveryKth, parse
from alue_bench_example.task import TASK

from alue_bench import Answers, DoesNotFit, EncoderShape, Example, Model, StrategyFamily, Task, UsageError
from alue_bench.testing import check_model, check_strategy, check_task


@pytest.mark.parametrize("task", alue_bench_example.alue_bench_tasks(), ids=lambda task: task.name)
def test_task_conforms(task: Task) -> None:
    check_task(task)


@pytest.mark.parametrize("model", alue_bench_example.alue_bench_models(), ids=lambda model: model.name)
def test_model_conforms(model: Model) -> None:
    check_model(model)


@pytest.mark.parametrize("family", alue_bench_example.alue_bench_strategies(), ids=lambda family: family.grammar)
def test_strategy_conforms(family: StrategyFamily) -> None:
    check_strategy(family)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_sample_has_as_many_rows_of_either_label(split: str) -> None:
    assert TASK.sample is not None
    file = TASK.splits.files()[split]
    labels = [row.target for row in file.read(TASK.sample / file.path) if isinstance(row, Example)]
    assert labels.count("positive") == labels.count("negative") > 0


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_names_have_one_word_or_more(split: str) -> None:
    assert names.TASK.sample is not None
    file = names.TASK.splits.files()[split]
    tags = [row.target for row in file.read(names.TASK.sample / file.path) if isinstance(row, Example)]
    assert any("I-HOTEL" in sentence for sentence in tags if isinstance(sentence, tuple))
    assert any(set(sentence) == {"O"} for sentence in tags if isinstance(sentence, tuple))


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_each_question_has_an_answer_in_its_text(split: str) -> None:
    assert answers.TASK.sample is not None
    file = answers.TASK.splits.files()[split]
    rows = [row for row in file.read(answers.TASK.sample / file.path) if isinstance(row, Example)]
    assert rows
    for row in rows:
        assert isinstance(row.target, Answers)
        for text, start, end in zip(row.target.texts, row.target.starts, row.target.ends, strict=True):
            assert row.text[start:end] == text


def test_the_model_reads_every_number_as_ones() -> None:
    assert normalise("غرفة 305 بسعر ٤٥٠ ريال") == "غرفة 111 بسعر 111 ريال"


@pytest.mark.parametrize(("step", "frozen"), [(1, {0, 1, 2, 3, 4, 5}), (2, {1, 3, 5}), (4, {3}), (6, {5})])
def test_every_kth_of_six_layers_is_frozen(step: int, frozen: set[int]) -> None:
    plan = EveryKth(step).freeze_plan(EncoderShape(6))
    assert plan.frozen_layers == frozen
    assert not plan.embeddings


def test_a_step_beyond_the_last_layer_does_not_fit() -> None:
    with pytest.raises(DoesNotFit, match="has only 6"):
        EveryKth(7).freeze_plan(EncoderShape(6))


def test_names_are_parsed_and_others_left_to_other_families() -> None:
    assert parse("example-every3") == EveryKth(3)
    assert parse("every3") is None
    with pytest.raises(UsageError, match="at least 1"):
        parse("example-every0")
