"""The results of `run`, `sweep` and `search`. The Python functions return them, and the commands show them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from alue_bench.contract.errors import TrainingError, UnavailableError, UsageError
from alue_bench.contract.spec import RunSpec
from alue_bench.executors.outcome import Outcome
from alue_bench.studies import kept_models
from alue_bench.studies.invocation import Ending, Execution, StoreLocation
from alue_bench.views.notebook import Displayed

if TYPE_CHECKING:
    import pandas as pd

    from alue_bench.deployment.kept_model import KeptModel
    from alue_bench.reporting.comparison import Comparison
    from alue_bench.reporting.grid import GridResults, Recommendation
    from alue_bench.reporting.recorded import RecordedRuns
    from alue_bench.searching.policy import Decision
    from alue_bench.searching.state import SearchState

DEV = "selection/dev_score"


@dataclass(frozen=True, eq=False, repr=False)
class TrainedRun(Displayed):
    """A fine-tuning run with its results. It was executed now, or executed earlier and reused from the MLflow store."""

    outcome: Outcome
    store: StoreLocation
    """The MLflow store and experiment that hold the run."""

    @property
    def spec(self) -> RunSpec:
        """The specification of the run: task, model, strategy, seed, hyper-parameters and the like."""
        return self.outcome.spec

    @property
    def run_id(self) -> str:
        """The id of the run in MLflow."""
        return self.outcome.run_id

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics by name, such as "test/score", "runtime/train_s" (seconds) or "flops/train_vs_full"."""
        return self.outcome.metrics

    @property
    def score(self) -> float:
        """The primary metric on the test split; nan if it is undefined."""
        return self.metrics.get("test/score", math.nan)

    @property
    def dev_score(self) -> float:
        """The primary metric of the selected epoch on the dev split; nan if it is undefined."""
        return self.metrics.get(DEV, math.nan)

    def frame(self) -> pd.DataFrame:
        """Return a data frame with one row for this run; see `Runs.frame` for the columns."""
        return _table([self.outcome])

    def best(self) -> TrainedRun:
        """Return this run, so that the results of one and of several runs have the same methods."""
        return self

    @cached_property
    def model(self) -> KeptModel:
        """The trained model.

        If it was not saved, it is trained again, and its test predictions must agree with the recorded ones.
        """
        return kept_models.model_of(self.store, self.outcome)

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Any]:
        """Return the prediction for each text.

        A prediction is a label, a list of labels (multi-label), a number (regression), a list with a tag for each word,
        or the answer to a question.

        Args:
            texts: The texts, or the first texts of the pairs.
            pairs: The second texts, for a task with pairs of texts, or the questions; None for other tasks.
        """
        return self.model.predict(texts, pairs)

    def save(self, folder: str | Path) -> Path:
        """Write the trained model into a new folder, for `transformers` or `alue_bench.load`; return the folder."""
        return kept_models.save(self.store, self.outcome, Path(folder))

    def view(self) -> RenderableType:
        """Return the table of the run's scores and costs, for a terminal or a notebook."""
        from alue_bench.reporting.recorded import RecordedRuns
        from alue_bench.tracking.connection import open_store

        def recorded() -> RecordedRuns:
            return RecordedRuns(open_store(self.store.uri, self.store.experiment), [self.run_id])

        return _results_view([self.outcome], recorded)


