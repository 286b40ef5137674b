"""Data sets of the Hugging Face hub, which are copied into the cache folder and read from there."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.formats import excerpt
from alue_bench.contract.task_file import HUB_PREFIX
from alue_bench.data.cache_folder import cache_folder
from alue_bench.messages.display import file_name

REFERENCE = re.compile(rf"{HUB_PREFIX}([\w.-]+/[\w.-]+?)(?:@([^/@\s]+))?(?:/([^/@\s]+))?")
"""The form of a reference to a data set of the hub. The groups are its name, revision and config."""


@dataclass(frozen=True)
class HubData:
    """A reference to a data set of the Hugging Face hub. Users write it as hub:owner/name[@revision][/config]."""

    name: str
    """The owner and the name, such as "owner/name"."""
    revision: str | None
    """The branch, tag or commit; None for the newest commit."""
    config: str | None
    """The name of the data set's configuration; None for the default one."""

    @classmethod
    def read(cls, reference: str) -> HubData:
        """Return the data set that a reference such as "hub:owner/name" names; raise UsageError if it is malformed."""
        match = REFERENCE.fullmatch(reference)
        if match is None:
            raise UsageError(
                f"{excerpt(reference, quote=False)}: a hub data set is written hub:owner/name[@revision][/config]"
            )
        return cls(match[1], match[2], match[3])

    @property
    def folder(self) -> Path:
        """The folder, inside the cache folder, for the copy of the data set."""
        stem = "--".join([self.name.replace("/", "--"), self.revision or "newest", self.config or "default"])
        return cache_folder() / "hub-data" / file_name(stem)

    def fetch(self) -> Path:
        """Download the data set unless a copy exists, and return the folder of the copy.

        Raises:
            UnavailableError: The hub does not answer, or has no such data set.
        """
        if self.folder.is_dir():
            return self.folder
        import datasets

        try:
            data = datasets.load_dataset(self.name, self.config, revision=self.revision)
        except Exception as error:  # raised by the hub's client, the network, or the data set's files
            raise UnavailableError(
                f"hub data set {self.name} cannot be loaded ({_cause(error)}); check its name and the network. Without "
                "a network, save it elsewhere with save_to_disk of the datasets library, and name that folder with "
                "--file"
            ) from error
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=".fetching-") as scratch:
            data.save_to_disk(str(Path(scratch) / "data"))
            if not self.folder.is_dir():
                shutil.move(Path(scratch) / "data", self.folder)
        return self.folder


def _cause(error: BaseException) -> str:
    text = next(iter(str(error).splitlines()), "")
    return excerpt(f"{type(error).__name__}: {text}", quote=False, max_length=160)
