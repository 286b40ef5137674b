"""The finished sweep with which a search is compared: its runs, and the loss of score of each strategy in them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from alue_bench.contract.errors import UsageError


@dataclass(frozen=True)
class Sweep:
    """The finished sweep over the numbers of frozen bottom and top layers, for one task and model."""

    frame: Any
    """A pandas data frame of the runs, one per row, with strategy, seed and metrics."""
    config: dict[str, Any]
    """The recorded configuration of the sweep's run of full fine-tuning."""
    layers: int
    """The number of layers of the model."""


@dataclass(frozen=True)
class Reading:
    """The loss of a strategy according to the sweep, that is, how much lower its score is than full fine-tuning's."""

    metric: str
    smoothed: bool
    """True if the loss is from a surface fitted to all runs, False if it is from the runs of this strategy only."""
    full: float
    """The score of full fine-tuning."""
    loss: float
    """The score of full fine-tuning minus the score of the strategy."""
    sd: float | None
    """The standard deviation of a smoothed loss; None for a measured one."""


def read_sweep(options: argparse.Namespace) -> Sweep:
    """Read the sweep of the task and the model that the options name from its MLflow store.

    Raises:
        UsageError: The store holds no complete sweep, or several sweeps whose settings differ from each other.
    """
    from alue_bench.contract.cells import cell_name, cell_of
    from alue_bench.contract.registry import load_registry
    from alue_bench.planning.available import resolve_model
    from alue_bench.tracking.connection import connect
    from alue_bench.tracking.reading import read_config, read_results

    model = resolve_model(options.model, load_registry()).name
    results = read_results(connect(options.sweep_uri, options.sweep_experiment), tasks=[options.task], models=[model])
    frame = results.frame
    where = f"{options.sweep_uri}, experiment {options.sweep_experiment!r}"
    cells = frame[frame["strategy"].map(lambda name: cell_of(name) is not None).astype(bool)]
    full = cells[cells["strategy"] == cell_name((0, 0))]
    if full.empty:
        raise UsageError(f"{where} has no finished run of full fine-tuning for {options.task} and {model}")
    same = ["epochs", "lr", "batch_size", "max_length", "other_hyper", "precision", "train_digest", "test_digest"]
    if len(cells[same].drop_duplicates()) > 1:
        raise UsageError(f"{where} has runs with different {', '.join(same)}; give a store or experiment of one sweep")
    config = read_config(results, str(full["run_id"].iloc[0]))
    if config is None:
        raise UsageError(f"config.json of run {full['run_id'].iloc[0]} is gone")
    layers = int(config["freeze_plan"]["layers"])
    wanted = {cell_name((b, t)) for b in range(layers + 1) for t in range(layers + 1 - b)}
    missing = sorted(wanted - set(cells["strategy"]))
    if missing:
        raise UsageError(
            f"{where} lacks {len(missing)} of {len(wanted)} cells ({missing[0]}, …); finish the sweep with: alue-bench "
            "sweep"
        )
    return Sweep(cells, config, layers)


def reading(sweep: Sweep, setting: str, metric: str, *, smoothed: bool) -> Reading:
    """Return the loss of a strategy according to the sweep; see `Reading`.

    Args:
        sweep: The sweep.
        setting: The name of the strategy.
        metric: The name of the metric that is the score.
        smoothed: True to take the loss from a surface fitted to all runs, False to use the runs of this strategy only.
    """
    means = sweep.frame.groupby("strategy")[metric].mean()
    full = float(means["full"])
    if not smoothed:
        return Reading(metric, False, full, full - float(means[setting]), None)
    losses = smoothed_losses(sweep, metric)
    return Reading(metric, True, full, *losses[setting])


def smoothed_losses(sweep: Sweep, metric: str) -> dict[str, tuple[float, float]]:
    """Return each strategy's loss and the standard deviation of the loss, by the surface model that the search uses.

    The standard deviation of a run's score over seeds is not estimated from the sweep. It is the share `PRIOR_SD` of
    full fine-tuning's score, which the search assumes too.

    Args:
        sweep: The sweep.
        metric: The name of the metric that is the score.

    Returns:
        Pairs of loss and standard deviation, by the name of the strategy.
    """
    from alue_bench.contract.cells import cell_of
    from alue_bench.searching.candidates import Candidate
    from alue_bench.searching.observations import PRIOR_SD, Evaluation
    from alue_bench.searching.surface import fit

    names = sorted(set(sweep.frame["strategy"]), key=lambda name: (name != "full", name))
    candidates = [Candidate(name, *(cell_of(name) or (0, 0)), 1.0, 1.0) for name in names]
    first = int(sweep.frame["seed"].min())
    runs = [
        Evaluation(str(row.strategy), int(row.seed) - first, float(value))
        for row, value in zip(sweep.frame.itertuples(), sweep.frame[metric], strict=True)
    ]
    scale = abs(float(sweep.frame.loc[sweep.frame["strategy"] == "full", metric].mean()))
    surface = fit(candidates, sweep.layers, runs, scale=scale, noise_variance=(PRIOR_SD * scale) ** 2)
    return {name: (float(m), float(s)) for name, m, s in zip(names, surface.mean, surface.sd, strict=True)}


def cheapest_within(sweep: Sweep, metric: str, tolerance: float) -> str:
    """Describe the strategy with the fewest FLOPs whose measured loss is within the tolerance.

    Args:
        sweep: The sweep.
        metric: The name of the metric that is the score.
        tolerance: The tolerance, as a share of full fine-tuning's score.
    """
    means = sweep.frame.groupby("strategy")[[metric, "flops/train_vs_full"]].mean()
    full = float(means.loc["full", metric])
    good = means[means[metric] >= full - tolerance * abs(full)].sort_values("flops/train_vs_full")
    return f"{good.index[0]} ({good['flops/train_vs_full'].iloc[0]:.0%} of FLOPs, {metric} {good[metric].iloc[0]:.4f})"
