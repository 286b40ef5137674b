"""What a run's names stand for, found again in another process: names travel, rows and weights do not.

The worker plans the one run anew from its spec, and goes on only where that has the fingerprint that was asked for.
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


class DiffersHere(AlueBenchError):
    """The worker's data, model or plugins are not those of the plan."""


NARROWED = ("tasks", "models", "strategies", "seeds", "skip_missing")
"""The fields of a plan's request that are about many runs: a worker plans one."""


def source_of(planned: PlannedRun, registry: Registry) -> Source:
    """Return what `rebuilt` needs besides the spec."""
    inputs = planned.inputs
    folders = {rows.folder for rows in (inputs.rows, inputs.train_rows)}
    kinds = {folder.kind for folder in folders}
    # Of a pair of tasks, one may be the sample: then the search for files is made again as it was made here.
    data_dir = next(iter(folders)).path.absolute() if kinds == {"real"} and len(folders) == 1 else None
    carried = {
        field: getattr(planned.request, field)
        for field in _fields_of_request()
        if field not in NARROWED and not hasattr(planned.spec, field)
    }
    return Source(
        model=_reference(inputs.model, registry),
        options={**carried, "data_dir": data_dir, "sample": kinds == {"sample"}},
        depths=tuple(sorted(inputs.depths.depths)),
        tags=dict(planned.tags),
        notes=inputs.trial.notes,
    )


def _fields_of_request() -> list[str]:
    """Return the names of the fields of a request that are options."""
    return [declared.field for declared in options_of(PlanRequest).values()]


def _reference(model: Model, registry: Registry) -> str:
    """As for --model."""
    declared = registry.models.get(model.name)
    if declared is not None and declared.value.checkpoint == model.checkpoint:
        return model.name
    if isinstance(model.checkpoint, Path):
        return str(model.checkpoint)
    return f"{model.checkpoint}@{model.revision}" if model.revision else model.checkpoint


def rebuilt(spec: RunSpec, source: Source, registry: Registry, shelf: PlanCache) -> PlannedRun:
    """The planned run with its inputs. `shelf` keeps rows and checkpoints for the next one.

    Raises DiffersHere where this process finds something else than the one that made the plan, and what `build_plan`
    raises where it finds nothing.
    """
    told_by_spec = {field: getattr(spec, field) for field in _fields_of_request() if hasattr(spec, field)}
    narrowed = {"tasks": (spec.task,), "models": (source.model,), "strategies": (spec.strategy,), "seeds": (spec.seed,)}
    overrides = (("the plan", asdict(spec.hyper)),)
    request = PlanRequest(**{**source.options, **told_by_spec, **narrowed}, overrides=overrides)
    plan = build_plan(request, registry, shelf)
    if not plan.runs:
        raise UsageError("; ".join(skipped.reason for skipped in plan.skipped))
    (found,) = plan.runs
    here = replace(found.spec, model=spec.model)  # two folders of one name have a suffix in a plan with both
    if here.fingerprint != spec.fingerprint:
        raise DiffersHere(f"the worker finds another {_difference(spec, here)} than the plan has for {spec.label}")
    # The number format is that of the plan here: that the model cannot compute in the one asked for is known there.
    trial = replace(found.inputs.trial, notes=source.notes)
    inputs = replace(found.inputs, model=replace(found.inputs.model, name=spec.model), trial=trial)
    inputs.depths.depths.update(source.depths)
    if (inputs.checkpoint, inputs.train_task.labels) not in shelf.more_expected:
        # The next assignment is likely to begin with the same model: it is kept from one to the next.
        shelf.more_expected.append((inputs.checkpoint, inputs.train_task.labels))
        shelf.models.expect(inputs.checkpoint, inputs.train_task.labels)
    return PlannedRun(spec, inputs, found.hyper, found.request, source.tags)


def _difference(spec: RunSpec, here: RunSpec) -> str:
    wanted, found = spec.as_dict(), here.as_dict()
    names = [name for name in wanted if wanted[name] != found.get(name) and name not in ("fingerprint", "training_key")]
    return " and ".join(names) or "run"
