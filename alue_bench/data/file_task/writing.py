"""The text of task files that are written for a data file, with comments for people who edit them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alue_bench.contract.task import METRICS, HeldOut, TargetKind
from alue_bench.contract.task_file import HUB_PREFIX, NOT_STATED
from alue_bench.messages.suggestion import command_line

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml(value: object) -> str:
    """Return a value in TOML notation, on one line. The value is a string, number, boolean, list, tuple or mapping."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML also escapes DEL
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml(name)


def task_file_text(content: Mapping[str, Any], *, name: str, path: Path) -> str:
    """Return the text of a task file (TOML) with the given content, and with comments for people who edit it.

    Args:
        content: The keys and values that were inferred. Paths in it are absolute or relative to the working folder.
        name: The task's name.
        path: The path of the task file. The paths in the text are made relative to its folder.
    """
    kind = TargetKind(content["kind"])
    lines = [
        "# A task of alue-bench, inferred from a data file. Check each line, and run:",
        f"#   {command_line('run', options={'task': _as_given(path)})}",
        "",
        f"name = {toml(name)}",
        f"title = {toml(content['title'])}",
        f'languages = {toml(content["languages"])}  # BCP 47 codes, such as "en" or "ar-EG"; "und": not stated',
        f"source = {toml(content['source'])}  # the publisher of the files, and where to get them",
        f"licence = {toml(NOT_STATED)}",
        f"citation = {toml(NOT_STATED)}",
        "",
        f"kind = {toml(content['kind'])}  # {', '.join(TargetKind)}",
        *_label_lines(kind, content),
        f"metric = {toml(METRICS[kind][0])}  # the primary metric: {', '.join(METRICS[kind])}",
        '# protocol = "One sentence about the origin of the splits."',
        "",
        "# Paths are relative to this file. A holdout takes rows out of the train file: first for test, then for dev.",
        "[files]",
        *(f"{split} = {toml(_relative(given, path))}" for split, given in content["files"].items()),
        "",
        "[columns]",
        *(f"{key} = {toml(value)}" for key, value in content["columns"].items()),
        *_column_remarks(kind, content["columns"]),
        "",
        "# [defaults]  # hyper-parameters of this task",
        "# epochs = 3",
        "",
    ]
    return "\n".join(lines)


def _as_given(path: Path) -> str:
    """Return the value to give to `--task` for a task file in the current folder, such as `./name.task.toml`."""
    return f"./{path.name}"


def _label_lines(kind: TargetKind, content: Mapping[str, Any]) -> list[str]:
    if kind is TargetKind.REGRESSION:
        return [f"minimum = {toml(content['minimum'])}", f"maximum = {toml(content['maximum'])}"]
    lines = [f"labels = {toml(content['labels'])}  # in the order of the model's outputs"]
    if kind is TargetKind.BINARY:
        lines[0] += ": negative, positive"
    if kind is TargetKind.MULTILABEL:
        lines.append("threshold = 0.5  # the probability above which a label is predicted")
    return lines


def _column_remarks(kind: TargetKind, columns: Mapping[str, Any]) -> list[str]:
    remarks = [] if "id" in columns else ['# id = "COLUMN"  # identifiers of rows']
    if kind is TargetKind.REGRESSION:
        return remarks
    remarks.append('# decode = { "1" = "LABEL" }  # the label for each code in the file; all codes, if any')
    if "ignore" not in columns:
        remarks.append('# ignore = ["CODE"]  # labels whose rows are left out')
    return remarks


def _relative(given: str | Mapping[str, Any], path: Path) -> str | Mapping[str, Any]:
    """Return a split's entry under `[files]` in a task file, with its path made relative to the task file.

    Args:
        given: The entry: a path, a reference to a data set of the hub, or a table. If it is the table of a held-out
            part, it has no path; the seed with which the part is drawn is added if it is missing.
        path: The path of the task file.
    """
    if isinstance(given, Mapping):
        if "holdout" in given:
            return {**given, "seed": given.get("seed", HeldOut(0.1).seed)}
        return {**given, "path": _relative(given["path"], path)}
    if given.startswith(HUB_PREFIX):
        return given
    relative = os.path.relpath(os.path.abspath(os.path.expanduser(given)), os.path.abspath(path.parent))
    return relative.replace(os.sep, "/")
