"""The options of the command that repeats a recorded run: task, model, strategy, seeds and hyper-parameters."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

from alue_bench.contract.options import options_of as declared_options
from alue_bench.contract.registry import Registry
from alue_bench.contract.spec import HyperParameters

COLUMNS = ("epochs", "batch_size", "lr", "max_length")
"""The hyper-parameters that have their own columns in `Results.frame`. All others are in the column `other_hyper`."""


def options_of(run: Mapping[Hashable, Any], registry: Registry) -> dict[str, object]:
    """Return the options with which `alue-bench run` repeats a recorded run on this machine, as values by option name.

    Limits on the number of examples are left out, since they are meant for quick trials only. Device and number format
    are left out because they depend on the machine. The options never select a fold of a cross-validation, since a
    single fold cannot be run alone.

    Args:
        run: A row of `Results.frame`.
        registry: The declarations of the installed plugins, in which the name of the run's model is looked up.
    """
    options: dict[str, object] = {
        **task_options(run),
        "model": model_reference(run, registry),
        "strategy": run["strategy"],
        "seed": run["seed"],
    }
    options |= {name: run[name] for name in ("init_seed", "data_seed") if run[name] != run["seed"]}
    options |= {name: run[name] for name in COLUMNS if run[name] == run[name] and run[name] is not None}
    general = declared_options(HyperParameters)
    for name, value in other_settings(run.get("other_hyper")).items():
        if name in general:
            options[name] = value
        if name == "keep_head" and value:
            options[name] = True
    return options


def task_options(run: Mapping[Hashable, Any]) -> dict[str, object]:
    """Return the options of `alue-bench run` that select a recorded run's task, by its name or its file.

    Args:
        run: A row of `Results.frame`.
    """
    recorded = run.get("task_options")
    if not isinstance(recorded, str):
        return {"task": run["task"]}
    try:
        options = json.loads(recorded)
    except ValueError:
        return {"task": run["task"]}
    return options if isinstance(options, dict) else {"task": run["task"]}


def row_options(run: Mapping[Hashable, Any]) -> dict[str, object]:
    """Return the options that select a recorded run's rows, such as limit_train; empty if they were not recorded.

    Args:
        run: A row of `Results.frame`.
    """
    recorded = run.get("row_options")
    try:
        options = json.loads(recorded) if isinstance(recorded, str) else {}
    except ValueError:
        return {}
    return options if isinstance(options, dict) else {}


def model_reference(run: Mapping[Hashable, Any], registry: Registry) -> str:
    """Return the value of the option --model for a recorded run's model.

    It is the model's name if a plugin declares a model of this name, otherwise the folder or hub id of the checkpoint.

    Older versions of alue-bench did not record the folder or hub id. For runs of these versions, the name is returned
    even if no plugin declares the model.
    """
    name = str(run["model"])
    recorded = run.get("model_checkpoint")
    if name in registry.models or not isinstance(recorded, str):
        return name
    return recorded


def other_settings(recorded: object) -> dict[str, Any]:
    """Return the hyper-parameters in a JSON text of the column `other_hyper`; empty if it is missing or unreadable."""
    try:
        others = json.loads(recorded) if isinstance(recorded, str) else {}
    except ValueError:
        return {}
    return others if isinstance(others, dict) else {}


def without_setting(recorded: Any, name: str) -> Any:
    """Return a JSON text of the column `other_hyper` without the hyper-parameter `name`.

    A text that does not contain the hyper-parameter, and a missing text, are returned unchanged.
    """
    others = other_settings(recorded)
    if name not in others:
        return recorded
    return json.dumps({key: value for key, value in others.items() if key != name}, sort_keys=True)
