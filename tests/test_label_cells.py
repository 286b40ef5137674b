"""Label names of any characters stand in one cell of a table and are told apart again."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from planted_runs import plant, spec

from alue_bench.contract.errors import DataError
from alue_bench.contract.task import Labels
from alue_bench.evaluation.label_cells import join_labels, split_labels
from alue_bench.evaluation.predictions import predictions_table, targets_of
from alue_bench.reporting.comparison import compare
from alue_bench.reporting.content import Folded, ReportTable
from alue_bench.reporting.run_figures import FigureLimits, confusion
from alue_bench.reporting.subjects import arrange
from alue_bench.tracking.connection import connect
from alue_bench.tracking.figures import draw_predictions
from alue_bench.tracking.prediction_files import (
    load_predictions,
    load_targets,
    load_targets_without_scores,
    load_unlabelled,
    write_predictions,
    write_without_scores,
)
from alue_bench.tracking.reading import read_results, read_targets

names = st.lists(st.text(max_size=8) | st.sampled_from(["very angry", "[", '["a"]', "a,b", '"', "\n", "\r", "nan"]))


@given(names)
def test_any_names_come_back(listed: list[str]) -> None:
    assert split_labels(join_labels(listed)) == tuple(listed)


def test_plain_names_are_set_apart_by_blanks_and_others_are_a_json_list() -> None:
    assert join_labels(["joy", "optimism"]) == "joy optimism"
    assert join_labels([]) == ""
    assert join_labels(["very angry", "sad"]) == '["very angry", "sad"]'


@pytest.mark.parametrize("cell", ["[", "[1]", "[]x"])
def test_a_damaged_cell_is_an_error_that_shows_it(cell: str) -> None:
    import pandas as pd

    table = pd.DataFrame({"id": ["1"], "gold": [cell], "prediction": [""], "score_a": [0.1], "score_b": [0.1]})
    with pytest.raises(DataError, match=r"cell '\[.*' cannot be parsed"):
        targets_of(table, multilabel=True)


declarable = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=6)
"""Names without control characters, which no declaration may have: nearly all of them can be declared."""


@settings(max_examples=60)
@given(st.lists(declarable, min_size=2, max_size=4, unique=True), st.booleans(), st.data())
@example(["very angry", "angry"], True, None)
@example(["a b", 'say "no", then'], False, None)
def test_a_file_of_predictions_gives_back_its_targets(listed: list[str], multilabel: bool, data: st.DataObject) -> None:
    try:
        labels = Labels.multilabel(*listed) if multilabel else Labels.multiclass(*listed)
    except ValueError:  # a name that no declaration may have, such as one of a control character
        reject()
    logits = np.random.default_rng(1).normal(size=(7, len(listed)))
    gold = (logits > 0.3).astype("int64") if multilabel else logits.argmin(axis=1)
    table = predictions_table([str(number) for number in range(7)], gold, logits, labels)
    with tempfile.TemporaryDirectory() as folder:
        write_predictions(Path(folder) / "predictions.csv", table)
        read = load_predictions(Path(folder) / "predictions.csv")
        unlabelled = load_unlabelled(Path(folder) / "predictions.csv")
        alone = load_targets(Path(folder) / "predictions.csv", multilabel=multilabel)
        write_without_scores(Path(folder) / "predictions.arrow", Path(folder) / "predictions.csv")
        fast = load_targets_without_scores(Path(folder) / "predictions.arrow", multilabel=multilabel)
        assert fast is not None
    decided = (logits > 0).astype("int64") if multilabel else logits.argmax(axis=1)
    for targets in (targets_of(read, multilabel=multilabel), alone, fast):
        assert targets.labels.names == tuple(listed)
        assert targets.gold.tolist() == gold.tolist()
        assert targets.predicted.tolist() == decided.tolist()
        assert targets.ids.to_pylist() == table.ids
    assert list(unlabelled["prediction"]) == list(read["prediction"]) == table.predicted


def test_a_label_of_two_words_is_counted_once_and_not_as_another(store: str, experiment: str, tmp_path: Path) -> None:
    labels = Labels.multilabel("angry", "very angry", "sad")
    gold = np.array([[0, 1, 0], [1, 0, 0], [0, 1, 1], [0, 1, 0]])
    predicted = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]])
    connection = connect(store, experiment)
    plant(connection, spec(), labels, gold, predicted)
    results = read_results(connection)
    comparison = compare(results.frame, partial(read_targets, results))
    subjects = [subject for block in arrange(comparison, results.frame) for subject in block.subjects]
    (folded,) = [item for item in confusion(results, subjects, FigureLimits(), "p") if isinstance(item, Folded)]
    (table,) = [item for item in folded.items if isinstance(item, ReportTable)]
    counted = {row.header: [cell.text for cell in row.cells] for row in table.groups[0].rows}
    assert counted == {"angry": ["0", "1", "0"], "very angry": ["2", "1", "1"], "sad": ["1", "0", "0"]}
    logits = np.where(predicted == 1, 1.0, -1.0)
    draw_predictions(tmp_path / "hits.png", predictions_table(list("1234"), gold, logits, labels), labels, title="hits")
    assert (tmp_path / "hits.png").stat().st_size > 1000
