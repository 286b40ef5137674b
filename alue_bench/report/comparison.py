"""Which runs may be compared, and what the comparison says: a function from a frame of runs to plain values.

The terminal's table, the page and the export show these values and compute none of their own.

Runs are compared only where everything but strategy and seed is the same: task, model, rows, data source, protocol,
hyper-parameters, hardware, number format, version of alue-bench. Every such set of runs is a `Block` of its own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import AlueBenchError, UsageError
from alue_bench.evaluation.additive import Additive, additive
from alue_bench.evaluation.intervals import Estimate, cohens_d, estimate, holm, probability_of_improvement
from alue_bench.evaluation.learning import REMEDY, Learning, learning
from alue_bench.evaluation.predictions import Targets, targets_of
from alue_bench.evaluation.significance import (
    FEWEST_SEEDS,
    Crossed,
    approximate_randomisation,
    crossed_test_of,
    detectable,
    paired_bootstrap,
    seeds_needed,
)

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "full"
LEVELS = (0.001, 0.01, 0.05)

CONDITIONS = (
    "data_source",
    "protocol",
    "train_digest",
    "dev_digest",
    "test_digest",
    "model_digest",
    "hardware",
    "device",
    "precision",
    "cuda_graphs",
    "epochs",
    "batch_size",
    "lr",
    "max_length",
    "other_hyper",
    "version",
)
"""Columns in which all runs of a block agree, besides task and model."""

Load = Callable[[str], "pd.DataFrame"]
"""The test predictions of a run, by its id: `tracking.reading.read_predictions`."""


Run = dict[Any, Any]
"""A row of the frame, by column."""


class Verdict(StrEnum):
    """What can be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    """Not shown to differ; which does not show that it is the same: see the interval."""
    TOO_FEW_SEEDS = "too few seeds"
    NOT_TESTED = "not tested"
    NOTHING_LEARNT = "nothing learnt"
    """The baseline did not learn: to be no worse is no merit. A significant difference from it is told all the same."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of a strategy's score from the baseline's, over the seeds that both have."""

    mean: float
    seeds: int
    verdict: Verdict
    reason: str = ""
    """Why there is no verdict."""
    test: Crossed | None = None
    """Interval, p-value before correction, variance components; None with one seed, or without predictions."""
    p_corrected: float | None = None
    """Holm's, over all tested differences of the comparison."""
    cohens_d: float | None = None
    improvement: float | None = None
    """How often a run of the strategy beats one of the baseline."""
    seeds_needed: int | None = None
    """To find a difference as large as the one seen, where the test does not."""
    detectable: float | None = None
    """The smallest difference that the seeds there are would show, four times in five."""
    p_examples: float | None = None
    """Approximate randomisation over examples: for these trained models only. Where asked for."""
    bootstrap: tuple[float, float] | None = None
    """Interval of the bootstrap over examples: for these trained models only. Where asked for."""

    @property
    def stars(self) -> str:
        """* below 0.05, ** below 0.01, *** below 0.001, after correction; only where there is a verdict."""
        if self.verdict not in (Verdict.BETTER, Verdict.WORSE) or self.p_corrected is None:
            return ""
        return "*" * sum(self.p_corrected < level for level in LEVELS)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a strategy scored and cost."""

    strategy: str
    seeds: tuple[int, ...]
    run_ids: tuple[str, ...]
    score: Estimate | None
    """None where every score is undefined."""
    difference: Difference | None
    """None for the baseline, and where it has no runs."""
    train_s: Estimate | None
    time_change: Estimate | None
    """Relative to the baseline, seed by seed; -0.3 is 30 % less."""
    speed_up: float | None
    trainable_share: float | None
    flops_share: float | None
    """Of full fine-tuning's."""
    memory_mib: float | None
    """Peak of the GPU where there is one, else of the process."""
    energy_j: float | None
    """Of the GPU where there is one, else of the processor; None where there is no counter."""
    freeze: tuple[int, int, int] | None
    """Frozen layers at the bottom and at the top, and whether the embeddings are."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Strategies that compare with each other."""

    task: str
    model: str
    metric: str
    """In MLflow, such as test/f1_macro."""
    baseline: str
    conditions: Mapping[str, Any]
    """`CONDITIONS`, with None where a run did not record it."""
    differing: tuple[str, ...]
    """Conditions in which blocks of the same task and model differ: what a heading must say."""
    trivial_score: float | None
    """Of a predictor that does not read the text; None for another metric than the primary one."""
    unlearnt: Learning | None
    """The baseline's scores against the trivial one, where it has learnt nothing; else None."""
    rows: tuple[Row, ...]
    """The baseline first, then by name, numbers in names by their size."""
    notes: tuple[str, ...]
    first_look: bool = False
    """Whether all are short runs that a search began with, by which nothing is to be recommended."""
    rows_told: Mapping[str, str] = field(default_factory=dict)
    """By split's digest among the conditions: how many rows, and which set where the number does not tell."""

    @property
    def sample(self) -> bool:
        return bool(self.conditions["data_source"] == "sample")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All blocks, by task, model and conditions."""

    blocks: tuple[Block, ...]
    tested: int
    """How many differences Holm's correction counts."""


