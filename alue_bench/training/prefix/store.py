"""What frozen prefixes put out, computed once and kept on disk, memory-mapped, within a limit.

Where the embeddings and the lowest layers are frozen, their output for an example never changes. The store keeps one
array for each (weights, depth, texts, ...): whoever fills it makes the key, a digest of all that determines the array.

Notation: t tokens of all examples of a split one after the other, without padding; d hidden size.

    KEY/states.bin    the array [t, d], raw
    KEY/entry.json    what it is, and its checksum
    .scratch-*/       an entry that is being written, as long as its file `lock` is held; else what a dead process left
    .lock             held while room is made and scratch folders are set up
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, time_ns
from typing import TYPE_CHECKING
from uuid import uuid4
from weakref import WeakKeyDictionary

from filelock import FileLock

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import shown
from alue_bench.data.location import cache_folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1
"""Increase when the layout of an entry or the meaning of its files changes."""

STATES, HEADER = "states.bin", "entry.json"
SCRATCH, LOCK = ".scratch-", "lock"
PATIENCE = 60.0
"""Seconds to wait for another process that makes room."""

Identity = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class StoredStates:
    """A stored array, verified. It is not evicted by this process while this object lives."""

    states: Tensor
    """[t, d], mapped copy-on-write: what is written to it never reaches the disk."""
    build_s: float
    """Seconds that computing it cost, including what it was computed from."""


@dataclass(frozen=True)
class StoredPrefix:
    """An entry as it is listed."""

    key: str
    bytes: int
    """Of the array."""
    last_used: datetime
    created: datetime | None = None
    """None where entry.json cannot be read; such an entry is removed when it is opened."""
    description: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Header:
    """The content of entry.json."""

    format: int
    shape: tuple[int, int]
    dtype: str
    xxh3_128: str
    build_s: float
    created: datetime
    description: dict[str, str]


class _Damaged(Exception):
    """An entry is not what was once committed."""


class PrefixStore:
    """Outputs of frozen prefixes on disk, memory-mapped, addressed by content.

    Whatever keeps an array from being stored or read again is told to `on_problem`, in one sentence, and is never an
    error: the array can be computed. A limit of 0 turns the store off. Several processes may use one folder.
    """

    def __init__(self, folder: Path, limit_bytes: int, on_problem: Callable[[str], None]) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.on_problem = on_problem
        self._in_use: WeakKeyDictionary[StoredStates, str] = WeakKeyDictionary()
        self._verified: dict[str, Identity] = {}

    def open(self, key: str) -> StoredStates | None:
        """The entry, or None where there is none.

        Its checksum is compared when this store opens it for the first time, and whenever its file has changed since.
        A damaged entry is reported and removed.
        """
        folder = self.folder / key
        if not self.limit_bytes or not os.path.isdir(folder):
            return None
        try:
            header = _read_header(folder)
            self._verify(folder, header)
            return self._entry(folder, header)
        except (FileNotFoundError, _Damaged) as error:
            if os.path.isdir(folder):  # else another process has evicted it this moment
                self.on_problem(f"{folder} is damaged ({_reason(error)}); it is dropped and will be computed again")
                with suppress(OSError):
                    self._remove(folder)
        except OSError as error:
            self.on_problem(f"{folder} cannot be read: {_reason(error)}")
        return None

    def has(self, key: str) -> bool:
        """Whether there is an entry, in whatever state."""
        return bool(self.limit_bytes) and os.path.isdir(self.folder / key)

    def room(self) -> int:
        """Bytes that may be stored without evicting what is in use: of the limit, and with a reserve of the disk."""
        if not self.limit_bytes:
            return 0
        in_use = set(self._in_use.values())
        taken = sum(entry.bytes for entry in self.entries() if entry.key in in_use)
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            return min(self.limit_bytes - taken, int(shutil.disk_usage(self.folder).free * 0.8))
        return 0

    def create(self, key: str, tokens: int, width: int, dtype: torch.dtype) -> Draft | None:
        """Room for an array [tokens, width], for which others may be evicted, the least recently used first.

        None where it cannot be stored; then the reason is reported.
        """
        if not self.limit_bytes:
            return None
        size = tokens * width * dtype.itemsize
        try:
            if size > self.limit_bytes:
                raise _no_room(f"the cache may hold {readable(self.limit_bytes)} at most; --cache-size changes it")
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", timeout=PATIENCE):
                self._sweep()
                self._make_room(size)
                return Draft(self, key, (tokens, width), dtype)
        except OSError as error:
            self.on_problem(f"{readable(size)} of a frozen prefix's output are not kept: {_reason(error)}")
            return None

    def entries(self) -> list[StoredPrefix]:
        """Every entry, the least recently used first."""
        found = []
        with suppress(OSError):  # no such folder: no entries
            for folder in self.folder.iterdir():
                if not folder.name.startswith("."):
                    with suppress(FileNotFoundError, NotADirectoryError):  # another process has evicted it this moment
                        found.append(_listed(folder))
        return sorted(found, key=lambda entry: entry.last_used)

    def clear(self) -> int:
        """Removes every entry, and what dead processes left. Returns how many bytes that freed."""
        freed = 0
        if os.path.isdir(self.folder):
            try:
                with FileLock(self.folder / ".lock", timeout=PATIENCE):
                    freed += self._sweep()
                    for entry in self.entries():
                        freed += self._remove(self.folder / entry.key)
            except OSError as error:
                self.on_problem(f"{self.folder} cannot be cleared: {_reason(error)}")
        return freed

    def _verify(self, folder: Path, header: _Header) -> None:
        path = folder / STATES
        identity = _identity(path)
        if self._verified.get(folder.name) == identity:
            return
        size, wanted = path.stat().st_size, header.shape[0] * header.shape[1] * _dtype(header.dtype).itemsize
        if size != wanted:  # a mapping that is longer than its file is a bus error to whoever reads it
            raise _Damaged(f"{STATES} has {size} bytes instead of {wanted}")
        if _checksum(path) != header.xxh3_128:
            raise _Damaged(f"the checksum of {STATES} is another than when it was written")
        self._verified[folder.name] = identity

    def _entry(self, folder: Path, header: _Header) -> StoredStates:
        entry = StoredStates(_mapped(folder / STATES, header.shape, _dtype(header.dtype), shared=False), header.build_s)
        self._in_use[entry] = folder.name
        with suppress(OSError):  # a store that may only be read
            now = time_ns()  # finer than the kernel's own clock for files
            os.utime(folder / HEADER, ns=(now, now))
        return entry

    def _make_room(self, size: int) -> None:
        """Evicts as much as is needed and nothing where that does not suffice.

        Raises OSError (no space) where too much is in use, or the disk is too full.
        """
        # Drafts first: one that is committed meanwhile counts twice rather than not at all.
        drafts = sum(_size(draft / STATES) for draft in list(self.folder.glob(f"{SCRATCH}*/entry")))
        entries = self.entries()
        excess = sum(entry.bytes for entry in entries) + drafts + size - self.limit_bytes
        in_use = set(self._in_use.values())
        leaving = []
        for entry in entries:
            if excess <= 0:
                break
            if entry.key not in in_use:
                leaving.append(entry)
                excess -= entry.bytes
        if excess > 0:
            raise _no_room(f"too much of the cache's {readable(self.limit_bytes)} is in use; --cache-size changes it")
        free = shutil.disk_usage(self.folder).free + sum(entry.bytes for entry in leaving)
        if free < size:
            raise _no_room(f"the disk of {self.folder} has {readable(free)} left")
        for entry in leaving:
            self._remove(self.folder / entry.key)

    def _remove(self, folder: Path) -> int:
        """Returns the bytes freed. The entry leaves its place whole: nobody opens half of one."""
        size, scratch = _size(folder / STATES), self._scratch()
        try:
            os.replace(folder, scratch)
        except FileNotFoundError:  # another process was faster
            return 0
        shutil.rmtree(scratch, ignore_errors=True)
        return size

    def _sweep(self) -> int:
        """Removes the scratch folders of dead processes. Returns the bytes freed.

        A lock tells them from living ones also where the folder is shared by containers or machines, whose process
        ids mean nothing here.
        """
        freed = 0
        for scratch in list(self.folder.glob(f"{SCRATCH}*")):
            try:
                with FileLock(scratch / LOCK, timeout=0):
                    pass
            except OSError:  # held, or not ours to touch
                continue
            freed += _size(scratch / "entry" / STATES)
            shutil.rmtree(scratch, ignore_errors=True)
        return freed

    def _scratch(self) -> Path:
        """A name in the same folder, so that moving from or to it is one step for the file system."""
        return self.folder / f"{SCRATCH}{uuid4().hex}"

    def _place(self, key: str, staged: Path, header: _Header) -> StoredStates:
        folder = self.folder / key
        try:
            os.replace(staged, folder)
        except OSError:
            theirs = self.open(key)
            if theirs is not None:  # another process was faster: its entry is equal to ours
                return theirs
            os.replace(staged, folder)  # theirs was damaged and is gone, or the cause was another and shows again
        self._verified[key] = _identity(folder / STATES)
        return self._entry(folder, header)


class Draft:
    """An entry that is being written: fill `states`, then commit. Leaving the context without that removes it.

        with draft:
            draft.states[start:end] = ...
            entry = draft.commit(build_s, {"model": ...})

    Made by `PrefixStore.create`.
    """

    states: Tensor
    """[t, d], mapped for writing. It is gone after the commit; no other reference to it may be written to then."""

    def __init__(self, store: PrefixStore, key: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
        """Raises OSError where the disk has no room: never later, while the mapping is filled."""
        self._store, self._key, self._shape, self._dtype = store, key, shape, dtype
        self._scratch = store._scratch()
        self._staged = self._scratch / "entry"
        self._lock = FileLock(self._scratch / LOCK, timeout=0, thread_local=False)
        try:
            self._staged.mkdir(parents=True)
            self._lock.acquire()
            _reserve(self._staged / STATES, shape[0] * shape[1] * dtype.itemsize)
            _mapped(self._staged / STATES, shape, dtype, shared=False)  # more memory than may be promised: say so now
            self.states = _mapped(self._staged / STATES, shape, dtype, shared=True)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def commit(self, build_s: float, description: Mapping[str, str]) -> StoredStates:
        """Puts the array into the store, whole or not at all, and opens it. The time of the checksum is added to
        `build_s`.

        The description is for people: `alue-bench cache status` shows its `depth` and `split` in columns of their own
        and everything else in the first one. Where another process has stored the same key meanwhile, its entry is
        returned. Where the array cannot be stored after all, that is reported, and it is returned nevertheless.
        """
        del self.states  # Windows does not move what is mapped for writing
        started = perf_counter()
        try:
            checksum = _checksum(self._staged / STATES)
            build_s += perf_counter() - started
            header = _Header(
                format=FORMAT,
                shape=self._shape,
                dtype=str(self._dtype).removeprefix("torch."),
                xxh3_128=checksum,
                build_s=build_s,
                created=datetime.now(UTC),
                description=dict(description),
            )
            _write_header(header, self._staged)
            return self._store._place(self._key, self._staged, header)
        except OSError as error:
            self._store.on_problem(f"{self._store.folder / self._key} cannot be written: {_reason(error)}")
            # The mapping keeps the content alive when its file is removed.
            return StoredStates(_mapped(self._staged / STATES, self._shape, self._dtype, shared=False), build_s)
        finally:
            self._discard()

    def _discard(self) -> None:
        self.__dict__.pop("states", None)
        self._lock.release()
        shutil.rmtree(self._scratch, ignore_errors=True)


def prefix_folder() -> Path:
    """Where the entries lie: a part of the cache folder."""
    return cache_folder() / "prefixes"


UNITS = {"b": 1}
UNITS |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)}
UNITS |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)}


def parse_size(text: str) -> int:
    """Bytes, of a size such as 20GB (decimal), 512 MiB (binary) or 0.

    Raises UsageError where it is none.
    """
    # Not pydantic's ByteSize: it takes "20GB or so" and "10bit", and 20 for twenty bytes.
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    if match and match[2] in UNITS and len(match[1]) < 20:
        return int(float(match[1]) * UNITS[match[2]])
    if match and not match[2] and float(match[1]) == 0:
        return 0
    raise UsageError(f"{shown(text)} is not a size; give one with its unit, such as 20GB or 512MiB, or 0 for none")


def readable(size: int) -> str:
    """A size for people, in decimal units."""
    from rich.filesize import decimal

    return decimal(size)


def _reserve(path: Path, size: int) -> None:
    """Makes the file and takes its room on the disk.

    Raises OSError where there is too little. A file with holes would be longer at once, and a disk that is full when
    they are filled through a mapping kills the process (SIGBUS).
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            try:
                return os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # what file systems without it answer
                    raise
        zeros = memoryview(bytes(min(size, 1 << 24)))
        while (missing := size - file.tell()) > 0:
            file.write(zeros[:missing])
    return None


