"""The arms of a measurement: combinations of program, strategy and settings whose training times are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from benchmarks.gpu.sizes import BATCH_SIZE, MODEL

ENGINE = "engine"
GLUE, BEST, WORKERS, COMPILED = "trainer-glue", "trainer-best", "trainer-workers", "trainer-compiled"
WAYS: Mapping[str, str] = {
    ENGINE: "alue-bench",
    GLUE: "Trainer as transformers' example for GLUE configures it: fp32, texts padded to 128 tokens, random order",
    BEST: "Trainer in bf16 with batches of similar length, without the check of each loss for NaN",
    WORKERS: "the same, with two processes that load data",
    COMPILED: "the same as trainer-best, with torch.compile",
}
"""The ways of training (program and configuration), with their descriptions in reports. All of them use fused AdamW and
clip gradients at norm 1."""


@dataclass(frozen=True)
class Arm:
    """An arm of a measurement: a way of training, a strategy and settings, on random data.

    The data have the text lengths and the number of labels of a task (see `TaskSize`).
    """

    way: str = ENGINE
    strategy: str = "full"
    precision: str = "bf16"
    graphs: str = "auto"
    """The use of CUDA graphs by our engine: "on", "off", or "auto" to use them if they are faster."""
    cached: bool = True
    """True if our engine computes the output of the frozen bottom layers once and caches it; False if it computes the
    output at every step."""
    task: str = "oold"
    model: str = MODEL
    batch_size: int = BATCH_SIZE

    @property
    def name(self) -> str:
        """The arm's name: way of training, strategy, number format, and all settings that differ from the defaults."""
        words = [self.way, self.strategy, self.precision]
        words += [f"graphs {self.graphs}"] if self.graphs != "auto" else []
        words += [] if self.cached else ["uncached"]
        words += [str(value) for name, value in asdict(self).items() if name in NAMED and value != DEFAULTS[name]]
        return " ".join(words)

    @property
    def padded_to_maximum(self) -> bool:
        """True if every text is padded to the maximal length."""
        return self.way.endswith("-glue")

    @property
    def compiled(self) -> bool:
        """True if torch.compile compiles the model."""
        return self.way.endswith("-compiled")

    def without_accelerate(self) -> Arm:
        """Return this arm with a plain training loop in place of `Trainer`; an arm of our engine stays unchanged.

        Unlike `Trainer`, the loop does not need the package accelerate.
        """
        return replace(self, way=self.way.replace("trainer-", "loop-"))


NAMED = ("task", "model", "batch_size")
"""The fields whose values become part of the arm's name if they differ from the defaults."""
DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(Arm)}


def glue(**other: Any) -> Arm:
    """Return an arm that trains by `Trainer` as in transformers' GLUE example; `other` are other fields of `Arm`."""
    return Arm(GLUE, precision="fp32", **other)


def best(**other: Any) -> Arm:
    """Return an arm that trains by `Trainer` in the way "trainer-best"; `other` are other fields of `Arm`."""
    return Arm(BEST, **other)
