"""The command that does a recorded run again: its task, model, strategy, seeds and hyper-parameters."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

from alue_bench.contract.options import options_of as declared_options
from alue_bench.contract.registry import Registry
from alue_bench.contract.spec import HyperParameters

COLUMNS = ("epochs", "batch_size", "lr", "max_length")
"""Hyper-parameters that have a column of their own in a frame of results."""


def options_of(run: Mapping[Hashable, Any], registry: Registry) -> dict[str, object]:
    """Return the options of `alue-bench run` that do a run again on whichever data there are now.

    Limits are left out: they are a rehearsal's. So are device and number format, which are the machine's.

    Args:
        run: a row of a frame of results.
        registry: what the plugins declare now, by which models are named.
    """
    options: dict[str, object] = {
        "task": run["task"],
        "model": model_reference(run, registry),
        "strategy": run["strategy"],
        "seed": run["seed"],
    }
    options |= {name: run[name] for name in ("init_seed", "data_seed") if run[name] != run["seed"]}
    options |= {name: run[name] for name in COLUMNS if run[name] == run[name] and run[name] is not None}
    general = declared_options(HyperParameters)
    for name, value in _others(run).items():
        if name in general:
            options[name] = value
        if name == "keep_head" and value:
            options[name] = True
    return options


def model_reference(run: Mapping[Hashable, Any], registry: Registry) -> str:
    """Return a run's model as --model takes it: by name where a plugin declares it, else its folder or hub id.

    Runs that older versions recorded do not tell where a model of no plugin came from; then its name is all there is.
    """
    name = str(run["model"])
    recorded = run.get("model_checkpoint")
    if name in registry.models or not isinstance(recorded, str):
        return name
    return recorded


def _others(run: Mapping[Hashable, Any]) -> dict[str, Any]:
    """Hyper-parameters that are recorded together, as JSON."""
    recorded = run.get("other_hyper")
    try:
        found = json.loads(recorded) if isinstance(recorded, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