@dataclass(frozen=True, eq=False, repr=False)
class Runs(Displayed):
    """The results of all runs of one command, or of one call of the function `run`."""

    execution: Execution
    document: Mapping[str, Any]
    """The results as a JSON-like document, which the option `--json` prints."""
    ending: Ending
    """The MLflow store and experiment that hold the runs, and the messages to show at the end."""

    @property
    def store(self) -> StoreLocation:
        """The MLflow store and experiment that hold the runs."""
        return self.ending.store

    @property
    def parent_id(self) -> str | None:
        """The MLflow id of the parent run of these runs; None if there is only one run and no parent run."""
        return self.ending.parent_id

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of the runs: executed now, reused from the MLflow store, or failed."""
        return self.execution.outcomes

    @property
    def failed(self) -> list[Outcome]:
        """The outcomes of the runs that failed; the attribute `cause` of each gives the reason."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    def frame(self) -> pd.DataFrame:
        """Return a table with one row for each run.

        Returns:
            The columns task, model, strategy, seed, status, run_id, fingerprint (a digest of everything that determines
            the run's result), data_source, device, precision, the hyper-parameters, and the metrics under their names
            in MLflow. In a cross-validation, a column fold follows the seed, with values such as "fold2of5". Scores of
            failed runs are missing.
        """
        return _table(self.outcomes)

    def best(self, *, task: str | None = None, model: str | None = None) -> TrainedRun:
        """Return the run with the highest dev score. The test score has no influence on the choice.

        Args:
            task: The name of the task. It is required if there are several tasks, since their scores cannot be
                compared.
            model: The name of a model, to consider only its runs; None to consider the runs of all models.

        Raises:
            UsageError: The results are of several tasks and `task` is None, the results have no such task or model, or
                the runs are of several folds of a cross-validation.
            TrainingError: No run has a dev score.
        """
        return self._best_of(self._outcomes_of(task, model))

    def view(self) -> RenderableType:
        """Return the table of scores and costs, for a terminal or a notebook."""
        return _results_view(self.outcomes, lambda: self.ending.recorded)

    def _outcomes_of(self, task: str | None, model: str | None) -> list[Outcome]:
        """Return the outcomes of one task and, if `model` is given, of one model."""
        chosen = self.outcomes
        for name, wanted in (("task", task), ("model", model)):
            known = list(dict.fromkeys(getattr(outcome.spec, name) for outcome in chosen))
            if wanted is None and name == "task" and len(known) > 1:
                raise UsageError(f"the results are of {len(known)} tasks; name one, such as best(task={known[0]!r})")
            if wanted is not None and wanted not in known:
                raise UsageError(f"no run is of {name} {wanted!r}; the results have {', '.join(known) or 'no runs'}")
            chosen = [outcome for outcome in chosen if wanted is None or getattr(outcome.spec, name) == wanted]
        return chosen

    def _best_of(self, outcomes: Sequence[Outcome]) -> TrainedRun:
        if len({outcome.spec.fold for outcome in outcomes}) > 1:
            raise UsageError(
                "best() compares dev scores, and each fold has different dev rows; choose a strategy with "
                "alue_bench.compare(), and run it without folds"
            )
        scored = [one for one in outcomes if math.isfinite(one.metrics.get(DEV, math.nan))]
        if not scored:
            causes = "; ".join(dict.fromkeys(one.cause for one in outcomes if one.cause))
            raise TrainingError(f"no run has a dev score{f': {causes}' if causes else ''}")
        return TrainedRun(max(scored, key=lambda one: one.metrics[DEV]), self.store)


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Runs):
    """The results of a sweep: its runs, and for each grid the recommended freezing setting.

    A grid has one task, one model and one set of hyper-parameters, and varies the numbers of frozen layers.
    """

    tolerance: float = 0.0
    """The largest accepted loss of dev score, as a share of the dev score of full fine-tuning."""
    grids: tuple[tuple[GridResults, Recommendation | None], ...] = ()
    """The grids of freezing settings, each with its recommendation (None if nothing can be recommended). There is a
    grid for each task, model and combination of varied hyper-parameters. Empty if the sweep was interrupted. The
    attribute `confirmation` of a recommendation has the loss of score to expect, measured with fresh seeds."""

    def best(self, *, task: str | None = None, model: str | None = None) -> TrainedRun:
        """Return the run of the recommended setting; if there are several seeds, the run with the highest dev score.

        If there are several grids for the task, because models or hyper-parameters vary, the recommended setting with
        the shortest training time is chosen.

        Args:
            task: The name of the task. It is required if the sweep has several tasks.
            model: The name of a model, to consider only its runs; None to consider the runs of all models.

        Raises:
            UsageError: The sweep has several tasks and `task` is None, the results have no such task or model, or the
                runs are of several folds of a cross-validation.
            UnavailableError: No setting can be recommended, for example because full fine-tuning did not learn
                anything.
            TrainingError: No run of the setting has a dev score.
        """
        chosen = self._outcomes_of(task, model)
        specs = [outcome.spec for outcome in chosen]
        tasks, models = {spec.task for spec in specs}, {spec.model for spec in specs}
        of_these = [(grid, advice) for grid, advice in self.grids if grid.task in tasks and grid.model in models]
        advised = [(grid, advice) for grid, advice in of_these if advice is not None]
        if not advised:
            from alue_bench.reporting.grid import nothing_learnt

            why = next((verdict.sentence() for grid, _ in of_these if (verdict := nothing_learnt(grid.cells))), "")
            raise UnavailableError(f"the sweep recommends no setting{f': {why}' if why else ''}")
        grid, advice = min(advised, key=lambda one: one[1].train_s)
        return self._best_of([one for one in chosen if is_of(one.spec, grid, advice.strategy)])

    def view(self) -> RenderableType:
        """Return the view of each grid of freezing settings: scores and times, Pareto front and recommended setting."""
        from alue_bench.executors.outcome import in_reading_order
        from alue_bench.views.grid_view import grid_result

        if self.grids:
            return Group(*(grid_result(*one) for one in self.grids))
        return _results_view(in_reading_order(self.outcomes), lambda: self.ending.recorded)


