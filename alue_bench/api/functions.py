"""The functions of the Python API, for scripts and notebooks.

    results = alue_bench.run(tasks=["oold"], models=["mini"], strategies=["full", "bottom3top4"], epochs=1, sample=True)
    results.frame()                                          one row for each run
    results.best().score                                     chosen by dev, reported on test

The functions do what the commands of the same names do. Functions and commands reuse each other's finished runs. Wrong
usage raises `AlueBenchError`; a failed run is part of the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Group, RenderableType

from alue_bench.api.calls import checked, options_of_function, with_options
from alue_bench.api.tasks import IN_PYTHON, given_tasks
from alue_bench.contract.errors import TrainingError, UnavailableError, UsageError
from alue_bench.contract.options import filled
from alue_bench.contract.registry import Registry, load_registry
from alue_bench.studies.results import Runs, Search, Sweep, TrainedRun
from alue_bench.studies.selection import RunSelection, VerdictOptions, none_selected, select_runs
from alue_bench.studies.settings import Study, study_of
from alue_bench.views.notebook import Displayed, without_widget_warning
from alue_bench.views.streams import Streams

if TYPE_CHECKING:
    import pandas as pd

    from alue_bench.reporting.comparison import Comparison
    from alue_bench.reporting.out_of_domain import OutOfDomain
    from alue_bench.tracking.reading import Results

ORIGIN = "this call"
"""The note in the list of planned runs that a hyper-parameter was given as a keyword argument."""

R = TypeVar("R", bound=Runs)


@with_options("run")
def run(*, quiet: bool = False, **options: Any) -> Runs:
    """Fine-tune every combination of tasks, models, strategies and seeds, and record the runs in MLflow.

    Finished runs are not repeated. Ctrl-C, or the interruption of a notebook's cell, ends the current run and raises
    KeyboardInterrupt. If the same call is repeated, it executes the remaining runs.

    Args:
        quiet: Whether to print neither the list of planned runs nor the progress.
        **options: The options of `alue-bench run`, by their names in a study file: `task`, `model`, `strategy`, `seed`,
            `epochs`, `lr`, `sample`, `experiment`, `jobs` and so on; `config` is the path or name of a study file
            (TOML). The plural names `tasks`, `models`, `strategies` and `maps` are accepted too. A task is a name, an
            `alue_bench.Task`, a path or a data frame.

    Returns:
        The results, which a notebook shows as a table.

    Raises:
        UsageError: An option is unknown or has a wrong value, or there is nothing to run.
        DataError: A file of a named task is missing or malformed.
        UnavailableError: A named model or the MLflow store is not available.
        KeyboardInterrupt: The user stopped the call. The finished runs are recorded.
    """
    from alue_bench.studies.run import do_run

    streams = Streams.of_call(quiet=quiet)
    return _ended(do_run(_study("run", options, streams), streams), streams)


@with_options("sweep")
def sweep(*, quiet: bool = False, **options: Any) -> Sweep:
    """Fine-tune with every setting of a grid (numbers of frozen bottom and top layers), and recommend one setting.

    Args:
        quiet: Whether to print neither the list of planned runs nor the progress.
        **options: The options of `alue-bench sweep`, by their names in a study file; see `run`. Some hyper-parameters
            also accept a list, such as `lr=[2e-5, 5e-5]`, and are varied in the grid.

    Returns:
        The results, with a recommendation for each grid; the method `best()` returns the run of the recommended
        setting.

    Raises:
        UsageError: An option is unknown or has a wrong value, or there is nothing to run.
        DataError: A file of a named task is missing or malformed.
        UnavailableError: A named model or the MLflow store is not available.
        KeyboardInterrupt: The user stopped the call. The finished runs are recorded.
    """
    from alue_bench.studies.sweep import do_sweep

    streams = Streams.of_call(quiet=quiet)
    return _ended(do_sweep(_study("sweep", options, streams), streams), streams)


@with_options("search")
def search(*, quiet: bool = False, **options: Any) -> Search:
    """Find which layers to freeze for the cheapest training that keeps the score, without trying all settings.

    Args:
        quiet: Whether to print neither a description of the search nor the progress.
        **options: The options of `alue-bench search`, by their names in a study file; see `run`.

    Returns:
        The results, with the setting found for each task and model; the method `best()` returns the run of this
        setting.

    Raises:
        UsageError: An option is unknown or has a wrong value, or there is nothing to search.
        DataError: A file of a named task is missing or malformed.
        UnavailableError: A named model or the MLflow store is not available.
        KeyboardInterrupt: The user stopped the call. The finished runs are recorded.
    """
    from alue_bench.studies.search import do_search

    streams = Streams.of_call(quiet=quiet)
    return _ended(do_search(_study("search", options, streams), streams), streams)


@with_options("run")
def fit(
    task: Any, model: str | Path = "mini", strategy: str = "full", *, quiet: bool = False, **options: Any
) -> TrainedRun:
    """Fine-tune one model on one task under one strategy, and keep the trained model.

    Args:
        task: The name of a declared task, an `alue_bench.Task`, the path of a task file or of a data file, or a data
            frame whose columns the options `text` and `label` name.
        model: The name of a declared model, a local folder, or the hub id and revision of a model, as `ID@REVISION`.
        strategy: The name of a strategy.
        quiet: Whether to print neither the list of planned runs nor the progress.
        **options: Further options of `run`.

    Returns:
        The run, with its metrics, the trained model, and methods to predict and to save the model.

    Raises:
        UsageError: An option is unknown or has a wrong value, or the options ask for several runs.
        DataError: A file of a named task is missing or malformed.
        UnavailableError: A named model or the MLflow store is not available.
        TrainingError: The run failed.
        KeyboardInterrupt: The user stopped the call.
    """
    seeds = options.get("seed")
    if (options.get("seeds") or 1) != 1 or (isinstance(seeds, list | tuple) and len(seeds) != 1):
        raise UsageError("fit() trains one model, and several seeds are given; give one, or take run()")
    if options.get("folds") is not None:
        raise UsageError("fit() trains one model, and folds ask for one of each fold; leave folds out, or take run()")
    results = run(task=[task], model=[model], strategy=[strategy], quiet=quiet, **{"keep": "all", **options})
    if len(results.outcomes) != 1:
        raise UsageError(f"fit() trains one model, and the study asks for {len(results.outcomes)} runs; take run()")
    (outcome,) = results.outcomes
    if outcome.status == "failed":
        raise TrainingError(f"{outcome.spec.label} failed: {outcome.cause} (run {outcome.run_id})")
    return TrainedRun(outcome, results.place)


@with_options("select")
def compare(
    *,
    baseline: str = "full",
    metric: str | None = None,
    margin: str = VerdictOptions().margin,
    resamples: int = 0,
    **selection: Any,
) -> Compared:
    """Compare the freezing strategies of recorded runs with a baseline: score, cost and verdict.

    Args:
        baseline: The strategy that the others are compared with.
        metric: The metric of the scores, such as "f1_micro"; None for the primary metric of each task.
        margin: The largest acceptable loss of score, as for `alue-bench compare`: "0.01" or "1pt", "1%", "5% of
            learnt", or one for each metric, such as "f1_macro=0.01,pearson=0.02".
        resamples: The number of resamples for additional tests that resample the test examples but not the seeds; 0 for
            no such tests.
        **selection: The options of `alue-bench compare` that select runs: `task`, `model`, `strategy`,
            `experiment`, `parent`, `data_source`, `tracking_uri`.

    Returns:
        The comparison, which a notebook shows as tables; its methods give it as data frames or Markdown.

    Raises:
        UsageError: An option is unknown, the margin has a wrong form, or the MLflow store, experiment or parent run
            does not exist.
        UnavailableError: No finished run is selected, or the MLflow store does not answer.
    """
    from alue_bench.evaluation.margins import parse_margins
    from alue_bench.reporting.comparison import DEFAULT_MARGIN
    from alue_bench.reporting.comparison import compare as compare_runs
    from alue_bench.reporting.out_of_domain import out_of_domain
    from alue_bench.tracking.reading import read_targets, read_targets_elsewhere

    margins = parse_margins(margin, DEFAULT_MARGIN)
    results = _selected("compare", selection, baseline)
    load = partial(read_targets, results)
    compared = compare_runs(results.frame, load, baseline=baseline, metric=metric, margins=margins, resamples=resamples)
    elsewhere = out_of_domain(compared.blocks, results.frame, load, partial(read_targets_elsewhere, results))
    return Compared(compared, tuple(elsewhere))


@with_options("select")
def report(
    output: str | Path = "report.html",
    *,
    metric: str | None = None,
    margin: str = VerdictOptions().margin,
    **selection: Any,
) -> Path:
    """Write a report on recorded runs into one HTML or Markdown file.

    Args:
        output: The file to write, with the ending .html or .md. A Markdown file gets a folder of figures next to it.
        metric: The metric of the scores, such as "f1_micro"; None for the primary metric of each task.
        margin: The largest acceptable loss of score; see `compare`.
        **selection: The options that select runs; see `compare`.

    Returns:
        The path of the written file.

    Raises:
        UsageError: The file has a different ending, an option is unknown or has a wrong value, or the MLflow store,
            experiment or parent run does not exist.
        UnavailableError: The MLflow store does not answer, or the file cannot be written.
    """
    from alue_bench.evaluation.margins import parse_margins
    from alue_bench.reporting.comparison import BASELINE, DEFAULT_MARGIN
    from alue_bench.reporting.page import PageRequest, build_page
    from alue_bench.reporting.rendering import check_ending, write_page

    path = Path(output)
    check_ending(path, "output")
    margins = parse_margins(margin, DEFAULT_MARGIN)
    results = _selected("report", selection, BASELINE, may_be_none=True)
    write_page(build_page(results, PageRequest(metric=metric, margins=margins)), path)
    return path


@dataclass(frozen=True, eq=False, repr=False)
class Compared(Displayed):
    """A comparison of freezing strategies with a baseline, which a notebook shows as tables."""

    comparison: Comparison
    domains: tuple[OutOfDomain, ...] = ()
    """The changes in and out of domain of models that were scored on other tasks too."""

    def out_of_domain(self) -> pd.DataFrame:
        """Return a table of the changes in and out of domain, with a row for each strategy and each other task."""
        import pandas as pd

        from alue_bench.reporting.out_of_domain_table import out_of_domain_records

        return pd.DataFrame(out_of_domain_records(self.domains))

    def frame(self) -> pd.DataFrame:
        """Return a table of scores, costs and verdicts.

        It has one row for each strategy of each group of comparable runs. Such a group has one task and model, and one
        set of conditions, such as hyper-parameters and hardware.
        """
        import pandas as pd

        from alue_bench.reporting.comparison_table import records

        return pd.DataFrame(records(self.comparison))

    def markdown(self) -> str:
        """Return the tables of scores, costs and verdicts as Markdown."""
        from alue_bench.reporting.comparison_table import as_markdown
        from alue_bench.reporting.out_of_domain_table import out_of_domain_as_markdown

        return "\n".join(filter(None, [as_markdown(self.comparison), out_of_domain_as_markdown(self.domains)]))

    def view(self) -> RenderableType:
        """Return the tables of scores, costs and verdicts, for a terminal or a notebook."""
        from alue_bench.views.out_of_domain_view import out_of_domain_view
        from alue_bench.views.tables import comparison_view

        tables = comparison_view(self.comparison, sort="strategy")
        return Group(tables, out_of_domain_view(self.domains)) if self.domains else tables


@cache
def _installed() -> Registry:
    """Return what the installed plugins declare (tasks, models, strategies).

    Plugins are loaded only once per process.
    """
    without_widget_warning()
    return load_registry()


def _study(function: str, options: Mapping[str, Any], streams: Streams) -> Study:
    """Check the keyword arguments of an API call, and return the settings together with the plugins.

    Args:
        function: The name of the called function, for messages.
        options: The keyword arguments.
        streams: The output streams, for warnings about plugins.
    """
    registry = _installed()
    streams.warn_of_plugins(registry)
    given = dict(options)
    tasks = [given.pop(word) for word in ("task", "tasks") if given.get(word) is not None]
    if len(tasks) > 1:
        raise UsageError(f"{function}() is given 'task' twice, as task and as tasks")
    if tasks:
        of_call = given_tasks(tasks[0], registry)
        if "file" in of_call.options and given.get("file") is not None:
            raise UsageError(f"{function}() is given data twice, as task and as file")
        given, registry = {**given, **of_call.options}, of_call.registry
    if given.get("also_test") is not None:
        elsewhere = given_tasks(given["also_test"], registry)
        if "file" in elsewhere.options:
            raise UsageError(
                f"{function}(): also_test names a data file or frame; give an alue_bench.Task or task file"
            )
        given, registry = {**given, "also_test": elsewhere.options.get("task", [])}, elsewhere.registry
    study = study_of(function, checked(function, options_of_function(function), given), registry, origin=ORIGIN)
    own = next((one for one in registry.tasks.values() if one.origin.distribution == IN_PYTHON), None)
    if own is not None and ((study.execution.jobs or 1) > 1 or study.execution.executor not in (None, "local")):
        raise UsageError(
            f"{function}(): worker processes do not know task {own.value.name!r}, which is a value in this process; "
            "leave jobs and executor out, or declare the task in a plugin or a task file"
        )
    return study


def _ended(results: R, streams: Streams) -> R:
    """Print the messages that conclude an API call, and return the call's results.

    Raises:
        KeyboardInterrupt: The user stopped the call.
    """
    for sentence in results.ending.kept:
        streams.talk.print(sentence)
    for remark in results.ending.remarks:
        streams.talk.print(remark, style="yellow")
    if results.execution.stop is not None:
        streams.talk.print("interrupted: make the same call again to continue")
        raise KeyboardInterrupt from results.execution.stop
    return results


def _selected(function: str, given: Mapping[str, Any], baseline: str, *, may_be_none: bool = False) -> Results:
    """Return the recorded runs that the keyword arguments of an API call select.

    Args:
        function: The name of the called function, for messages.
        given: The keyword arguments.
        baseline: The strategy with which others are compared, and whose runs are therefore selected too.
        may_be_none: Whether the selection may be empty; otherwise an error is raised.

    Raises:
        UsageError: An option is unknown or has a wrong value, or the store, experiment or parent run does not exist.
        UnavailableError: No finished run is selected although the selection may not be empty, or the store does not
            answer.
    """
    selection = filled(RunSelection, checked(function, options_of_function("select"), given))
    results, remarks = select_runs(selection, baseline=baseline)
    if results.frame.empty and not may_be_none:
        raise UnavailableError(none_selected(results))
    for remark in remarks:
        Streams.of_call(quiet=False).talk.print(remark)
    return results
