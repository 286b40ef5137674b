"""The errors whose messages are meant for users; there is one class for each kind of remedy.

The command line prints the message of an `AlueBenchError` as one sentence, without a traceback, and exits with code 2.
A message therefore says what is wrong, where (file:line, plugin, option), and what to do.
"""


class AlueBenchError(Exception):
    """The base class of all errors whose message is meant for the user."""


class UsageError(AlueBenchError):
    """An error in the arguments, the study file or an environment variable, which the user must correct."""


class DataError(AlueBenchError):
    """An error in a task's data files: the user must repair, add or remove files or rows."""


class PluginError(AlueBenchError):
    """An error in a plugin, which the user must repair, update, uninstall or disable."""


class UnavailableError(AlueBenchError):
    """An error: a resource outside the program is missing, does not answer or cannot be written.

    Examples are the Hugging Face hub, an MLflow tracking server, a folder and an optional package.
    """


class StoreUnavailableError(UnavailableError):
    """An error: the MLflow tracking store stopped answering while runs were executed.

    If the user repeats the command, it executes the remaining runs.
    """


class DeviceLostError(UnavailableError):
    """An error: this process can no longer use its GPU, but a new process can. Recorded results stay valid."""


class DoesNotFit(AlueBenchError):
    """An error: a strategy cannot be applied to a model, for example because the model has too few layers.

    Runs of this strategy with this model are skipped, and the plan shows the error's message as the reason.
    """


class TrainingError(AlueBenchError):
    """An error: a run failed, for example because its training loss is not finite.

    The other runs of the plan are executed nevertheless, unless the user gives `--fail-fast`.
    """


class NonFiniteLossError(TrainingError):
    """An error: the training loss or an output of the model became infinite or NaN.

    If the run used fp16 or bf16, a wider number format may help.
    """
