"""The conformance kit: what a plugin author runs on their own declarations.

One test a declaration is enough, in pytest or any other runner:

    from alue_bench.testing import check_model, check_strategy, check_task
    import my_plugin

    def test_tasks() -> None:
        for task in my_plugin.alue_bench_tasks():
            check_task(task)

Each check tries everything it can and then raises one `ConformanceError`, an AssertionError, with a sentence for each
violation: which declaration, what is wrong with it, what to do. What cannot be tried on this machine, such as a
checkpoint that was never downloaded, is told by a `ConformanceWarning`. The built-in plugins pass the same checks.
"""

from __future__ import annotations

import random
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from alue_bench.errors import AlueBenchError, DataError, DoesNotFit, UnavailableError, UsageError
from alue_bench.executor import Executor, Resources
from alue_bench.formats import BadRow, Delimited, Example, Target
from alue_bench.model import Model
from alue_bench.strategy import (
    Adapter,
    BlockNorms,
    EncoderShape,
    FreezePlan,
    Outline,
    Revisions,
    Strategy,
    StrategyFamily,
    TrainingProgress,
)
from alue_bench.task import METRICS, NAME, DataFile, HeldOut, Labels, Splits, TargetKind, Task

if TYPE_CHECKING:
    from alue_bench.training.checkpoint import Checkpoint

LAYERS = range(1, 25)
"""The depths of encoder that a strategy is tried on."""

SHOWN = 3
"""Of many violations of one kind, so many are listed."""

TEXTS = (
    "",
    " ",
    "\n\t\r",
    "الغرفة نظيفة والخدمة ممتازة.",
    "كِتَابٌ جَمِيـــلٌ جدًّا",
    "😀 🇲🇦 👩‍👩‍👧‍👦 ❤️",
    "@USER شاهد #وسم_جديد https://example.org/a?b=c&d=1 <LF> URL",
    "البريد a.b@example.org والسعر ٣٥٠ ريالا (20%)",
    "ههههههههه!!!!!!؟؟؟؟",
    "\ufeff\u200fنص\u200e \u202bمقلوب\u202c \u00a0\u2028",
    "ﷺ ﻻ e\u0301 \x00 \x07 \ud7a3",
    "«قال» \"نعم\" 'لا' [رابط] \\n {x}",
    "Latin only, with numbers 0123456789",
    "كلمة " * 3000,
    "ا" * 20_000,
)
"""What users' files hold sooner or later; a normaliser must take all of it."""

FOREIGN_NAMES = ("", " ", "no-such-strategy", "no-such-strategy7", "7", "غير-معروف", "x" * 300)
"""Names that no family may claim."""

_PLACEHOLDER = re.compile(r"(?i)\W*(todo|tbd|fixme|xxx|\?+|n/?a|none)?\W*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")

Declaration = TypeVar("Declaration", Task, Model, StrategyFamily, Executor)
Check = Callable[[Declaration], Iterable[str]]


class ConformanceError(AssertionError):
    """A declaration breaks the plugin contract; the message has one sentence for each violation."""

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join(self.violations))


class ConformanceWarning(UserWarning):
    """A part of a declaration could not be checked on this machine."""


def check_task(task: Task, *, data: Path | None = None, trained_on: Task | None = None) -> None:
    """Check a task's declaration and the files it reads: its sample, or those in the folder `data`.

    The metadata are complete; every file is there and read without a bad row; a row with a wrong number of columns is
    reported at its line; every split has rows; every label occurs in train; no text of the sample is both in train and
    in test; gold labels fit the label space; `is_pair` tells what the rows are; `defaults` are hyper-parameters; the
    labels fit those of the task in `trained_on`, which is looked for among the installed plugins unless it is given.

        def test_my_task() -> None:
            check_task(my_plugin.TASK)

    Raises ConformanceError with a sentence for each violation.
    """
    _raise_if_any(
        task, Task, [_task_metadata, lambda task: _task_data(task, data), lambda task: _task_labels(task, trained_on)]
    )


