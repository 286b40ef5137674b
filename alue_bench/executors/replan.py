"""The planning of one run in a worker process, from the run's specification and the names and paths of its inputs.

Data and weights are not sent to a worker, which loads them itself. The worker executes the run only if its planning
gives the same fingerprint (a digest of everything that determines a run's result) as the planning in the main process.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from alue_bench.contract.errors import AlueBenchError, UsageError
from alue_bench.contract.executor import Source
from alue_bench.contract.model import Model
from alue_bench.contract.options import options_of
from alue_bench.contract.registry import Registry
from alue_bench.contract.spec import RunSpec
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest


class WorkerMismatchError(AlueBenchError):
    """The error that is raised if the data, model or plugins of the worker process differ from the main process's."""


SELECTION_FIELDS = ("tasks", "models", "strategies", "seeds", "skip_missing")
"""The fields of a `PlanRequest` that select several runs. They are not sent to a worker, which plans a single run."""


def source_of(planned: PlannedRun, registry: Registry) -> Source:
    """Return the names, paths and settings that a worker needs, besides a run's specification, to plan the run again.

    The worker passes both to `rebuild_run`.
    """
    inputs = planned.inputs
    used = (inputs.task, inputs.train_task, *(one.task for one in inputs.companions))
    given = tuple(one for one in planned.request.given if one.task in used)
    own = {one.task.name for one in given}
    tasks = [(inputs.task, inputs.rows.folder), (inputs.train_task, inputs.train_rows.folder)]
    tasks += [(one.task, one.folder) for one in inputs.companions]
    folders = {folder for task, folder in tasks if task.name not in own}
    kinds = {folder.kind for folder in folders}
    # If the tasks' files are not all official files in one folder, the worker searches for them itself.
    data_dir = next(iter(folders)).path.absolute() if kinds == {"real"} and len(folders) == 1 else None
    carried = {
        field: getattr(planned.request, field)
        for field in _fields_of_request()
        if field not in SELECTION_FIELDS and not hasattr(planned.spec, field)
    }
    carried |= _narrowed_companions(planned)
    return Source(
        model=_reference(inputs.model, registry),
        options={**carried, "data_dir": data_dir, "sample": kinds == {"sample"}, "given": given},
        depths=tuple(sorted(inputs.depths.depths)),
        tags=dict(planned.tags),
        notes=inputs.capabilities.notes,
        shared_depths=tuple(sorted(inputs.depths.shared)),
    )


def _narrowed_companions(planned: PlannedRun) -> dict[str, object]:
    """Return the options `--also-test` and `--map`, without the tasks on which the run's model is not scored."""
    request, fitting = planned.request, tuple(one.task.name for one in planned.inputs.companions)
    if set(fitting) == set(request.also_test):
        return {"also_test": request.also_test, "maps": request.maps}
    maps = tuple(text for text in request.maps if any(text.startswith(f"{name}:") for name in fitting))
    return {"also_test": fitting, "maps": maps}


def _fields_of_request() -> list[str]:
    """Return the names of the fields of `PlanRequest` that users can set by command-line options."""
    return [declared.field for declared in options_of(PlanRequest).values()]


def _reference(model: Model, registry: Registry) -> str:
    """Return the value of the option `--model` for a model: its name, its folder, or its hub id with the revision."""
    declared = registry.models.get(model.name)
    if declared is not None and declared.value.checkpoint == model.checkpoint:
        return model.name
    if isinstance(model.checkpoint, Path):
        return str(model.checkpoint)
    return f"{model.checkpoint}@{model.revision}" if model.revision else model.checkpoint


def rebuild_run(spec: RunSpec, source: Source, registry: Registry, cache: PlanCache) -> PlannedRun:
    """Plan a run again from its specification, and load its inputs.

    Args:
        spec: The run's specification, as the main process planned it.
        source: The names, paths and settings from `source_of`.
        registry: The declarations of the plugins in this process.
        cache: A cache of loaded data and checkpoints, for later runs in this process.

    Raises:
        WorkerMismatchError: The data, model or plugins of this process give a different fingerprint.
        AlueBenchError: This process cannot find the data, the model or the plugins, as in `build_plan`.
    """
    from_spec = {field: getattr(spec, field) for field in _fields_of_request() if hasattr(spec, field)}
    narrowed = {"tasks": (spec.task,), "models": (source.model,), "strategies": (spec.strategy,), "seeds": (spec.seed,)}
    overrides = (("the plan", asdict(spec.hyper)),)
    request = PlanRequest(**{**source.options, **from_spec, **narrowed}, overrides=overrides, fold=spec.fold)
    plan = build_plan(request, registry, cache)
    if not plan.runs:
        raise UsageError("; ".join(skipped.reason for skipped in plan.skipped))
    (planned,) = plan.runs
    # If two model folders of a plan have the same name, the plan adds a suffix to it.
    here = replace(planned.spec, model=spec.model)
    if here.fingerprint != spec.fingerprint or here.scored_elsewhere != spec.scored_elsewhere:
        raise WorkerMismatchError(f"the worker and the plan differ in {_difference(spec, here)} for {spec.label}")
    # The worker's request contains the number format that the main process has chosen. If the model cannot compute in
    # the format that the user requested, only the notes of the main process say so; they are therefore used.
    capabilities = replace(planned.inputs.capabilities, notes=source.notes)
    inputs = replace(planned.inputs, model=replace(planned.inputs.model, name=spec.model), capabilities=capabilities)
    inputs.depths.depths.update(source.depths)
    inputs.depths.shared.update(source.shared_depths)
    if (inputs.checkpoint, inputs.train_task.labels) not in cache.more_expected:
        # The next assignment probably begins with the same model, which is therefore kept loaded.
        cache.more_expected.append((inputs.checkpoint, inputs.train_task.labels))
        cache.models.expect(inputs.checkpoint, inputs.train_task.labels)
    return PlannedRun(spec, inputs, planned.hyper, planned.request, source.tags)


def _difference(spec: RunSpec, rebuilt: RunSpec) -> str:
    wanted, actual = spec.as_dict(), rebuilt.as_dict()
    digests = ("fingerprint", "training_key")
    names = [name for name in wanted if wanted[name] != actual.get(name) and name not in digests]
    return " and ".join(names) or "the fingerprint"
