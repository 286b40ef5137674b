"""A run's predictions without scores give the targets of its CSV file, and give way to it where the two disagree."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
from planted_runs import plant, spec

from alue_bench.contract.spec import Predictions
from alue_bench.contract.task import Labels
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.prediction_files import (
    PREDICTIONS,
    load_targets,
    load_targets_without_scores,
    without_scores,
    write_predictions,
    write_without_scores,
)
from alue_bench.tracking.reading import read_results, read_targets

LABELS = Labels.multiclass("no", "yes")
GOLD, PREDICTED = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])


def table(gold: list[Any], predicted: list[Any], *columns: str, prefix: str = "score_") -> Predictions:
    scores = np.arange(len(gold) * len(columns), dtype="float64").reshape(len(gold), len(columns))
    ids = [f"{number},\n" for number in range(len(gold))]
    return Predictions(ids=ids, gold=gold, predicted=predicted, scores=scores, columns=columns, prefix=prefix)


TABLES = {
    "one label": table(["1", "nan", "NOT OFF"], ["nan", "1", "1"], "1", "nan", "NOT OFF"),
    "several labels": table(['["very sad", "joy"]', ""], ["joy", "joy"], "joy", "very sad"),
    "numbers": table([0.1, 1 / 3], [float("nan"), 1e-300], "value"),
    "tags of words": table(["O B-LOC", "O"], ["B-LOC I-LOC", "O"], "O", "B-LOC", "I-LOC", prefix="iob2_"),
    "answers": table(['["\\u0628", "cairo"]', "[]"], ["cairo", ""], "f1", "context", prefix="answer_"),
    "no row": table([], [], "no", "yes"),
    "half a character": table(["no", "\ud83d"], ["no", "no"], "no", "\\ud83d"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_hold_the_same_targets(kind: str, tmp_path: Path) -> None:
    source, fast = tmp_path / PREDICTIONS, tmp_path / without_scores(PREDICTIONS)
    write_predictions(source, TABLES[kind])
    write_without_scores(fast, source)
    multilabel = kind == "several labels"
    expected, targets = (
        load_targets(source, multilabel=multilabel),
        load_targets_without_scores(fast, multilabel=multilabel),
    )
    assert targets is not None
    assert targets.labels == expected.labels
    assert targets.ids.equals(expected.ids)
    for side in ("gold", "predicted"):
        np.testing.assert_array_equal(getattr(targets, side), getattr(expected, side))
        assert getattr(targets, side).dtype == getattr(expected, side).dtype
    assert fast.stat().st_size < 5000


class TestARun:
    @pytest.fixture
    def connection(self, store: str, experiment: str) -> Connection:
        return connect(store, experiment)

    @pytest.fixture
    def folder(self, connection: Connection) -> Path:
        plant(connection, spec(), LABELS, GOLD, PREDICTED)
        return Path(urlparse(read_results(connection).frame["artifact_uri"].iloc[0]).path)

    def predicted(self, connection: Connection) -> list[int]:
        results = read_results(connection)
        predicted: list[int] = read_targets(
            results, results.frame["run_id"].iloc[0], multilabel=False
        ).predicted.tolist()
        return predicted

    def test_is_compared_without_reading_its_scores(self, connection: Connection, folder: Path) -> None:
        (folder / PREDICTIONS).unlink()
        assert self.predicted(connection) == PREDICTED.tolist()

    def test_of_an_older_version_has_the_csv_file_alone(self, connection: Connection, folder: Path) -> None:
        (folder / without_scores(PREDICTIONS)).unlink()
        assert self.predicted(connection) == PREDICTED.tolist()

    @pytest.mark.parametrize("content", [b"", b"no Arrow file", None])
    def test_with_a_damaged_file_is_read_from_the_csv_file(
        self, content: bytes | None, connection: Connection, folder: Path
    ) -> None:
        fast = folder / without_scores(PREDICTIONS)
        fast.write_bytes(fast.read_bytes()[:-20] if content is None else content)
        assert self.predicted(connection) == PREDICTED.tolist()

    def test_whose_csv_file_was_changed_is_read_from_it(self, connection: Connection, folder: Path) -> None:
        text = (folder / PREDICTIONS).read_text()
        (folder / PREDICTIONS).write_text(text.replace("yes,no", "yes,yes"))
        assert self.predicted(connection) == [0, 1, 1, 1]
