"""The declaration of a task: a labelled data set, its label space, its splits and its metrics.

A task plugin returns `Task` values from the hook `alue_bench_tasks`. For data files in a usual format, such as CSV, the
declaration names a reader such as `Delimited`; no code is needed to read them. `docs/plugins.md` is a guide.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal

from alue_bench.contract.answers import SquadJson
from alue_bench.contract.formats import Delimited, Reader
from alue_bench.contract.tables import Table
from alue_bench.contract.tagged import TaggedColumns, TaggedJson
from alue_bench.contract.validation import (
    Kind,
    breaks_lines,
    check_callable,
    check_languages,
    check_mapping,
    check_stated,
    check_texts,
    check_types,
)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""The pattern of the names of tasks and models. Such names need no quoting in file names, MLflow tags and shells."""


class TargetKind(StrEnum):
    """The kind of prediction target; it determines the loss, the head and the metrics.

    BINARY and MULTICLASS: one label for each example. MULTILABEL: any number of labels for each example. REGRESSION: a
    number. TOKENS: a tag for each word. SPAN: an answer that is a part of the text (extractive question answering).
    """

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    TOKENS = "tokens"
    SPAN = "span"


METRICS: Mapping[TargetKind, tuple[str, ...]] = MappingProxyType(
    {
        TargetKind.BINARY: ("f1_macro", "f1_micro", "f1_weighted", "accuracy", "mcc"),
        TargetKind.MULTICLASS: ("f1_macro", "f1_micro", "f1_weighted", "accuracy", "mcc"),
        TargetKind.MULTILABEL: ("jaccard_samples", "f1_macro", "f1_micro", "f1_weighted", "accuracy"),
        TargetKind.REGRESSION: ("pearson", "spearman"),
        TargetKind.TOKENS: ("f1_micro", "f1_macro", "accuracy"),
        TargetKind.SPAN: ("f1", "exact_match", "f1_arabic", "exact_match_arabic"),
    }
)
"""The metrics of each kind of target, which every run logs. The first of them is the default primary metric; only for
plain tags of words, "accuracy" is the default. If there are labels, the F1 of each label is logged too. In a task that
tags words, F1 is computed over entities if the tags have a scheme (`Labels.scheme`), and over tags otherwise; accuracy
is the share of words with the correct tag. Span extraction has the two metrics of SQuAD's script, and the same two
after a further normalisation of Arabic answers (`alue_bench.evaluation.answers`)."""

START, END = "start", "end"
"""The names of the head's two outputs for each token in span extraction: the scores of a token as the start and as the
end of the answer."""

OUTSIDE = "O"
"""The tag of words outside entities."""


