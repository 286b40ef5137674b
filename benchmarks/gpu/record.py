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
"""The key in the file under which the FLOP/s of a large matrix product are stored, by number format."""
DONE, PARTLY, NOT_DONE = "done", "partly done", "not done"


def common_settings(device: str, *, tiny: bool) -> dict[str, Any]:
    """Return the settings that results must have in common to be comparable.

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
    """The file of results. Its attribute `items` has an entry for each measurement, by the measurement's name.

    An entry has these fields:

    - `state`: "done", "partly done" (time ran out), or "not done";
    - `why`: the reason if the measurement is not done, or is only partly done;
    - `results`: a list of results, one for each training;
    - `problems`: the reasons why arms (ways of training) could not be measured, by the arm's name;
    - `running`: the arm that is being trained, the time when its training began, and the time limit; present only while
      a process trains an arm, or after such a process was killed.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], command: str) -> None:
        """Read the results in the folder, if there are any.

        Raises:
            UsageError: The results in the folder were made with other settings than `settings`.
        """
        explained = {"code": f"code, that is {' or '.join(SOURCES)}", "sizes": "--tiny"}
        super().__init__(
            folder / FILE, BENCHMARK, settings, command, instead="another --out folder", explained=explained
        )
        self.items: dict[str, dict[str, Any]] = self.content.setdefault("items", {})

    def entry(self, item: Item) -> dict[str, Any]:
        """Return the entry of a measurement in `items`; create it if there is none."""
        empty: dict[str, Any] = {"state": NOT_DONE, "results": [], "problems": {}}
        return self.items.setdefault(item.name, empty)

    def has(self, item: Item, arm: str, repetition: int) -> bool:
        """Return whether the file has a result for this measurement, arm (way of training) and repetition."""
        results = self.entry(item)["results"]
        return any(result["arm"] == arm and result.get("repetition", 1) == repetition for result in results)

    def begin(self, item: Item, arm: str, limit_s: float) -> None:
        """Record that the training of an arm (way of training) begins, with the seconds after which it is given up."""
        self.entry(item)["running"] = {"arm": arm, "since": time.time(), "limit_s": limit_s}
        self.write()

    def add(self, item: Item, result: Any) -> None:
        """Add the result of the training recorded by `begin`; a result is a dataclass with the field `arm`."""
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
        """Remove the problems and unfinished training runs of an earlier command, so that they are repeated."""
        for entry in self.items.values():
            if entry["problems"]:
                entry["state"], entry["problems"] = NOT_DONE, {}
            entry.pop("running", None)

    def running(self) -> tuple[str, dict[str, Any]] | None:
        """Return the name and the field `running` of the measurement that is being made; None if none is being made."""
        return next(((name, entry["running"]) for name, entry in self.items.items() if "running" in entry), None)


def written(folder: Path, command: str) -> Record:
    """Read the results in a folder, without checking that they have the settings of this process.

    Such a check would access the GPU, which on some machines only one process at a time can use.

    Args:
        folder: The folder.
        command: The command line to show in the report.

    Raises:
        TrainingError: There is no file of results.
    """
    file = folder / FILE
    if not file.exists():
        raise TrainingError("no process came as far as writing results: its last lines say why, or give more --minutes")
    return Record(folder, json.loads(file.read_text("utf-8"))["settings"], command)
