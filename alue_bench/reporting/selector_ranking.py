"""The ranking of selectors, strategies that choose their layers by a probe, against the settings of finished sweeps.

A sweep fine-tunes with a grid of freezing settings: pairs (bottom, top) of numbers of frozen layers. For each run of a
selector, the module answers four questions:

- **Regret.** How much better is the best freezing setting of the grid that costs no more? A setting is a candidate if
  its mean FLOPs are at most those of the selector's run, which include the probe. The best candidate has the highest
  mean dev score over the *other* seeds. The regret is the test score of this setting with the same seed as the run,
  minus the run's test score. A setting that was chosen by scores of the same seed would be too good by luck. With a
  single seed this cannot be avoided, so that the regret is too high on average. A negative regret means that the
  selector was better.
- **Advantage.** How much better is the selector than the control, which trains the same number of randomly chosen
  layers, with the same seed?
- **Correlation.** Do the selector's layer scores rank the layers as the grid does? The answer is Spearman's correlation
  of the layer scores with the losses by freezing each layer (`evaluation.freezing_effects`).
- **Loss and cost.** How much worse is the selector than full fine-tuning with the same seed, how long did choosing
  take, and how many FLOPs did the run need, including the probe?

A second control trains only the highest layers. Its runs are those of the grid (for two of twelve layers, those of
`bottom10`), and its score of a layer is the layer's number.

Regret, advantage and loss are shares of what full fine-tuning learnt (its score minus that of a baseline without
a model), so that tasks with different metrics can be averaged. `evaluation.across_tasks` computes means and intervals
over tasks and seeds; with fewer than three tasks there is no interval.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from alue_bench.contract.cells import cell_name, cell_of
from alue_bench.contract.probe import LayerScore
from alue_bench.evaluation.across_tasks import MIN_TASKS, mean_over_tasks
from alue_bench.evaluation.freezing_effects import FreezingEffect, freezing_effects, rank_correlation
from alue_bench.evaluation.intervals import Estimate
from alue_bench.reporting.comparison import Run
from alue_bench.reporting.numbers import number_with_noun
from alue_bench.reporting.probe_rows import ROWS
from alue_bench.reporting.swept_tasks import FULL, ScoredRun, SweptTask, scored_run

PROBE_SECONDS, PROBE_FLOPS, FLOPS = "runtime/probe_s", "flops/probe", "flops/train"
SHARE = "flops/train_vs_full"
DEFAULT_CONTROL = "random"
"""The family of the strategies that choose their layers at random."""
HIGHEST = "highest layers"
"""The name of the control that trains the highest layers. Its runs are those of settings of the grid."""
SLACK = 1e-9
"""The share by which a setting's FLOPs may exceed those of a selector's run, because of rounding errors."""

LoadScores = Callable[[str], Sequence[LayerScore]]
"""A function that takes a run's id, and returns the score of each layer by which the run's strategy chose its layers.
The result is empty if the run has no layer scores."""


@dataclass(frozen=True, kw_only=True)
class ChosenRun:
    """The results of one run of a selector or a control, compared with the grid of the same task."""

    task: str
    family: str
    """The strategy's name without the number of layers, such as "surgical"."""
    strategy: str
    seed: int
    trained: tuple[int, ...]
    """The layers that were chosen to train."""
    score: float
    """The test score."""
    cost: float
    """The training FLOPs with the probe, as a share of those of full fine-tuning."""
    loss: float
    """The test score of full fine-tuning with the same seed minus that of the run, as a share of what full fine-tuning
    learnt; nan if full fine-tuning did not run with the seed."""
    best: str
    """The name of the best freezing setting that costs no more; empty if the grid has no candidate."""
    regret: float
    """The test score of the best freezing setting that costs no more, minus that of the run, as a share of what full
    fine-tuning learnt; nan without a candidate."""
    advantage: float
    """The test score minus that of the random control with the same seed and number of layers, as a share of what full
    fine-tuning learnt; nan if there is no such run of the control."""
    correlation: float
    """Spearman's correlation of the layer scores with the losses by freezing each layer; nan if it is undefined."""
    probe_s: float
    """The duration of the choice of layers, in seconds."""
    probe_share: float
    """The FLOPs of the choice of layers, as a share of the training FLOPs of full fine-tuning."""

    @property
    def count(self) -> int:
        """The number of layers that were chosen to train."""
        return len(self.trained)


