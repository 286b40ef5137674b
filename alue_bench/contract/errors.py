"""The errors that a user can cause or repair, distinguished by what the user must do about them.

The command line prints the message of an `AlueBenchError` as one sentence, without a traceback, and exits with code 2.
A message therefore says what is wrong, where (file:line, plugin, option), and what to do.
"""


class AlueBenchError(Exception):
    """The base class of all errors whose message is meant for the user."""


class UsageError(AlueBenchError):
    """An error in the command line, the study file or an environment variable, which the user must correct."""


class DataError(AlueBenchError):
    """An error in a task's data: the user must repair, add or drop rows or files."""


class PluginError(AlueBenchError):
    """An error in a plugin, which the user must repair, update, uninstall or disable."""


class UnavailableError(AlueBenchError):
    """An error about a resource outside the program that is missing, does not answer or cannot be written.

    Such resources are the hub, an MLflow tracking server, a folder and an optional package.
    """


class StoreUnavailableError(UnavailableError):
    """The error that the MLflow tracking store stopped answering while runs were executed.

    If the user gives the same command again, it continues with the runs that are left.
    """


class DeviceLostError(UnavailableError):
    """The error that this process can no longer use its GPU, whereas a new process can; recorded results stay valid."""


class DoesNotFit(AlueBenchError):
    """The error that a strategy cannot be applied to a model. The run is skipped, with the message as the reason."""


class TrainingError(AlueBenchError):
    """The error that a run cannot continue, for example because its loss is not finite; the other runs continue."""


class NonFiniteLossError(TrainingError):
    """The error that the loss became infinite or NaN. If the run used fp16 or bf16, a wider number format may help."""