def check_model(model: Model) -> None:
    """Check a model's declaration, its text normalisation, and its checkpoint where that is on this machine.

    The metadata are complete; `normalise` is a pure, idempotent function from str to str that takes any text;
    `defaults` are hyper-parameters; the checkpoint has a configuration, weights, a tokeniser with a padding token, and
    layers that can be frozen. Weights are not loaded, and nothing is downloaded.

        def test_my_model() -> None:
            check_model(my_plugin.MODEL)

    Raises ConformanceError with a sentence for each violation, and warns of what it could not check.
    """
    _raise_if_any(model, Model, [_model_metadata, _model_normalisation, _model_checkpoint])


def check_strategy(family: StrategyFamily) -> None:
    """Check a family of strategies by its examples, on encoders of 1 to 24 layers.

    Each example parses to a strategy; `parse(strategy.name)` gives an equal one back; equal names are equal, hashable
    values; `kept_layers` names layers of the encoder from low to high; `freeze_plan` is deterministic and either within
    what is kept of the encoder or refused with DoesNotFit and a reason; an adapter goes with a plan that trains
    adapters, and fits into a BERT; `revise`, taken through a training of two epochs, gives plans like the first one,
    keeps what `revisions` promises, and depends on its arguments alone; a name of no family gives None.

        def test_my_strategy() -> None:
            check_strategy(my_plugin.FAMILY)

    Raises ConformanceError with a sentence for each violation.
    """
    _raise_if_any(family, StrategyFamily, [_family_metadata, _family_examples, _family_foreign_names])


def check_executor(executor: Executor) -> None:
    """Check an executor's declaration, and that a crew can be hired and dismissed; nothing is handed out.

    Where hiring raises UsageError or UnavailableError, as where there is no cluster, that is a warning: it cannot be
    checked here.

    Raises ConformanceError with a sentence for each violation.
    """
    _raise_if_any(executor, Executor, [_executor_metadata, _executor_crew])


def _raise_if_any(declaration: Declaration, kind: type[Declaration], checks: Iterable[Check[Declaration]]) -> None:
    if not isinstance(declaration, kind):
        raise ConformanceError(
            [f"{declaration!r:.80} is not a {kind.__name__}; give the check a value that the plugin's hook returns"]
        )
    violations = [violation for check in checks for violation in check(declaration)]
    if violations:
        raise ConformanceError(dict.fromkeys(violations))


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".removesuffix(": ")


def _incomplete(subject: str, declaration: object, fields: Iterable[str]) -> Iterator[str]:
    for field in fields:
        value = getattr(declaration, field)
        if isinstance(value, str) and _PLACEHOLDER.fullmatch(value):
            yield f"{subject} does not state its {field} ({value!r}); write it out, 'not stated' if nobody says"


def _bad_languages(subject: str, languages: object) -> Iterator[str]:
    if not isinstance(languages, tuple) or not languages:
        yield f"{subject} does not state its languages; give a tuple of BCP 47 codes, such as languages=('ar',)"
        return
    for code in languages:
        if not isinstance(code, str) or not _LANGUAGE.fullmatch(code):
            yield f"{subject}: {code!r} in languages is not a BCP 47 code; write it like 'ar' or 'ar-EG'"


def _bad_defaults(subject: str, defaults: Mapping[str, object]) -> Iterator[str]:
    from alue_bench.spec import resolve_hyper_parameters

    try:
        resolve_hyper_parameters([("defaults", defaults)])
    except UsageError as error:
        yield f"{subject}: {error}; mend or drop that entry of defaults"


# Tasks -----------------------------------------------------------------------------------------------------------


def _task_metadata(task: Task) -> Iterator[str]:
    subject = f"task {task.name!r}"
    if not NAME.fullmatch(task.name):
        yield f"{subject}: the name must match {NAME.pattern}; rename it"
    yield from _incomplete(subject, task, ("title", "source", "licence", "citation"))
    yield from _bad_languages(subject, task.languages)
    metrics = METRICS[task.labels.kind]
    if task.primary not in metrics:
        yield f"{subject}: primary metric {task.primary!r} is not one of {', '.join(metrics)}; choose one of them"
    held_out = [split for split in ("dev", "test") if isinstance(getattr(task.splits, split), HeldOut)]
    if held_out and task.splits.protocol == Splits.protocol:
        yield (
            f"{subject}: the {' and '.join(held_out)} split is drawn from train, but the protocol says "
            f"{task.splits.protocol!r}; describe the splits in splits.protocol"
        )
    yield from _bad_defaults(subject, task.defaults)


