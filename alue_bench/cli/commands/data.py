"""`alue-bench data status|add|verify`: show, add and check the tasks' data files."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alue_bench.cli.arguments import with_file_options
from alue_bench.contract.errors import DataError, UnavailableError
from alue_bench.contract.options import build_options
from alue_bench.contract.registry import Registry
from alue_bench.data.file_task.options import FileOptions
from alue_bench.views.standard_output import reserve_stdout_for_documents

if TYPE_CHECKING:
    from alue_bench.contract.task import Task
    from alue_bench.data.verification import VerificationReport
    from alue_bench.views.console import PlainConsole

app = typer.Typer(help="Show, add and check the tasks' files.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="Folder with the official files; also ALUE_BENCH_DATA.")]
MANIFEST = "alue-bench.json"


@app.command("status")
def status(context: typer.Context, data_dir: DataDir = None) -> None:
    """Show where each task's files come from, which are missing, and where to get them."""
    from alue_bench.data.location import given_data_folder, locate, user_data_folder
    from alue_bench.views.console import results
    from alue_bench.views.tables import print_table

    registry: Registry = context.obj
    given = given_data_folder(data_dir)
    rows = []
    for name, declared in sorted(registry.tasks.items()):
        task = declared.value
        try:
            folder = locate(task, given=given, sample=False)
        except DataError:
            rows.append((name, "missing", ", ".join(file.path for file in task.splits.files().values()), task.source))
            continue
        missing = [file.path for file in task.splits.files().values() if not folder.file(file).exists()]
        where = str(folder.path) if folder.kind == "real" else "embedded sample"
        rows.append((name, where, ", ".join(missing) or "none", task.source))
    console = results()
    print_table(console, ("task", "files from", "files missing", "where to get them"), rows)
    console.print(f"Data folder: {given or user_data_folder()}")


@app.command("verify")
@with_file_options()
def verify(
    context: typer.Context,
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks, or task files, to check. Default: all tasks with files.")
    ] = None,
    data_dir: DataDir = None,
    sample: Annotated[bool, typer.Option("--sample", help="Check the embedded sample.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    described: dict[str, Any],
) -> None:
    """Read every row, and report bad rows by file and line, counts by label, duplicates, and overlap of splits.

    Exit code 1 if a row is bad, or a file is missing or cannot be read.
    """
    from alue_bench.data.file_task.given import given_tasks
    from alue_bench.data.location import given_data_folder, locate
    from alue_bench.data.verification import verify as verify_task
    from alue_bench.planning.given import with_given_tasks
    from alue_bench.views.console import print_document, remarks, results

    reserve_stdout_for_documents(as_json)
    names, own = given_tasks(tasks or (), build_options(FileOptions, described))
    registry: Registry = with_given_tasks(context.obj, own)
    files = {one.task.name: one.files for one in own}
    given = given_data_folder(data_dir)
    console = remarks() if as_json else results()
    reports = []
    for name in names or sorted(registry.tasks):
        task = registry.task(name)
        try:
            folder = files.get(name) or locate(task, given=given, sample=sample)
        except DataError:
            if names:
                raise
            continue
        report = verify_task(task, folder)
        reports.append(report)
        _print_report(console, report, folder.kind)
    if as_json:
        print_document([_as_json(report) for report in reports])
    raise typer.Exit(1 if any(report.bad_rows or report.missing or report.unusable for report in reports) else 0)


@app.command("add")
def add(
    context: typer.Context,
    task_name: Annotated[str, typer.Argument(metavar="TASK", help="Task that the files belong to.")],
    path: Annotated[Path, typer.Argument(help="Official file, or a folder with the files.")],
    drop_bad: Annotated[
        bool, typer.Option("--drop-bad", help="Add files even if they contain malformed rows.")
    ] = False,
) -> None:
    """Check official files and copy them into the data folder."""
    from alue_bench.data.location import DataFolder, user_data_folder
    from alue_bench.data.verification import verify as verify_task
    from alue_bench.views.console import results

    registry: Registry = context.obj
    task = registry.task(task_name)
    sources = _official_files(task, path)
    target = user_data_folder()
    console = results()
    try:
        target.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target, prefix=".adding-"))
    except OSError as error:
        raise UnavailableError(f"the data folder {target} is not writable: {error.strerror}") from error
    try:
        for relative, source in sources.items():
            (staging / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, staging / relative)
        report = verify_task(task, DataFolder(staging, "real"))
        for file in report.files:  # messages must name the user's file, not the copy
            file.path = sources[file.path.relative_to(staging).as_posix()]
        for relative, why in report.unusable.items():
            raise DataError(f"{why.replace(str(staging / relative), str(sources[relative]))}; nothing was added")
        _print_report(console, report, "real")
        if report.bad_rows and not drop_bad:
            raise DataError(
                f"{report.bad_rows} bad rows (listed above); nothing was added. Correct them, or add the files "
                "unchanged with --drop-bad and run with --drop-bad"
            )
        for relative in sources:
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / relative, target / relative)
        _update_manifest(target, sources, report)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    console.print(f"Added {len(sources)} files to {target}")
    if report.missing:
        console.print(f"Still missing: {', '.join(report.missing)}", style="yellow")


