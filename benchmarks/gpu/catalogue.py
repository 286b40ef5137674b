"""The list of measurements of the GPU benchmark, the most useful first, with their estimated times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from alue_bench.contract.errors import UsageError
from benchmarks.gpu.arms import BEST, COMPILED, ENGINE, WORKERS, Arm, best, glue
from benchmarks.gpu.sizes import TASKS, VOCABULARIES, Scale

Kind = Literal["checks", "steps", "whole", "kernels"]
FROZEN = "bottom3top4"
SWEEP_CELLS = ("full", FROZEN, "bottom6", "top4", "bottom6top3", "bottom9", "head-only")
"""The strategies of a sweep that are timed; the times of its other strategies are extrapolated from these."""

SETUP_S, COMPILE_S, CHECKS_S = 2.0, 100.0, 60.0
"""The estimated seconds of the preparation of a training, of torch.compile, and of all device checks."""
STEP_S = {"engine": 0.007, "trainer": 0.025, "trainer-glue": 0.05, "loop": 0.02, "loop-glue": 0.05}
"""The estimated seconds of a training step of BERT-base on an H200. A key is a way of training, or the part of its name
before the hyphen; the whole name has precedence. The seconds of "trainer" and "loop" are for bf16, and doubled for
fp32."""
PROFILED_EPOCH = 60
"""The largest number of steps in each of the two epochs of a training whose kernels are counted."""
ON_A_CPU_S = 0.3
"""The estimated seconds of a training with tiny sizes on a CPU."""


@dataclass(frozen=True)
class Item:
    """A measurement in the list: a comparison of training times, or another kind of work such as checks."""

    name: str
    question: str
    arms: tuple[Arm, ...] = ()
    """The arms (ways of training) that are compared; times are shown relative to those of the first one."""
    kind: Kind = "steps"
    """The kind of work: "checks" to check the device, "steps" to time training steps, "whole" to time training runs of
    real length, or "kernels" to count kernels per step."""
    repetitions: int = 5
    """The number of rounds, in each of which every arm is trained once."""

    def estimate(self, scale: Scale, *, accelerated: bool) -> float:
        """Return the estimated seconds of the measurement.

        Args:
            scale: The size of the model and the number of steps.
            accelerated: True for the seconds on an H200, False for the seconds of tiny sizes on a CPU.
        """
        if self.kind == "checks":
            return CHECKS_S if accelerated else 10 * ON_A_CPU_S
        repetitions = min(self.repetitions, scale.repetitions)
        if not accelerated:
            return ON_A_CPU_S * len(self.arms) * repetitions
        once = sum(SETUP_S + _steps(arm, self.kind, scale) * _step_s(arm) for arm in self.arms)
        compiling = sum(COMPILE_S for arm in self.arms if arm.compiled)
        return once * (1 if self.kind == "kernels" else repetitions) + compiling


def _steps(arm: Arm, kind: Kind, scale: Scale) -> int:
    """Return the number of training steps that an arm (way of training) takes, including steps that are not timed."""
    if kind == "kernels":
        return 2 * PROFILED_EPOCH
    if kind == "whole":
        return scale.whole_epochs * (scale.whole_rows or TASKS[arm.task].rows) // arm.batch_size
    return 2 * scale.steps_of(arm.way)


def _step_s(arm: Arm) -> float:
    """Return the estimated seconds of a training step of an arm (way of training)."""
    return STEP_S.get(arm.way) or STEP_S[arm.way.partition("-")[0]] * (1 if arm.precision == "bf16" else 2)


def catalogue(*, can_record: bool, can_compile: bool, accelerate: bool) -> list[Item]:
    """Return the list of measurements that this machine can make.

    Args:
        can_record: Whether the device supports CUDA graphs; otherwise arms with CUDA graphs are left out.
        can_compile: Whether to measure torch.compile; on a CPU it takes minutes.
        accelerate: Whether the package accelerate is installed; otherwise a plain loop takes the place of `Trainer`.
    """

    def possible(arm: Arm) -> bool:
        return (can_record or arm.graphs != "on") and (can_compile or arm.way != COMPILED)

    def runnable(arm: Arm) -> Arm:
        return arm if accelerate else arm.without_accelerate()

    return [replace(item, arms=tuple(runnable(arm) for arm in item.arms if possible(arm))) for item in ALL]


def chosen(items: Iterable[Item], names: Iterable[str] | None) -> list[Item]:
    """Return the measurements with these names, in the order of `items`.

    Args:
        items: All measurements.
        names: The names; None or an empty list chooses all measurements.

    Raises:
        UsageError: There is no measurement with one of the names.
    """
    by_name = {item.name: item for item in items}
    if unknown := [name for name in names or () if name not in by_name]:
        raise UsageError(f"--only {unknown[0]}: there is no such measurement; they are {', '.join(by_name)}")
    return [item for name, item in by_name.items() if not names or name in set(names)]


def _of_task(task: str) -> tuple[Arm, ...]:
    """Return the arms that are compared at the text lengths of a task."""
    return (
        Arm(task=task),
        best(task=task),
        glue(task=task),
        Arm(strategy=FROZEN, task=task),
        best(strategy=FROZEN, task=task),
    )


ALL = (
    Item("checks", "Does this device compute what it should?", kind="checks"),
    Item("full", "How fast is full fine-tuning, against Trainer, at OOLD's lengths?", (Arm(), best(), glue())),
    Item(
        "frozen",
        "How much faster are frozen layers, and what does the cache contribute?",
        (
            Arm(),
            Arm(strategy=FROZEN),
            Arm(strategy=FROZEN, cached=False),
            Arm(strategy="head-only"),
            best(strategy=FROZEN),
        ),
        repetitions=3,
    ),
    Item(
        "whole",
        "How long does a whole training on OOLD take, prefixes included?",
        (Arm(), Arm(strategy=FROZEN)),
        kind="whole",
        repetitions=2,
    ),
    Item(
        "kernels",
        "How many kernels does a step launch?",
        (
            *(Arm(strategy=strategy, graphs="off") for strategy in ("full", FROZEN, "head-only")),
            *(Arm(strategy=strategy, graphs="on") for strategy in ("full", FROZEN)),
            best(),
        ),
        kind="kernels",
        repetitions=1,
    ),
    Item(
        "graphs",
        "What do CUDA graphs contribute?",
        tuple(Arm(strategy=strategy, graphs=graphs) for strategy in ("full", FROZEN) for graphs in ("off", "on")),
        repetitions=3,
    ),
    Item("mdd", "How fast at MDD's lengths?", _of_task("mdd"), repetitions=3),
    Item("xnli", "How fast at XNLI's lengths?", _of_task("xnli"), repetitions=3),
    Item(
        "trainer",
        "Which settings of Trainer are the fastest?",
        (Arm(), best(), Arm(WORKERS), Arm(COMPILED)),
        repetitions=2,
    ),
    Item(
        "precision",
        "What does the number format contribute?",
        (Arm(), Arm(precision="fp32"), best(), best(precision="fp32")),
        repetitions=3,
    ),
    Item(
        "sweep",
        "How long would a sweep of 91 cells on MDD take (extrapolated)?",
        tuple(Arm(way, strategy=cell, task="mdd") for cell in SWEEP_CELLS for way in (ENGINE, BEST)),
        repetitions=2,
    ),
    Item(
        "models",
        "How fast are the four models, which differ in vocabulary?",
        tuple(Arm(way, model=model) for model in VOCABULARIES for way in (ENGINE, BEST)),
        repetitions=3,
    ),
    Item("batches-of-16", "How fast at ALUE's batch size?", (Arm(batch_size=16), best(batch_size=16)), repetitions=3),
)
"""All measurements of the benchmark, the most useful first."""
