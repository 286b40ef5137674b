"""Substitutes for small packages that alue-bench imports and that a GPU machine may lack.

A GPU machine often has torch, transformers and scikit-learn, and no access to a package index. The timed code needs
little of the packages below: pluggy's markers, xxhash's digests, and pydantic's reading and writing of one dataclass. A
missing package is replaced by a module that does this much. Whatever else the package offers is missing, so that an
unexpected use raises AttributeError. An installed package is never replaced.
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
    """Put substitutes for missing packages into `sys.modules`, and this checkout's plugins on the search path.

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
    """Fill a substitute for the package pluggy: its markers return the marked function unchanged."""

    class Marker:
        def __init__(self, project: str) -> None:
            self.project = project

        def __call__(self, function: Any = None, **options: Any) -> Any:
            return function if function is not None else lambda marked: marked

    module.HookspecMarker = module.HookimplMarker = Marker
    return module


def _xxhash(module: Any) -> Any:
    """Fill a substitute for the package xxhash: 128-bit BLAKE2b, which is several times slower, in place of XXH3."""

    def digest(data: Any = b"") -> Any:
        return hashlib.blake2b(data, digest_size=16)

    module.xxh3_128 = digest
    module.xxh3_128_hexdigest = lambda data: digest(data).hexdigest()
    return module


def _pydantic(module: Any) -> Any:
    """Fill a substitute for the package pydantic: a `TypeAdapter` for dataclasses of JSON values and times."""

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