def _official_files(task: Task, path: Path) -> dict[str, Path]:
    """Find a task's official data files in a folder.

    Args:
        task: The task.
        path: The folder to search, or the path of a single official file.

    Returns:
        The path of each file that was found, by the path of its future copy relative to the data folder.

    Raises:
        DataError: `path` does not exist, holds none of the files, or holds several candidates for one of them.
    """
    wanted = [file.path for file in task.splits.files().values()]
    expected = f"task {task.name!r} expects {', '.join(wanted)}"
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; {expected}")
    names = Counter(Path(relative).name for relative in dict.fromkeys(wanted))
    sources: dict[str, Path] = {}
    for relative in dict.fromkeys(wanted):
        place = Path(relative)
        candidates = [path] if path.is_file() else sorted(path.rglob(glob.escape(place.name)))
        # If two official files have the same name, the name of the folder must match, too.
        needed = 2 if names[place.name] > 1 else 1
        alike = {one: _common_trailing_parts(one.absolute(), place) for one in candidates if one.is_file()}
        most = max(alike.values(), default=0)
        best = [one for one, parts in alike.items() if parts == most >= needed]
        if (path / place).is_file():
            best = [path / place]
        if len(best) > 1:
            raise DataError(
                f"{path} holds more than one {relative}: {best[0]} and {best[1]}; name the folder of one of them"
            )
        if best:
            sources[relative] = best[0]
    if not sources:
        raise DataError(f"{path} holds none of the official files; {expected}")
    return sources


def _common_trailing_parts(path: Path, wanted: Path) -> int:
    """Return the number of equal path components at the ends of two paths, the file name included."""
    pairs = zip(reversed(path.parts), reversed(wanted.parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _update_manifest(folder: Path, added: dict[str, Path], report: VerificationReport) -> None:
    """Record digests and row counts of the added files in the data folder's manifest, which is replaced atomically."""
    import hashlib

    path = folder / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    files = {file.path: file for file in report.files}
    for relative, source in added.items():
        content[relative] = {
            "sha256": hashlib.sha256((folder / relative).read_bytes()).hexdigest(),
            "added": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": files[source].rows,
            "bad_rows": len(files[source].bad),
        }
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(scratch, path)


def _print_report(console: PlainConsole, report: VerificationReport, kind: str) -> None:
    from alue_bench.views.tables import print_table

    rows = [
        (
            file.split,
            file.path.name,
            str(file.rows),
            ", ".join(f"{label} {count}" for label, count in file.labels.items()) or "–",
            str(file.duplicates),
            str(len(file.bad)),
        )
        for file in report.files
    ]
    title = f"{report.task}{' (embedded sample)' if kind == 'sample' else ''}"
    print_table(console, ("split", "file", "rows", "labels", "repeated texts", "bad rows"), rows, title)
    for missing in report.missing:
        console.print(f"missing: {missing}", style="yellow")
    for why in report.unusable.values():
        console.print(why, style="red")
    for overlap, count in report.overlaps.items():
        console.print(f"overlap: {count} rows of {overlap}", style="yellow")
    for file in report.files:
        for gap in file.gaps:
            console.print(f"{file.path.name}: {gap}", style="yellow")
    for file in report.files:
        for bad in file.bad:
            console.print(f"{file.row_location(bad)}: {bad.reason}", style="red")


def _as_json(report: VerificationReport) -> dict[str, Any]:
    return {
        "task": report.task,
        "files": [
            {
                "split": file.split,
                "path": str(file.path),
                "rows": file.rows,
                "labels": file.labels,
                "repeated_texts": file.duplicates,
                "gaps": list(file.gaps),
                "bad_rows": [{"line": bad.line, "reason": bad.reason} for bad in file.bad],
            }
            for file in report.files
        ],
        "overlaps": report.overlaps,
        "missing": report.missing,
        "unusable": report.unusable,
    }
