"""The export of results to files, such as for a paper's appendix: tables, environments, a comparison, a checklist."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UnavailableError
from alue_bench.evaluation.margins import Margins
from alue_bench.reporting.across_table import across_as_markdown, across_frame
from alue_bench.reporting.across_tasks import across_tasks
from alue_bench.reporting.checklist import checklist
from alue_bench.reporting.comparison import compare
from alue_bench.reporting.comparison_table import as_markdown, records
from alue_bench.tracking.reading import COLUMNS, Results, read_environment, read_targets

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("run_id", "task", "model", "strategy", "seed")
"""The columns that identify a run. The table of metrics in long format repeats them in every row."""
STORE_COLUMNS = ("artifact_uri",)
"""The columns with folders of this machine, which are not exported because they are of no use elsewhere."""


def export(results: Results, folder: Path, *, table_format: str, margins: Margins | None = None) -> list[Path]:
    """Write results as files into a folder.

    - runs: one row per run, with a column for each param and metric (wide format)
    - metrics: one row per run and metric (long format)
    - comparison: one row per task, model, conditions and strategy, with the tests and verdicts
    - across_tasks: one row per model and strategy, with the changes over all tasks; only with three tasks or more
    - comparison.md: the comparison as tables for reading, with the results across tasks
    - results.json: the runs with their environments, nested
    - checklist.md: the reproducibility checklist

    Args:
        results: The results to export.
        folder: The folder for the files, which is created if it does not exist.
        table_format: The format of the tables: "csv" or "parquet".
        margins: The margin (largest acceptable loss of score) for each metric; None for the default.

    Returns:
        The files that were written.

    Raises:
        UnavailableError: The folder cannot be written.
        UsageError: No run has a metric that `margins` names.
    """
    import pandas as pd

    runs = results.frame.drop(columns=list(STORE_COLUMNS))
    comparison = compare(results.frame, partial(read_targets, results), margins=margins)
    environments = _environments(results)
    experiment = results.connection.experiment
    across = across_tasks(comparison.blocks, results.frame)
    tables = {"runs": runs, "metrics": long_metrics(results.frame), "comparison": pd.DataFrame(records(comparison))}
    if across:
        tables["across_tasks"] = across_frame(across)
    texts: dict[str, Callable[[], str]] = {
        "comparison.md": lambda: f"{as_markdown(comparison)}\n{across_as_markdown(across)}".rstrip("\n") + "\n",
        "results.json": lambda: _json(runs, environments, results),
        "checklist.md": lambda: checklist(
            results.frame, [environment for environment, _ in environments], results.counts, experiment=experiment
        ),
    }
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            path = folder / f"{name}.{table_format}"
            if table_format == "parquet":
                table.to_parquet(path, index=False)
            else:
                table.to_csv(path, index=False)
            written.append(path)
        for name, text in texts.items():
            (folder / name).write_text(text(), encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise UnavailableError(
            f"{folder} cannot be written ({error.strerror or error}); name another folder"
        ) from error
    return written


def long_metrics(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics in long format, with one row for each run and metric; missing metrics have no row.

    The columns are run_id, task, model, strategy, seed, metric and value.
    """
    metrics = [name for name in frame.columns if name not in COLUMNS]
    long = frame.melt(id_vars=list(KEYS), value_vars=metrics, var_name="metric", value_name="value")
    return long.dropna(subset=["value"]).sort_values([*KEYS[1:], "run_id", "metric"]).reset_index(drop=True)


def _environments(results: Results) -> list[tuple[dict[str, Any], list[str]]]:
    """Return each distinct environment (hardware and software) in which runs were executed, with the runs' ids.

    An environment is the content of a run's environment.json. The number of its runs is added to it under the key
    "runs".
    """
    distinct: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for run_id in results.frame["run_id"]:
        environment = read_environment(results, run_id)
        if environment is not None:
            key = json.dumps({name: value for name, value in environment.items() if name != "engine"}, sort_keys=True)
            distinct.setdefault(key, (json.loads(key), []))[1].append(run_id)
    return [(environment | {"runs": len(run_ids)}, run_ids) for environment, run_ids in distinct.values()]


def _json(runs: pd.DataFrame, environments: list[tuple[dict[str, Any], list[str]]], results: Results) -> str:
    place = {run_id: number for number, (_, run_ids) in enumerate(environments) for run_id in run_ids}
    # The method to_json of pandas is not used, because it writes only fifteen digits.
    rows = runs.astype(object).where(runs.notna(), None).to_dict("records")
    document = {
        "experiment": results.connection.experiment,
        "parent_run": results.parent_id,
        "left_out": asdict(results.counts),
        "environments": [environment for environment, _ in environments],
        "runs": [],
    }
    before, after = json.dumps(document, ensure_ascii=False, indent=2).rsplit("[]", maxsplit=1)
    # Python's encoder in C does not indent, and is three times as fast. A run's values are not nested.
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",\n      ", ": "), default=_as_json_value).encode
    written = [encode(row | {"environment": place.get(row["run_id"])})[1:-1] for row in rows]
    lines = ",\n".join(f"    {{\n      {values}\n    }}" for values in written)
    return f"{before}[\n{lines}\n  ]{after}\n"


def _as_json_value(value: Any) -> Any:
    """Convert a time to an ISO 8601 string, and a numpy number to a Python number, since JSON does not support them."""
    return value.isoformat() if hasattr(value, "isoformat") else value.item()
