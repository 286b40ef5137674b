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
    """A resource outside the program is missing, does not answer or cannot be written.

    Examples are the hub, a tracking server, a folder and an optional package.
    """


class StoreUnavailableError(UnavailableError):
    """The tracking store stopped answering in the middle of a plan; the same command continues where it stopped."""


class DeviceLostError(UnavailableError):
    """This process can no longer use its GPU, but a new process can; recorded results stay valid."""


class DoesNotFit(AlueBenchError):
    """A strategy cannot be applied to a model; the plan skips the run and shows the message as the reason."""


class TrainingError(AlueBenchError):
    """A run cannot continue, for example because its loss is not finite; the run fails and the plan continues."""


class NonFiniteLossError(TrainingError):
    """The loss became infinite or NaN; if the run used fp16 or bf16, a wider number format may help."""
