"""The conclusion and its report: our total time, compared with `Trainer`'s time and with a prediction by FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UsageError
from benchmarks.machine import described, hardware
from benchmarks.sweep.whole.cells import costs, tokens_of
from benchmarks.sweep.whole.sampling import Estimate, estimated_sum, strata
from benchmarks.tables import Sheet, number, show

if TYPE_CHECKING:
    from alue_bench.planning.build import Plan

TARGET = 1 / 3
"""The goal for our time for all cells, divided by `Trainer`'s time for the same cells: at most this ratio."""


def concluded(content: Mapping[str, Any], plan: Plan, *, jobs: int) -> dict[str, Any]:
    """Return our total times and the estimates of `Trainer`'s, their ratios, and the ratios that FLOPs predict.

    Args:
        content: The measurements, that is, the content of the ledger.
        plan: The plan of the sweep.
        jobs: The number of worker processes of the sweep.

    Raises:
        UsageError: A cell was not measured.
    """
    ours, trainer, cells = content["ours"], content["trainer"], costs(plan)
    missing = [strategy for strategy in cells if strategy not in ours]
    if missing:
        raise UsageError(f"{missing[0]} was done without being measured; begin again with an empty --folder")
    metrics = {strategy: run["metrics"] for strategy, run in ours.items()}
    groups = strata(cells)
    whole = estimated_sum({name: times["whole_s"] for name, times in trainer.items()}, groups)
    alone = estimated_sum({name: times["train_s"] for name, times in trainer.items()}, groups)
    our_whole = content["startup_s"] + sum(run["wall_s"] for run in ours.values()) + content["finish_s"]
    loops = sum(run["runtime/loop_s"] for run in metrics.values())
    prefixes = sum(run["runtime/prepare_s"] for run in metrics.values())
    prefixes += sum(
        run["runtime/prefix_s"]
        for run in metrics.values()
        if not run["runtime/prefix_reused"] and not run["runtime/prepare_s"]
    )
    full = sum(seconds for _, seconds in content["full_s"]) / len(content["full_s"])
    predicted = predictions(plan)
    measured = (loops + prefixes) / (len(cells) * full)
    return {
        "cells": len(cells),
        "trainer_cells": len(trainer),
        "hardware": described(hardware("cpu")),
        "jobs": jobs,
        "ours_whole_s": our_whole,
        "ours_training_s": (loops + prefixes) / jobs,
        "ours_beside_training_s_per_run": (our_whole - (loops + prefixes) / jobs) / len(cells),
        "ours_scoring_s": scoring(metrics),
        "trainer_whole_s": whole._asdict(),
        "trainer_training_s": alone._asdict(),
        "whole_ratio": our_whole / whole.total,
        "training_ratio": (loops + prefixes) / jobs / alone.total,
        "our_full_s": full,
        "of_so_many_fulls": measured,
        "predicted": predicted,
        "against_prediction": measured / predicted["shared"] - 1,
    }


def scoring(metrics: Mapping[str, Mapping[str, float]]) -> float:
    """Return the seconds that our runs report for scoring dev and test splits, summed over all runs.

    Each run reports the cost of the frozen bottom layers' output on these splits, even if it reads the output from the
    store. The sum therefore exceeds the time actually spent.
    """
    return sum(run["runtime/dev_s"] + run["runtime/test_s"] for run in metrics.values())


def predictions(plan: Plan) -> dict[str, float]:
    """Return the FLOPs of all cells by a formula, divided by the FLOPs of the same number of `full` runs.

    Returns:
        Three ratios under different assumptions on how often the frozen bottom layers are computed: once for all cells
        together ("shared"), once in each run ("charged"), or at every step ("uncached").
    """
    from alue_bench.contract.strategy import FreezePlan
    from alue_bench.measure.flops import training_flops
    from alue_bench.training.architecture.encoder_stack import view_as_stack
    from alue_bench.training.forward import last_layer_of
    from alue_bench.training.pretrained.loading import empty_model, load_config

    first_run = plan.runs[0]
    stack = view_as_stack(empty_model(load_config(first_run.inputs.checkpoint), first_run.inputs.train_task.labels))
    lengths, epochs = tokens_of(first_run, "train").lengths, first_run.spec.hyper.epochs
    last_layer = last_layer_of(stack, first_run.spec.device)

    def flops(freeze_plan: FreezePlan, *, cached: bool) -> float:
        return training_flops(stack, freeze_plan, lengths, epochs, prefix_cached=cached, last_layer=last_layer)

    full = flops(FreezePlan(stack.shape), cached=False) * len(plan.runs)
    uncached = charged = loops = deepest = 0.0
    for run in plan.runs:
        at_every_step = flops(run.spec.freeze_plan, cached=False)
        once = flops(run.spec.freeze_plan, cached=bool(run.spec.freeze_plan.prefix_layers))
        prefix = (at_every_step - once) / (epochs - 1)
        uncached, charged, loops = uncached + at_every_step, charged + once, loops + once - prefix
        deepest = max(deepest, prefix)
    return {"shared": (loops + deepest) / full, "charged": charged / full, "uncached": uncached / full}


def report(conclusion: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Print the conclusion on stdout.

    Args:
        conclusion: The result of `concluded`, and under "apart" the result of `compared_apart`.
        document: The JSON document that the sweep printed.
    """
    trainer, alone = Estimate(**conclusion["trainer_whole_s"]), Estimate(**conclusion["trainer_training_s"])
    sheet = Sheet(
        title=f"{conclusion['cells']} cells; Trainer: estimated from {conclusion['trainer_cells']} of them "
        "(± standard error)",
        columns=("what", "", "ours s", "Trainer s", "ours ÷ Trainer"),
        rows=(
            (
                *("whole job", "loading, training, scoring, recording"),
                *(number(conclusion["ours_whole_s"], ".0f"), f"{trainer.total:.0f} ± {trainer.error:.0f}"),
                number(conclusion["whole_ratio"], ".3f"),
            ),
            (
                *("training alone", "prefixes included" + ("; of a worker" if conclusion["jobs"] > 1 else "")),
                *(number(conclusion["ours_training_s"], ".0f"), f"{alone.total:.0f} ± {alone.error:.0f}"),
                number(conclusion["training_ratio"], ".3f"),
            ),
        ),
    )
    predicted = conclusion["predicted"]
    lines = [
        f"Target {TARGET:.3f} of Trainer's time: {'met' if conclusion['whole_ratio'] <= TARGET else 'missed'} "
        f"({conclusion['whole_ratio']:.3f}).",
        f"Training of all cells took {conclusion['of_so_many_fulls']:.3f} of so many of our full runs "
        f"({conclusion['our_full_s']:.2f} s each, mean of repetitions over the sweep); operations predict "
        f"{predicted['shared']:.3f} with shared prefixes ({conclusion['against_prediction']:+.1%}), "
        f"{predicted['charged']:.3f} where each pays its own, {predicted['uncached']:.3f} without a cache.",
        f"Beside training, scoring among it, a run took {conclusion['ours_beside_training_s_per_run']:.2f} s.",
        *(
            f"{run['strategy']} apart, in a fresh process with an empty cache: "
            f"{'equal' if run['equal'] else 'largest difference ' + format(run['largest_difference'], '.2g')}."
            for run in conclusion["apart"]
        ),
        *(
            f"Recommended for {grid['task']}, {grid['model']}: {grid['recommendation']['strategy']}."
            for grid in document["sweep"]["grids"]
            if grid["recommendation"]
        ),
        f"Measured on {conclusion['hardware']}.",
    ]
    show([sheet], lines)