@dataclass(frozen=True)
class Labels:
    """The label space of a task: its label names, or the range of a regression.

    Create it with `Labels.binary`, `Labels.multiclass`, `Labels.multilabel`, `Labels.regression`, `Labels.tokens` or
    `Labels.span`.
    """

    kind: TargetKind
    names: tuple[str, ...] = ()
    """The labels or tags, in the order of the head's outputs; `START` and `END` in span extraction; empty for a
    regression."""
    threshold: float = 0.5
    """The probability above which a label is predicted; only for multi-label tasks."""
    minimum: float = float("-inf")
    """The smallest target of a regression."""
    maximum: float = float("inf")
    """The largest target of a regression."""
    scheme: Literal["IOB2"] | None = None
    """The scheme in which the tags of words mark entities; None for plain tags such as parts of speech, and for every
    other kind of target."""
    no_answer: bool = False
    """True if a text need not contain an answer to its question; only for span extraction."""

    @classmethod
    def binary(cls, negative: str, positive: str) -> Labels:
        """Return the label space of a task with two classes, of which each example has one.

        Args:
            negative: The name of the first class (index 0).
            positive: The name of the second class (index 1).
        """
        return cls(TargetKind.BINARY, (negative, positive))

    @classmethod
    def multiclass(cls, *names: str) -> Labels:
        """Return the label space of a task with one label for each example.

        Args:
            *names: The labels, in the order of the head's outputs.
        """
        return cls(TargetKind.MULTICLASS, names)

    @classmethod
    def multilabel(cls, *names: str, threshold: float = 0.5) -> Labels:
        """Return the label space of a task with any number of labels, possibly none, for each example.

        Args:
            *names: The labels, in the order of the head's outputs.
            threshold: The probability above which a label is predicted, between 0 and 1.
        """
        return cls(TargetKind.MULTILABEL, names, threshold=threshold)

    @classmethod
    def regression(cls, minimum: float, maximum: float) -> Labels:
        """Return the label space of a task whose targets are numbers from `minimum` to `maximum`."""
        return cls(TargetKind.REGRESSION, minimum=minimum, maximum=maximum)

    @classmethod
    def tokens(cls, *names: str, scheme: Literal["IOB2"] | None = None) -> Labels:
        """Return the label space of a task with one tag for each word of a text.

        Args:
            *names: The tags, in the order of the head's outputs.
            scheme: "IOB2" if the tags mark entities: B-TYPE for the first word of an entity, I-TYPE for each further
                word, and O for a word outside entities (Tjong Kim Sang & Veenstra 1999). None for plain tags, such as
                parts of speech.
        """
        return cls(TargetKind.TOKENS, names, scheme=scheme)

    @classmethod
    def span(cls, *, no_answer: bool = False) -> Labels:
        """Return the label space of span extraction: the answer to a question is a part of a text.

        Args:
            no_answer: True if questions without an answer may occur, as in SQuAD 2.0 (Rajpurkar, Jia & Liang 2018).
        """
        return cls(TargetKind.SPAN, (START, END), no_answer=no_answer)

    def __post_init__(self) -> None:
        """Check each field."""
        check_types("labels", vars(self), {"kind": TargetKind, "threshold": (float, int), "no_answer": bool})
        check_texts("labels", vars(self), ("names",))
        object.__setattr__(self, "names", tuple(self.names))
        if self.kind is TargetKind.REGRESSION:
            check_types("labels", vars(self), {"minimum": (float, int), "maximum": (float, int)})
            if self.names:
                raise ValueError("a regression task has no label names")
            if not self.minimum < self.maximum:
                raise ValueError(f"regression: minimum {self.minimum} is not below maximum {self.maximum}")
        elif len(self.names) < 2:
            raise ValueError(f"a {self.kind} task needs at least two different label names, not {self.names}")
        if self.kind is TargetKind.BINARY and len(self.names) > 2:
            raise ValueError(f"a binary task has two labels, not {len(self.names)}; declare Labels.multiclass")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold {self.threshold} is not between 0 and 1")
        if broken := next((name for name in self.names if breaks_lines(name)), None):
            raise ValueError(f"label {broken!r} holds a tab, a line end or another control character; rename it")
        if self.kind is TargetKind.SPAN and self.names != (START, END):
            raise ValueError(f"span extraction has the labels {START!r} and {END!r}; declare Labels.span()")
        if self.no_answer and self.kind is not TargetKind.SPAN:
            raise ValueError(f"a {self.kind} task has no answers; leave no_answer out")
        if self.kind is TargetKind.TOKENS:
            _check_tags(self)
        elif self.scheme is not None:
            raise ValueError(f"a {self.kind} task has no tags with a scheme; leave scheme={self.scheme!r} out")

    @property
    def outputs(self) -> int:
        """The number of the head's outputs: for each example or, if `reads_tokens` is True, for each token."""
        return len(self.names) or 1

    @property
    def tags_words(self) -> bool:
        """True if the model predicts a tag for each word; False if it predicts one target for the whole text."""
        return self.kind is TargetKind.TOKENS

    @property
    def extracts_spans(self) -> bool:
        """True if the model answers a question with a part of the text."""
        return self.kind is TargetKind.SPAN

    @property
    def reads_tokens(self) -> bool:
        """True if the head reads the hidden states of all tokens; False if it reads one vector for each text.

        It is True for tasks that tag words and for span extraction.
        """
        return self.tags_words or self.extracts_spans

    @property
    def types(self) -> tuple[str, ...]:
        """The types of entities, such as ("PER", "LOC"), in the order of the tags; without a scheme, the labels."""
        if self.scheme is None:
            return self.names
        return tuple(dict.fromkeys(name[2:] for name in self.names if name != OUTSIDE))

    @property
    def main_metric(self) -> str:
        """The default primary metric of a task with this label space."""
        return "accuracy" if self.tags_words and self.scheme is None else METRICS[self.kind][0]


