"""Compare the result and the cost of a search with a finished sweep.

    python -m benchmarks.search --sweep-uri URI --task oold --model mini --data-dir DIR --json FILE

The store at URI holds a finished sweep over every (bottom, top) cell of a task and a model. The search uses the
settings that the sweep recorded (rows, epochs, learning rate, first seed and so on) and a fresh store, so that each of
its runs is trained anew. Then the answer of the search is checked against the sweep in two ways:

- measured: the loss of score compared with full fine-tuning in the sweep's own runs, on test and on dev;
- smoothed: the same loss from a surface fitted to all cells of the sweep. If a cell was run with one seed, its own
  score depends mostly on that seed, and its neighbours give a better estimate.

Exit codes: 0 the answer's measured loss on test is within the tolerance and the budget was kept; 1 otherwise; 2 misuse.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import AlueBenchError, TrainingError, UsageError
from benchmarks.command_line import Parser, check_written_files, shown_command, told
from benchmarks.tables import Sheet, number, show, write_page

BENCHMARK = "search"
DEV, TEST = "selection/dev_score", "test/score"

Search = Callable[[list[str]], dict[str, Any]]
"""A function that takes the arguments of `alue-bench search` and returns the document that it prints."""


def main(arguments: Sequence[str] | None = None, *, search: Search | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: The arguments; None takes those of the process.
        search: The function that searches; by default in this process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parser().parse_args(given)
        check_written_files(options)
        return benchmark(options, shown_command(BENCHMARK, given), search or searched_here)
    except AlueBenchError as error:
        return told(error)


def benchmark(options: argparse.Namespace, command: str, search: Search) -> int:
    """Read the sweep, search, compare the answer with the sweep, and return the exit code.

    Args:
        options: The parsed options.
        command: The command line to show in the report.
        search: The function that searches.
    """
    sweep = read_sweep(options)
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder) / 'mlflow.db'}" if options.store is None else options.store
        document = search(search_arguments(options, sweep.config, store))
    (result,) = document["searches"]
    readings = [
        reading(sweep, result["answer"], metric, smoothed=smoothed)
        for metric in (TEST, DEV)
        for smoothed in (False, True)
    ]
    tolerance = _part(options.tolerance)
    kept = result["compute"]["spent_share"] <= _part(options.budget) + 1e-9
    confirmed = readings[0].loss <= tolerance * abs(readings[0].full)
    sheet = _sheet(options, result, readings, tolerance)
    cheapest = [cheapest_within(sweep, metric, tolerance) for metric in (TEST, DEV)]
    seeds, compute = len(set(sweep.frame["seed"])), result["compute"]
    supported = "supported" if result["supported"] else "nothing supported"
    lines = [
        f"answer: {result['answer']} ({supported}; {result['why']}), at "
        f"{result['cost_of_full']:.0%} of full fine-tuning's FLOPs",
        f"compute: {compute['spent_share']:.1%} of the grid's FLOPs (budget {options.budget}), {compute['runs']} runs, "
        f"{compute['train_s']:.0f} s of training; the sweep's {len(sweep.frame)} runs took "
        f"{sweep.frame['runtime/train_s'].sum():.0f} s with {seeds} seed{'s' if seeds > 1 else ''}: "
        f"{compute['train_s'] * seeds / sweep.frame['runtime/train_s'].sum():.1%} for as many seeds",
        f"cheapest cell of the sweep within the tolerance: {cheapest[0]} by test, {cheapest[1]} by dev",
        f"the sweep {'confirms' if confirmed else 'does not confirm'} that the answer loses at most "
        f"{options.tolerance} on test; the budget was {'kept' if kept else 'exceeded'}",
    ]
    show([sheet], lines)
    if options.json is not None:
        content = {
            "benchmark": BENCHMARK,
            "command": command,
            "confirmed": bool(confirmed),
            "budget_kept": bool(kept),
            "readings": [vars(r) for r in readings],
            "cheapest_in_sweep": {"test": cheapest[0], "dev": cheapest[1]},
            "sweep": {"runs": len(sweep.frame), "seeds": seeds, "config": sweep.config},
            "search": result,
        }
        options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page(options.markdown, [sheet], lines)
    return 0 if confirmed and kept else 1


@dataclass(frozen=True)
class Sweep:
    """The finished sweep of one task and model."""

    frame: Any
    """The runs, one per row, with strategy, seed and metrics."""
    config: dict[str, Any]
    """The recorded configuration of one of its runs."""
    layers: int


@dataclass(frozen=True)
class Reading:
    """The loss of a setting according to the sweep."""

    metric: str
    smoothed: bool
    """True if the loss is that of the fitted surface."""
    full: float
    """The score of full fine-tuning."""
    loss: float
    """The score of full fine-tuning minus that of the setting."""
    sd: float | None
    """The standard deviation of a smoothed loss; None for a measured one."""


def read_sweep(options: argparse.Namespace) -> Sweep:
    """Read the sweep of the task and model that the options name.

    Raises:
        UsageError: The store holds no complete sweep, or several with different settings.
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


