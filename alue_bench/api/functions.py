"""The functions of the Python API, for scripts and notebooks.

    results = alue_bench.run(tasks=["oold"], models=["mini"], strategies=["full", "bottom3top4"], epochs=1, sample=True)
    results.frame()                                          # a data frame with one row for each run
    results.best().score                                     # the test score of the run with the best dev score

`run`, `sweep`, `search`, `compare` and `report` do the same as the commands with these names; functions and commands
reuse each other's finished runs. Invalid arguments raise an `AlueBenchError`. If a run fails, only `fit` raises an
error; the other functions return the failed run with the other results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Group, RenderableType

from alue_bench.api.calls import checked_arguments, options_of_function, with_options
from alue_bench.api.tasks import PYTHON_TASK_PROVIDER, given_tasks
from alue_bench.contract.errors import TrainingError, UnavailableError, UsageError
from alue_bench.contract.options import build_options
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
"""The origin of hyper-parameters that are given as keyword arguments, as the list of planned runs shows it."""

R = TypeVar("R", bound=Runs)


@with_options("run")
def run(*, quiet: bool = False, **options: Any) -> Runs:
    """Fine-tune every combination of tasks, models, strategies and seeds, and record the runs in MLflow.

    Finished runs are not repeated. Ctrl-C, or the interruption of a notebook's cell, ends the current run and raises
    KeyboardInterrupt. If the same call is repeated, it executes the remaining runs.

    Args:
        quiet: True to print neither the list of planned runs nor the progress.
        **options: The options of `alue-bench run`, with underscores instead of hyphens: `task`, `model`, `strategy`,
            `seed`, `epochs`, `lr`, `sample`, `experiment`, `jobs` and so on; `config` is the path or name of a study
            file (a TOML file with options). The plural names `tasks`, `models`, `strategies` and `maps` are accepted
            too. Repeatable options take one value or a list. A task is a name, an `alue_bench.Task`, the path of a task
            file or a data file, or a data frame.

    Returns:
        The results of all runs, which a notebook shows as a table.

    Raises:
        UsageError: An option is unknown or has a wrong value, or there is nothing to run.
        DataError: A file of a named task is missing or malformed.
        UnavailableError: A named model or the MLflow store is not available.
        KeyboardInterrupt: The user stopped the call. The finished runs are recorded.
    """
    from alue_bench.studies.run import do_run

    streams = Streams.of_call(quiet=quiet)
    return _finish_call(do_run(_study("run", options, streams), streams), streams)


@with_options("sweep")
def sweep(*, quiet: bool = False, **options: Any) -> Sweep:
    """Fine-tune with every setting of a grid (numbers of frozen bottom and top layers), and recommend one setting.

    Args:
        quiet: True to print neither the list of planned runs nor the progress.
        **options: The options of `alue-bench sweep`, with underscores instead of hyphens; see `run`. Some
            hyper-parameters also accept a list, such as `lr=[2e-5, 5e-5]`; the grid then includes each of the values.

    Returns:
        The results of all runs, with a recommendation for each grid. The method `best()` returns the run with the
        recommended setting.

    Raises:
        UsageError: An option is unknown or has a wrong value, or there is nothing to run.
        DataError: A file of a named task is missing or malformed.
        UnavailableError: A named model or the MLflow store is not available.
        KeyboardInterrupt: The user stopped the call. The finished runs are recorded.
    """
    from alue_bench.studies.sweep import do_sweep

    streams = Streams.of_call(quiet=quiet)
    return _finish_call(do_sweep(_study("sweep", options, streams), streams), streams)


@with_options("search")
def search(*, quiet: bool = False, **options: Any) -> Search:
    """Find the cheapest setting of frozen layers that scores about as well as full fine-tuning, with few runs.

    Args:
        quiet: True to print neither a description of the search nor the progress.
        **options: The options of `alue-bench search`, with underscores instead of hyphens; see `run`.

    Returns:
        The results of all runs, with the setting found for each task and model. The method `best()` returns the run
        with this setting.

    Raises:
        UsageError: An option is unknown or has a wrong value, or there is nothing to search.
        DataError: A file of a named task is missing or malformed.
        UnavailableError: A named model or the MLflow store is not available.
        KeyboardInterrupt: The user stopped the call. The finished runs are recorded.
    """
    from alue_bench.studies.search import do_search

    streams = Streams.of_call(quiet=quiet)
    return _finish_call(do_search(_study("search", options, streams), streams), streams)


@with_options("run")
def fit(
    task: Any, model: str | Path = "mini", strategy: str = "full", *, quiet: bool = False, **options: Any
) -> TrainedRun:
    """Fine-tune one model on one task under one strategy, and keep the trained model.

    Args:
        task: The name of a declared task, an `alue_bench.Task`, the path of a task file or a data file, or a data
            frame. For a data file or frame, the options `text` and `label` name its columns.
        model: The name of a declared model, a local folder, or a hub id with an optional revision (`ID@REVISION`).
        strategy: The name of a strategy, such as "bottom3top4".
        quiet: True to print neither the list of planned runs nor the progress.
        **options: Further options of `run`.

    Returns:
        The run, with its metrics and methods to predict with the trained model and to save it.

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
    return TrainedRun(outcome, results.store)