def _check_tags(labels: Labels) -> None:
    """Raise ValueError if a tag is empty, contains white space, or does not belong to the scheme."""
    if spaced := next((name for name in labels.names if not name or any(c.isspace() for c in name)), None):
        raise ValueError(f"tag {spaced!r} is empty or holds a space; rename it")
    if labels.scheme is None:
        return
    if labels.scheme != "IOB2":
        raise ValueError(f"scheme {labels.scheme!r} is not known; it must be 'IOB2', or None for plain tags")
    if OUTSIDE not in labels.names:
        raise ValueError(f"tags of the scheme IOB2 need {OUTSIDE!r}, for words outside entities; add it")
    for name in labels.names:
        if name != OUTSIDE and (name[:2] not in ("B-", "I-") or not name[2:]):
            raise ValueError(f"tag {name!r} does not belong to the scheme IOB2; its tags are O, B-TYPE and I-TYPE")
        if name.startswith("I-") and f"B-{name[2:]}" not in labels.names:
            raise ValueError(f"tag {name!r} continues an entity that none of the tags begins; add 'B-{name[2:]}'")


@dataclass(frozen=True)
class DataFile:
    """A data file as its publisher provides it: its path in the data folder, and the reader for its format."""

    path: str
    """The path relative to the data folder, such as "reviews/train.tsv"."""
    read: Reader
    """The reader: a value such as `Delimited(...)`, or a function that yields the rows of a file."""

    def __post_init__(self) -> None:
        """Check that `path` does not leave the data folder, and that `read` can be called."""
        check_types("data file", vars(self), {"path": str})
        check_callable(f"data file {self.path!r}", "read", self.read)
        pure = PurePosixPath(self.path)
        if pure.is_absolute() or ".." in pure.parts or not pure.name or "\\" in self.path or breaks_lines(self.path):
            raise ValueError(
                f"data file {self.path!r} must be a path below the data folder, such as 'reviews/train.tsv'"
            )


