"""The command-line options of `run`, `sweep` and `search`, derived from the declarations in `studies/options.py`.

Typer reads the options of a command from the signature of a function. The decorator `with_command_options` builds this
signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import partial, wraps
from typing import Annotated, Any

import typer

from alue_bench.contract.options import Group, Option, options_of
from alue_bench.data.file_task.options import FileOptions
from alue_bench.studies.options import options_of_command

Given = dict[str, Any]
"""The options that were given on the command line, by name."""


def with_command_options(command: str) -> Callable[[Callable[[typer.Context, Given], None]], Callable[..., None]]:
    """Return a decorator that gives a function the options of `run`, `sweep` or `search`.

    The function is called with Typer's context and a dictionary of the options that were given on the command line.
    """

    def decorated(function: Callable[[typer.Context, Given], None]) -> Callable[..., None]:
        @wraps(function)
        def call(context: typer.Context, **values: Any) -> None:
            function(context, {name: value for name, value in values.items() if value not in (None, (), [])})

        options = options_of_command(command)
        annotations: dict[str, Any] = {name: _annotation(declared) for name, declared in options.items()}
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in annotations.items()
        ]
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        call.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
        call.__annotations__ = {"context": typer.Context, **annotations}
        return call

    return decorated


def with_file_options(without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds to a command the options that describe a data file.

    The decorated function must have a parameter `described`. It receives a dictionary of the added options that the
    user has given, by option name. The other parameters of the function are ordinary options.

    Args:
        without: The names of options that are not added to the command.
    """

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        described = {name: one for name, one in options_of(FileOptions).items() if name not in without}

        @wraps(function)
        def call(**values: Any) -> None:
            given = {name: values.pop(name) for name in described}
            function(**values, described={name: one for name, one in given.items() if one not in (None, (), [])})

        own = inspect.signature(function, eval_str=True).parameters.values()
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(one))
            for name, one in described.items()
        ]
        parameters = [*(one for one in own if one.name != "described"), *added]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in parameters}
        return call

    return decorated


def run_option(name: str) -> Any:
    """Return Typer's declaration of an option of `run`, for use in another command."""
    return typer_option(options_of_command("run")[name])


def _annotation(option: Option) -> Any:
    """Return the parameter annotation from which Typer reads an option, whose default None means "not given"."""
    one: Any = option.kind
    return Annotated[(list[one] if option.many else one) | None, typer_option(option)]


def typer_option(option: Option) -> Any:
    """Return Typer's declaration of an option. It names the option explicitly, so that Typer adds no `--no-` form."""
    long = f"{option.flag}/--no-{option.flag.removeprefix('--')}" if option.can_be_denied else option.flag
    names = [long, option.short] if option.short else [long]
    return typer.Option(*names, help=option.help, rich_help_panel=option.group.value)


comparison_option = partial(typer.Option, rich_help_panel=Group.QUESTION.value)
data_option = partial(typer.Option, rich_help_panel=Group.DATA.value)
"""A function like `typer.Option`, for an option that the help page lists under the heading "Which data".
`comparison_option` is for options under the heading "What to compare"."""


def options_given(context: typer.Context) -> dict[str, Any]:
    """Return the options given on the command line, by long name without `--`, for repeating them in a message."""
    return {
        max(parameter.opts, key=len).removeprefix("--"): context.params[str(parameter.name)]
        for parameter in context.command.params
        if parameter.param_type_name == "option" and _is_on_command_line(context, str(parameter.name))
    }


def _is_on_command_line(context: typer.Context, name: str) -> bool:
    """Return whether the user gave a parameter on the command line, rather than leaving it at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
