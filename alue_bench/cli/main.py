"""The command-line application, which contains all commands, and converts errors to one sentence and an exit code.

Exit codes: 0 success, 1 failed runs or a problem that a check found, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import io
import os
import sys
import traceback
from typing import Annotated, Any

import typer

from alue_bench.cli.commands import (
    advise,
    cache,
    compare,
    data,
    doctor,
    export,
    keep,
    list_,
    new_plugin,
    new_task,
    plugins,
    predict,
    rank_selectors,
    report,
    run,
    search,
    submit,
    sweep,
    sync,
    ui,
)
from alue_bench.contract.errors import AlueBenchError
from alue_bench.contract.registry import DISABLE_VARIABLE, add_commands, load_registry
from alue_bench.executors.termination import exit_code_of_interruption
from alue_bench.messages.display import one_line
from alue_bench.messages.redaction import redact
from alue_bench.views.standard_output import prints_to_stderr

# Newer releases of typer contain a copy of click, whose error classes differ from those of the package click.
CLICK_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    name="alue-bench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Which layers should I train? Fine-tune encoders under freezing strategies, measure score and cost, "
    "and compare the runs in MLflow.\n\nStart with: `alue-bench run --strategy full --strategy bottom3top4`",
)
app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("search")(search.search)
app.add_typer(list_.app, name="list")
app.command("plugins")(plugins.plugins)
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")
app.command("keep")(keep.keep)
app.command("predict")(predict.predict)
app.command("submit")(submit.submit)
app.command("sync")(sync.sync)
app.command("compare")(compare.compare)
app.command("rank-selectors")(rank_selectors.rank_selectors)
app.command("advise")(advise.advise)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("ui")(ui.ui)
app.command("doctor")(doctor.doctor)
app.command("new-task")(new_task.new_task)
app.command("new-plugin")(new_plugin.new_plugin)


def _show_version(value: bool) -> None:
    if value:
        from alue_bench.contract.version import __version__
        from alue_bench.views.console import print_exactly

        print_exactly(f"alue-bench {__version__}\n")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
    # `main` has already removed the next two options from the command line. They are declared here for --help.
    disable_plugin: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Do not load this plugin (distribution or entry point); repeatable; also {DISABLE_VARIABLE}."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with an error if a plugin fails to load.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the console script: load plugins, run the command, and exit with its code."""
    # At its end, the interpreter searches all objects for cycles several times, which takes 2 s after torch and mlflow
    # were used. gc.freeze excludes the objects from the search.
    atexit.register(gc.freeze)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--disable-plugin", action="append", default=[])
    early.add_argument("--strict", action="store_true")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # like stderr: no character raises an error
    try:
        options, arguments = early.parse_known_args()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        with prints_to_stderr():
            registry = load_registry(disable=options.disable_plugin, strict=options.strict)
            add_commands(registry, app)
        code = app(arguments, standalone_mode=False, obj=registry)
    except AlueBenchError as error:
        _print_error(str(error))
        code = 2
    except CLICK_ERROR as error:
        _show_usage_error(error)
        code = 0 if type(error).__name__ == "NoArgsIsHelpError" else error.exit_code
    except typer.Exit as error:
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt) as stop:
        _print_error("interrupted")
        code = exit_code_of_interruption(stop)
    except BrokenPipeError:  # the reader of stdout has ended, as in: alue-bench list tasks | head -1
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the interpreter's own flush at exit
        code = 0
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _print_error(
                f"{error.filename}: the name of a file or folder in this path is too long; choose a shorter one"
            )
            code = 2
        else:
            code = _show_unexpected_error()
    except Exception:
        code = _show_unexpected_error()
    sys.exit(code)


def _print_error(sentence: str) -> None:
    from alue_bench.views.console import remarks

    remarks().print(f"alue-bench: {one_line(redact(sentence))}")


def _show_usage_error(error: Any) -> None:
    """Print the message of a usage error, and the command that shows the help page."""
    from alue_bench.views.console import remarks

    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    context = getattr(error, "ctx", None)
    if context is not None:
        stderr = remarks()
        stderr.print(context.get_usage())
        stderr.print(f"Try '{context.command_path} {context.help_option_names[0]}' for help.")
    _print_error(error.format_message())  # redacted: it may repeat an argument, such as a tracking URI


def _show_unexpected_error() -> int:
    """Print the traceback of an unexpected error, without secrets, and return the exit code."""
    from alue_bench.views.console import remarks

    remarks().print(redact(traceback.format_exc()), end="")
    return 1