def compare(
    frame: pd.DataFrame, load: Load, *, baseline: str = BASELINE, metric: str | None = None, resamples: int = 0
) -> Comparison:
    """Compare strategies with a baseline.

    frame: `tracking.reading.Results.frame`, or a part of it. metric: another one than each task's primary one, such as
    "f1_micro"; tasks that do not have it are left out. resamples: for the tests over examples alone; 0 leaves them out.
    Raises UsageError where no run has the metric.
    """
    import pandas as pd

    column = f"test/{metric.removeprefix('test/')}" if metric else None
    if column and not (column in frame.columns and frame[column].notna().any()) and len(frame):
        known = ", ".join(sorted(name.removeprefix("test/") for name in frame.columns if name.startswith("test/")))
        raise UsageError(f"--metric {metric}: no run has it; there are {known}")
    blocks: list[Block] = []
    for (task, model), of_both in frame.groupby(["task", "model"], sort=True):
        if column and not of_both[column].notna().any():
            continue
        groups = [(_plain(values), part) for values, part in of_both.groupby(list(CONDITIONS), dropna=False, sort=True)]
        differing = tuple(
            name for place, name in enumerate(CONDITIONS) if len({values[place] for values, _ in groups}) > 1
        )
        rows_told = {name: _told_rows(of_both, name) for name in ("train_digest", "dev_digest", "test_digest")}
        for values, part in groups:
            conditions = dict(zip(CONDITIONS, values, strict=True))
            primary = f"test/{part['primary_metric'].iloc[-1]}" if pd.notna(part["primary_metric"].iloc[-1]) else ""
            used = column or primary or "test/score"
            blocks.append(
                _block(
                    part,
                    load,
                    task=str(task),
                    model=str(model),
                    metric=used,
                    primary=used in (primary, "test/score"),
                    baseline=baseline,
                    conditions=conditions,
                    differing=differing,
                    rows_told={name: told[conditions[name]] for name, told in rows_told.items() if conditions[name]},
                    resamples=resamples,
                )
            )
    return _corrected(blocks)


def mean_change(pairs: Iterable[tuple[float | None, float | None]]) -> Estimate | None:
    """Of values, each beside the baseline's of the same seed: the mean of their relative changes. −0.3: 30 % less."""
    changes = [_change(value, base) for value, base in pairs]
    return estimate([change for change in changes if change is not None])


def describe_conditions(block: Block) -> str:
    """What tells this block from others of its task and model, in words; empty where it is the only one, unless it is
    a search's first look."""
    import json

    said = ["low-fidelity runs of a search (no answer rests on them)"] if block.first_look else []
    for name in block.differing:
        value = block.conditions[name]
        if name == "other_hyper" and isinstance(value, str):
            said.append(", ".join(f"{key} {setting}" for key, setting in json.loads(value).items()))
        elif name in block.rows_told:
            said.append(f"{WORDS[name]} {block.rows_told[name]}")
        elif name.endswith("_digest"):
            said.append(f"{WORDS[name]} {str(value)[:6] if value else 'not recorded'}")
        else:
            said.append(f"{WORDS.get(name, name)} {'not recorded' if value is None else value}")
    return "; ".join(said)


WORDS = {
    "data_source": "data",
    "train_digest": "train rows",
    "dev_digest": "dev rows",
    "test_digest": "test rows",
    "model_digest": "weights",
    "batch_size": "batch size",
    "max_length": "max length",
    "other_hyper": "settings",
    "version": "alue-bench",
}


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """bottom3 before bottom10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def all_rows(comparison: Comparison) -> Iterator[tuple[Block, Row]]:
    return ((block, row) for block in comparison.blocks for row in block.rows)


# How ---------------------------------------------------------------------------------------------------------------


def _plain(values: Iterable[Any]) -> tuple[Any, ...]:
    """Values with None for what is missing: pandas' NA equals nothing."""
    import pandas as pd

    return tuple(None if pd.isna(value) else value for value in values)