@dataclass(frozen=True, kw_only=True)
class TaskAverage:
    """The mean of a value over tasks and seeds."""

    by_task: Mapping[str, float]
    """The mean over seeds, for each task that has the value."""
    estimate: Estimate
    """The mean over tasks, with its interval if there are enough tasks."""


@dataclass(frozen=True, kw_only=True)
class RankedSelector:
    """The results of a selector over tasks, for one number of layers or as a mean over all numbers."""

    family: str
    count: int | None
    """The number of layers that train; None for the mean over all numbers of layers with which the family ran."""
    loss: TaskAverage | None
    regret: TaskAverage | None
    advantage: TaskAverage | None
    correlation: TaskAverage | None
    cost: TaskAverage
    probe_s: TaskAverage
    probe_share: TaskAverage

    @property
    def name(self) -> str:
        """The family, with the number of layers if there is one."""
        return self.family if self.count is None else f"{self.family}, {self.count}"


@dataclass(frozen=True, kw_only=True)
class SelectorRanking:
    """The selectors of one model, ranked by their regret."""

    model: str
    control: str
    tasks: Mapping[str, SweptTask]
    runs: tuple[ChosenRun, ...]
    families: tuple[RankedSelector, ...]
    """Each family with the mean over its numbers of layers, the smallest regret first."""
    rows: tuple[RankedSelector, ...]
    """Each family with each number of layers, in the order of `families` and by number."""
    effects: Mapping[str, Sequence[FreezingEffect]]
    """The measured effect of freezing each block of layers, by task."""
    notes: tuple[str, ...] = ()


def rank_selectors(
    sweeps: Sequence[SweptTask], load: LoadScores, *, control: str = DEFAULT_CONTROL
) -> list[SelectorRanking]:
    """Rank the selectors that ran on swept tasks, for each model.

    Args:
        sweeps: The sweeps, each with the runs of selectors on the same task and model.
        load: The function that reads the layer scores by which a run's strategy chose its layers.
        control: The family of the strategies that choose their layers at random.

    Returns:
        A ranking for each model with which a selector ran on at least one swept task.
    """
    rankings = []
    for model in dict.fromkeys(sweep.model for sweep in sweeps):
        runs, effects, notes = [], {}, []
        for sweep in (candidate for candidate in sweeps if candidate.model == model):
            chosen, measured, new_notes = _chosen_runs(sweep, load, control)
            runs += chosen
            notes += new_notes
            if chosen:
                effects[sweep.task] = measured
        if runs:
            ranked, new_notes = _families(runs)
            notes += new_notes
            families = sorted(ranked, key=_by_regret)
            order = {row.family: position for position, row in enumerate(families)}
            rows = sorted(_by_count(runs), key=lambda row: (order.get(row.family, len(order)), row.count or 0))
            rankings.append(
                SelectorRanking(
                    model=model,
                    control=control,
                    tasks={
                        candidate.task: candidate
                        for candidate in sweeps
                        if candidate.model == model and candidate.task in effects
                    },
                    runs=tuple(runs),
                    families=tuple(families),
                    rows=tuple(rows),
                    effects=effects,
                    notes=tuple(notes),
                )
            )
    return rankings


def best_cell(sweep: SweptTask, cost: float, seed: int) -> str:
    """Return the name of the best freezing setting that costs no more than a run.

    The best setting has the highest mean dev score over all seeds except the run's seed. If the sweep has a single
    seed, the score with this seed is used.

    Args:
        sweep: The sweep whose settings are the candidates.
        cost: The run's FLOPs, as a share of those of full fine-tuning.
        seed: The run's seed. Only settings that also ran with this seed are considered.

    Returns:
        The setting's name; empty if there is no candidate.
    """
    several = any(len(runs) > 1 for runs in sweep.cells.values())
    candidates = {}
    for cell, runs in sweep.cells.items():
        others = [result.dev for other, result in runs.items() if other != seed or not several]
        if seed in runs and others and sweep.cost(cell) <= cost * (1 + SLACK):
            candidates[cell] = fmean(others)
    if not candidates:
        return ""
    return cell_name(max(candidates, key=lambda cell: (candidates[cell], -sweep.cost(cell))))


