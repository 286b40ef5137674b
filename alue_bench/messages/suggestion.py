"""The commands that messages suggest, quoted for a shell, with the user's options and without passwords."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from alue_bench.messages.redaction import redact

PROGRAM = "alue-bench"


def command_line(*words: object, options: Mapping[str, object] | None = None) -> str:
    """Return an `alue-bench` command, quoted for a shell.

    Args:
        *words: The command and its arguments, such as `"data", "verify", "mdd"`.
        options: The values of options by name with underscores, such as `{"data_dir": folder}`. Options with None,
            False or an empty list are left out, True gives a flag, and a list gives one option for each of its values.
            Passwords and tokens in a value are replaced by `***`.
    """
    given = [part for name, value in (options or {}).items() for part in _option(name, value)]
    return shlex.join([PROGRAM, *map(str, words), *given])


def _option(name: str, value: object) -> Iterable[str]:
    """Yield the words of one option with its value or values."""
    option = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return
    if value is True:
        yield option
        return
    for one in value if isinstance(value, list | tuple) else (value,):
        text = redact(str(one))
        if text.startswith("-"):  # as a separate word, the value would be parsed as an option
            yield f"{option}={text}"
        else:
            yield from (option, text)
