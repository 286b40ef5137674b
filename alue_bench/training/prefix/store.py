"""The on-disk store for the outputs of frozen lower layers: memory-mapped arrays within a size limit.

If the embeddings and the lowest layers (the frozen prefix) are frozen, their output for an example never changes. An
entry of the store is an array that holds this output for all examples of a split. The key of an entry, which the caller
computes, is a digest of everything that determines the array: the weights, the number of layers, the texts and so on.

An array has the shape `[tokens, hidden]`: the tokens of all examples of a split, one example after the other, without
padding. If only the first token of each example is stored, the shape is `[examples, hidden]`.

    KEY/states.bin    the raw array
    KEY/entry.json    shape, dtype, checksum and description of the array
    .scratch-*/       an entry being written, while its file `lock` is held; otherwise left over from a dead process
    .lock             held while entries are evicted and scratch folders are created
"""

from __future__ import annotations

import errno
import hashlib
import os
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

from alue_bench.contract.byte_sizes import readable
from alue_bench.data.cache_folder import cache_folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1
"""The version of the format of a store entry; increase it when the layout of an entry or the meaning of its files
changes."""

STATES, HEADER = "states.bin", "entry.json"
SCRATCH, LOCK = ".scratch-", "lock"
LOCK_TIMEOUT_S = 60.0
"""The maximal number of seconds to wait while another process holds the store's lock."""

Identity = tuple[int, int, int, int]
"""The values by which a file is recognised: device, inode, size in bytes, and modification time in nanoseconds."""


@dataclass(frozen=True, eq=False)
class StoredStates:
    """An array of hidden states, opened for reading.

    This process does not evict its store entry while the object exists.
    """

    states: Tensor
    """The array, `[tokens, hidden]`, mapped copy-on-write: writes to it never reach the disk."""
    build_s: float
    """The seconds that computing the array took, including the time for other stored arrays that it was built from."""


@dataclass(frozen=True)
class StoredPrefix:
    """The properties of one store entry (a stored output of frozen layers), for listings."""

    key: str
    bytes: int
    """The size of the stored array in bytes."""
    last_used: datetime
    """The time at which a run last opened the entry."""
    created: datetime | None = None
    """The time at which the entry was created; None if entry.json cannot be read. An unreadable entry is removed when
    it is opened."""
    description: Mapping[str, str] = field(default_factory=dict)
    """The description that `Draft.commit` was given; empty if entry.json cannot be read."""


@dataclass(frozen=True)
class _Header:
    """The content of an entry's file entry.json, which describes the stored array."""

    format: int
    shape: tuple[int, int]
    dtype: str
    xxh3_128: str
    """The checksum of the array, in hexadecimal."""
    build_s: float
    """The seconds that computing the array took; see `StoredStates.build_s`."""
    created: datetime
    description: dict[str, str]


class _Damaged(Exception):
    """The error for a store entry whose files differ from those that were written."""