@with_options("select")
def compare(
    *,
    baseline: str = "full",
    metric: str | None = None,
    margin: str = VerdictOptions().margin,
    resamples: int = 0,
    **selection: Any,
) -> ComparisonResult:
    """Compare the freezing strategies of recorded runs with a baseline: scores, costs and a verdict on each strategy.

    Args:
        baseline: The name of the strategy with which all other strategies are compared.
        metric: The metric of the scores, such as "f1_micro"; None for the primary metric of each task.
        margin: The largest acceptable loss of score. "0.01" and "1pt" are in the unit of the metric (one point of F1);
            "1%" is a share of the baseline's score; "5% of learnt" is a share of what the baseline learnt, that is, of
            its score minus the score of a baseline without a model. A list such as
            "f1_macro=0.01,pearson=0.02" gives one margin for each metric.
        resamples: The number of resamples for additional tests that resample the test examples but not the seeds; 0 for
            no such tests.
        **selection: The options of `alue-bench compare` that select runs: `task`, `model`, `strategy`,
            `experiment`, `parent`, `data_source`, `tracking_uri`.

    Returns:
        The comparison, which a notebook shows as tables. Its methods return it as data frames or Markdown.

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
    results = _selected_results("compare", selection, baseline)
    load = partial(read_targets, results)
    compared = compare_runs(results.frame, load, baseline=baseline, metric=metric, margins=margins, resamples=resamples)
    elsewhere = out_of_domain(compared.blocks, results.frame, load, partial(read_targets_elsewhere, results))
    return ComparisonResult(compared, tuple(elsewhere))


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
        output: The file to write, with the ending .html or .md. For a Markdown file, a folder of figures is written
            next to it.
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
    results = _selected_results("report", selection, BASELINE, may_be_none=True)
    write_page(build_page(results, PageRequest(metric=metric, margins=margins)), path)
    return path


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonResult(Displayed):
    """A comparison of freezing strategies with a baseline, which a notebook shows as tables."""

    comparison: Comparison
    """The comparison as values, from which the methods make tables."""
    domains: tuple[OutOfDomain, ...] = ()
    """The differences between each strategy's scores and the baseline's, in domain and out of domain (for these words,
    see `out_of_domain`); empty if no model was also scored on other tasks (option `--also-test`)."""

    def out_of_domain(self) -> pd.DataFrame:
        """Return a data frame of the differences between the scores of the strategies and the baseline, by domain.

        In domain means on the test split of the task that trained the model; out of domain means on the test split of
        another task (option `--also-test`). The data frame has one row for each strategy and each other task.
        """
        import pandas as pd

        from alue_bench.reporting.out_of_domain_table import out_of_domain_records

        return pd.DataFrame(out_of_domain_records(self.domains))

    def frame(self) -> pd.DataFrame:
        """Return a data frame of scores, costs and verdicts, with one row for each strategy.

        Only runs with the same task, model and conditions, such as hyper-parameters and hardware, are compared. If
        there are several such groups of runs, a strategy has one row for each group.
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
def _installed_plugins() -> Registry:
    """Return the tasks, models and strategies of the installed plugins, which are loaded once per process."""
    without_widget_warning()
    return load_registry()