def _task_labels(task: Task, train_task: Task | None) -> Iterator[str]:
    """Labels that the model to be scored was not trained to tell apart."""
    from alue_bench.plugins import load_registry
    from alue_bench.transfer import misfit

    if task.trained_on is None:
        return
    if train_task is None:
        declared = load_registry().tasks.get(task.trained_on)
        if declared is None:
            warnings.warn(
                f"task {task.name!r}: whether its labels fit those of {task.trained_on!r} was not checked, since no "
                "installed plugin declares that task; install it, or give the check trained_on=",
                ConformanceWarning,
                stacklevel=5,
            )
            return
        train_task = declared.value
    if (problem := misfit(task, train_task)) is not None:
        yield problem


def _task_data(task: Task, data: Path | None) -> Iterator[str]:
    """Files one by one, then splits: only whole files can be split."""
    subject = f"task {task.name!r}"
    folder = data if data is not None else task.sample
    if folder is None:
        yield f"{subject} has no sample, so that nothing can be read; give it sample= or the check data="
        return
    what = "data" if data is not None else "sample"
    if not folder.is_dir():
        yield f"{subject}: the {what} folder {folder} does not exist; mend the path, or ship it with the package"
        return
    violations = [
        violation for split, file in task.splits.files().items() for violation in _file(task, split, file, folder)
    ]
    yield from violations
    if not violations:
        yield from _splits(task, folder, of_sample=data is None)


def _file(task: Task, split: str, file: DataFile, folder: Path) -> Iterator[str]:
    subject, path = f"task {task.name!r}", folder / file.path
    if not path.is_file():
        yield f"{subject}: the {split} file {path} is missing; add it, or mend the path of its DataFile"
        return
    try:
        rows = list(file.read(path))
        again = list(file.read(path))
    except DataError as error:
        yield f"{subject}: the {split} file cannot be used: {error}; mend the file or its DataFile"
        return
    except Exception as error:  # a stranger's reader
        yield (
            f"{subject}: the reader of {path} raised {_cause(error)}; let it yield BadRow(line, reason) for a bad row "
            "and raise DataError where the whole file is unusable"
        )
        return
    if rows != again:
        yield f"{subject}: reading {path} twice gives different rows; let the reader depend on the file alone"
    strange = next((row for row in rows if not isinstance(row, (Example, BadRow))), None)
    if strange is not None:
        yield f"{subject}: the reader of {path} yields {strange!r:.60}; let it yield Example or BadRow"
        return
    bad = [row for row in rows if isinstance(row, BadRow)]
    for row in bad[:SHOWN]:
        yield f"{subject}: {path}:{row.line}: {row.reason}; mend the row or the DataFile's format"
    if len(bad) > SHOWN:
        yield f"{subject}: {path} has {len(bad) - SHOWN} more bad rows; mend them too"
    examples = [row for row in rows if isinstance(row, Example)]
    if not examples and not bad:
        yield f"{subject}: the {split} file {path} has no rows; add some, or mend the reader"
    yield from _examples(task, split, path, examples)
    yield from _mutation(task, split, file, path)


def _examples(task: Task, split: str, path: Path, examples: list[Example]) -> Iterator[str]:
    subject = f"task {task.name!r}"
    yield from _misfits(task, split, path, examples)
    seen: set[str] = set()
    last_line = 0
    for example in examples:
        where = f"{subject}: {path}:{example.line}"
        if example.id in seen:
            yield f"{where}: id {example.id!r} occurs twice; give each row of a file an id of its own"
            return
        if example.line <= last_line:
            yield f"{where} follows line {last_line}; let the reader count lines from 1, in file order"
            return
        seen.add(example.id)
        last_line = example.line


def _misfits(task: Task, split: str, path: Path, examples: list[Example]) -> Iterator[str]:
    """Rows whose texts or gold labels are not what the task declares."""
    subject = f"task {task.name!r}"
    found = 0
    for example in examples:
        misfit = _misfit(task, example)
        if misfit is None and split != "submission":
            misfit = _misfit_of_target(task.labels, example.target)
        if misfit is not None and (found := found + 1) <= SHOWN:
            yield f"{subject}: {path}:{example.line}: {misfit}"