def _told_rows(of_both: pd.DataFrame, digest_name: str) -> dict[str, str]:
    """By digest, what tells one set of rows from the others of a task and model: how many there are, or, where that is
    the same or was not recorded, its digest's first digits besides."""
    column = f"data/{digest_name.removesuffix('_digest')}_rows"
    if column not in of_both.columns:
        return {digest: f"(set {digest[:6]})" for digest in of_both[digest_name].dropna().unique()}
    numbers = {str(digest): number for digest, number in of_both.groupby(digest_name)[column].max().items()}
    often = Counter(numbers.values())
    told = {}
    for digest, number in numbers.items():
        words = [] if math.isnan(number) else [f"{number:.0f}"]
        if not words or often[number] > 1:
            words.append(f"(set {digest[:6]})")
        told[digest] = " ".join(words)
    return told


@dataclass(frozen=True)
class _Influence:
    """What the test needs of a run."""

    system: Additive
    pseudo_values: Any
    ids: Any


class _Influences:
    """The predictions of a block's runs, turned into contributions to its metric. A run of the baseline is met again
    with every strategy and is kept; of any other nothing is: together they need not fit the memory."""

    def __init__(self, load: Load, metric: str, *, multilabel: bool) -> None:
        self._load, self._metric, self._multilabel = load, metric.removeprefix("test/"), multilabel
        self._kept: dict[str, _Influence | str] = {}

    def of(self, run_id: str) -> _Influence | str:
        """Or why there is none."""
        try:
            targets: Targets = targets_of(self._load(run_id), multilabel=self._multilabel)
        except AlueBenchError as error:
            return str(error)
        system = additive(self._metric, targets.gold, targets.predicted, targets.labels)
        if system is None:
            return f"there is no test of {self._metric} over examples"
        return _Influence(system, system.pseudo_values(), targets.ids)

    def of_baseline(self, run_id: str) -> _Influence | str:
        if run_id not in self._kept:
            self._kept[run_id] = self.of(run_id)
        return self._kept[run_id]


def _block(
    part: pd.DataFrame,
    load: Load,
    *,
    task: str,
    model: str,
    metric: str,
    primary: bool,
    baseline: str,
    conditions: Mapping[str, Any],
    differing: tuple[str, ...],
    rows_told: Mapping[str, str],
    resamples: int,
) -> Block:
    notes = []
    # Another version of a plugin gives another fingerprint, and may have given another score.
    kept = part.drop_duplicates(["strategy", "init_seed", "data_seed"], keep="last").sort_values("seed")
    if len(kept) < len(part):
        notes.append(f"{len(part) - len(kept)} runs made with an older version of a plugin are left out")
    versions = sorted(set(kept["versions"].dropna()))
    if len(versions) > 1 and (varying := _varying(versions)):
        notes.append(f"library versions differ between runs: {varying}")
    by_strategy: dict[str, list[Run]] = {}
    for run in kept.to_dict("records"):
        by_strategy.setdefault(str(run["strategy"]), []).append(run)
    base = by_strategy.get(baseline)
    if base is None:
        notes.append(f"no run of {baseline} under these conditions, so changes cannot be computed")
    multilabel = "test/jaccard_samples" in part.columns and bool(part["test/jaccard_samples"].notna().any())
    influences = _Influences(load, metric, multilabel=multilabel)
    rows = tuple(
        _row(name, by_strategy[name], None if name == baseline else base, metric, influences, resamples)
        for name in sorted(by_strategy, key=lambda name: (name != baseline, natural_order(name)))
    )
    notes += [
        f"{row.strategy}: {len(row.seeds) - row.score.values} of {len(row.seeds)} scores are undefined and left out"
        for row in rows
        if row.score and row.score.values < len(row.seeds)
    ]
    trivial = _column(kept.to_dict("records")[:1], "test/trivial_score") if primary else []
    learnt = _learning(base, metric) if base and primary else None
    unlearnt = None if learnt is None or learnt.shown else learnt
    if unlearnt is not None:
        notes.append(
            f"{unlearnt.sentence(baseline, 'test')}, so that no strategy can be said to keep its score; {REMEDY}"
        )
    return Block(
        task=task,
        model=model,
        metric=metric,
        baseline=baseline,
        conditions=conditions,
        differing=differing,
        trivial_score=trivial[0] if trivial else None,
        unlearnt=unlearnt,
        rows=rows,
        notes=tuple(notes),
        first_look=bool(kept["first_look"].notna().all()),
        rows_told=rows_told,
    )


