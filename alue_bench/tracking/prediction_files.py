"""The files with the predictions of a run, written and read.

`predictions.csv` has a row for each test example: its id, the gold label, the predicted label and the score of each
label. Comparisons of runs need no scores, and reading them takes most of the time. So `predictions.arrow` beside it
repeats the first columns in the Arrow IPC format. A run's labels are read from it about four times as fast, and it is a
quarter as large to download. The CSV file is authoritative. It is read if there is no Arrow file, because an older
version of alue-bench recorded the run. It is also read if its size differs from the size that is noted in the Arrow
file.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import Predictions
from alue_bench.contract.task import Labels, TargetKind

if TYPE_CHECKING:
    import pandas as pd

    from alue_bench.evaluation.predictions import GoldAndPredicted

PREDICTIONS = "predictions.csv"
"""The artifact with a run's test predictions."""
FIRST_COLUMNS = ("id", "gold", "prediction")
"""The first columns of an artifact with predictions. Further columns follow: for a classification, a column score_LABEL
for each label."""
COLUMNS, CSV_BYTES = b"columns", b"csv_bytes"
"""The keys of the metadata in the Arrow file: the column names of the CSV file as a JSON list, and the size of the CSV
file in bytes."""


def without_scores(name: str) -> str:
    """Return the name of the artifact that repeats a CSV file of predictions without the scores of the labels.

    Args:
        name: The name of the artifact in CSV format, such as "predictions.csv".
    """
    return f"{Path(name).stem}.arrow"