def _misfit(task: Task, example: Example) -> str | None:
    if not isinstance(example.text, str) or not example.text.strip():
        return "the text is empty; let the reader yield BadRow(line, 'empty text')"
    if task.is_pair and example.text_pair is None:
        return "is_pair says that rows are pairs, but this one has no second text; mend text_pair in the reader"
    if not task.is_pair and example.text_pair is not None:
        return (
            "is_pair says that rows are single texts, but this one has a second text; give the reader an attribute "
            "text_pair that is not None"
        )
    return None


def _misfit_of_target(labels: Labels, target: Target) -> str | None:
    """Why a gold label cannot be encoded, or None."""
    if target is None:
        return "the row has no gold label; name its column in target, or make the file the submission split"
    known = f"declared are {', '.join(labels.names)}; mend the labels, or decode= in the reader"
    if labels.kind is TargetKind.REGRESSION:
        if isinstance(target, bool) or not isinstance(target, (int, float)):
            return f"{target!r} is not a number; let the reader convert it"
        if not labels.minimum <= target <= labels.maximum:
            return f"{target} is not within {labels.minimum} to {labels.maximum}; mend the row or Labels.regression"
    elif labels.kind is TargetKind.MULTILABEL:
        if not isinstance(target, tuple):
            return f"{target!r} is not a tuple of label names; let the reader give one"
        unknown = [name for name in target if name not in labels.names]
        if unknown:
            return f"label {unknown[0]!r} is not declared; {known}"
    elif target not in labels.names:
        return f"label {target!r} is not declared; {known}"
    return None


def _mutation(task: Task, split: str, file: DataFile, path: Path) -> Iterator[str]:
    """Append a row that cannot be right to a copy of the file: the reader must name its line."""
    content = path.read_bytes()
    content += b"" if content.endswith(b"\n") else b"\n"
    line = content.count(b"\n") + 1
    if isinstance(file.read, Delimited):
        width = file.read.columns or content.splitlines()[0].count(file.read.delimiter.encode()) + 1
        what, row = "a wrong number of columns", file.read.delimiter.join(["x"] * (width + 1)).encode()
    else:  # any format of text has rows that are not UTF-8
        what, row = "bytes that are not UTF-8", b"\xff\xfe\xff"
    subject = f"task {task.name!r}: a row of the {split} file with {what}"
    remedy = f"let the reader of {file.path} yield BadRow({line}, reason) for it"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content + row + b"\n")
        try:
            lines = [found.line for found in file.read(copy) if isinstance(found, BadRow)]
        except DataError:
            return  # the reader says itself that the whole file is unusable
        except Exception as error:  # a stranger's reader
            yield f"{subject} makes the reader raise {_cause(error)}; {remedy}"
            return
    if not lines:
        yield f"{subject} is taken without a word; {remedy}"
    elif line not in lines:
        yield f"{subject} is reported at line {lines[-1]} instead of {line}; {remedy}"


def _splits(task: Task, folder: Path, *, of_sample: bool) -> Iterator[str]:
    from alue_bench.data.location import DataFolder
    from alue_bench.data.splits import load_rows
    from alue_bench.data.tokenisation import encode_targets

    subject = f"task {task.name!r}"
    kind = DataFolder(folder, "sample" if of_sample else "real")
    try:
        splits = load_rows(task, kind, drop_bad=False, limit_train=None, limit_eval=None).splits
    except DataError as error:
        yield f"{subject}: the splits cannot be made: {error}; add rows or mend the splits"
        return
    for name, rows in splits.items():
        shape = tuple(encode_targets(rows, task.labels).shape)
        wanted: tuple[int, ...] = (len(rows.examples),)
        if task.labels.kind is TargetKind.MULTILABEL:
            wanted += (task.labels.outputs,)
        if shape != wanted:
            yield f"{subject}: the targets of {name} have the shape {shape}, not {wanted}; mend the labels"
    if "train" not in splits:
        return
    occurring: set[str] = set()
    for example in splits["train"].examples:
        if isinstance(example.target, tuple):
            occurring.update(example.target)
        elif isinstance(example.target, str):
            occurring.add(example.target)
    for label in task.labels.names:
        if label not in occurring:
            yield f"{subject}: label {label!r} does not occur in train; add rows with it, or do not declare it"
    if of_sample:  # official files may overlap: `alue-bench data verify` counts how often
        train = {(example.text, example.text_pair) for example in splits["train"].examples}
        shared = [e for e in splits["test"].examples if (e.text, e.text_pair) in train]
        if shared:
            yield (
                f"{subject}: {len(shared)} texts of the test split are in train too, such as {shared[0].text[:40]!r}; "
                "take them out of one of the two"
            )


