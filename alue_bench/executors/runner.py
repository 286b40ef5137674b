"""The execution of runs in this process, one at a time.

Without --rerun, a run is executed only if no finished result with all requested scores is recorded. The process first
claims the run in the MLflow store, so that no other process executes it at the same time, and records the result at the
end.
"""

from __future__ import annotations

import gc
import math
import traceback
import weakref

from alue_bench.contract.errors import AlueBenchError, DeviceLostError, StoreUnavailableError
from alue_bench.contract.registry import Registry, notify
from alue_bench.deployment.keeping import keep_model
from alue_bench.deployment.model_folder import FinishedRun
from alue_bench.executors.outcome import Observer, Outcome
from alue_bench.executors.termination import interruption_behind, raise_if_terminated
from alue_bench.messages.redaction import redact
from alue_bench.planning.build import PlannedRun
from alue_bench.running.fine_tuning import Trained
from alue_bench.running.run import execute
from alue_bench.tracking.claims import HeldRun
from alue_bench.tracking.recording import ClaimLost, Recorded, Recorder
from alue_bench.training.device.errors import device_is_lost, release_caches

SAME_SCORE = 1e-9
"""The largest difference at which scores count as equal. (Repeated runs on one machine give identical scores.)"""


class Runner:
    """An executor of single runs in this process. It keeps the last trained model, which the next run may test too."""

    def __init__(self, recorder: Recorder, registry: Registry, observer: Observer, *, rerun: bool) -> None:
        """Create a runner, which has no trained model yet.

        Args:
            recorder: The recorder of the runs in MLflow.
            registry: The declarations of the installed plugins.
            observer: The receiver of progress, outcomes and warnings.
            rerun: Whether to execute finished runs again.
        """
        self._recorder, self._registry, self._observer, self._rerun = recorder, registry, observer, rerun
        self._trained: Trained | None = None
        self._held: dict[str, HeldRun] = {}

    def execute_or_reuse(self, planned: PlannedRun) -> Outcome | HeldRun:
        """Execute a run, or reuse its recorded result.

        Returns:
            The run's outcome. If another process is executing the run, a `HeldRun` with the id of the MLflow run in
            which that process will record the result.

        Raises:
            DeviceLostError: An earlier run has made the GPU unusable for this process.
        """
        spec = planned.spec
        outcome = self._outcome_elsewhere(planned)
        if outcome is not None:
            return outcome
        if device_is_lost(spec.device):
            raise DeviceLostError(
                "this process can no longer use its GPU after a failed run; run the same command again to continue. "
                "With --jobs 2, a worker process that loses its GPU is replaced"
            )
        if self._trained is not None and self._trained.key != spec.training_key:
            self._free_model()
        # A finished run without the scores on other tasks is executed again, since these scores need its weights.
        earlier = self._recorder.finished(spec.fingerprint) if spec.scored_elsewhere and not self._rerun else None
        again = self._rerun or earlier is not None
        run_id = self._recorder.start(spec, planned.inputs, again=again, tags=planned.tags)
        if isinstance(run_id, HeldRun):
            # The other process may have just finished it.
            self._held[spec.fingerprint] = run_id
            return self._outcome_elsewhere(planned) or run_id
        self._observer.started(planned)
        outcome = self._execute(planned, run_id)
        if earlier is not None and isinstance(outcome, Outcome) and outcome.status == "finished":
            self._compare_with(earlier, outcome)
        return outcome

    def _compare_with(self, earlier: Recorded, outcome: Outcome) -> None:
        """Warn if a run that was trained again, for scores on other tasks, differs from the earlier, recorded run.

        The two runs differ if their test scores differ, or if the new run lacks scores on other tasks that the earlier
        run has.
        """
        spec, score = outcome.spec, "test/score"
        before, now = earlier.metrics.get(score, math.nan), outcome.metrics.get(score, math.nan)
        if not math.isclose(before, now, abs_tol=SAME_SCORE) and not math.isnan(before):
            self._observer.warned(
                f"{spec.label}: trained again for --also-test, its score is {now:.6g}; run {earlier.run_id} recorded "
                f"{before:.6g}. Another machine or another number of threads may be the cause"
            )
        lost = sorted(earlier.scored_elsewhere.keys() - spec.scored_elsewhere.keys())
        if lost:
            self._observer.warned(
                f"{spec.label}: the new record lacks the earlier scores on {', '.join(lost)}; to have all in one "
                f"record, add {' '.join(f'--also-test {name}' for name in lost)}"
            )

    def _free_model(self) -> None:
        """Free the memory of the last trained model, before another model is loaded."""
        if self._trained is None:
            return
        device, model = self._trained.device.name, weakref.ref(self._trained.stack.model)
        self._trained = None
        if model() is not None:  # a reference cycle in a plugin's code keeps it in memory
            gc.collect()
        release_caches(device)

    def _outcome_elsewhere(self, planned: PlannedRun) -> Outcome | HeldRun | None:
        """Check whether another process or an earlier command has executed a planned run, or is executing it.

        Returns:
            The outcome if the run has finished elsewhere, or has failed elsewhere while this process waited for it; a
            `HeldRun` with the id of the MLflow run if another process is executing the run; None if this process must
            execute the run.
        """
        if self._rerun:
            return None
        fingerprint = planned.spec.fingerprint
        done = self._recorder.finished(fingerprint, scored=planned.spec.scored_elsewhere)
        if done is not None:
            return Outcome(planned, "reused", done.run_id, done.metrics)
        seen = self._held.pop(fingerprint, None)
        if seen is not None:
            ending = self._recorder.ending_of(seen)
            if ending.status == "FAILED":  # it failed while this process waited, and would fail again
                return Outcome(planned, "failed", seen.run_id, cause=next(iter(ending.cause.splitlines()), ""))
        holder = self._recorder.holder(fingerprint)
        if holder is not None:
            self._held[fingerprint] = holder
        return holder

    def _execute(self, planned: PlannedRun, run_id: str) -> Outcome | HeldRun:
        spec, labels = planned.spec, planned.inputs.task.labels
        notify(self._registry, "alue_bench_run_started", self._observer.warned, spec=spec)

        def on_step(done: int, total: int) -> None:
            raise_if_terminated()
            self._recorder.set_progress(run_id, done, total)
            self._observer.advanced(planned, done, total)

        try:
            result, self._trained = execute(spec, planned.inputs, before=self._trained, on_step=on_step)
            problems = (*result.problems, *self._recorder.finish(run_id, spec, result, labels))
            if self._recorder.keep is not None:  # the run is recorded and its clock has stopped
                finished = FinishedRun(run_id, spec, planned.inputs, self._trained, result)
                problems = (*problems, *keep_model(self._recorder, finished, planned.tags))
            if self._trained.file is not None:  # the checkpoint of the training is not needed after the recording
                self._trained.file.remove()
        except StoreUnavailableError:
            raise
        except ClaimLost:
            self._trained = None
            return HeldRun(run_id)
        except Exception as error:  # the failure of one run must not end the plan
            self._trained = None
            stop = interruption_behind(error)
            if stop is not None:
                raise stop from None
            cause = redact(str(error) if isinstance(error, AlueBenchError) else f"{type(error).__name__}: {error}")
            try:
                self._recorder.fail(run_id, cause, traceback.format_exc())
            except ClaimLost:
                return HeldRun(run_id)
            return Outcome(planned, "failed", run_id, cause=next(iter(cause.splitlines()), ""))
        for problem in problems:
            self._observer.warned(f"{spec.label}: {redact(problem)}")
        notify(self._registry, "alue_bench_run_finished", self._observer.warned, spec=spec, result=result)
        return Outcome(planned, "finished", run_id, result.metrics)
