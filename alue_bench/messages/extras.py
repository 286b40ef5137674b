"""The optional packages of alue-bench, and the command that installs them.

The command names the packages themselves, with the versions that alue-bench's metadata requires. The command `pip
install 'alue-bench[peft]'` would work only if a package index has alue-bench. Users may have installed alue-bench from
a folder or a wheel instead.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from importlib.metadata import requires

DISTRIBUTION = "alue-bench"

# An example of a requirement that this pattern matches: peft>=0.17; extra == 'peft'
_OPTIONAL = re.compile(r"""(?P<package>[^;]+?)\s*;.*\bextra\s*==\s*["'](?P<extra>[^"']+)["']""")


def install_command(extra: str) -> str:
    """Return the command that installs the packages of one of alue-bench's extras (optional dependencies).

    Args:
        extra: A key of `[project.optional-dependencies]`.

    Returns:
        A command such as `pip install 'peft>=0.17'`, quoted for a shell.

    Raises:
        KeyError: The installed alue-bench has no such extra.
    """
    return shlex.join(["pip", "install", *_packages()[extra]])


def command_for_module(module: str) -> str:
    """Return the command that probably installs a Python module, for example a module that a model plugin requires.

    If the module belongs to an extra of alue-bench, the command names the version that the extra requires. Any other
    module is assumed to belong to a distribution with the same name, which is usually true.
    """
    wanted = _canonical(module.partition(".")[0])
    for packages in _packages().values():
        for package in packages:
            if _canonical(re.split(r"[^\w.-]", package, maxsplit=1)[0]) == wanted:
                return shlex.join(["pip", "install", package])
    return shlex.join(["pip", "install", wanted])


@cache
def _packages() -> dict[str, list[str]]:
    """Return the requirements of each extra, such as "peft>=0.17", from the metadata of the installed alue-bench."""
    by_extra: dict[str, list[str]] = {}
    for requirement in requires(DISTRIBUTION) or ():
        match = _OPTIONAL.fullmatch(requirement.strip())
        if match:
            by_extra.setdefault(match["extra"], []).append(match["package"])
    return by_extra


def _canonical(name: str) -> str:
    """Return the name of a distribution in normalised form (PEP 503), in which names can be compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