def _learning(runs: Sequence[Run], metric: str) -> Learning | None:
    """Judge runs against the trivial score. Runs of an older version recorded no standard error."""
    columns = (metric, "test/trivial_score", "test/above_trivial_error")
    return learning(*([float(run.get(name, math.nan)) for run in runs] for name in columns))


def _varying(versions: Sequence[str]) -> str:
    """Of texts such as "torch 2.13.0, mlflow 3.1": the packages whose version is not the same in all."""
    by_package: dict[str, set[str]] = {}
    for text in versions:
        for entry in text.split(", "):
            name, _, version = entry.rpartition(" ")
            by_package.setdefault(name, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in by_package.items() if len(found) > 1)


def _row(
    strategy: str,
    runs: Sequence[Run],
    base: Sequence[Run] | None,
    metric: str,
    influences: _Influences,
    resamples: int,
) -> Row:
    times, base_times = _column(runs, "runtime/train_s"), _column(base or (), "runtime/train_s")
    pairs = _pairs(runs, base or ())
    time_change = mean_change((a.get("runtime/train_s"), b.get("runtime/train_s")) for a, b in pairs)
    bottom, top, embeddings = _plain(runs[0][name] for name in ("freeze_bottom", "freeze_top", "freeze_embeddings"))
    return Row(
        strategy=strategy,
        seeds=tuple(int(run["seed"]) for run in runs),
        run_ids=tuple(run["run_id"] for run in runs),
        score=estimate(_column(runs, metric)),
        difference=None if base is None else _difference(pairs, runs, base, metric, influences, resamples),
        train_s=estimate(times),
        time_change=time_change,
        speed_up=_mean(base_times) / _mean(times) if times and base_times and _mean(times) else None,  # type: ignore[operator]
        trainable_share=_mean(_column(runs, "params/trainable_share")),
        flops_share=_mean(_column(runs, "flops/train_vs_full")),
        memory_mib=_mean(_column(runs, "memory/device_peak_mib") or _column(runs, "memory/process_peak_mib")),
        energy_j=_mean(_column(runs, "energy/gpu_j") or _column(runs, "energy/cpu_j")),
        freeze=None if None in (bottom, top, embeddings) else (int(bottom), int(top), int(embeddings)),
    )


def _column(runs: Sequence[Run], name: str) -> list[float]:
    """The finite values."""
    return [float(run[name]) for run in runs if name in run and math.isfinite(run[name])]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _change(value: float | None, base: float | None) -> float | None:
    if value is None or not base or not math.isfinite(value) or not math.isfinite(base):
        return None
    return value / base - 1


