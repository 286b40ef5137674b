"""Substitutes for small packages that alue-bench imports and that a GPU machine may lack.

A GPU machine often has torch, transformers and scikit-learn, but no access to a package index. The timed code needs
only small parts of some packages: pluggy's markers, xxhash's digests, and pydantic's reading and writing of one
dataclass. If such a package is missing, a module with only these parts replaces it. Access to any other part of the
package raises AttributeError. An installed package is never replaced.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
from collections.abc import Callable
from datetime import datetime
from types import ModuleType
from typing import Any

from benchmarks.processes import REPOSITORY


def stand_in_for_missing_packages() -> list[str]:
    """Put substitutes for missing packages into `sys.modules`, and this checkout's plugins on `sys.path`.

    Returns:
        The names of the packages that are replaced.
    """
    plugins = str(REPOSITORY / "plugins")
    if plugins not in sys.path:
        sys.path.append(plugins)
    replaced = []
    for name, make in STAND_INS.items():
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = make(ModuleType(name))
            replaced.append(name)
    return replaced


def _pluggy(module: Any) -> Any:
    """Fill and return a substitute for pluggy, whose markers return the marked function unchanged."""

    class Marker:
        def __init__(self, project: str) -> None:
            self.project = project

        def __call__(self, function: Any = None, **options: Any) -> Any:
            return function if function is not None else lambda marked: marked

    module.HookspecMarker = module.HookimplMarker = Marker
    return module


def _xxhash(module: Any) -> Any:
    """Fill and return a substitute for xxhash, with 128-bit BLAKE2b instead of XXH3; it is several times slower."""

    def digest(data: Any = b"") -> Any:
        return hashlib.blake2b(data, digest_size=16)

    module.xxh3_128 = digest
    module.xxh3_128_hexdigest = lambda data: digest(data).hexdigest()
    return module


def _pydantic(module: Any) -> Any:
    """Fill and return a substitute for pydantic, with a `TypeAdapter` for dataclasses of JSON values and times."""

    class TypeAdapter:
        def __init__(self, kind: Any) -> None:
            self.kind = kind

        def dump_json(self, value: Any, *, indent: int | None = None) -> bytes:
            return json.dumps(dataclasses.asdict(value), indent=indent, default=datetime.isoformat).encode()

        def validate_json(self, content: bytes) -> Any:
            given = json.loads(content)
            if "created" in given:
                given["created"] = datetime.fromisoformat(given["created"])
            return self.kind(**given)

    module.TypeAdapter = TypeAdapter
    return module


STAND_INS: dict[str, Callable[[Any], Any]] = {
    "pluggy": _pluggy,
    "xxhash": _xxhash,
    "pydantic": _pydantic,
    "platformdirs": lambda module: module,  # imported with the token cache, which is not used here
}
"""For each package that may be missing: the function that turns an empty module into a substitute for the package."""
