"""Any name becomes a name that MLflow takes, no two become one, and each is read back as it was."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name
from planted_runs import plant, spec

from alue_bench.contract.task import Labels
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.metric_names import (
    LONGEST,
    TAG_LENGTH,
    is_stored_as_itself,
    original_name,
    originals_of,
    stored_names,
    tags_of_originals,
)
from alue_bench.tracking.reading import read_curves, read_results
from alue_bench.tracking.recording import Recorder

ON_WINDOWS = re.compile(r"[/\w.\- ]*")
hostile = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="aAéÉ./- _+[]1١", max_size=8),
    st.builds("test/f1_class_{}".format, st.text(max_size=300)),
    st.sampled_from(["..", ".", "", "/", "a//b", "a/", "---", "a--plus_sign--", "----", "C+", "C#", "\n", "a\n", "\0"]),
)


def as_a_careless_store_compares(name: str) -> str:
    """Without case, accents and blanks at the end, as MySQL and SQL Server compare."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    return bare.rstrip(" ")


@given(st.lists(hostile, unique=True, max_size=8))
@example(["a", "A", "a/b", "A/b", "a/b/c"])
@example(["x" * 400, "x" * 401, "X" * 400])
@example(["x" * 229 + "---" + "0" * 20])
def test_stored_names_are_taken_told_apart_and_read_back(names: list[str]) -> None:
    stored = stored_names(names)
    assert list(stored) == names
    for name in stored.values():
        _validate_metric_name(name)
        assert len(name) <= LONGEST
        assert ON_WINDOWS.fullmatch(name)
    compared = [as_a_careless_store_compares(name) for name in stored.values()]
    assert len(set(compared)) == len(names)
    assert not [(a, b) for a in compared for b in compared if a.startswith(f"{b}/")]  # no file is a folder too
    originals = originals_of(json.loads(json.dumps(tags_of_originals(stored))))
    assert [original_name(name, originals) for name in stored.values()] == names


PLAIN = [
    "test/score", "test/f1_class_NOT_OFF", "test/f1_class_حزن", "runtime/train_s", "mean_score/bottom3top4-trainemb",
    "search/anger/aubmindlab/bert-base-arabertv02/compute_share", "recommended_saving/mdd-mini-lr2e-05",
    "dev/f1_class_e.g. this-one", "test/f1_class_1..3", "test/f1_class_été",
]  # fmt: skip


def test_plain_names_stay_as_they_are() -> None:
    assert stored_names(PLAIN) == {name: name for name in PLAIN}


@given(st.text(alphabet="abcxyz019_./- ", max_size=30), hostile)
def test_what_is_said_to_be_stored_as_itself_is_beside_any_other_name(name: str, other: str) -> None:
    if is_stored_as_itself(name):
        assert stored_names([other, name])[name] == name


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("test/f1_class_C+", "test/f1_class_C--plus_sign--"),
        ("test/f1_class_C++", "test/f1_class_C--plus_sign.plus_sign--"),
        ("test/f1_class_😀", "test/f1_class_--grinning_face--"),
        ("mean_score/mix[low]", "mean_score/mix--left_square_bracket--low--right_square_bracket--"),
        ("mean_score/bottom25%top33%", "mean_score/bottom25--percent_sign--top33--percent_sign--"),
        ("mean_score/..", "mean_score/--full_stop.full_stop--"),
        ("test/f1_class_a:\t", "test/f1_class_a--colon.u0009--"),
    ],
)
def test_other_characters_are_spelt_out(name: str, stored: str) -> None:
    assert stored_names([name]) == {name: stored}


@pytest.fixture
def connection(store: str, experiment: str) -> Connection:
    return connect(store, experiment)


def test_a_run_with_names_of_all_kinds_is_read_back_as_written(connection: Connection) -> None:
    labels = Labels.multiclass("C+", "C#", "😀", "😡", "a", "A", "n/a", "..", "[/red]", "لا" * 200)
    gold = np.arange(10).repeat(3)
    predicted = np.where(np.arange(30) % 3 < np.arange(30) % 4, gold, (gold + 1) % 10)
    run_id = plant(connection, spec(), labels, gold, predicted, more={"dev/f1_class_C+": 0.25, "dev/f1_class_A": 0.5})
    results = read_results(connection)
    (row,) = results.frame.to_dict("records")
    for place, name in enumerate(labels.names):
        hits = sum((gold == place) & (predicted == place))
        expected = 2 * hits / (sum(gold == place) + sum(predicted == place))
        assert row[f"test/f1_class_{name}"] == pytest.approx(expected)
    curves = read_curves(results, run_id, ["dev/f1_class_C+", "dev/f1_class_A", "dev/none"])
    assert list(curves["value"]) == [0.5, 0.25]
    assert set(read_curves(results, run_id)["metric"]) == {"dev/f1_class_C+", "dev/f1_class_A", "train/loss"}
    matches = connection.client.search_runs(
        [connection.experiment_id], "metrics.`test/f1_class_C--plus_sign--` >= 0 and params.strategy = 'full'"
    )
    assert len(matches) == 1


def test_a_plan_of_a_thousand_strategies_with_long_names_is_closed(connection: Connection) -> None:
    told: list[str] = []
    recorder = Recorder(connection, on_problem=told.append)
    names = [f"mean_score/{'x' * 260}[{number}]" for number in range(1000)] + ["mean_score/" + "y" * TAG_LENGTH]
    parent = recorder.start_parent({}, name="n" * 300, tags={"sweep.order": "o" * 9000})
    recorder.finish_parent({}, {name: float(place) for place, name in enumerate(names)}, status="FINISHED")
    run = connection.client.get_run(parent)
    assert (run.info.status, told, recorder.spool.entries()) == ("FINISHED", [], [])
    assert len(run.info.run_name) == LONGEST
    originals = originals_of(run.data.tags)
    read: dict[str, Any] = {original_name(name, originals): value for name, value in run.data.metrics.items()}
    assert len(read) == 1001
    assert [read.get(name) for name in names[:1000]] == list(range(1000))