def _study(function: str, options: Mapping[str, Any], streams: Streams) -> Study:
    """Check the keyword arguments of an API call, and return the study that they describe.

    Args:
        function: The name of the called function: "run", "sweep" or "search".
        options: The keyword arguments.
        streams: The output streams, for warnings about plugins.

    Raises:
        UsageError: An option is unknown, given twice or has a wrong value, or a task that is given as a `Task` value
            would be needed in another process.
    """
    registry = _installed_plugins()
    streams.warn_of_plugins(registry)
    given = dict(options)
    tasks = [given.pop(word) for word in ("task", "tasks") if given.get(word) is not None]
    if len(tasks) > 1:
        raise UsageError(f"{function}() is given 'task' twice, as task and as tasks")
    if tasks:
        call_tasks = given_tasks(tasks[0], registry)
        if "file" in call_tasks.options and given.get("file") is not None:
            raise UsageError(f"{function}() is given data twice, as task and as file")
        given, registry = {**given, **call_tasks.options}, call_tasks.registry
    if given.get("also_test") is not None:
        elsewhere = given_tasks(given["also_test"], registry)
        if "file" in elsewhere.options:
            raise UsageError(
                f"{function}(): also_test names a data file or frame; give an alue_bench.Task or task file"
            )
        given, registry = {**given, "also_test": elsewhere.options.get("task", [])}, elsewhere.registry
    study = study_of(
        function, checked_arguments(function, options_of_function(function), given), registry, origin=ORIGIN
    )
    own = next((one for one in registry.tasks.values() if one.origin.distribution == PYTHON_TASK_PROVIDER), None)
    if own is not None and ((study.execution.jobs or 1) > 1 or study.execution.executor not in (None, "local")):
        raise UsageError(
            f"{function}(): worker processes do not know task {own.value.name!r}, which is a value in this process; "
            "leave jobs and executor out, or declare the task in a plugin or a task file"
        )
    return study


def _finish_call(results: R, streams: Streams) -> R:
    """Print the messages at the end of an API call, and return the results of the call.

    Raises:
        KeyboardInterrupt: The user stopped the call.
    """
    for sentence in results.ending.kept:
        streams.stderr.print(sentence)
    for remark in results.ending.remarks:
        streams.stderr.print(remark, style="yellow")
    if results.execution.interruption is not None:
        streams.stderr.print("interrupted: make the same call again to continue")
        raise KeyboardInterrupt from results.execution.interruption
    return results


def _selected_results(function: str, given: Mapping[str, Any], baseline: str, *, may_be_none: bool = False) -> Results:
    """Return the recorded runs that the keyword arguments of an API call select.

    Args:
        function: The name of the called function, for messages.
        given: The keyword arguments.
        baseline: The name of the baseline strategy. Its runs are selected too if the arguments name only other
            strategies.
        may_be_none: Whether the result may be empty; if not, an empty result is an error.

    Raises:
        UsageError: An option is unknown or has a wrong value, or the store, experiment or parent run does not exist.
        UnavailableError: The result would be empty although `may_be_none` is False, or the store does not answer.
    """
    selection = build_options(RunSelection, checked_arguments(function, options_of_function("select"), given))
    results, remarks = select_runs(selection, baseline=baseline)
    if results.frame.empty and not may_be_none:
        raise UnavailableError(none_selected(results))
    for remark in remarks:
        Streams.of_call(quiet=False).stderr.print(remark)
    return results
