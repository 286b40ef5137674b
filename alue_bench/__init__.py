"""alue-bench: which layers should I train?

This module is what a plugin author imports. It loads neither torch nor transformers nor mlflow: what needs them is
imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alue_bench.contract.cells import cell_name, read_cell
from alue_bench.contract.errors import AlueBenchError, DataError, DoesNotFit, UnavailableError, UsageError
from alue_bench.contract.executor import Executor
from alue_bench.contract.formats import BadRow, Delimited, Example, Reader
from alue_bench.contract.hookspecs import hookimpl
from alue_bench.contract.model import Model
from alue_bench.contract.strategy import (
    Adapter,
    BlockNorms,
    EncoderShape,
    FreezePlan,
    Revisions,
    Strategy,
    StrategyFamily,
    TrainingProgress,
)
from alue_bench.contract.tables import Table
from alue_bench.contract.task import DataFile, HeldOut, Labels, Splits, Submission, TargetKind, Task
from alue_bench.contract.task_file import read_task_file

if TYPE_CHECKING:
    from alue_bench.deployment.kept_model import load

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "AlueBenchError",
    "BadRow",
    "BlockNorms",
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
    "Model",
    "Reader",
    "Revisions",
    "Splits",
    "Strategy",
    "StrategyFamily",
    "Submission",
    "Table",
    "TargetKind",
    "Task",
    "TrainingProgress",
    "UnavailableError",
    "UsageError",
    "__version__",
    "cell_name",
    "hookimpl",
    "load",
    "read_cell",
    "read_task_file",
]

_ON_DEMAND = {"load": "alue_bench.deployment.kept_model"}
"""The modules of the names that are imported when they are asked for."""


def __getattr__(name: str) -> Any:
    """Import a name that is not loaded with the package."""
    if name in _ON_DEMAND:
        return getattr(import_module(_ON_DEMAND[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