# Models ----------------------------------------------------------------------------------------------------------


def _model_metadata(model: Model) -> Iterator[str]:
    subject = f"model {model.name!r}"
    if not NAME.fullmatch(model.name):
        yield f"{subject}: the name must match {NAME.pattern}; rename it"
    yield from _incomplete(subject, model, ("title", "licence", "citation"))
    yield from _bad_languages(subject, model.languages)
    described = model.normalisation != Model.normalisation and not _PLACEHOLDER.fullmatch(model.normalisation)
    if model.normalise is not None and not described:
        yield f"{subject} has a normalise function, but normalisation does not say what it does; describe it there"
    yield from _bad_defaults(subject, model.defaults)


def _missing_packages(model: Model) -> list[str]:
    import importlib.util

    return [package for package in model.requires if importlib.util.find_spec(package) is None]


def _model_normalisation(model: Model) -> Iterator[str]:
    if model.normalise is None:
        return
    subject = f"model {model.name!r}"
    missing = _missing_packages(model)
    if missing:
        warnings.warn(
            f"{subject}: normalise was not checked, since the package {missing[0]!r} is not installed",
            ConformanceWarning,
            stacklevel=5,
        )
        return
    first: dict[str, str] = {}
    for text in TEXTS:
        shown = f"{text[:30]!r}{'…' if len(text) > 30 else ''}"
        try:
            normalised = model.normalise(text)
        except ImportError as error:
            yield f"{subject}: normalise cannot import a package ({_cause(error)}); name it in requires"
            return
        except Exception as error:  # a stranger's function
            yield f"{subject}: normalise({shown}) raised {_cause(error)}; let it take any text"
            continue
        if not isinstance(normalised, str):
            yield f"{subject}: normalise({shown}) returned a {type(normalised).__name__}; let it return a str"
            continue
        first[text] = normalised
        if (again := _attempt(model.normalise, normalised)) != normalised:
            yield (
                f"{subject}: normalise is not idempotent: {shown} becomes {normalised[:30]!r}, and that becomes "
                f"{again if isinstance(again, Exception) else again[:30]!r}; let it leave its own output as it is"
            )
    # In reverse, so that a function that remembers earlier texts is found out.
    changed = next((text for text in reversed(first) if _attempt(model.normalise, text) != first[text]), None)
    if changed is not None:
        yield (
            f"{subject}: normalise({changed[:30]!r}) gives another text the second time; let it depend on its "
            "argument alone"
        )


def _attempt(function: Callable[[str], str], text: str) -> Any:
    try:
        return function(text)
    except Exception as error:  # a stranger's function
        return error


def _model_checkpoint(model: Model) -> Iterator[str]:
    from alue_bench.training.checkpoint import locate_checkpoint

    subject = f"model {model.name!r}"
    if isinstance(model.checkpoint, str) and not re.fullmatch(r"[\w.-]+/[\w.-]+", model.checkpoint):
        yield f"{subject}: checkpoint {model.checkpoint!r} is not a hub id like 'owner/name'; give a folder as a Path"
        return
    try:
        checkpoint = locate_checkpoint(model, download=False)
    except UnavailableError as error:
        if isinstance(model.checkpoint, Path) and not _missing_packages(model):
            yield f"{error}; mend checkpoint="
        else:
            warnings.warn(f"{subject}: the checkpoint was not checked: {error}", ConformanceWarning, stacklevel=5)
        return
    try:
        yield from _loadable(model, checkpoint)
    except AlueBenchError as error:
        yield f"{subject}: the checkpoint cannot be used: {error}; save model and tokeniser with save_pretrained"
    except Exception as error:  # what the library makes of a stranger's files
        yield (
            f"{subject}: the checkpoint cannot be used: {_cause(error)}; save model and tokeniser with save_pretrained"
        )