# Writing -----------------------------------------------------------------------------------------------------------


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a CSV file with a row for each example: id, gold label, prediction and the score of each label.

    In a task that tags words, there is a row for each sentence; see `Predictions`.

    The input texts are left out, since the licences of many data sets forbid their redistribution.
    """
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow([*FIRST_COLUMNS, *(f"{predictions.prefix}{name}" for name in predictions.columns)])
        for row in zip(predictions.ids, predictions.gold, predictions.predicted, predictions.scores, strict=True):
            identifier, gold, predicted, scores = row
            writer.writerow([identifier, gold, predicted, *(f"{score:.6g}" for score in scores)])


def write_without_scores(path: Path, source: Path) -> None:
    """Write the first columns of a CSV file of predictions to an Arrow IPC file.

    They are read from the CSV file, so that both files hold the same values.

    Args:
        path: The path of the Arrow file.
        source: The path of the CSV file.
    """
    import pyarrow as pa

    content = source.read_bytes()
    columns = _header(content)
    table = _read_first_columns(content, columns).replace_schema_metadata(
        {COLUMNS: json.dumps(columns), CSV_BYTES: str(len(content))}
    )
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


# Reading -----------------------------------------------------------------------------------------------------------


def load_targets(path: Path, *, multilabel: bool) -> GoldAndPredicted:
    """Read the gold and predicted labels from a CSV file of predictions.

    Args:
        path: The path of the file.
        multilabel: Whether an example may have several labels.

    Raises:
        ValueError: The file is not a table of predictions.
        DataError: A label has no column of scores, or a cell cannot be divided into label names.
    """
    content = path.read_bytes()
    columns = _header(content)
    return _targets(_read_first_columns(content, columns), columns, multilabel=multilabel)


def load_targets_without_scores(path: Path, *, multilabel: bool) -> GoldAndPredicted | None:
    """Read the gold and predicted labels from a file that `write_without_scores` wrote.

    Args:
        path: The path of the Arrow file.
        multilabel: Whether an example may have several labels.

    Returns:
        The labels. None if the CSV file must be read instead: because the Arrow file is damaged, or because the CSV
        file beside it has another size than when the Arrow file was written.

    Raises:
        DataError: A label has no column of scores, or a cell cannot be divided into label names.
    """
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.py_buffer(path.read_bytes())).read_all()
        columns, size = json.loads(table.schema.metadata[COLUMNS]), int(table.schema.metadata[CSV_BYTES])
    except (pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    source = path.with_suffix(".csv")
    if source.exists() and source.stat().st_size != size:
        return None
    return _targets(table, columns, multilabel=multilabel)


def load_predictions(path: Path) -> pd.DataFrame:
    """Read a CSV file of predictions as a frame, with the scores of the labels.

    Raises:
        ValueError: The file is not a table of predictions.
    """
    import pyarrow as pa

    table = _read_csv(path, dict.fromkeys(FIRST_COLUMNS, pa.string()))
    _check_columns(table.column_names)
    if [name for name in table.column_names if name.startswith("score_")] == ["score_value"]:
        for place, name in ((1, "gold"), (2, "prediction")):
            table = table.set_column(place, name, table.column(name).cast(pa.float64()))
    return table.to_pandas(use_threads=False)


def load_unlabelled(path: Path) -> pd.DataFrame:
    """Read the ids and predictions, both as text, from a CSV file whose examples have no gold labels."""
    import pandas as pd

    return pd.read_csv(path, usecols=["id", "prediction"], dtype="str", keep_default_na=False)


# How ---------------------------------------------------------------------------------------------------------------


def _header(content: bytes) -> list[str]:
    """Return the column names of a CSV file of predictions; raise ValueError if the first are not `FIRST_COLUMNS`."""
    columns = next(csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")), [])
    _check_columns(columns)
    return columns


def _check_columns(columns: Sequence[str]) -> None:
    if tuple(columns[:3]) != FIRST_COLUMNS:
        raise ValueError(f"its columns do not begin with {', '.join(FIRST_COLUMNS)}")


def _read_first_columns(content: bytes, columns: Sequence[str]) -> Any:
    """Return the columns of a CSV file that comparisons of runs need, as an Arrow table of one chunk.

    They are id, gold and prediction and, for span extraction, the number of each question's context.

    Args:
        content: The content of the CSV file.
        columns: The names of its columns.
    """
    import pyarrow as pa

    from alue_bench.evaluation.predictions import CONTEXT, SPAN, labels_of_columns

    labels = labels_of_columns(tuple(columns), multilabel=False)
    label = pa.float64() if labels.kind is TargetKind.REGRESSION else pa.dictionary(pa.int32(), pa.string())
    types = {"id": pa.string(), "gold": label, "prediction": label}
    if labels.extracts_spans:
        types[SPAN + CONTEXT] = pa.int64()
    return _read_csv(pa.py_buffer(content), types, tuple(types)).unify_dictionaries().combine_chunks()


def _targets(table: Any, columns: Sequence[str], *, multilabel: bool) -> GoldAndPredicted:
    """Convert the table that `_read_first_columns` returns into arrays.

    Args:
        table: The table.
        columns: The names of all columns of the CSV file.
        multilabel: Whether an example may have several labels.
    """
    import pyarrow as pa

    from alue_bench.evaluation.predictions import labels_of_columns, targets_of_columns

    labels: Labels = labels_of_columns(tuple(columns), multilabel=multilabel)
    ids, gold, predicted, *contexts = (
        column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns
    )
    return targets_of_columns(ids, gold, predicted, labels, contexts[0] if contexts else None)


def _read_csv(source: Any, types: Mapping[str, Any], only: Sequence[str] = ()) -> Any:
    """Read a file of predictions as an Arrow table.

    Args:
        source: The path of the file, or its content as an Arrow buffer.
        types: The types of some columns, by name. (A label may be called 1, or nan, and must be read as text.)
        only: The columns to read; empty for all.
    """
    from pyarrow import csv as arrow

    return arrow.read_csv(
        source,
        arrow.ReadOptions(use_threads=False),  # the files are small, and many
        parse_options=arrow.ParseOptions(newlines_in_values=True),
        convert_options=arrow.ConvertOptions(
            column_types=types, strings_can_be_null=False, null_values=["nan"], include_columns=list(only)
        ),
    )
