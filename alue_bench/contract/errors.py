"""Every error that a user can cause or mend, told apart by what the user must do about it.

The command line prints the message of an `AlueBenchError` as one sentence, without a traceback, and exits with 2.
So a message names what is wrong, where (file:line, plugin, option), and what to do.
"""


class AlueBenchError(Exception):
    """Base of all errors whose message is meant for the user."""


class UsageError(AlueBenchError):
    """Mend the command line, the study file or an environment variable."""


class DataError(AlueBenchError):
    """Mend, add or drop rows or files of a task's data."""


class PluginError(AlueBenchError):
    """Mend, update, uninstall or disable a plugin."""


class UnavailableError(AlueBenchError):
    """Something outside does not answer or may not be written: a hub, a tracking server, a folder, a package."""


class StoreUnavailableError(UnavailableError):
    """The tracking store stopped answering in the middle of a plan; the same command goes on where it stopped."""


class DeviceLostError(UnavailableError):
    """This process can no longer use its GPU, another one can; what is recorded stays."""


class DoesNotFit(AlueBenchError):
    """A strategy cannot be applied to a model; the plan skips the run and shows the message as the reason."""


class TrainingError(AlueBenchError):
    """A run cannot go on (for example: the loss is not finite); that run fails, the plan goes on."""


class NonFiniteLossError(TrainingError):
    """The loss became infinite or not a number; in a narrow number format, a wider one may help."""