def _loadable(model: Model, checkpoint: Checkpoint) -> Iterator[str]:
    from alue_bench.training.checkpoint import empty_model, encoder_shape, load_config, load_tokenizer
    from alue_bench.training.encoder_stack import view_as_stack

    subject = f"model {model.name!r}"
    config = load_config(checkpoint)
    shape = encoder_shape(config)
    tokenizer = load_tokenizer(checkpoint)
    ids = [tokenizer.pad_token_id, *(number for text in TEXTS for number in tokenizer(text)["input_ids"])]
    beyond = [number for number in ids if not 0 <= number < config.vocab_size]
    if beyond:
        yield (
            f"{subject}: the tokeniser gives the id {beyond[0]}, but the model has {config.vocab_size} embeddings; "
            "take the tokeniser that belongs to the weights"
        )
    stack = view_as_stack(empty_model(config))
    if stack.shape != shape:
        yield f"{subject}: config.json says {shape}, but the model has {stack.shape}; mend config.json"


# Strategies ------------------------------------------------------------------------------------------------------


def _family_metadata(family: StrategyFamily) -> Iterator[str]:
    subject = f"strategy family {family.grammar!r}"
    yield from _incomplete(subject, family, ("grammar", "title", "source"))
    if not isinstance(family.examples, tuple):
        yield f"{subject}: examples is a {type(family.examples).__name__}; give a tuple of names"


def _family_examples(family: StrategyFamily) -> Iterator[str]:
    by_name: dict[str, Strategy] = {}
    for example in family.examples:
        subject = f"strategy {example!r}"
        strategy = _parsed(family, example)
        if not isinstance(strategy, Strategy):
            yield f"{subject} is an example of {family.grammar!r}, but parse {_told(strategy)}; mend parse or examples"
            continue
        violations = list(_name(family, example, strategy))
        yield from violations
        if not violations and by_name.setdefault(strategy.name, strategy) != strategy:
            yield f"{subject} has the name of an earlier example, but is not equal to it; let equal names be equal"
        violations = list(_freezing(family, example, strategy))
        yield from violations
        if not violations:
            yield from _adapting(example, strategy)
            yield from _revising(family, example, strategy)


def _parsed(family: StrategyFamily, name: str) -> object:
    """What parse returns, or the exception that it raises."""
    try:
        return family.parse(name)
    except Exception as error:  # a stranger's function
        return error


def _told(outcome: object) -> str:
    return f"raises {_cause(outcome)}" if isinstance(outcome, Exception) else f"returns {outcome!r:.60}"


def _name(family: StrategyFamily, example: str, strategy: Strategy) -> Iterator[str]:
    subject = f"strategy {example!r}"
    name = strategy.name
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield f"{subject}: its name {name!r} must match {NAME.pattern}; mend the property name"
        return
    back = _parsed(family, name)
    if not isinstance(back, Strategy) or back.name != name:
        yield f"{subject} is named {name!r}, but parse({name!r}) {_told(back)}; let the name parse to the same strategy"
        return
    if back != strategy or _parsed(family, example) != strategy:
        yield f"{subject}: parsing its name twice gives unequal values; make its class a frozen dataclass"
        return
    try:
        equal = hash(back) == hash(strategy)
    except TypeError:
        equal = False
    if not equal:
        yield f"{subject}: equal strategies have no equal hash; make its class a frozen dataclass"


def _freezing(family: StrategyFamily, example: str, strategy: Strategy) -> Iterator[str]:
    subject = f"strategy {example!r}"
    fits = False
    for layers in LAYERS:
        whole = EncoderShape(layers, hidden_size=64)
        kept = _kept(strategy, whole)
        if isinstance(kept, DoesNotFit) and str(kept).strip():
            continue
        if not _are_layers(kept, whole):
            yield (
                f"{subject} on {layers} layer{'s' if layers > 1 else ''}: kept_layers {_told(kept)}; return a tuple of "
                "layers from low to high, or raise DoesNotFit with a reason"
            )
            return
        shape = EncoderShape(len(kept), hidden_size=64)  # type: ignore[arg-type]
        plan = _frozen(strategy, shape)
        where = f"{subject} on {layers} layer{'s' if layers > 1 else ''}"
        if isinstance(plan, DoesNotFit):
            if not str(plan).strip():
                yield f"{where} raises DoesNotFit without a reason; say which numbers clash"
                return
        elif isinstance(plan, Exception):
            yield f"{where}: freeze_plan raises {_cause(plan)}; raise DoesNotFit with a reason where it does not fit"
            return
        elif not isinstance(plan, FreezePlan) or plan.shape != shape:
            yield f"{where}: freeze_plan returns {plan!r:.80}; return a FreezePlan of the shape it is given"
            return
        else:
            fits = True
        again = _frozen(_parsed(family, example), shape)
        if not _same(plan, _frozen(strategy, shape)) or not _same(plan, again):
            yield f"{where}: freeze_plan gives different plans; let it depend on the name and the shape alone"
            return
    if not fits:
        yield f"{subject} fits no encoder of {LAYERS[0]} to {LAYERS[-1]} layers; give a smaller example"


