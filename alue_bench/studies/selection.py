"""The selection of recorded runs for a comparison, a report or an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from alue_bench.contract.options import CheckedOptions, Group, option
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.grid import DEFAULT_TOLERANCE
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT, where_options

if TYPE_CHECKING:
    from alue_bench.tracking.reading import Results


@dataclass(frozen=True, kw_only=True)
class RunSelection(CheckedOptions):
    """The options that select finished runs from an MLflow store."""

    tasks: tuple[str, ...] = option(
        (), name="task", short="-t", help="Task; repeatable. Default: all.", group=Group.RUNS
    )
    models: tuple[str, ...] = option(
        (), name="model", short="-m", help="Model; repeatable. Default: all.", group=Group.RUNS
    )
    strategies: tuple[str, ...] = option(
        (), name="strategy", short="-s", help="Strategy; repeatable. Default: all.", group=Group.RUNS
    )
    experiment: str = option(DEFAULT_EXPERIMENT, help="MLflow experiment.", group=Group.RUNS)
    parent: str | None = option(
        None,
        help="Run id of a plan's parent run: only use the runs of this plan, including finished runs that it reused.",
        group=Group.RUNS,
    )
    data_source: Literal["real", "sample"] | None = option(
        None, help="Data source: real or sample. Default: both, kept separate.", group=Group.RUNS
    )
    tracking_uri: str | None = option(
        None,
        help="MLflow tracking store. Default: MLFLOW_TRACKING_URI, else a sqlite file under mlruns/.",
        group=Group.RUNS,
    )


@dataclass(frozen=True, kw_only=True)
class VerdictOptions(CheckedOptions):
    """The option for the largest acceptable loss of score, on which the verdicts on strategies depend."""

    margin: str = option(
        f"{DEFAULT_TOLERANCE:.0%}",
        help="Largest acceptable loss of score: 0.01 or 1pt (in the unit of the metric: one point of F1), 1% (of the "
        "baseline's score), or 5% of learnt (of its score minus the trivial score). For individual metrics: "
        "f1_macro=0.01,pearson=0.02.",
        group=Group.QUESTION,
    )


def select_runs(selection: RunSelection, *, baseline: str | None = None) -> tuple[Results, list[str]]:
    """Return the selected runs, and a remark for each selected task, model or strategy that none of these runs has.

    There are no remarks if no run is selected at all.

    Args:
        selection: The options of the selection.
        baseline: A strategy whose runs are selected in addition to those of the named strategies.

    Raises:
        UsageError: The MLflow store, the experiment or the parent run does not exist.
    """
    from alue_bench.tracking.connection import open_store, tracking_uri
    from alue_bench.tracking.reading import read_results

    strategies = selection.strategies
    results = read_results(
        open_store(tracking_uri(selection.tracking_uri), selection.experiment),
        parent_id=selection.parent,
        tasks=selection.tasks,
        models=selection.models,
        strategies=[*strategies, *([baseline] if baseline else [])] if strategies else (),
        data_source=selection.data_source,
    )
    remarks = []
    for name, wanted in (("task", selection.tasks), ("model", selection.models), ("strategy", strategies)):
        present = set(results.frame[name]) or set(wanted)
        remarks += [
            f"--{name} {one}: none of the selected finished runs uses it"
            for one in dict.fromkeys(wanted)
            if one not in present
        ]
    return results, remarks


def none_selected(results: Results) -> str:
    """Return the message for a selection that contains no finished run, with a command that starts runs."""
    from alue_bench.tracking.reading import count_sentences

    connection = results.connection
    other_runs = "".join(f"; {sentence}" for sentence in count_sentences(results.counts))
    run = command_line("run", options=where_options(connection.uri, connection.experiment))
    return (
        f"experiment '{connection.experiment}' has no finished run that fits the options{other_runs}. Start some with: "
        f"{run}"
    )