class PrefixStore:
    """A store for outputs of frozen lower layers: memory-mapped arrays on disk, with digests as keys.

    Problems with storing or reading an array never raise an error, since the array can be computed again: each problem
    is reported to `on_problem` in one sentence. Several processes may use the same folder.
    """

    def __init__(self, folder: Path, limit_bytes: int, on_problem: Callable[[str], None]) -> None:
        """Open a store, without creating anything on disk.

        Args:
            folder: The folder of the entries.
            limit_bytes: The maximal total size of all entries in bytes; 0 turns the store off.
            on_problem: A function that is called with a sentence for each problem.
        """
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.on_problem = on_problem
        self._in_use: WeakKeyDictionary[StoredStates, str] = WeakKeyDictionary()
        self._verified: dict[str, Identity] = {}

    def open(self, key: str) -> StoredStates | None:
        """Open the stored array of a key; return None if there is no intact one.

        The array's checksum is verified when this process first opens the entry, and again if the file has changed
        since. A damaged entry is reported and removed.
        """
        folder = self.folder / key
        if not self.limit_bytes or not os.path.isdir(folder):
            return None
        try:
            header = _read_header(folder)
            self._verify(folder, header)
            return self._entry(folder, header)
        except (FileNotFoundError, _Damaged) as error:
            if os.path.isdir(folder):  # else another process has just evicted it
                self.on_problem(f"{folder} is damaged ({_reason(error)}); it is dropped and will be computed again")
                with suppress(OSError):
                    self._remove(folder)
        except OSError as error:
            self.on_problem(f"{folder} cannot be read: {_reason(error)}")
        return None

    def has(self, key: str) -> bool:
        """Return whether the store has an entry for the key, which may be damaged."""
        return bool(self.limit_bytes) and os.path.isdir(self.folder / key)

    def report_exhausted(self, tokens: int) -> None:
        """Report to `on_problem` that memory is too small for computing the outputs of frozen layers.

        Args:
            tokens: The number of tokens that were to be computed at once.
        """
        self.on_problem(f"memory is too small for {tokens} tokens at once: frozen layers are computed at every step")

    def holds_any(self) -> bool:
        """Return whether the store has any entry."""
        try:
            return any(not name.startswith(".") for name in os.listdir(self.folder))
        except OSError:  # no such folder
            return False

    def states_path(self, key: str) -> Path:
        """Return the path of the file that holds the array of a key."""
        return self.folder / key / STATES

    def storable_bytes(self) -> int:
        """Return the number of bytes that can be stored if all entries are evicted except those that this process uses.

        The result is the size limit minus the size of the entries in use, but at most 80 % of the free disk space. It
        is 0 if the store is off or its folder cannot be created.
        """
        if not self.limit_bytes:
            return 0
        in_use = set(self._in_use.values())
        taken = sum(entry.bytes for entry in self.entries() if entry.key in in_use)
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            return min(self.limit_bytes - taken, int(shutil.disk_usage(self.folder).free * 0.8))
        return 0

    def create(self, key: str, tokens: int, width: int, dtype: torch.dtype) -> Draft | None:
        """Reserve space for an array `[tokens, width]`, evicting the least recently used entries if necessary.

        Args:
            key: The digest of everything that determines the array.
            tokens: The number of rows: tokens, or examples if only first tokens are stored.
            width: The hidden size.
            dtype: The number format of the array.

        Returns:
            A draft to fill and commit; None if the array cannot be stored. The reason is reported unless the store is
            off.
        """
        if not self.limit_bytes:
            return None
        size = tokens * width * dtype.itemsize
        try:
            if size > self.limit_bytes:
                raise _no_space_message(
                    f"the cache may hold {readable(self.limit_bytes)} at most; --cache-size changes it"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", timeout=LOCK_TIMEOUT_S):
                self._remove_orphans()
                self._evict_for(size)
                return Draft(self, key, (tokens, width), dtype)
        except OSError as error:
            self.on_problem(f"{readable(size)} of a frozen prefix's output are not kept: {_reason(error)}")
            return None

    def entries(self) -> list[StoredPrefix]:
        """Return descriptions of all entries, the least recently used first."""
        listed = []
        with suppress(OSError):  # no such folder: no entries
            for folder in self.folder.iterdir():
                if not folder.name.startswith("."):
                    with suppress(FileNotFoundError, NotADirectoryError):  # another process has just evicted it
                        listed.append(_entry_folders(folder))
        return sorted(listed, key=lambda entry: entry.last_used)

    def clear(self) -> int:
        """Remove all entries and the scratch folders of dead processes, and return the number of bytes freed."""
        freed = 0
        if os.path.isdir(self.folder):
            try:
                with FileLock(self.folder / ".lock", timeout=LOCK_TIMEOUT_S):
                    freed += self._remove_orphans()
                    for entry in self.entries():
                        freed += self._remove(self.folder / entry.key)
            except OSError as error:
                self.on_problem(f"{self.folder} cannot be cleared: {_reason(error)}")
        return freed

    def _verify(self, folder: Path, header: _Header) -> None:
        """Raise `_Damaged` if the size or checksum of a stored array differs from the values in entry.json."""
        path = folder / STATES
        identity = _identity(path)
        if self._verified.get(folder.name) == identity:
            return
        size, wanted = path.stat().st_size, header.shape[0] * header.shape[1] * _dtype(header.dtype).itemsize
        if size != wanted:  # reading a mapping beyond the end of its file kills the process (SIGBUS)
            raise _Damaged(f"{STATES} has {size} bytes instead of {wanted}")
        if _checksum(path) != header.xxh3_128:
            raise _Damaged(f"the checksum of {STATES} has changed since it was written")
        self._verified[folder.name] = identity

    def _entry(self, folder: Path, header: _Header) -> StoredStates:
        """Open a stored array as a memory map, mark its entry as in use, and update the entry's time of last use."""
        entry = StoredStates(
            _memory_map(folder / STATES, header.shape, _dtype(header.dtype), shared=False), header.build_s
        )
        self._in_use[entry] = folder.name
        with suppress(OSError):  # a read-only store
            now = time_ns()  # finer than the kernel's clock for file times
            os.utime(folder / HEADER, ns=(now, now))
        return entry

    def _evict_for(self, size: int) -> None:
        """Evict the least recently used entries to make room for `size` bytes; evict none if that would not suffice.

        Raises:
            OSError: Too much of the store is in use, or the disk is too full (ENOSPC).
        """
        # Drafts are counted first: a draft committed in the meantime is counted twice rather than not at all.
        drafts = sum(_size(draft / STATES) for draft in list(self.folder.glob(f"{SCRATCH}*/entry")))
        entries = self.entries()
        excess = sum(entry.bytes for entry in entries) + drafts + size - self.limit_bytes
        in_use = set(self._in_use.values())
        evicted = []
        for entry in entries:
            if excess <= 0:
                break
            if entry.key not in in_use:
                evicted.append(entry)
                excess -= entry.bytes
        if excess > 0:
            raise _no_space_message(
                f"too much of the cache's {readable(self.limit_bytes)} is in use; --cache-size changes it"
            )
        free = shutil.disk_usage(self.folder).free + sum(entry.bytes for entry in evicted)
        if free < size:
            raise _no_space_message(f"the disk of {self.folder} has {readable(free)} left")
        for entry in evicted:
            self._remove(self.folder / entry.key)

    def _remove(self, folder: Path) -> int:
        """Remove an entry's folder and return the number of bytes freed.

        The folder is first renamed in one step, so that no process can open a partly deleted entry.
        """
        size, scratch = _size(folder / STATES), self._scratch()
        try:
            os.replace(folder, scratch)
        except FileNotFoundError:  # another process was faster
            return 0
        shutil.rmtree(scratch, ignore_errors=True)
        return size

    def _remove_orphans(self) -> int:
        """Remove the scratch folders that dead processes left behind, and return the number of bytes freed.

        A live process holds the lock of its scratch folder. Process ids cannot be used, because the store's folder may
        be shared by containers or machines, each with its own process ids.
        """
        freed = 0
        for scratch in list(self.folder.glob(f"{SCRATCH}*")):
            try:
                with FileLock(scratch / LOCK, timeout=0):
                    pass
            except OSError:  # the lock is held, or permissions forbid it
                continue
            freed += _size(scratch / "entry" / STATES)
            shutil.rmtree(scratch, ignore_errors=True)
        return freed

    def _scratch(self) -> Path:
        """Return a new path for a scratch folder, in which an entry is written before it is moved to its final folder.

        It is inside the store's folder, so that moving the entry is an atomic rename.
        """
        return self.folder / f"{SCRATCH}{uuid4().hex}"

    def _move_into_store(self, key: str, staged: Path, header: _Header) -> StoredStates:
        """Move a finished entry from its scratch folder to its final folder, and open its array.

        If another process has stored the same key in the meantime, its entry is opened instead.

        Args:
            key: The key of the entry.
            staged: The folder with the finished files.
            header: The content of entry.json.
        """
        folder = self.folder / key
        try:
            os.replace(staged, folder)
        except OSError:
            existing = self.open(key)
            if existing is not None:  # another process was faster: its entry holds the same array
                return existing
            os.replace(staged, folder)  # a damaged entry was removed by `open`; any other cause raises again
        self._verified[key] = _identity(folder / STATES)
        return self._entry(folder, header)


class Draft:
    """An entry of the store that is being written; `PrefixStore.create` returns it.

    Fill `states`, then call `commit`. Leaving the `with` block without a commit removes the draft.

        with draft:
            draft.states[start:end] = ...
            entry = draft.commit(build_s, {"model": ...})
    """

    states: Tensor
    """The array, `[tokens, hidden]`, memory-mapped for writing. `commit` deletes this attribute; do not write to the
    tensor through other references after that."""

    def __init__(self, store: PrefixStore, key: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
        """Create a scratch folder, and reserve space on the disk for the array, so that filling it cannot fail later.

        Raises:
            OSError: The disk is full, or the array cannot be mapped into memory.
        """
        self._store, self._key, self._shape, self._dtype = store, key, shape, dtype
        self._scratch = store._scratch()
        self._staged = self._scratch / "entry"
        self._lock = FileLock(self._scratch / LOCK, timeout=0, thread_local=False)
        try:
            self._staged.mkdir(parents=True)
            self._lock.acquire()
            _reserve(self._staged / STATES, shape[0] * shape[1] * dtype.itemsize)
            _memory_map(self._staged / STATES, shape, dtype, shared=False)  # fails here rather than in `commit`
            self.states = _memory_map(self._staged / STATES, shape, dtype, shared=True)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> Draft:
        """Return this draft, for use in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the draft's scratch folder unless it was committed."""
        self._discard()

    def commit(self, build_s: float, description: Mapping[str, str], *, charged: bool = True) -> StoredStates:
        """Move the array into the store in one atomic step, and open it for reading.

        Args:
            build_s: The seconds that computing the array took.
            description: The human-readable description of the array. `alue-bench cache status` shows `depth` and
                `split` in separate columns and everything else in the first column.
            charged: Whether to add the time for computing the checksum to `build_s`.

        Returns:
            The stored array, or the one that another process has stored under the same key in the meantime. If the
            array cannot be stored, the problem is reported and the array is returned without being stored.
        """
        del self.states  # Windows does not move files that are mapped for writing
        started = perf_counter()
        try:
            checksum = _checksum(self._staged / STATES)
            if charged:
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
            return self._store._move_into_store(self._key, self._staged, header)
        except OSError as error:
            self._store.on_problem(f"{self._store.folder / self._key} cannot be written: {_reason(error)}")
            # The mapping keeps the content alive after its file is removed.
            return StoredStates(_memory_map(self._staged / STATES, self._shape, self._dtype, shared=False), build_s)
        finally:
            self._discard()

    def _discard(self) -> None:
        self.__dict__.pop("states", None)
        self._lock.release()
        shutil.rmtree(self._scratch, ignore_errors=True)


def prefix_folder() -> Path:
    """Return the folder of the store for outputs of frozen layers, inside alue-bench's cache folder."""
    return cache_folder() / "prefixes"


def _reserve(path: Path, size: int) -> None:
    """Create a file of `size` bytes whose blocks are allocated on the disk.

    A sparse file would be quicker to create. But if the disk were full when a memory map fills its holes, the process
    would be killed (SIGBUS).

    Raises:
        OSError: The disk has too little space.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            try:
                return os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # the file system does not support it
                    raise
        zeros = memoryview(bytes(min(size, 1 << 24)))
        while (missing := size - file.tell()) > 0:
            file.write(zeros[:missing])
    return None


def _memory_map(path: Path, shape: tuple[int, int], dtype: torch.dtype, *, shared: bool) -> Tensor:
    """Open a file as a memory-mapped tensor of the given shape.

    If `shared` is True, writes to the tensor go to the file; otherwise the mapping is copy-on-write.

    Raises:
        OSError: The address space, or the memory that the system may commit, is too small.
    """
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
    """Return a tuple of file properties that changes whenever the file is replaced or written to."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a missing file takes no space
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


def _entry_folders(folder: Path) -> StoredPrefix:
    size = _size(folder / STATES)
    try:
        used = (folder / HEADER).stat().st_mtime
        header = _read_header(folder)
    except (OSError, _Damaged):
        return StoredPrefix(folder.name, size, datetime.fromtimestamp(folder.stat().st_mtime, UTC))
    return StoredPrefix(
        folder.name, size, datetime.fromtimestamp(used, UTC), header.created.astimezone(UTC), header.description
    )


def _no_space_message(reason: str) -> OSError:
    return OSError(errno.ENOSPC, reason)


def _reason(error: Exception) -> str:
    """Return the cause of an error without error number and path, for messages that already name the path."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{Path(error.filename).name} is missing"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