def _kept(strategy: Strategy, shape: EncoderShape) -> object:
    """The layers, or the exception in their place."""
    try:
        return strategy.kept_layers(shape)
    except Exception as error:  # a stranger's method
        return error


def _are_layers(kept: object, shape: EncoderShape) -> bool:
    if not isinstance(kept, tuple) or not kept or not all(isinstance(layer, int) for layer in kept):
        return False
    return list(kept) == sorted(set(kept)) and kept[0] >= 0 and kept[-1] < shape.layers


def _fitting(strategy: Strategy) -> Iterator[Outline]:
    """What the strategy makes of the encoders that it fits, whatever it says of adapters."""
    for layers in LAYERS:
        with suppress(DoesNotFit):
            kept = strategy.kept_layers(EncoderShape(layers, hidden_size=64))
            plan = strategy.freeze_plan(EncoderShape(len(kept), hidden_size=64))
            yield Outline(plan, kept if len(kept) < layers else None, None)


def _adapting(example: str, strategy: Strategy) -> Iterator[str]:
    subject = f"strategy {example!r}"
    try:
        adapter = strategy.adapter()
    except Exception as error:  # a stranger's method
        yield f"{subject}: adapter raises {_cause(error)}; return an Adapter or None"
        return
    if adapter is not None and not isinstance(adapter, Adapter):
        yield f"{subject}: adapter returns {adapter!r:.60}; return an Adapter or None"
        return
    fitting = list(_fitting(strategy))
    wrong = next((o.freeze_plan for o in fitting if (adapter is None) == (o.freeze_plan.trained == "adapters")), None)
    if wrong is not None:
        yield (
            f"{subject}: freeze_plan says trained={wrong.trained!r}, but adapter returns {adapter!r:.60}; let both "
            "speak of adapters, or neither"
        )
    elif adapter is not None:
        yield from _injection(subject, replace(fitting[-1], adapter=adapter))


def _injection(subject: str, outline: Outline) -> Iterator[str]:
    from transformers import BertConfig

    from alue_bench.training.surgery import model_in_outline

    whole = outline.freeze_plan.shape.layers if outline.kept_layers is None else LAYERS[-1]
    config = BertConfig(hidden_size=64, num_hidden_layers=whole, num_attention_heads=2, intermediate_size=128)
    try:
        model_in_outline(config, outline)
    except UnavailableError as error:
        warnings.warn(f"{subject}: its adapter was not checked: {error}", ConformanceWarning, stacklevel=2)
    except DoesNotFit as error:
        yield f"{subject}: on a BERT, {error}; mend the kind or the options of its Adapter"


def _revising(family: StrategyFamily, example: str, strategy: Strategy) -> Iterator[str]:
    subject = f"strategy {example!r}"
    try:
        revisions = strategy.revisions()
    except Exception as error:  # a stranger's method
        yield f"{subject}: revisions raises {_cause(error)}; return a Revisions or None"
        return
    if revisions is None:
        if type(strategy).revise is not Strategy.revise:
            yield f"{subject}: revise is never called, since revisions returns None; return when it is to be called"
        return
    if not isinstance(revisions, Revisions):
        yield f"{subject}: revisions returns {revisions!r:.60}; return a Revisions or None"
        return
    for outlined in _fitting(strategy):
        violation = _revision(family, example, strategy, revisions, outlined.freeze_plan)
        if violation is not None:
            layers = outlined.freeze_plan.shape.layers
            yield f"{subject} on {layers} layer{'s' if layers > 1 else ''}: {violation}"
            return


