"""`alue-bench cache status|clear`: show or clear the stored outputs of frozen layers and other cached files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Show or clear the cache. Everything in it can be computed again.", no_args_is_help=True)


@app.command("status")
def status() -> None:
    """Show the stored outputs of frozen layers, and the disk space that they and the token ids use."""
    from alue_bench.contract.byte_sizes import parse_size, readable
    from alue_bench.data.cache_folder import cache_folder
    from alue_bench.planning.request import DEFAULT_CACHE_SIZE
    from alue_bench.training.prefix.store import PrefixStore, prefix_folder
    from alue_bench.views.console import results
    from alue_bench.views.tables import print_table

    entries = PrefixStore(prefix_folder(), parse_size(DEFAULT_CACHE_SIZE), _print_error).entries()
    rows = []
    for entry in reversed(entries):
        about = dict(entry.description)
        depth, split = about.pop("depth", ""), about.pop("split", "")
        what = ", ".join(about.values()) or ("unreadable" if entry.created is None else entry.key)
        rows.append((what, depth, split, readable(entry.bytes), f"{entry.last_used.astimezone():%Y-%m-%d %H:%M}"))
    console = results()
    if rows:
        print_table(console, ("frozen layers of", "depth", "split", "size", "last used"), rows)
    for line in (
        f"Outputs of frozen layers: {readable(sum(entry.bytes for entry in entries))}, entries: {len(entries)}; "
        f"limit of a run: {DEFAULT_CACHE_SIZE} (change it with --cache-size)",
        f"Token ids: {readable(_size_of(_tokens_folder()))}",
        f"Checkpoints of interrupted runs: {readable(_size_of(_checkpoint_folder()))}",
        f"Cache folder: {cache_folder()}",
    ):
        console.print(line)


@app.command("clear")
def clear(
    everything: Annotated[
        bool, typer.Option("--all", help="Also remove token ids and checkpoints of interrupted runs.")
    ] = False,
) -> None:
    """Remove the stored outputs of frozen layers. They are computed again when needed."""
    from alue_bench.contract.byte_sizes import parse_size, readable
    from alue_bench.contract.errors import UnavailableError
    from alue_bench.planning.request import DEFAULT_CACHE_SIZE
    from alue_bench.training.prefix.store import PrefixStore, prefix_folder
    from alue_bench.views.console import results

    problems: list[str] = []
    freed = PrefixStore(prefix_folder(), parse_size(DEFAULT_CACHE_SIZE), problems.append).clear()
    if everything:
        for folder in (_tokens_folder(), _checkpoint_folder()):
            before = _size_of(folder)
            shutil.rmtree(folder, ignore_errors=True)
            left = _size_of(folder)
            freed += before - left
            if left:
                problems.append(
                    f"{folder} cannot be removed completely ({readable(left)} are left); check its permissions"
                )
    results().print(f"Freed {readable(freed)}")
    if problems:
        raise UnavailableError("; ".join(problems))


def _print_error(problem: str) -> None:
    from alue_bench.views.console import remarks

    remarks().print(f"alue-bench: {problem}")


def _checkpoint_folder() -> Path:
    from alue_bench.training.checkpointing import checkpoint_folder as folder

    return folder()


def _tokens_folder() -> Path:
    from alue_bench.data.cache_folder import cache_folder

    return cache_folder() / "tokens"


def _size_of(folder: Path) -> int:
    """Return the size in bytes of all files in a folder and its subfolders, without files that vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total
