"""The file of results of the GPU benchmark.

The file is written after each training, so that a kill loses at most one training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import digest_of
from benchmarks.gpu.catalogue import Item
from benchmarks.ledger import Ledger
from benchmarks.machine import hardware
from benchmarks.processes import REPOSITORY

BENCHMARK = "gpu"
FILE, PAGE = "measurements.json", "report.md"
SOURCES = ("alue_bench/training/**/*.py", "benchmarks/gpu/*.py", "benchmarks/timing/*.py")
LIBRARIES = ("torch", "transformers", "accelerate", "numpy")
ATTAINABLE = "attainable_flops_per_s"
"""The key of the results entry that holds the FLOP/s of a large matrix product, by number format."""
DONE, PARTLY, NOT_DONE = "done", "partly done", "not done"


def common_settings(device: str, *, tiny: bool) -> dict[str, Any]:
    """Return the settings that must be equal for results to be comparable.

    Args:
        device: The name of the device.
        tiny: Whether tiny sizes are used, which are only for trying the benchmark.
    """
    import torch

    from benchmarks.timing.measurements import _version

    versions = {name: _version(name) for name in LIBRARIES}
    sources = [path for pattern in SOURCES for path in sorted(REPOSITORY.glob(pattern))]
    return {
        "hardware": hardware(device),
        "libraries": {**versions, "cuda": torch.version.cuda, "hip": getattr(torch.version, "hip", None)},
        "sizes": "tiny" if tiny else "BERT-base",
        "code": digest_of([path.read_text("utf-8") for path in sources])[:12],
    }


class Record(Ledger):
    """The file of results, in which `items` has an entry for each measurement, by name.

    An entry has these fields:

    - `state`: "done", "partly done" (time ran out), or "not done";
    - `why`: the reason if it is not done;
    - `results`: a list of results, one for each training;
    - `problems`: the reason why an arm (way of training) could not be measured, by its name;
    - `running`: the arm that is being trained and the time when it began, if a process is at work or was killed.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], command: str) -> None:
        """Read the results in the folder, if there are any.

        Raises:
            UsageError: The results were made with other settings.
        """
        explained = {"code": f"code, that is {' or '.join(SOURCES)}", "sizes": "--tiny"}
        super().__init__(
            folder / FILE, BENCHMARK, settings, command, instead="another --out folder", explained=explained
        )
        self.items: dict[str, dict[str, Any]] = self.content.setdefault("items", {})

    def entry(self, item: Item) -> dict[str, Any]:
        """Return the results entry of a measurement; create it if there is none."""
        empty: dict[str, Any] = {"state": NOT_DONE, "results": [], "problems": {}}
        return self.items.setdefault(item.name, empty)

    def has(self, item: Item, arm: str, repetition: int) -> bool:
        """Return whether the file has a result for this measurement, arm (way of training) and repetition."""
        results = self.entry(item)["results"]
        return any(result["arm"] == arm and result.get("repetition", 1) == repetition for result in results)

    def begin(self, item: Item, arm: str, limit_s: float) -> None:
        """Record that a training of an arm (way of training) begins, and after how many seconds it is given up."""
        self.entry(item)["running"] = {"arm": arm, "since": time.time(), "limit_s": limit_s}
        self.write()

    def add(self, item: Item, result: Any) -> None:
        """Add the result of the arm (way of training) that was begun; a result is a dataclass with the field `arm`."""
        entry = self.entry(item)
        entry["results"].append(asdict(result))
        entry.pop("running", None)
        self.write()

    def give_up(self, item: Item, arm: str, why: str) -> None:
        """Record why an arm (way of training) cannot be measured; it is left out of further repetitions."""
        entry = self.entry(item)
        entry["problems"][arm] = why
        entry.pop("running", None)
        self.write()

    def finish(self, item: Item, state: str, why: str = "") -> None:
        """Record the state of a measurement, such as "done", and the reason if it is not done."""
        entry = self.entry(item)
        entry["state"], entry["why"] = state, why
        self.write()

    @property
    def hardware(self) -> Mapping[str, Any]:
        """The description of the hardware on which the results were measured."""
        settings: Mapping[str, Any] = self.head["settings"]
        return dict(settings["hardware"])

    @property
    def tiny(self) -> bool:
        """True if tiny sizes were used, which are only for trying the benchmark; the times then mean nothing."""
        return bool(self.head["settings"]["sizes"] == "tiny")

    def forget_problems(self) -> None:
        """Remove the problems and unfinished trainings of an earlier command, so that missing ones are tried again."""
        for entry in self.items.values():
            if entry["problems"]:
                entry["state"], entry["problems"] = NOT_DONE, {}
            entry.pop("running", None)

    def running(self) -> tuple[str, dict[str, Any]] | None:
        """Return the name of the measurement that is being made and its entry `running`; None if none is being made."""
        return next(((name, entry["running"]) for name, entry in self.items.items() if "running" in entry), None)


def written(folder: Path, command: str) -> Record:
    """Return the results in a folder, without a check of the settings under which they were measured.

    The GPU is not accessed, because on some machines only one process at a time can use it.

    Args:
        folder: The folder.
        command: The command line to show in the report.

    Raises:
        TrainingError: There are no results.
    """
    file = folder / FILE
    if not file.exists():
        raise TrainingError("no process came as far as writing results: its last lines say why, or give more --minutes")
    return Record(folder, json.loads(file.read_text("utf-8"))["settings"], command)