def is_of(spec: RunSpec, grid: GridResults, strategy: str) -> bool:
    """Return whether a run has the given strategy, and the task, model and hyper-parameters of a sweep's grid."""
    same = all(getattr(spec.hyper, name) == value for name, value in grid.settings.items())
    return (spec.task, spec.model, spec.strategy) == (grid.task, grid.model, strategy) and same


@dataclass(frozen=True, eq=False, repr=False)
class Search(Runs):
    """The results of a search: its runs, and for each task and model the setting that was found.

    A search looks for the cheapest freezing setting that keeps the score of full fine-tuning.
    """

    searches: tuple[tuple[SearchState, Decision], ...] = ()
    """The search for each task and model, with its last decision."""

    @property
    def answers(self) -> dict[tuple[str, str], str | None]:
        """The strategy that was found, by (task, model); None if full fine-tuning failed or learnt nothing.

        If the search chose among several learning rates, the rate follows the name, such as "bottom3top4 lr=3e-4".
        """
        return {
            (search.task, search.model): None
            if decision.unlearnt or search.broken is not None
            else decision.best.candidate.name
            for search, decision in self.searches
        }

    @property
    def is_unanswered(self) -> bool:
        """True if every search ended without finding a strategy, because full fine-tuning learnt nothing."""
        return bool(self.searches) and all(decision.unlearnt for _, decision in self.searches)

    def best(self, *, task: str | None = None, model: str | None = None) -> TrainedRun:
        """Return the run of the strategy that the search found; with several seeds, the run with the highest dev score.

        If there are several models, the run with the highest dev score among the strategies found for them is returned.

        Args:
            task: The name of the task. It is required if the search has several tasks.
            model: The name of a model, to consider only its runs; None to consider the runs of all models.

        Raises:
            UsageError: The search has several tasks and `task` is None, or the results have no such task or model.
            UnavailableError: The search found no strategy.
            TrainingError: No run of the strategy has a dev score.
        """
        answers = self.answers
        # Not by the strategy's name: the search may have chosen among several learning rates, too.
        fingerprints = {
            done.fingerprint
            for search, _ in self.searches
            for done in search.done
            if done.step.candidate.name == answers[search.task, search.model] and not done.step.short
        }
        chosen = [one for one in self._outcomes_of(task, model) if one.spec.fingerprint in fingerprints]
        if not chosen:
            conclusions = " ".join(
                sentence for search, decision in self.searches for sentence in search.conclusion(decision)
            )
            raise UnavailableError(f"the search has no answer: {conclusions or 'no run has finished'}")
        return self._best_of(chosen)

    def view(self) -> RenderableType:
        """Return the view of each search that ended: the freezing settings that were run and the one that was found."""
        from alue_bench.views.search_tables import search_view

        ended = [one for one in self.searches if one[1].step is None]
        return Group(*(search_view(*one) for one in ended)) if ended else super().view()


def _results_view(outcomes: Sequence[Outcome], recorded: Callable[[], RecordedRuns | None]) -> RenderableType:
    """Return the table of results, with changes against full fine-tuning and verdicts from the recorded runs.

    Args:
        outcomes: The outcomes of the runs.
        recorded: A function that returns the recorded runs. If it fails, the view has a note instead of changes and
            verdicts.
    """
    from alue_bench.measure.best_effort import best_effort
    from alue_bench.views.result_table import result_view

    if not outcomes:
        return ""
    problems: list[str] = []

    def compared() -> Comparison | None:
        runs = recorded()
        return runs.comparison if runs is not None else None

    comparison = best_effort("no changes and verdicts", compared, problems.append)
    return result_view(outcomes, comparison, problems)


def _table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return a data frame with one row for the outcome of each run."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "task": outcome.spec.task,
                "model": outcome.spec.model,
                "strategy": outcome.spec.strategy,
                "seed": outcome.spec.seed,
                **({"fold": outcome.spec.fold.label} if outcome.spec.fold else {}),
                "status": outcome.status,
                "run_id": outcome.run_id,
                "fingerprint": outcome.spec.fingerprint,
                "data_source": outcome.spec.data.source,
                "device": outcome.spec.device,
                "precision": outcome.spec.precision,
                **vars(outcome.spec.hyper),
                **dict(sorted(outcome.metrics.items())),
            }
            for outcome in outcomes
        ]
    )