def _mapped(path: Path, shape: tuple[int, int], dtype: torch.dtype, *, shared: bool) -> Tensor:
    """Raises OSError where the address space or the memory that may be promised is too small."""
    import torch

    try:
        return torch.from_file(str(path), shared=shared, size=shape[0] * shape[1], dtype=dtype).view(shape)
    except RuntimeError as error:
        raise OSError(errno.ENOMEM, next(iter(str(error).splitlines()), "")) from error


def _checksum(path: Path) -> str:
    import xxhash

    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _identity(path: Path) -> Identity:
    """Changes whenever the file is replaced or written to."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # nothing there takes no room
        return 0


def _dtype(name: str) -> torch.dtype:
    import torch

    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise _Damaged(f"{HEADER} names the unknown dtype {name!r}")
    return dtype


def _read_header(folder: Path) -> _Header:
    from pydantic import TypeAdapter

    try:
        header = TypeAdapter(_Header).validate_json((folder / HEADER).read_bytes())
    except ValueError as error:
        raise _Damaged(f"{HEADER} cannot be understood") from error
    if header.format != FORMAT:
        raise _Damaged(f"{HEADER} is of format {header.format}; this version reads format {FORMAT}")
    return header


def _write_header(header: _Header, folder: Path) -> None:
    from pydantic import TypeAdapter

    (folder / HEADER).write_bytes(TypeAdapter(_Header).dump_json(header, indent=2))


def _listed(folder: Path) -> StoredPrefix:
    size = _size(folder / STATES)
    try:
        used = (folder / HEADER).stat().st_mtime
        header = _read_header(folder)
    except (OSError, _Damaged):
        return StoredPrefix(folder.name, size, datetime.fromtimestamp(folder.stat().st_mtime, UTC))
    return StoredPrefix(
        folder.name, size, datetime.fromtimestamp(used, UTC), header.created.astimezone(UTC), header.description
    )


def _no_room(reason: str) -> OSError:
    return OSError(errno.ENOSPC, reason)


def _reason(error: Exception) -> str:
    """Without the error number and the whole path, which the sentence has already."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{Path(error.filename).name} is missing"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
