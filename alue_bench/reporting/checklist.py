"""A reproducibility checklist. It is filled in from the recorded runs, and marks the facts that they did not record.

The questions are those that Pineau et al. (2021, "Improving Reproducibility in Machine Learning Research") and Dodge et
al. (2019, "Show Your Work") ask of experiments: data, models, settings, seeds, selection, variation, cost, environment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alue_bench.messages.display import markdown
from alue_bench.reporting.conditions import devices
from alue_bench.reporting.numbers import count, number_with_noun
from alue_bench.tracking.reading import Counts, count_sentences, distinct

if TYPE_CHECKING:
    import pandas as pd

Entry = tuple[bool, str]
"""An entry of the checklist: True if its box is ticked; and its text as Markdown, in which names and values from runs
are escaped."""


def checklist(
    frame: pd.DataFrame, environments: Sequence[Mapping[str, Any]], counts: Counts, *, experiment: str
) -> str:
    """Return the reproducibility checklist as Markdown.

    Args:
        frame: The finished runs, as in `tracking.reading.Results.frame`.
        environments: The distinct descriptions of hardware and software among the runs (contents of environment.json).
            Each also has, under the key "runs", the number of runs with this description.
        counts: The numbers of runs that are not in the frame, such as failed ones.
        experiment: The name of the MLflow experiment.
    """
    if frame.empty:
        return f"# Reproducibility checklist\n\nExperiment '{_name(experiment)}' has no finished run.\n"
    sections = [
        ("Data", _data(frame)),
        ("Models", _models(frame)),
        ("Settings", _settings(frame)),
        ("Seeds and repetitions", _seeds(frame, counts)),
        ("Evaluation", _evaluation(frame)),
        ("Hardware and software", _environment(frame, environments)),
        ("Cost", _cost(frame)),
    ]
    lines = ["# Reproducibility checklist", ""]
    lines.append(
        f"{number_with_noun(len(frame), 'finished run')} of experiment '{_name(experiment)}'. Filled in from the "
        "recorded runs; an empty box marks something that was not recorded."
    )
    for title, entries in sections:
        lines += ["", f"## {title}", ""]
        lines += [f"- [{'x' if known else ' '}] {text}" for known, text in entries]
    return "\n".join(lines) + "\n"


def _data(frame: pd.DataFrame) -> list[Entry]:
    entries: list[Entry] = []
    if (frame["data_source"] == "sample").any():
        named = _named(sorted(set(frame.loc[frame["data_source"] == "sample", "task"])))
        entries.append(
            (False, f"Real data: **{named} ran on embedded sample data**, whose scores say nothing about the task")
        )
    for (task, source), part in frame.groupby(["task", "data_source"], dropna=False):
        protocols = distinct(part["protocol"])
        entries.append((bool(protocols), f"{_name(task)} ({_name(source)}): {_or_missing(protocols, 'splits', '; ')}"))
        for split in ("train", "dev", "test"):
            digests = distinct(part[f"{split}_digest"])
            entries.append(
                (
                    len(digests) > 0 and not part[f"{split}_digest"].isna().any(),
                    f"{_name(task)}, {split} rows{_rows(part, split)}: {_or_missing(digests, 'digest')}",
                )
            )
        if _total(part, "data/dropped_rows"):
            entries.append(
                (True, f"{_name(task)}: up to {part['data/dropped_rows'].max():.0f} malformed rows were left out")
            )
    return entries


def _rows(part: pd.DataFrame, split: str) -> str:
    column = f"data/{split}_rows"
    numbers = sorted({int(number) for number in part[column].dropna()}) if column in part.columns else []
    return f" ({', '.join(map(str, numbers))})" if numbers else ""


def _models(frame: pd.DataFrame) -> list[Entry]:
    entries: list[Entry] = []
    for model, part in frame.groupby("model"):
        digests = distinct(part["model_digest"])
        complete = len(digests) > 0 and not part["model_digest"].isna().any()
        size = distinct(part["params/total"]) if "params/total" in part.columns else []
        parameters = f", {count(max(size))} parameters" if size else ""
        entries.append(
            (complete, f"{_name(model)}{parameters}; digest of weights and tokenizer: {_or_missing(digests, 'digest')}")
        )
    return entries


def _settings(frame: pd.DataFrame) -> list[Entry]:
    entries: list[Entry] = []
    names = ["epochs", "batch_size", "lr", "max_length", "other_hyper"]
    for values, part in frame.groupby(names, dropna=False):
        settings = dict(zip(names, values, strict=True))
        others = settings.pop("other_hyper")
        text = _named(f"{name} {value}" for name, value in settings.items())
        known = isinstance(others, str)
        if known:
            text += ", " + _named(f"{name} {value}" for name, value in json.loads(others).items())
        else:
            text += "; warm-up, weight decay, clipping and epoch selection: **missing** (see each run's config.json)"
        entries.append((known, f"{text}: {number_with_noun(len(part), 'run')} ({_named(sorted(set(part['task'])))})"))
    entries.append((True, f"Strategies: {_named(sorted(set(frame['strategy'])))}"))
    return entries


def _seeds(frame: pd.DataFrame, counts: Counts) -> list[Entry]:
    cells = frame.groupby(["task", "model", "strategy"])["seed"].nunique()
    seeds = ", ".join(str(seed) for seed in sorted(distinct(frame["seed"])))
    entries: list[Entry] = [
        (True, f"Seeds: {seeds}" if len(seeds) < 200 else f"{frame['seed'].nunique()} different seeds"),
        (
            int(cells.min()) > 1,
            f"Seeds for each task, model and strategy: {cells.min()} to {cells.max()}"
            if cells.min() != cells.max()
            else f"Seeds for each task, model and strategy: {cells.min()}",
        ),
    ]
    divided = frame[frame["folds"].notna()].groupby("folds")["repeat"].max()
    entries += [
        (True, f"Cross-validation: {folds} folds, {number_with_noun(int(repeats), 'repeat')}")
        for folds, repeats in divided.items()
    ]
    entries += [(False, sentence) for sentence in count_sentences(counts)]
    return entries


def _evaluation(frame: pd.DataFrame) -> list[Entry]:
    metrics = {str(task): distinct(part["primary_metric"]) for task, part in frame.groupby("task")}
    return [
        (bool(names), f"{_name(task)} is scored by {_or_missing(names, 'its primary metric')}")
        for task, names in metrics.items()
    ] + [
        *_selection(frame),
        (
            True,
            "Means with t-intervals over seeds; differences tested over seeds and test examples together, corrected "
            "for their number (docs/measuring.md)",
        ),
        *(
            [(True, "Over folds: the corrected resampled t-test (Nadeau and Bengio, 2003; docs/small-data.md)")]
            if frame["folds"].notna().any()
            else []
        ),
    ]


SELECTION = {
    "best": "the evaluation with the best dev score is tested; the test split is scored once",
    "last": "the last epoch is tested; the test split is scored once",
}


def _selection(frame: pd.DataFrame) -> list[Entry]:
    settings = [json.loads(text) for text in distinct(frame["other_hyper"])]
    ways = sorted({str(setting.get("select")) for setting in settings})
    entries = [(way in SELECTION, f"Selection: {_name(SELECTION.get(way, way))}") for way in ways]
    missing = int(frame["other_hyper"].isna().sum())
    return entries + (
        [(False, f"Selection of the epoch: **missing** in {number_with_noun(missing, 'run')}")] if missing else []
    )


def _environment(frame: pd.DataFrame, environments: Sequence[Mapping[str, Any]]) -> list[Entry]:
    entries: list[Entry] = []
    for hardware, part in frame.groupby("hardware", dropna=False):
        used = "; ".join(devices(part))
        entries.append(
            (isinstance(hardware, str), f"{_name(hardware)} ({markdown(used)}): {number_with_noun(len(part), 'run')}")
        )
    for environment in environments:
        libraries = environment.get("libraries") or {}
        shown = _named(f"{name} {version}" for name, version in libraries.items())
        machine = markdown(f"Python {environment.get('python', '?')}, {environment.get('system', 'unknown system')}")
        entries.append((bool(libraries), f"{machine}; {shown or '**missing** libraries'}: {environment['runs']} runs"))
    recorded = sum(environment["runs"] for environment in environments)
    if recorded < len(frame):
        entries.append((False, f"**missing** environment of {number_with_noun(len(frame) - recorded, 'run')}"))
    versions = distinct(frame["version"])
    entries.append((bool(versions), f"alue-bench {_named(versions)}"))
    commits = {str((e.get("git") or {}).get("commit", "")): (e.get("git") or {}).get("dirty") for e in environments}
    for commit, dirty in commits.items():
        if commit:
            changed = ", with uncommitted changes" if dirty == "yes" else ""
            entries.append((dirty != "yes", f"Commit of the working folder: {markdown(commit)}{changed}"))
        else:
            entries.append((False, "Commit of the working folder: **missing** (not a git repository)"))
    return entries


def _cost(frame: pd.DataFrame) -> list[Entry]:
    def hours(column: str) -> str:
        return f"{_total(frame, column) / 3600:.2f} h"

    entries: list[Entry] = [
        (_total(frame, "runtime/train_s") > 0, f"Training: {hours('runtime/train_s')}"),
        (
            _total(frame, "runtime/total_s") > 0,
            f"Whole runs, loading and evaluation included: {hours('runtime/total_s')}",
        ),
        (
            _total(frame, "flops/train") > 0,
            f"Training FLOPs, computed from shapes: {count(_total(frame, 'flops/train'))}",
        ),
    ]
    joules = {name: _total(frame, f"energy/{name}_j") for name in ("gpu", "cpu")}
    for name, total in joules.items():
        if total:
            entries.append((True, f"Energy from the {name.upper()}'s counter: {total / 3.6e6:.4f} kWh"))
    if not any(joules.values()):
        entries.append((False, "Energy: **missing** (no counter could be read; nothing is estimated)"))
    return entries


def _total(frame: pd.DataFrame, column: str) -> float:
    return float(frame[column].sum()) if column in frame.columns else 0.0


def _or_missing(values: Sequence[Any], name: str, between: str = ", ") -> str:
    return between.join(map(_name, values)) if values else f"**missing** {name}"


def _name(value: Any) -> str:
    """Return a value of a data frame as escaped Markdown; "not recorded" for a missing value."""
    return markdown("not recorded" if str(value) == "<NA>" else str(value))


def _named(values: Iterable[Any]) -> str:
    return ", ".join(map(_name, values))