@dataclass(frozen=True)
class HeldOut:
    """The declaration of a dev or test split that the publishers do not provide: it is held out from the train file.

    The split is drawn at random. Examples with the same first text stay together, so that neither a repeated text nor a
    premise shared by several pairs occurs in two splits. In tasks with one label for each example, the draw is
    stratified by label, unless a label is too rare. The draw depends on the field `seed` and not on the seed of a run,
    so that all runs have the same splits. If both test and dev are held out, test is drawn first.
    """

    fraction: float
    """The share of the examples that is held out, above 0 and at most 0.5. More precisely, it is a share of the groups
    of examples with the same first text. If dev is drawn after test, it is a share of what remains."""
    seed: int = 42
    """The random seed of the draw."""

    def __post_init__(self) -> None:
        """Check the range of each field."""
        check_types("HeldOut", vars(self), {"fraction": (float, int), "seed": int})
        if not 0 < self.fraction <= 0.5:
            raise ValueError(f"HeldOut: fraction {self.fraction} is not above 0 and at most 0.5")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"HeldOut: seed {self.seed} is not at least 0 and below 2**32")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The splits of a task: train for training, dev for choosing the best epoch, and test for the reported score.

    Each split is an official file or a part that is held out from the train file.
    """

    train: DataFile | None = None
    """The file with the train rows; None for a task that has none and only tests models that were trained on another
    task (`Task.trained_on`, or the option `--also-test`)."""
    dev: DataFile | HeldOut | None = None
    """The split on which the model is scored during training, to select the epoch whose weights are tested; None if and
    only if `train` is None."""
    test: DataFile | HeldOut
    """The split on which the reported score is computed, once, with the selected weights."""
    submission: DataFile | None = None
    """An official test file without gold labels, for a leaderboard; None if there is none."""
    protocol: str = "official train, dev and test files"
    """A sentence on where the splits come from, for readers of the results; it is recorded with every run."""

    def __post_init__(self) -> None:
        """Check the type of each field, and that no two file names differ only in upper and lower case."""
        nothing = type(None)
        kinds: dict[str, Kind] = {
            "train": (DataFile, nothing), "dev": (DataFile, HeldOut, nothing), "test": (DataFile, HeldOut),
            "submission": (DataFile, nothing), "protocol": str,
        }  # fmt: skip
        check_types("splits", vars(self), kinds)
        check_stated("splits", vars(self), ("protocol",))
        _check_files_differ(self.files().values())

    def files(self) -> dict[str, DataFile]:
        """Return the data files by split name ("train", "dev", "test", "submission"), without held-out splits."""
        named = {"train": self.train, "dev": self.dev, "test": self.test, "submission": self.submission}
        return {split: file for split, file in named.items() if isinstance(file, DataFile)}


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The format of the tab-separated file in which a leaderboard expects the predictions for a task.

    The file has one line for each row of the official test file without gold labels (`Splits.submission`), in the order
    of the rows. If the task has no such file, its test file takes the place of this file. A line holds the row's
    identifier, if the leaderboard requires it, and the predicted label or number; in a multi-label task, 0 or 1 for
    each label instead.
    """

    file: str
    """The name of the file, such as "q2q.tsv"."""
    header: tuple[str, ...] = ()
    """The column names in the first line; empty if the file has no header."""
    id: Literal["given", "row"] | None = None
    """The identifiers in the first column: "given" for those in the official test file, "row" for the numbers of the
    rows from 0, None if there is no such column."""
    encode: Mapping[str, str] = field(default_factory=dict)
    """The text that is written for each label. Labels that are missing from the mapping are written as their names."""
    leaderboard: str = "ALUE"
    """The name of the leaderboard."""

    def __post_init__(self) -> None:
        """Check the type and form of each field."""
        check_types("submission", vars(self), {"file": str, "id": (str, type(None)), "leaderboard": str})
        check_mapping("submission", vars(self), "encode")
        check_stated("submission", vars(self), ("leaderboard",))
        if PurePosixPath(self.file).name != self.file or self.file in ("", "..") or "\\" in self.file:
            raise ValueError(f"submission file {self.file!r} must be a file's name without a folder")
        if self.id not in ("given", "row", None):
            raise ValueError(f"submission {self.file!r}: id is {self.id!r}; it must be 'given', 'row' or None")
        if not isinstance(self.header, tuple | list) or not all(isinstance(cell, str) for cell in self.header):
            raise TypeError(f"submission {self.file!r}: header is {self.header!r:.60}; it must be a tuple of strings")
        cells = (self.file, *self.header, *self.encode.values())
        if broken := next((cell for cell in cells if breaks_lines(cell)), None):
            raise ValueError(
                f"submission {self.file!r}: {broken!r} contains a tab or a line end, which a cell of its file cannot "
                "hold"
            )

    def columns(self, labels: Labels) -> int:
        """Return the number of columns of the submission file for a task with the label space `labels`."""
        predicted = len(labels.names) if labels.kind is TargetKind.MULTILABEL else 1
        return predicted + (self.id is not None)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A labelled data set, its label space, its splits and its metrics.

    Creating a task raises TypeError or ValueError, naming the task and the field, if a field has a wrong type or value
    or contradicts another field.
    """

    name: str
    """The name for the option `--task`: lower-case ASCII letters, digits, ".", "_" and "-", with a letter or digit
    first."""
    title: str
    """The name that lists and reports show to readers."""
    languages: tuple[str, ...]
    """The languages of the texts as BCP 47 codes, such as ("ar",) or ("ar-EG", "ar-MA")."""
    labels: Labels
    """The label space, such as `Labels.binary("negative", "positive")`."""
    splits: Splits
    """The data files, and the splits that are held out from the train file."""
    source: str
    """The publisher of the files, and where users get them."""
    licence: str
    """The licence under which the files are published."""
    citation: str
    """A reference to the publication that introduced the data set."""
    primary: str = ""
    """The primary metric, which is logged as test/score and selects the epoch. The default is "accuracy" for plain tags
    of words, and otherwise the first entry of `METRICS` for the kind of target."""
    official_metric: str = ""
    """The metric of the shared task or leaderboard, in the words of its organisers; it is only shown in lists."""
    trained_on: str | None = None
    """The name of another task on whose train and dev splits the model is trained; None if this task has a train split,
    or if it is only a test set for models of other tasks (option `--also-test`). The two tasks must have the same
    threshold or range and, unless `label_map` is given, the same labels in the same order."""
    label_map: Mapping[str, str | None] = field(default_factory=dict)
    """The mapping from each label of the task in `trained_on` to a label of this task; empty if both tasks have the
    same labels in the same order. If several labels are mapped to the same label, their probabilities are summed (in a
    multi-label task, the largest one is used). A label that is mapped to None is never predicted: the model chooses
    among the other labels."""
    companions: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    """The names of other tasks on whose test splits models of this task can be scored too (option `--also-test`). Each
    name is mapped to a mapping from each label of this task to a label of the other task, or to None if the label is
    never predicted; this mapping is empty if both tasks have the same labels."""
    only_by_name: bool = False
    """True if commands without the option `--task` leave the task out, for example because it is not part of the
    benchmark for which the plugin is installed."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """The hyper-parameters with which models for this task should be trained, by their names in `HyperParameters`. They
    take precedence over the general defaults."""
    submission: Submission | None = None
    """The file in which a leaderboard expects predictions on this task; None if there is no leaderboard."""
    sample: Path | None = None
    """The folder of small demonstration files in the plugin, with the same paths as in the data folder; None if there
    are none. Runs use them if the official files are missing."""

    def __post_init__(self) -> None:
        """Check each field and how the fields fit together, and set the default primary metric."""
        check_types("task", vars(self), {"name": str})
        if not NAME.fullmatch(self.name):
            raise ValueError(f"task name {self.name!r} must match {NAME.pattern}")
        owner = f"task {self.name!r}"
        check_stated(owner, vars(self), ("title", "languages", "source", "licence", "citation"))
        texts = dict.fromkeys(("title", "source", "licence", "citation", "primary", "official_metric"), str)
        others: dict[str, Kind] = {
            "labels": Labels, "splits": Splits, "trained_on": (str, type(None)),
            "submission": (Submission, type(None)), "sample": (Path, type(None)), "label_map": Mapping,
            "only_by_name": bool,
        }  # fmt: skip
        check_types(owner, vars(self), {**texts, **others})
        check_mapping(owner, vars(self), "defaults", object)
        check_texts(owner, vars(self), ("languages",))
        check_languages(owner, self.languages)
        metrics = METRICS[self.labels.kind]
        if not self.primary:
            object.__setattr__(self, "primary", self.labels.main_metric)
        if self.primary not in metrics:
            raise ValueError(f"task {self.name!r}: primary metric {self.primary!r} is not one of {', '.join(metrics)}")
        if self.splits.train is not None and self.trained_on is not None:
            raise ValueError(f"task {self.name!r} has a train split and trained_on; leave one of them out")
        if self.trained_on == self.name:
            raise ValueError(f"task {self.name!r} is trained on itself; name another task, or give it a train split")
        if self.splits.train is not None and self.splits.dev is None:
            raise ValueError(f"task {self.name!r} needs a dev split; HeldOut(0.1) takes one from train")
        if self.splits.train is None and (self.splits.dev is not None or isinstance(self.splits.test, HeldOut)):
            raise ValueError(f"task {self.name!r} has no train split, so that it has a test file of its own and no dev")
        for split, file in self.splits.files().items():
            _check_reader(f"task {self.name!r}: the reader of the {split} file", split, file.read, self.labels)
        _check_pairs(self)
        if self.submission is not None:
            _check_submission(self, self.submission)
        if self.label_map:
            _check_label_map(self)
        _check_companions(self)
        object.__setattr__(self, "splits", _with_label_space(self.splits, self.labels))

    @property
    def is_test_only(self) -> bool:
        """True if the task has neither a train split nor `trained_on`: it only tests models of other tasks."""
        return self.splits.train is None and self.trained_on is None

    @property
    def is_pair(self) -> bool:
        """True if an example is a pair of texts."""
        reader = next(iter(self.splits.files().values())).read
        return getattr(reader, "text_pair", None) is not None


def _check_files_differ(files: Iterable[DataFile]) -> None:
    """Raise ValueError if two paths differ only in upper and lower case, which some file systems do not distinguish."""
    for file, another in combinations(files, 2):
        if file.path != another.path and file.path.casefold() == another.path.casefold():
            raise ValueError(
                f"splits: the files {file.path!r} and {another.path!r} differ only in case, and are one file on "
                "systems that ignore case; rename one of them"
            )


def _check_reader(owner: str, split: str, read: Reader, labels: Labels) -> None:
    """Raise ValueError if a reader names no target column, or if its targets cannot belong to the label space.

    Only the readers of this package are checked, because they declare their targets.

    Args:
        owner: The beginning of the error message, which names the task and the file.
        split: The name of the split. The file of the split "submission" needs no target column.
        read: The reader.
        labels: The label space of the task.
    """
    if isinstance(read, TaggedColumns | TaggedJson):
        if not labels.tags_words:
            raise ValueError(f"{owner} gives a tag for each word; declare Labels.tokens, or take another reader")
        _check_decoding(owner, read, labels)
        return
    if isinstance(read, SquadJson) and not labels.extracts_spans:
        raise ValueError(f"{owner} gives answers in a text; declare Labels.span, or take another reader")
    if not isinstance(read, Delimited | Table):
        return
    if labels.extracts_spans:
        raise ValueError(f"{owner} gives one target for a text; a task that extracts spans needs SquadJson")
    if labels.tags_words:
        raise ValueError(
            f"{owner} gives one target for a text; a task that tags words needs TaggedColumns or TaggedJson"
        )
    if read.target is None:
        if split != "submission":
            raise ValueError(f"{owner} has no target; name the column of the gold labels")
        return
    if read.separator is not None and labels.kind is not TargetKind.MULTILABEL:
        raise ValueError(f"{owner}: separator parts several labels; leave it out, or declare Labels.multilabel")
    if labels.kind is TargetKind.MULTILABEL:
        if isinstance(read.target, tuple) and set(read.target) != set(labels.names):
            raise ValueError(
                f"{owner}: target is {read.target!r:.60}; a multi-label task needs one column of 0 and 1 for each "
                f"label, of its name: target={labels.names!r:.200}"
            )
    elif isinstance(read.target, tuple):
        raise ValueError(f"{owner}: target is {read.target!r:.60}; name one column, or declare Labels.multilabel")
    elif labels.kind is TargetKind.REGRESSION:
        if read.decode or read.ignore:
            raise ValueError(f"{owner}: a regression has no labels to decode or ignore; leave out decode and ignore")
    else:
        _check_decoding(owner, read, labels)


def _check_decoding(owner: str, read: Delimited | Table | TaggedColumns | TaggedJson, labels: Labels) -> None:
    known = f"declared are {', '.join(labels.names)}"
    ignored = read.ignore if isinstance(read, Delimited | Table) else frozenset[str]()
    unknown = sorted({name for code, name in read.decode.items() if code not in ignored} - set(labels.names))
    if unknown:
        raise ValueError(f"{owner}: decode gives {unknown[0]!r}, which is not one of the labels; {known}")
    written = {code for code, name in read.decode.items() if name in labels.names} or set(labels.names)
    if lost := sorted(ignored & written):
        raise ValueError(f"{owner} ignores {lost[0]!r}, which is a label of the task; remove it from one of the two")


def _check_pairs(task: Task) -> None:
    """Raise ValueError if one file holds pairs of texts and another file holds single texts."""
    pairs = {
        split: file.read.text_pair is not None
        for split, file in task.splits.files().items()
        if isinstance(file.read, Delimited | Table)
    }
    if len(set(pairs.values())) > 1:
        single, paired = (next(split for split, is_pair in pairs.items() if is_pair is kind) for kind in (False, True))
        raise ValueError(
            f"task {task.name!r}: the {paired} file holds pairs of texts and the {single} file single ones; give both "
            "readers text_pair, or neither"
        )


def _check_submission(task: Task, submission: Submission) -> None:
    """Raise ValueError if a task's submission file cannot hold the predictions for the task."""
    owner = f"task {task.name!r}: submission {submission.file!r}"
    if task.labels.reads_tokens:
        what = "tags of words" if task.labels.tags_words else "parts of texts"
        raise ValueError(f"{owner} cannot hold {what}; leave the submission out")
    columns = submission.columns(task.labels)
    if submission.header and len(submission.header) != columns:
        raise ValueError(
            f"task {task.name!r}: the submission's header has {len(submission.header)} columns, its lines {columns}"
        )
    unknown = sorted(set(submission.encode) - set(task.labels.names))
    if unknown:
        raise ValueError(
            f"task {task.name!r}: the submission encodes {unknown[0]!r}, which is not one of its labels: "
            f"{', '.join(task.labels.names)}"
        )
    if submission.encode and task.labels.kind is TargetKind.MULTILABEL:
        raise ValueError(f"{owner} encodes labels, but that of a multi-label task holds 0 and 1; leave out encode")
    written = {submission.encode.get(name, name) for name in task.labels.names}
    if task.labels.names and task.labels.kind is not TargetKind.MULTILABEL and len(written) == 1:
        raise ValueError(f"{owner} writes {next(iter(written))!r} for every label; correct encode")
    if not isinstance(task.splits.submission or task.splits.test, DataFile):
        raise ValueError(f"task {task.name!r} has no official test file to submit predictions of")