def _revision(
    family: StrategyFamily, example: str, strategy: Strategy, revisions: Revisions, plan: FreezePlan
) -> str | None:
    """Take a plan through a training of two epochs, with norms drawn by lot; what is wrong, or None."""
    epochs, steps = 2, 10 * revisions.per_epoch
    drawn = random.Random(0)
    norms: list[BlockNorms] = []
    for point in range(1, epochs * revisions.per_epoch):
        epoch = -(-point // revisions.per_epoch)
        ended = epoch if point % revisions.per_epoch == 0 else epoch - 1
        if revisions.gradient_norms:
            layers = (None if k in plan.frozen_layers else drawn.uniform(1, 2) for k in range(plan.shape.layers))
            norms.append(BlockNorms(None if plan.embeddings else drawn.uniform(1, 2), tuple(layers)))
        progress = TrainingProgress(epoch, epochs, 10 * point, epochs * steps, (0.5,) * ended, tuple(norms))
        twin = _parsed(family, example)
        assert isinstance(twin, Strategy)
        try:
            revised, again = strategy.revise(plan, progress), twin.revise(plan, progress)
        except Exception as error:  # a stranger's method
            return f"revise raises {_cause(error)}; return a FreezePlan"
        if revised != again:
            return "revise gives different plans; let it depend on its arguments alone"
        if not isinstance(revised, FreezePlan) or revised.shape != plan.shape or revised.trained != plan.trained:
            return f"revise returns {revised!r:.80}; return a FreezePlan of the same shape and `trained`"
        if revisions.prefix_only_grows and (revised.prefix_layers or 0) < (plan.prefix_layers or 0):
            return "the frozen prefix shrinks, but revisions says prefix_only_grows; mend one of them"
        plan = revised
    return None


def _frozen(strategy: object, shape: EncoderShape) -> object:
    """The plan, or the exception in its place."""
    assert isinstance(strategy, Strategy)
    try:
        return strategy.freeze_plan(shape)
    except Exception as error:  # a stranger's method
        return error


def _same(one: object, other: object) -> bool:
    if isinstance(one, Exception) or isinstance(other, Exception):
        return type(one) is type(other) and str(one) == str(other)
    return one == other


def _family_foreign_names(family: StrategyFamily) -> Iterator[str]:
    for name in FOREIGN_NAMES:
        outcome = _parsed(family, name)
        if outcome is not None:
            yield (
                f"strategy family {family.grammar!r}: parse({name[:20]!r}) {_told(outcome)}; return None for a name "
                "that is not of this family"
            )
    for example in family.examples:  # near misses may be refused with a UsageError that explains the grammar
        name = f"{example}-no-such-variant"
        outcome = _parsed(family, name)
        if outcome is not None and not isinstance(outcome, UsageError):
            yield (
                f"strategy family {family.grammar!r}: parse({name!r}) {_told(outcome)}; return None, or raise "
                "UsageError with what was expected"
            )


def _executor_metadata(executor: Executor) -> Iterator[str]:
    subject = f"executor {executor.name!r}"
    if not isinstance(executor.name, str) or not NAME.fullmatch(executor.name):
        yield f"{subject}: the name must match {NAME.pattern}; rename it"
    if not isinstance(executor.title, str) or not executor.title.strip():
        yield f"{subject}: the title is empty; say where it has runs done"


def _executor_crew(executor: Executor) -> Iterator[str]:
    subject = f"executor {executor.name!r}"
    try:
        crew: Any = executor.hire(Resources(device="cpu", jobs=1))
    except (UsageError, UnavailableError) as error:
        warnings.warn(f"{subject} was not tried: {error}", ConformanceWarning, stacklevel=4)
        return
    except Exception as error:  # a stranger's function
        yield f"{subject}: hire raises {_cause(error)}; raise UnavailableError with what is missing and what to do"
        return
    missing = [name for name in ("has_room", "hand_out", "events", "stop") if not callable(getattr(crew, name, None))]
    if missing:
        yield f"{subject}: its crew lacks {', '.join(missing)}; see alue_bench.executor.Crew"
        return
    try:
        if not crew.has_room():
            yield f"{subject}: a crew that has nothing to do has no room; let has_room return True"
        if list(crew.events(0)):
            yield f"{subject}: there are events before anything was handed out; return none"
    except Exception as error:  # as above
        yield f"{subject}: its crew raises {_cause(error)} before anything was handed out"
    finally:
        crew.stop()
