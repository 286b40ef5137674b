"""The optional packages of alue-bench, and the command that installs them.

The command names the packages themselves, with the versions that alue-bench's own metadata asks for: `pip install
'alue-bench[peft]'` works only where alue-bench came from a package index, and not where it was installed from a folder
or a wheel.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from importlib.metadata import requires

DISTRIBUTION = "alue-bench"

# peft>=0.17; extra == 'peft'
_OPTIONAL = re.compile(r"""(?P<package>[^;]+?)\s*;.*\bextra\s*==\s*["'](?P<extra>[^"']+)["']""")


def install_command(extra: str) -> str:
    """Return the command that installs the packages of one of our extras.

    Args:
        extra: a key of `[project.optional-dependencies]`.

    Returns:
        Something like `pip install 'peft>=0.17'`, quoted for a shell.

    Raises:
        KeyError: the installed alue-bench has no such extra.
    """
    return shlex.join(["pip", "install", *_packages()[extra]])


def command_for_module(module: str) -> str:
    """Return the command that most likely installs a Python module, for the packages that a plugin's model needs.

    A module of one of our extras is installed with the version that the extra asks for. Of any other module only its
    name is known, which most distributions share.
    """
    wanted = _canonical(module.partition(".")[0])
    for packages in _packages().values():
        for package in packages:
            if _canonical(re.split(r"[^\w.-]", package, maxsplit=1)[0]) == wanted:
                return shlex.join(["pip", "install", package])
    return shlex.join(["pip", "install", wanted])


@cache
def _packages() -> dict[str, list[str]]:
    """Requirements by extra, as the metadata of the installed distribution lists them."""
    found: dict[str, list[str]] = {}
    for requirement in requires(DISTRIBUTION) or ():
        match = _OPTIONAL.fullmatch(requirement.strip())
        if match:
            found.setdefault(match["extra"], []).append(match["package"])
    return found


def _canonical(name: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
