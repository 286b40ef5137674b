"""The section of a report on the conditions of the runs, such as data, hardware and hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from alue_bench.reporting.content import Cell, Column, Facts, Folded, Item, ReportTable, Row, RowGroup
from alue_bench.reporting.numbers import count, decimal, number_with_noun, seconds
from alue_bench.tracking.reading import Results, distinct, read_environment, read_notes

if TYPE_CHECKING:
    import pandas as pd

MAX_LISTED_RUNS = 200
"""The largest number of runs that the report lists one by one."""
MAX_RUNS_WITH_NOTES = 60
"""The largest number of runs whose notes are read. Notes are remarks that a run recorded, for example that texts were
truncated."""
HYPER = ("epochs", "batch_size", "lr", "max_length", "other_hyper")
"""The columns with hyper-parameters in the frame of runs."""

SOURCES = {
    "real": "the official files",
    "sample": "embedded sample for demonstration; scores say nothing about the task",
}


def conditions(results: Results, runs: pd.DataFrame) -> list[Item]:
    """Return a list of facts about the conditions of comparable runs, and a table of the runs.

    Args:
        results: The results that were read from the MLflow store, with these and other runs.
        runs: The rows of the results' data frame for the comparable runs.
    """
    environment = read_environment(results, str(runs["run_id"].iloc[-1])) if len(runs) else None
    facts = [
        ("data", "; ".join(f"{source}: {SOURCES.get(source, '')}" for source in distinct(runs["data_source"]))),
        ("protocol", "; ".join(_by_task(runs, "protocol"))),
        ("hardware", "; ".join(distinct(runs["hardware"]))),
        ("device, precision", "; ".join(devices(runs))),
        ("versions", "; ".join(distinct(runs["versions"]))),
        ("system", _system(environment)),
        ("code", "; ".join(f"git {commit[:10]}" for commit in distinct(runs["git_commit"]))),
        ("metric", "; ".join(_by_task(runs, "primary_metric"))),
        ("training", "; ".join(_settings(runs))),
        ("rows", "; ".join(_rows(runs))),
        ("seeds", ", ".join(str(seed) for seed in sorted(distinct(runs["seed"])))),
        ("models", "; ".join(f"{model} ({digest[:10]})" for model, digest in _models(runs))),
        ("started", _dates(runs)),
        (
            f"notes of {MAX_RUNS_WITH_NOTES} runs" if len(runs) > MAX_RUNS_WITH_NOTES else "notes",
            "; ".join(_notes(results, runs)),
        ),
    ]
    return [Facts([(name, value) for name, value in facts if value]), _listed(runs)]


def _by_task(runs: pd.DataFrame, column: str) -> Iterable[str]:
    """Return each distinct value of a column. If there are several, each is preceded by the names of its tasks."""
    by_value: dict[str, list[str]] = {}
    for (task, value), _ in runs.groupby(["task", column], sort=False):
        by_value.setdefault(str(value), []).append(str(task))
    alone = len(by_value) == 1
    return [value if alone else f"{', '.join(dict.fromkeys(tasks))}: {value}" for value, tasks in by_value.items()]


def devices(runs: pd.DataFrame) -> list[str]:
    """Return the combinations of device, number format and use of CUDA graphs that occur among the runs."""
    unique = runs[["device", "precision", "cuda_graphs"]].drop_duplicates().sort_values(["device", "precision"])
    return [
        f"{device}, {precision}{', CUDA graphs' if graphs == 'yes' else ''}"
        for device, precision, graphs in unique.fillna("not recorded").itertuples(index=False, name=None)
    ]


def _models(runs: pd.DataFrame) -> list[tuple[str, str]]:
    unique = runs[["model", "model_digest"]].drop_duplicates().itertuples(index=False, name=None)
    return [(str(model), str(digest)) for model, digest in unique if isinstance(digest, str)]


def _settings(runs: pd.DataFrame) -> list[str]:
    """Return the combinations of hyper-parameters among the runs: the first six, and the number of further ones."""
    import pandas as pd

    combinations = []
    for values in runs[list(HYPER)].drop_duplicates().to_dict("records"):
        other = values.pop("other_hyper")
        named = [f"{name} {value:g}" for name, value in values.items() if pd.notna(value)]
        combinations.append(", ".join([*named, *([other] if isinstance(other, str) else [])]))
    return _shortened(combinations, 6)


def _rows(runs: pd.DataFrame) -> list[str]:
    import pandas as pd

    columns = [name for name in ("data/train_rows", "data/dev_rows", "data/test_rows") if name in runs]
    texts = []
    for counts in runs[["task", *columns]].drop_duplicates().to_dict("records"):
        task = counts.pop("task")
        known = [
            f"{rows:.0f} {str(name).removeprefix('data/').removesuffix('_rows')}"
            for name, rows in counts.items()
            if pd.notna(rows)
        ]
        if known:
            texts.append(f"{task} {', '.join(known)}")
    return _shortened(texts, 40)


def _system(environment: dict[str, Any] | None) -> str:
    if not environment:
        return ""
    libraries = environment.get("libraries")
    named = [f"{name} {version}" for name, version in libraries.items()] if isinstance(libraries, dict) else []
    parts = [environment.get("system"), f"Python {environment['python']}" if environment.get("python") else None]
    return ", ".join(str(part) for part in [*parts, *named] if part)


def _dates(runs: pd.DataFrame) -> str:
    times = runs["start_time"].dropna()
    if times.empty:
        return ""
    first, last = (f"{time:%Y-%m-%d %H:%M} UTC" for time in (times.min(), times.max()))
    return first if first == last else f"{first} to {last}"


def _notes(results: Results, runs: pd.DataFrame) -> list[str]:
    """Return each distinct note of the first `MAX_RUNS_WITH_NOTES` runs, with the number of runs that recorded it.

    There are at most twelve notes, and then the number of further ones.
    """
    counted: dict[str, int] = {}
    for run_id in runs["run_id"].head(MAX_RUNS_WITH_NOTES):
        for note in read_notes(results, str(run_id)):
            counted[note] = counted.get(note, 0) + 1
    return _shortened([f"{note} ({number_with_noun(number, 'run')})" for note, number in counted.items()], 12)


def _shortened(texts: list[str], limit: int) -> list[str]:
    return texts if len(texts) <= limit else [*texts[:limit], f"and {len(texts) - limit} more"]


def _listed(runs: pd.DataFrame) -> Folded:
    """Return a table of the first `MAX_LISTED_RUNS` runs with their MLflow ids, hidden until the reader unfolds it."""
    shown = runs.head(MAX_LISTED_RUNS)

    def value(row: dict[str, Any], name: str) -> float | None:
        return row.get(name)

    rows = [
        Row(
            f"{row['task']}/{row['model']}/{row['strategy']}",
            [
                Cell(str(row["seed"])),
                Cell(decimal(row["score"])),
                Cell(seconds(value(row, "runtime/train_s"))),
                Cell(count(value(row, "flops/train"))),
                Cell(str(row["run_id"]), tone="muted"),
            ],
        )
        for row in shown.to_dict("records")
    ]
    columns = [Column("seed"), Column("score"), Column("training"), Column("FLOPs"), Column("run id", number=False)]
    left = f", the first {MAX_LISTED_RUNS} of {len(runs)}" if len(runs) > MAX_LISTED_RUNS else f" ({len(runs)})"
    return Folded(f"Every run{left}", [ReportTable("Runs", "run", columns, [RowGroup("", rows)])])