def _check_label_map(task: Task) -> None:
    """Raise an error if `label_map` is invalid, whatever the labels of the training task are.

    `alue_bench.contract.transfer.misfit_reason` makes the checks that need the training task.
    """
    if task.trained_on is None:
        raise ValueError(f"task {task.name!r} has a label_map, but no other task in trained_on to map the labels of")
    if task.labels.kind is TargetKind.REGRESSION:
        raise ValueError(f"task {task.name!r}: a regression has no labels to map; leave label_map out")
    if task.labels.tags_words:
        raise ValueError(f"task {task.name!r}: tags of words cannot be mapped; leave label_map out")
    if task.labels.extracts_spans:
        raise ValueError(f"task {task.name!r}: answers have no labels to map; leave label_map out")
    for name, own in task.label_map.items():
        if not isinstance(name, str) or not isinstance(own, str | None):
            raise TypeError(
                f"task {task.name!r}: label_map holds {name!r}: {own!r}; both must be names, or the second None"
            )
        if own is not None and own not in task.labels.names:
            raise ValueError(
                f"task {task.name!r}: label_map maps {name!r} to {own!r}, which is not one of its labels "
                f"{', '.join(task.labels.names)}"
            )


def _check_companions(task: Task) -> None:
    """Raise an error if `companions` is invalid, whatever the labels of the other tasks are."""
    owner = f"task {task.name!r}"
    check_mapping(owner, vars(task), "companions", Mapping)
    if task.companions and task.labels.tags_words:
        raise ValueError(f"{owner}: models that tag words cannot be scored on other tasks; leave companions out")
    if task.companions and task.labels.extracts_spans:
        raise ValueError(f"{owner}: models that find spans cannot be scored on other tasks; leave companions out")
    for name, labels in task.companions.items():
        if not NAME.fullmatch(name) or name == task.name:
            raise ValueError(f"{owner}: companions names {name!r}, which is not the name of another task")
        check_mapping(f"{owner}: companion {name!r}", {"labels": labels}, "labels", object)
        if labels and set(labels) != set(task.labels.names):
            (wrong, *_) = sorted(set(labels) ^ set(task.labels.names))
            raise ValueError(
                f"{owner}: companions[{name!r}] must map each label of the task, and no other; wrong is {wrong!r}"
            )
        if bad := next((own for own in labels.values() if not isinstance(own, str | None)), None):
            raise TypeError(f"{owner}: companions[{name!r}] holds {bad!r}; a label is mapped to a name or to None")