def _chosen_runs(
    sweep: SweptTask, load: LoadScores, control: str
) -> tuple[list[ChosenRun], list[FreezingEffect], list[str]]:
    """Return the runs of selectors and controls on a sweep's task, the effects of freezing in its grid, and notes.

    If runs have different numbers of probe examples, only the runs with the most frequent number are returned.
    """
    scores = {str(run["run_id"]): load(str(run["run_id"])) for run in sweep.others if _probed(run)}
    selected = [run for run in sweep.others if scores.get(str(run["run_id"]))]
    if not selected:
        return [], [], []
    (probe_rows, _), *fewer = Counter(run[ROWS] for run in selected).most_common()
    selected = [run for run in selected if run[ROWS] == probe_rows]
    layers = len(scores[str(selected[0]["run_id"])])
    effects = freezing_effects({cell: sweep.score(cell) for cell in sweep.cells}, layers)
    at_random = {
        (len(_trained(scores[str(run["run_id"])])), int(run["seed"])): scored_run(run).test
        for run in selected
        if family_of(str(run["strategy"])) == control
    }
    chosen = []
    for run in selected:
        layer_scores = scores[str(run["run_id"])]
        ours, seed, trained = scored_run(run), int(run["seed"]), _trained(layer_scores)
        against = at_random.get((len(trained), seed), math.nan)
        chosen.append(
            ChosenRun(
                family=family_of(str(run["strategy"])),
                strategy=str(run["strategy"]),
                trained=trained,
                advantage=(ours.test - against) / sweep.learnt,
                correlation=rank_correlation(effects, [layer_score.score for layer_score in layer_scores]),
                probe_s=float(run[PROBE_SECONDS]),
                probe_share=float(run[PROBE_FLOPS]) * float(run[SHARE]) / float(run[FLOPS]),
                **_against_grid(sweep, ours, seed),
            )
        )
    counts = sorted({chosen_run.count for chosen_run in chosen})
    highest = [top_run for count in counts for top_run in _highest(sweep, layers, count, at_random, effects)]
    unmatched = sum(not chosen_run.best for chosen_run in chosen)
    notes = []
    if fewer:
        others = number_with_noun(sum(number for _, number in fewer), "run")
        notes.append(f"{sweep.task}: {others} with another number of probe rows than {probe_rows} left out")
    if unmatched:
        notes.append(
            f"{sweep.task}: no cell of the cost of {number_with_noun(unmatched, 'run')} in the grid, so no regret"
        )
    if all(len(runs) == 1 for runs in sweep.cells.values()):
        notes.append(
            f"{sweep.task}: one seed, so that the best cell was chosen by its own scores: regrets are too high"
        )
    if sweep.left_out:
        notes.append(
            f"{sweep.task}: {number_with_noun(sweep.left_out, 'further sweep')} under other conditions left out"
        )
    return [*chosen, *highest], effects, notes


def _probed(run: Run) -> bool:
    return math.isfinite(float(run.get(PROBE_SECONDS, math.nan)))


def family_of(strategy: str) -> str:
    """Return the name of a selector without the number of layers at its end: "surgical-3" gives "surgical"."""
    return re.sub(r"-\d+$", "", strategy)


def _trained(scores: Iterable[LayerScore]) -> tuple[int, ...]:
    return tuple(layer_score.layer for layer_score in scores if not layer_score.frozen)


def _against_grid(sweep: SweptTask, ours: ScoredRun, seed: int) -> dict[str, Any]:
    """Return some fields of `ChosenRun`: task, seed, score and cost, and the comparisons with the grid and `full`."""
    best, full = best_cell(sweep, ours.cost, seed), sweep.cells[FULL].get(seed)
    cell = cell_of(best)
    theirs = math.nan if cell is None else sweep.cells[cell][seed].test
    return {
        "task": sweep.task,
        "seed": seed,
        "score": ours.test,
        "cost": ours.cost,
        "best": best,
        "loss": math.nan if full is None else (full.test - ours.test) / sweep.learnt,
        "regret": (theirs - ours.test) / sweep.learnt,
    }


