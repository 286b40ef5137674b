"""The optional packages of alue-bench, and the command that installs them.

The command names the packages themselves, with the versions that alue-bench's metadata requires. `pip install
'alue-bench[peft]'` would work only if alue-bench came from a package index, not if it was installed from a folder or a
wheel.
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
    """Return the command that most likely installs a Python module, such as one that a model plugin needs.

    If the module belongs to one of alue-bench's extras, the command names the version that the extra requires. Any
    other module is assumed to belong to a distribution with the same name, as is mostly the case.
    """
    wanted = _canonical(module.partition(".")[0])
    for packages in _packages().values():
        for package in packages:
            if _canonical(re.split(r"[^\w.-]", package, maxsplit=1)[0]) == wanted:
                return shlex.join(["pip", "install", package])
    return shlex.join(["pip", "install", wanted])


@cache
def _packages() -> dict[str, list[str]]:
    """Return the required packages of each extra, from the metadata of the installed alue-bench."""
    by_extra: dict[str, list[str]] = {}
    for requirement in requires(DISTRIBUTION) or ():
        match = _OPTIONAL.fullmatch(requirement.strip())
        if match:
            by_extra.setdefault(match["extra"], []).append(match["package"])
    return by_extra


def _canonical(name: str) -> str:
    """Return a distribution's name in the normalised form in which package indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