def search_arguments(options: argparse.Namespace, config: dict[str, Any], store: str) -> list[str]:
    """Return the arguments of a search with the same rows and settings as the sweep.

    Args:
        options: The parsed options.
        config: The recorded configuration of a run of the sweep.
        store: The tracking URI for the search.

    Raises:
        UsageError: The sweep used a setting for which a search has no option.
    """
    given = ["--task", options.task, "--model", options.model, "--tolerance", options.tolerance]
    given += ["--budget", options.budget, "--seed", str(config["seed"]), "--tracking-uri", store, "--json"]
    given += [part for name, value in config["hyper"].items() for part in (f"--{name.replace('_', '-')}", str(value))]
    given += ["--device", config["device"], "--precision", config["precision"]]
    for name in ("limit_train", "limit_eval"):
        given += [f"--{name.replace('_', '-')}", str(config[name])] if config[name] is not None else []
    given += ["--drop-bad"] if config["drop_bad"] else []
    given += ["--sample"] if config["data"]["source"] == "sample" else []
    return given + (["--data-dir", str(options.data_dir)] if options.data_dir else [])


def searched_here(arguments: list[str]) -> dict[str, Any]:
    """Run `alue-bench search` in this process and return the document that it prints.

    Raises:
        TrainingError: The search ended with an exit code other than 0.
    """
    from alue_bench.cli import main as command

    said, given = StringIO(), sys.argv
    sys.argv = ["alue-bench", "search", *arguments]
    try:
        with redirect_stdout(said):
            command.main()
    except SystemExit as end:
        if end.code:
            raise TrainingError(f"the search ended with exit code {end.code}") from end
    finally:
        sys.argv = given
    document: dict[str, Any] = json.loads(said.getvalue())
    return document


def reading(sweep: Sweep, setting: str, metric: str, *, smoothed: bool) -> Reading:
    """Return the loss of a setting in the sweep.

    Args:
        sweep: The sweep.
        setting: The name of the strategy.
        metric: The metric.
        smoothed: Whether to take the loss from a surface fitted to all runs instead of the setting's own runs.
    """
    means = sweep.frame.groupby("strategy")[metric].mean()
    full = float(means["full"])
    if not smoothed:
        return Reading(metric, False, full, full - float(means[setting]), None)
    losses = smoothed_losses(sweep, metric)
    return Reading(metric, True, full, *losses[setting])


def smoothed_losses(sweep: Sweep, metric: str) -> dict[str, tuple[float, float]]:
    """Return the loss and its standard deviation for each cell, by the surface that the search itself uses.

    The noise of a run is set to the prior of the search.
    """
    from alue_bench.contract.cells import cell_of
    from alue_bench.search.candidates import Candidate
    from alue_bench.search.observations import PRIOR_SD, Evaluation
    from alue_bench.search.surface import fit

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
    """Return the cheapest cell within the tolerance by the sweep's own scores, as a user of the sweep would see it."""
    means = sweep.frame.groupby("strategy")[[metric, "flops/train_vs_full"]].mean()
    full = float(means.loc["full", metric])
    cheapest = means[means[metric] >= full - tolerance * abs(full)].sort_values("flops/train_vs_full").iloc[0]
    return f"{cheapest.name} ({cheapest['flops/train_vs_full']:.0%} of FLOPs, {metric} {cheapest[metric]:.4f})"


def _sheet(options: argparse.Namespace, result: dict[str, Any], readings: Sequence[Reading], tolerance: float) -> Sheet:
    """Return the table of the answer's losses."""
    rows = tuple(
        (
            r.metric,
            "smoothed over all cells" if r.smoothed else "measured",
            number(r.full, ".4f"),
            number(r.loss, "+.4f"),
            number(r.loss / abs(r.full) if r.full else None, "+.1%"),
            number(r.sd, ".4f"),
            "yes" if r.loss <= tolerance * abs(r.full) else "no",
        )
        for r in readings
    )
    columns = ("score", "of the sweep", "full", f"loss of {result['answer']}", "relative", "sd", "within tolerance")
    return Sheet(f"{options.task}/{options.model}: the sweep about the search's answer", columns, rows)


def _part(text: str) -> float:
    from alue_bench.search.candidates import parse_share

    return parse_share("--tolerance or --budget", text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.search",
        description="Compare the answer of a search with a finished sweep.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--sweep-uri", required=True, metavar="URI", help="the store with the sweep; it is only read")
    add("--sweep-experiment", default="alue-bench", metavar="NAME", help="(default: alue-bench)")
    add("--task", required=True)
    add("--model", default="mini", help="(default: mini)")
    add("--tolerance", default="1%", help="a part of the score (default: 1%%)")
    add("--budget", default="25%", help="(default: 25%%)")
    add("--store", metavar="URI", help="keep the search's runs here (default: a store that is thrown away)")
    add("--data-dir", type=Path, metavar="DIR", help="the official files (default: the variable ALUE_BENCH_DATA)")
    add("--json", type=Path, metavar="FILE")
    add("--markdown", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
