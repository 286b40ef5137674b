"""A benchmark of strategies that freeze layers of pre-trained text encoders: which layers should be fine-tuned?

    import alue_bench

    results = alue_bench.run(tasks=["oold"], models=["mini"], strategies=["full", "bottom3top4"], epochs=1)
    results.frame()                                          # a data frame with one row for each run

This module holds the functions for scripts and notebooks, and the classes and functions that plugins import. Importing
it loads neither torch nor transformers nor mlflow; the functions load them when they are called.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alue_bench.contract.answers import SquadJson
from alue_bench.contract.cells import cell_name, read_cell
from alue_bench.contract.errors import AlueBenchError, DataError, DoesNotFit, UnavailableError, UsageError
from alue_bench.contract.executor import Executor
from alue_bench.contract.formats import Answers, BadRow, Delimited, Example, Reader
from alue_bench.contract.hookspecs import hookimpl
from alue_bench.contract.matched_compute import matched_limit, matched_name
from alue_bench.contract.model import Model
from alue_bench.contract.probe import Choice, Probe, ProbeCost
from alue_bench.contract.strategy import (
    Adapter,
    BlockNorms,
    ComputeLimit,
    EncoderShape,
    FreezePlan,
    MatrixChanges,
    Revisions,
    Strategy,
    StrategyFamily,
    TrainingProgress,
)
from alue_bench.contract.tables import Table
from alue_bench.contract.tagged import TaggedColumns, TaggedJson
from alue_bench.contract.task import DataFile, HeldOut, Labels, Splits, Submission, TargetKind, Task
from alue_bench.contract.task_file import read_task_file
from alue_bench.contract.version import __version__

if TYPE_CHECKING:
    from alue_bench.api.functions import compare, fit, report, run, search, sweep
    from alue_bench.deployment.kept_model import load

__all__ = [
    "Adapter",
    "AlueBenchError",
    "Answers",
    "BadRow",
    "BlockNorms",
    "Choice",
    "ComputeLimit",
    "DataError",
    "DataFile",
    "Delimited",
    "DoesNotFit",
    "EncoderShape",
    "Example",
    "Executor",
    "FreezePlan",
    "HeldOut",
    "Labels",
    "MatrixChanges",
    "Model",
    "Probe",
    "ProbeCost",
    "Reader",
    "Revisions",
    "Splits",
    "SquadJson",
    "Strategy",
    "StrategyFamily",
    "Submission",
    "Table",
    "TaggedColumns",
    "TaggedJson",
    "TargetKind",
    "Task",
    "TrainingProgress",
    "UnavailableError",
    "UsageError",
    "__version__",
    "cell_name",
    "compare",
    "fit",
    "hookimpl",
    "load",
    "matched_limit",
    "matched_name",
    "read_cell",
    "read_task_file",
    "report",
    "run",
    "search",
    "sweep",
]

_LAZY_FUNCTION_MODULES = {
    **dict.fromkeys(("compare", "fit", "report", "run", "search", "sweep"), "alue_bench.api.functions"),
    "load": "alue_bench.deployment.kept_model",
}
"""The module that defines each function for scripts and notebooks, by function name. These modules import many other
modules. Therefore, each is imported only when one of its functions is first accessed."""


def __getattr__(name: str) -> Any:
    """Import the module of a function named in `_LAZY_FUNCTION_MODULES`, and return the function."""
    if name in _LAZY_FUNCTION_MODULES:
        return getattr(import_module(_LAZY_FUNCTION_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names in this module, including the functions whose modules are not imported yet."""
    return sorted({*globals(), *_LAZY_FUNCTION_MODULES})
