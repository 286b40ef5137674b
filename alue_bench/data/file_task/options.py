"""The command-line options with which a user makes a task out of a data file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import excerpt
from alue_bench.contract.options import CheckedOptions, Group, option, options_of
from alue_bench.contract.task_file import share_problem

DEFAULT_HOLDOUT = "20%"
"""The share of the rows that is held out for a dev or test split without a file, if the user states no share."""


@dataclass(frozen=True, kw_only=True)
class FileOptions(CheckedOptions):
    """The options that describe a user's data file. What the user does not state is inferred from the file."""

    file: str | None = option(
        None,
        help="Your own data as a task: a CSV, TSV, JSON lines, JSON, Parquet or XLSX file, a folder of "
        "datasets.save_to_disk, or a data set of the hub: hub:owner/name, hub:owner/name@revision/config.",
        group=Group.FILE,
    )
    text: str | None = option(
        None, help="Column of the text in the data file. Default: guessed by its name.", group=Group.FILE
    )
    pair: str | None = option(None, help="Column of the second text of a pair.", group=Group.FILE)
    label: tuple[str, ...] = option(
        (),
        help="Column of the label or number in the data file; repeatable, for columns of 0 and 1, one for each label. "
        "Default: guessed by its name.",
        group=Group.FILE,
    )
    id: str | None = option(
        None,
        help="Column of the identifiers of the data file's rows. Default: id if there is one; else rows are counted.",
        group=Group.FILE,
    )
    label_separator: str | None = option(
        None,
        help="Separator between the labels of one cell of the data file, for several labels per row.",
        group=Group.FILE,
    )
    target: Literal["binary", "multiclass", "multilabel", "regression"] | None = option(
        None,
        help="Kind of target in the data file: binary, multiclass, multilabel or regression. Default: inferred from "
        "the label column.",
        group=Group.FILE,
    )
    ignore: tuple[str, ...] = option(
        (), help="Label in the data file whose rows are left out; repeatable.", group=Group.FILE
    )
    dev: str | None = option(
        None, help="Data file of the dev split. Default: rows held out of --file.", group=Group.FILE
    )
    test: str | None = option(
        None, help="Data file of the test split. Default: rows held out of --file.", group=Group.FILE
    )
    holdout: str | None = option(
        None,
        help="Share of the data file's rows to hold out for test, and of the other rows for dev. "
        f"Default: {DEFAULT_HOLDOUT}.",
        group=Group.FILE,
    )
    sheet: str | None = option(
        None, help="Sheet of an XLSX data file. Default: the only one with rows.", group=Group.FILE
    )

    def __post_init__(self) -> None:
        """Raise UsageError if `holdout` is invalid, options contradict each other, or `file` is needed and missing."""
        super().__post_init__()
        if self.holdout is not None and (problem := share_problem(self.holdout)):
            raise UsageError(f"--holdout {problem}")
        if self.file is None:
            for declared in options_of(FileOptions).values():
                if getattr(self, declared.field) not in (None, ()):
                    raise UsageError(f"{declared.flag} describes a data file; name the file with --file")
        if self.holdout is not None and self.dev is not None and self.test is not None:
            raise UsageError("--holdout, --dev and --test: nothing is left to hold out; leave --holdout out")
        given = [one for one in (self.file, self.dev, self.test) if one is not None]
        if self.sheet is not None and not any(one.lower().endswith(".xlsx") for one in given):
            raise UsageError(f"--sheet {excerpt(self.sheet, quote=False)}: no data file is an XLSX file; leave it out")