def _pairs(runs: Sequence[Run], base: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Runs with the same seeds, in order of the seed."""
    keyed = {(run["init_seed"], run["data_seed"]): run for run in base}
    return [(run, keyed[key]) for run in runs if (key := (run["init_seed"], run["data_seed"])) in keyed]


def _difference(
    pairs: Sequence[tuple[Run, Run]],
    runs: Sequence[Run],
    base: Sequence[Run],
    metric: str,
    influences: _Influences,
    resamples: int,
) -> Difference | None:
    values, theirs = _column(runs, metric), _column(base, metric)
    if not values or not theirs:
        return None
    finite = [(a, b) for a, b in pairs if math.isfinite(a[metric]) and math.isfinite(b[metric])]
    if not finite:
        return Difference(
            mean=sum(values) / len(values) - sum(theirs) / len(theirs),
            seeds=0,
            verdict=Verdict.NOT_TESTED,
            reason="it has no seed in common with the baseline",
        )
    by_seed = [a[metric] - b[metric] for a, b in finite]
    found = Difference(
        mean=sum(by_seed) / len(by_seed),
        seeds=len(by_seed),
        verdict=Verdict.NOT_TESTED,
        cohens_d=cohens_d(by_seed),
        improvement=probability_of_improvement([a[metric] for a, _ in finite], [b[metric] for _, b in finite]),
    )
    if len(finite) == 1 and not resamples:
        return replace(found, verdict=Verdict.TOO_FEW_SEEDS, reason=_few(1))
    ours = [influences.of(a["run_id"]) for a, _ in finite]
    others = [influences.of_baseline(b["run_id"]) for _, b in finite]
    problem = _problem([*ours, *others])
    if problem:
        return replace(found, reason=problem)
    good = [one for one in ours if isinstance(one, _Influence)]
    bad = [one for one in others if isinstance(one, _Influence)]
    if resamples:
        systems, baselines = [one.system for one in good], [one.system for one in bad]
        found = replace(
            found,
            p_examples=approximate_randomisation(systems, baselines, resamples=resamples),
            bootstrap=paired_bootstrap(systems, baselines, resamples=resamples).interval,
        )
    if len(finite) == 1:
        return replace(found, verdict=Verdict.TOO_FEW_SEEDS, reason=_few(1))
    import numpy as np

    table = np.stack([a.pseudo_values - b.pseudo_values for a, b in zip(good, bad, strict=True)])
    if table.shape[1] < 2 or not np.isfinite(table).all():
        return replace(found, reason="the metric is undefined when an example is left out")
    test = crossed_test_of(np.array(by_seed), table)
    if len(finite) < FEWEST_SEEDS:
        return replace(found, test=test, verdict=Verdict.TOO_FEW_SEEDS, reason=_few(len(finite)))
    return replace(found, test=test, verdict=Verdict.UNDECIDED)


def _few(seeds: int) -> str:
    return f"{seeds} seed{'s' if seeds > 1 else ''} in common with the baseline; a verdict needs {FEWEST_SEEDS}"


def _problem(found: Sequence[_Influence | str]) -> str:
    """Why the predictions cannot be put beside each other; empty where they can."""
    import numpy as np

    for one in found:
        if isinstance(one, str):
            return one
    first = found[0]
    for one in found[1:]:
        if isinstance(one, _Influence) and isinstance(first, _Influence) and not np.array_equal(one.ids, first.ids):
            return "the runs predicted different examples"
    return ""


def _corrected(blocks: Sequence[Block]) -> Comparison:
    """Holm's correction over all tests, and the verdicts that follow."""
    tests = [
        (place, row.strategy, row.difference.test.p_value)
        for place, block in enumerate(blocks)
        for row in block.rows
        if row.difference and row.difference.test and row.difference.verdict is Verdict.UNDECIDED
    ]
    usable = [test for test in tests if math.isfinite(test[2])]
    corrected = {
        (place, strategy): p for (place, strategy, _), p in zip(usable, holm([p for *_, p in usable]), strict=True)
    }
    return Comparison(
        blocks=tuple(
            replace(
                block,
                rows=tuple(
                    _judged(row, corrected.get((place, row.strategy)), len(usable), learnt=block.unlearnt is None)
                    for row in block.rows
                ),
            )
            for place, block in enumerate(blocks)
        ),
        tested=len(usable),
    )


def _judged(row: Row, p_corrected: float | None, tests: int, *, learnt: bool) -> Row:
    """learnt: whether the baseline has learnt anything."""
    judged = _tested(row, p_corrected, tests)
    found = judged.difference
    if learnt or found is None or found.verdict in (Verdict.BETTER, Verdict.WORSE):
        return judged
    return replace(
        judged, difference=replace(found, verdict=Verdict.NOTHING_LEARNT, reason="the baseline did not learn")
    )


def _tested(row: Row, p_corrected: float | None, tests: int) -> Row:
    found = row.difference
    if found is None or found.test is None:
        return row
    if found.verdict is Verdict.UNDECIDED and p_corrected is None:
        reason = "all seeds and examples agree to the last digit, so no test applies"
        return replace(row, difference=replace(found, verdict=Verdict.NOT_TESTED, reason=reason))
    significant = p_corrected is not None and p_corrected < max(LEVELS)
    verdict = found.verdict
    if significant:
        verdict = Verdict.BETTER if found.mean > 0 else Verdict.WORSE
    test = found.test
    found = replace(found, verdict=verdict, p_corrected=p_corrected)
    if not significant:
        found = replace(
            found,
            seeds_needed=seeds_needed(test, found.mean, tests=max(1, tests)),
            detectable=detectable(test, tests=max(1, tests)),
        )
    return replace(row, difference=found)