def _highest(
    sweep: SweptTask,
    layers: int,
    count: int,
    at_random: Mapping[tuple[int, int], float],
    effects: Sequence[FreezingEffect],
) -> list[ChosenRun]:
    """Return the runs of the freezing setting that trains only the highest layers, as runs of a control.

    Args:
        sweep: The sweep to which the setting belongs.
        layers: The number of the encoder's layers.
        count: The number of layers that train.
        at_random: The test scores of the control that chooses at random, by (number of layers, seed).
        effects: The effects of freezing layers in the grid.
    """
    cell = (layers - count, 0)
    return [
        ChosenRun(
            family=HIGHEST,
            strategy=cell_name(cell),
            trained=tuple(range(layers - count, layers)),
            advantage=(ours.test - at_random.get((count, seed), math.nan)) / sweep.learnt,
            correlation=rank_correlation(effects, range(layers)),
            probe_s=0.0,
            probe_share=0.0,
            **_against_grid(sweep, ours, seed),
        )
        for seed, ours in sweep.cells.get(cell, {}).items()
    ]


def _by_count(runs: Sequence[ChosenRun]) -> list[RankedSelector]:
    """Return the results of each family for each number of layers."""
    keys = dict.fromkeys((run.family, run.count) for run in runs)
    return [
        _ranked(family, count, [[run] for run in runs if (run.family, run.count) == (family, count)])
        for family, count in keys
    ]


def _families(runs: Sequence[ChosenRun]) -> tuple[list[RankedSelector], list[str]]:
    """Return the results of each family over its numbers of layers, and a note for each family with missing runs.

    A seed of a task is left out if the family did not run with every number of layers. If this leaves no seed, the
    family has no result.
    """
    ranked, notes = [], []
    for family in dict.fromkeys(run.family for run in runs):
        ours = [run for run in runs if run.family == family]
        counts = {run.count for run in ours}
        by_seed: dict[tuple[str, int], list[ChosenRun]] = {}
        for run in ours:
            by_seed.setdefault((run.task, run.seed), []).append(run)
        complete = [part for part in by_seed.values() if {run.count for run in part} == counts]
        if complete:
            ranked.append(_ranked(family, None, complete))
        if len(complete) < len(by_seed):
            numbers = ", ".join(map(str, sorted(counts)))
            notes.append(
                f"{family}, all: only {len(complete)} of {len(by_seed)} seeds of tasks have runs with all numbers of "
                f"layers ({numbers}); the others are left out of this mean"
            )
    return ranked, notes


def _ranked(family: str, count: int | None, parts: Sequence[Sequence[ChosenRun]]) -> RankedSelector:
    """Return the results of a family.

    Args:
        family: The name of the family.
        count: The number of layers that train; None for the mean over several numbers.
        parts: The runs in groups with the same task and seed. The mean over a group counts as one value.
    """

    def averaged(name: str) -> TaskAverage | None:
        by_task: dict[str, list[float]] = {}
        for part in parts:
            value = fmean(getattr(run, name) for run in part)
            if math.isfinite(value):
                by_task.setdefault(part[0].task, []).append(value)
        return _averaged(by_task) if by_task else None

    cost, seconds, share = (averaged(name) for name in ("cost", "probe_s", "probe_share"))
    assert cost
    assert seconds
    assert share
    return RankedSelector(
        family=family,
        count=count,
        loss=averaged("loss"),
        regret=averaged("regret"),
        advantage=averaged("advantage"),
        correlation=averaged("correlation"),
        cost=cost,
        probe_s=seconds,
        probe_share=share,
    )


def _averaged(by_task: Mapping[str, Sequence[float]]) -> TaskAverage:
    means = {task: fmean(values) for task, values in by_task.items()}
    if len(by_task) >= MIN_TASKS:
        estimate = mean_over_tasks(list(by_task.values())).mean
    else:
        estimate = Estimate(fmean(means.values()), None, len(means))
    return TaskAverage(by_task=means, estimate=estimate)


def _by_regret(row: RankedSelector) -> tuple[bool, float]:
    return (row.regret is None, 0.0 if row.regret is None else row.regret.estimate.mean)