def _with_label_space(splits: Splits, labels: Labels) -> Splits:
    """Return the splits with the task's labels or range set in each reader of this package.

    Plugins therefore need to state the labels only once, in the task.
    """

    def informed(part: DataFile | HeldOut | None) -> DataFile | HeldOut | None:
        if not isinstance(part, DataFile):
            return part
        if isinstance(part.read, TaggedColumns | TaggedJson):
            return dataclasses.replace(part, read=dataclasses.replace(part.read, labels=labels.names))
        if isinstance(part.read, SquadJson):
            return dataclasses.replace(part, read=dataclasses.replace(part.read, no_answer=labels.no_answer))
        if not isinstance(part.read, Delimited | Table):
            return part
        if labels.kind is TargetKind.REGRESSION:
            read = dataclasses.replace(part.read, number=(labels.minimum, labels.maximum))
        elif labels.kind is TargetKind.MULTILABEL:
            read = part.read
            if (isinstance(read, Table) and isinstance(read.target, str)) or read.separator is not None:
                read = dataclasses.replace(read, labels=labels.names)
            elif read.target is not None:
                read = dataclasses.replace(read, target=labels.names)
        else:
            read = dataclasses.replace(part.read, labels=labels.names)
        return dataclasses.replace(part, read=read)

    parts = {name: informed(getattr(splits, name)) for name in ("train", "dev", "test", "submission")}
    return dataclasses.replace(splits, **parts)  # type: ignore[arg-type]
