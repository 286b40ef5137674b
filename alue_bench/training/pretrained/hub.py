"""Finding checkpoints in the local cache of the Hugging Face Hub, and downloading them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from alue_bench.contract.errors import UnavailableError
from alue_bench.contract.model import Model
from alue_bench.training.pretrained.files import ADAPTER_CONFIG, adapter_only_message, find_weights, wanted_names
from alue_bench.training.pretrained.library import short_message

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

HUB_TIMEOUT = 5.0
"""The seconds to wait for an answer from the Hugging Face Hub before it counts as unreachable."""


def cached_snapshot(model: Model) -> Path | None:
    """Return the folder of a model's newest complete snapshot in the Hugging Face Hub's local cache.

    The result is None if the cache has no such snapshot. If `model` specifies a revision, snapshots of other revisions
    are ignored.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return None
    for repo in repos:
        if repo.repo_id != model.checkpoint or repo.repo_type != "model":
            continue
        for revision in sorted(repo.revisions, key=lambda r: r.last_modified, reverse=True):
            wanted = model.revision
            if wanted and not (revision.commit_hash.startswith(wanted) or wanted in revision.refs):
                continue
            folder = Path(revision.snapshot_path)
            if (folder / "config.json").is_file() and _has_weights(folder):
                return folder
    return None


def _has_weights(folder: Path) -> bool:
    try:
        find_weights(folder)
    except UnavailableError:  # an interrupted download, or a download of other files
        return False
    return True


def download_snapshot(model: Model) -> Path:
    """Download a model's files from the hub and return their folder in the local cache.

    Raises:
        UnavailableError: The model cannot be downloaded, or a downloaded file has the wrong digest. An unreachable hub
            is reported within seconds.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    hub_id = str(model.checkpoint)
    named = f"model {model.name!r} ({hub_id}{'@' + model.revision if model.revision else ''})"
    if constants.HF_HUB_OFFLINE:
        raise UnavailableError(f"{named} is not in the hub cache, and HF_HUB_OFFLINE forbids asking the hub")
    try:
        info = HfApi().model_info(hub_id, revision=model.revision, timeout=HUB_TIMEOUT, files_metadata=True)
    except Exception as error:  # the hub client's errors (network, HTTP, validation) have no common base class
        raise UnavailableError(f"{named} cannot be downloaded from the hub: {_reason(error)}") from error
    names = [sibling.rfilename for sibling in info.siblings or ()]
    if ADAPTER_CONFIG in names and "config.json" not in names:
        raise UnavailableError(adapter_only_message(named, None))
    wanted = [escape(name) for name in wanted_names(names)]
    try:
        folder = Path(snapshot_download(hub_id, revision=info.sha, allow_patterns=wanted))
    except Exception as error:  # as above
        raise UnavailableError(
            f"{named}: the download was interrupted ({_reason(error)}); run the same command again to continue"
        ) from error
    if altered := removed_if_altered(folder, info.siblings or ()):
        raise UnavailableError(
            f"{named}: {', '.join(altered)} arrived with another digest than the hub states, and was removed; run the "
            "same command again to download it"
        )
    return folder


def download_config(model: Model) -> Path:
    """Download a model's config.json from the hub and return the folder in the local cache that contains the file.

    Raises:
        UnavailableError: The file cannot be downloaded. An unreachable hub is reported within seconds.
    """
    from huggingface_hub import hf_hub_download

    try:
        file = hf_hub_download(str(model.checkpoint), "config.json", revision=model.revision, etag_timeout=HUB_TIMEOUT)
    except Exception as error:  # as in download_snapshot
        raise UnavailableError(
            f"model {model.name!r} ({model.checkpoint}) cannot be downloaded from the hub: {_reason(error)}"
        ) from error
    return Path(file).parent


def removed_if_altered(folder: Path, siblings: Iterable[RepoSibling]) -> list[str]:
    """Remove files of a downloaded snapshot from the cache if their digests differ from the hub's metadata.

    This is needed because the hub's client library compares only the sizes of files.

    Args:
        folder: The folder of the snapshot.
        siblings: The hub's metadata for each file of the repository.

    Returns:
        The names of the removed files.
    """
    stated = {sibling.rfilename: sibling for sibling in siblings}
    altered = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        sibling = stated.get(name)
        if sibling is not None and not _is_intact(path, sibling):
            path.resolve().unlink()  # the files of a snapshot are symbolic links
            path.unlink(missing_ok=True)
            altered.append(name)
    return altered


def _is_intact(path: Path, sibling: RepoSibling) -> bool:
    """Return whether a file matches the hub's metadata: the SHA-256 digest for LFS files, else the Git blob id."""
    with path.open("rb") as file:
        if sibling.lfs is not None:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == sibling.lfs.sha256)
        if sibling.blob_id is None:  # a mirror that states no digests
            return True
        content = file.read()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return bool(git == sibling.blob_id)


def _reason(error: Exception) -> str:
    """Return the cause of an error that the hub's client library raised, with a remedy if one is known."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "RepositoryNotFoundError" in kinds:
        return "there is no such repository, or it is private"
    if "RevisionNotFoundError" in kinds:
        return "there is no such revision"
    if kinds & {
        "ConnectError",
        "ConnectTimeout",
        "ReadTimeout",
        "TimeoutException",
        "ConnectionError",
        "Timeout",
    }:
        return "it does not answer; check the network, or name a local folder with --model"
    return f"{type(error).__name__}: {short_message(error)}"
