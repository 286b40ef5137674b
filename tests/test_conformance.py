"""The conformance kit passes what keeps the contract, and says what is wrong with what does not."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alue_bench_models
import alue_bench_strategies
import alue_bench_tasks
import pytest

from alue_bench import (
    Adapter,
    BadRow,
    DataFile,
    Delimited,
    DoesNotFit,
    EncoderShape,
    Example,
    FreezePlan,
    HeldOut,
    Labels,
    Model,
    Revisions,
    Splits,
    Strategy,
    StrategyFamily,
    Task,
    TrainingProgress,
    UsageError,
)
from alue_bench.testing import ConformanceError, ConformanceWarning, check_model, check_strategy, check_task

MINI = Path(alue_bench_models.__file__).parent / "mini"
READ = Delimited(columns=2, text=0, target=1)
ROWS = {
    "train": "نعم أوافق\tyes\nلا أوافق\tno\nطبعا\tyes\nأبدا\tno\n",
    "dev": "بالتأكيد\tyes\nكلا\tno\n",
    "test": "أجل\tyes\nمستحيل\tno\n",
}


def violations(check: Callable[[Any], None], declaration: object) -> tuple[str, ...]:
    with pytest.raises(ConformanceError) as caught:
        check(declaration)
    assert str(caught.value) == "\n".join(caught.value.violations)
    return caught.value.violations


class TestBuiltIns:
    @pytest.mark.parametrize("task", alue_bench_tasks.alue_bench_tasks(), ids=lambda task: task.name)
    def test_task(self, task: Task) -> None:
        check_task(task)

    @pytest.mark.parametrize("model", alue_bench_models.alue_bench_models(), ids=lambda model: model.name)
    def test_model(self, model: Model) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConformanceWarning)  # nobody has every checkpoint
            check_model(model)

    @pytest.mark.parametrize(
        "family", alue_bench_strategies.alue_bench_strategies(), ids=lambda family: family.grammar.split(",")[0]
    )
    def test_strategy(self, family: StrategyFamily) -> None:
        check_strategy(family)


@pytest.mark.parametrize("check", [check_task, check_model, check_strategy])
def test_something_else_is_refused(check: Callable[[Any], None]) -> None:
    (only,) = violations(check, "mdd")
    assert "'mdd' is not a" in only


@pytest.fixture
def good_task(tmp_path: Path) -> Task:
    for split, rows in ROWS.items():
        write(tmp_path, split, rows)
    return Task(
        name="agreement",
        title="Yes or no",
        languages=("ar",),
        labels=Labels.binary(negative="no", positive="yes"),
        splits=splits(READ),
        source="this test",
        licence="Apache-2.0",
        citation="this test",
        sample=tmp_path,
    )


def write(folder: Path, split: str, rows: str) -> None:
    path = folder / "agreement" / f"{split}.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(rows, encoding="utf-8")


def splits(read: Any) -> Splits:
    train, dev, test = (DataFile(f"agreement/{split}.tsv", read) for split in ("train", "dev", "test"))
    return Splits(train=train, dev=dev, test=test)


def broken(declaration: Any, **changes: object) -> Any:
    """A copy that its constructor would refuse."""
    copy = dataclasses.replace(declaration)
    for name, value in changes.items():
        object.__setattr__(copy, name, value)
    return copy


class TestTask:
    def test_good(self, good_task: Task) -> None:
        check_task(good_task)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"name": "Agree ment"}, "name must match"),
            ({"title": " "}, "does not state its title"),
            ({"licence": "TODO"}, "does not state its licence ('TODO')"),
            ({"languages": ("Arabic",)}, "'Arabic' in languages is not a BCP 47 code"),
            ({"languages": ()}, "does not state its languages"),
            ({"primary": "bleu"}, "primary metric 'bleu' is not one of f1_macro"),
            ({"defaults": {"learning_rate": 1e-3}}, "unknown hyper-parameter 'learning_rate'"),
            ({"defaults": {"epochs": 0}}, "epochs is 0; it must be at least 1"),
            ({"sample": None}, "has no sample"),
            ({"sample": Path("nowhere")}, "sample folder nowhere does not exist"),
            ({"labels": Labels.multiclass("no", "yes", "maybe")}, "label 'maybe' does not occur in train"),
            ({"labels": Labels.multiclass("no", "maybe")}, "label 'yes' is not declared; declared are no, maybe"),
            ({"labels": Labels.regression(0, 1)}, "'yes' is not a number"),
            ({"labels": Labels.multilabel("no", "yes")}, "'yes' is not a tuple of label names"),
        ],
        ids=itertools.count(),
    )
    def test_broken_declaration(self, good_task: Task, changes: dict[str, object], words: str) -> None:
        assert any(words in violation for violation in violations(check_task, broken(good_task, **changes)))

    @pytest.mark.parametrize(
        ("split", "rows", "words"),
        [
            ("train", "نعم\tyes\nلا\tno\nربما\tmaybe\n", "train.tsv:3: unknown label 'maybe'"),
            ("train", "نعم\tyes\nلا\tno\tno\n", "train.tsv:2: 3 columns instead of 2"),
            ("train", "نعم\tyes\nطبعا\tyes\n", "label 'no' does not occur in train"),
            ("dev", "", "dev.tsv: the file is empty"),
            ("test", "طبعا\tyes\nمستحيل\tno\n", "1 texts of the test split are in train too, such as 'طبعا'"),
        ],
    )
    def test_broken_sample(self, good_task: Task, split: str, rows: str, words: str) -> None:
        assert good_task.sample is not None
        write(good_task.sample, split, rows)
        (only,) = violations(check_task, good_task)
        assert words in only
        assert only.startswith("task 'agreement': ")

    def test_missing_file(self, good_task: Task) -> None:
        assert good_task.sample is not None
        (good_task.sample / "agreement" / "dev.tsv").unlink()
        (only,) = violations(check_task, good_task)
        assert "the dev file" in only
        assert "is missing" in only

    def test_a_folder_of_real_files_may_overlap_and_is_checked_in_the_sample_s_place(
        self, good_task: Task, tmp_path: Path
    ) -> None:
        assert good_task.sample is not None
        real = tmp_path / "real"
        shutil.copytree(good_task.sample / "agreement", real / "agreement")
        write(real, "test", ROWS["train"])
        check_task(dataclasses.replace(good_task, sample=None), data=real)
        write(real, "test", "نعم\n")
        with pytest.raises(ConformanceError, match="1 columns instead of 2"):
            check_task(good_task, data=real)

    def test_held_out_splits_are_told_in_the_protocol(self, good_task: Task) -> None:
        held_out = dataclasses.replace(good_task.splits, dev=HeldOut(0.5))
        (only,) = violations(check_task, dataclasses.replace(good_task, splits=held_out))
        assert "describe the splits in splits.protocol" in only
        told = dataclasses.replace(held_out, protocol="dev is half of train")
        check_task(dataclasses.replace(good_task, splits=told))

    def test_a_reader_of_one_s_own(self, good_task: Task) -> None:
        check_task(dataclasses.replace(good_task, splits=splits(read_strictly)))

    @pytest.mark.parametrize(
        ("read", "words"),
        [
            (lambda path: (row for row in read_strictly(path) if isinstance(row, Example)), "without a word"),
            (lambda path: shifted(path, BadRow, 1), "reported at line 4 instead of 3"),
            (lambda path: shifted(path, Example, -5), "let the reader count lines from 1"),
            (lambda path: iter(path.read_text("utf-8").split("\n")), "let it yield Example or BadRow"),
            (lambda path: read_carelessly(path), "makes the reader raise UnicodeDecodeError"),
            (lambda path: same_id(path), "id 'same' occurs twice"),
            (lambda path: with_pair(path), "has a second text"),
            (lambda path: shuffled(path), "twice gives different rows"),
            (lambda path: json.loads(path.read_text("utf-8")), "raised JSONDecodeError"),
            (lambda path: iter(()), "has no rows"),
        ],
        ids=itertools.count(),
    )
    def test_broken_reader(self, good_task: Task, read: Any, words: str) -> None:
        task = dataclasses.replace(good_task, splits=splits(read))
        assert any(words in violation for violation in violations(check_task, task))


def read_strictly(path: Path) -> Iterator[Example | BadRow]:
    for line, raw in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            text, label = raw.decode().split("\t")
        except ValueError as error:
            yield BadRow(line, str(error))
        else:
            yield Example(str(line), text, None, label, line)


def read_carelessly(path: Path) -> Iterator[Example]:
    for line, raw in enumerate(path.read_text("utf-8").splitlines(), start=1):
        yield Example(str(line), raw.split("\t")[0], None, raw.split("\t")[1], line)


def shifted(path: Path, kind: type[Example | BadRow], by: int) -> Iterator[Example | BadRow]:
    return (dataclasses.replace(r, line=r.line + by) if isinstance(r, kind) else r for r in read_strictly(path))


def same_id(path: Path) -> Iterator[Example | BadRow]:
    return (dataclasses.replace(r, id="same") if isinstance(r, Example) else r for r in read_strictly(path))


def with_pair(path: Path) -> Iterator[Example | BadRow]:
    return (dataclasses.replace(r, text_pair="نص") if isinstance(r, Example) else r for r in read_strictly(path))


def shuffled(path: Path) -> Iterator[Example | BadRow]:
    return (dataclasses.replace(r, text=str(random.random())) if isinstance(r, Example) else r for r in READ(path))


GOOD_MODEL = Model(
    name="upper",
    title="Mini, upper case",
    checkpoint=MINI,
    languages=("ar",),
    licence="Apache-2.0",
    citation="this test",
    normalise=lambda text: text.upper(),
    normalisation="upper case",
)


class TestModel:
    def test_good(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConformanceWarning)
            check_model(GOOD_MODEL)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"name": "Upper"}, "name must match"),
            ({"citation": ""}, "does not state its citation"),
            ({"languages": ()}, "does not state its languages"),
            ({"normalisation": Model.normalisation}, "normalisation does not say what it does"),
            ({"defaults": {"lr": "high"}}, "lr is 'high'; it must be of type float"),
            ({"normalise": lambda text: text + "."}, "normalise is not idempotent"),
            ({"normalise": lambda text: text.split()}, "returned a list; let it return a str"),
            ({"normalise": lambda text: text[0] + text[1:]}, "normalise('') raised IndexError"),
            ({"normalise": lambda text: text.encode("ascii").decode()}, "raised UnicodeEncodeError"),
            ({"normalise": lambda text: f"{random.random()}"}, "gives another text the second time"),
            ({"normalise": lambda text: __import__("no_such_package")}, "name it in requires"),
            ({"checkpoint": "mini"}, "is not a hub id like 'owner/name'"),
            ({"checkpoint": Path("nowhere")}, "nowhere is not a folder"),
        ],
        ids=itertools.count(),
    )
    def test_broken_declaration(self, changes: dict[str, object], words: str) -> None:
        assert any(words in violation for violation in violations(check_model, broken(GOOD_MODEL, **changes)))

    @pytest.mark.parametrize(
        ("file", "setting", "value", "words"),
        [
            ("config.json", "num_hidden_layers", None, "the checkpoint cannot be used"),
            ("config.json", "vocab_size", 50, "but the model has 50 embeddings"),
            ("config.json", "model_type", "no-such-type", "the checkpoint cannot be used"),
            ("tokenizer_config.json", "pad_token", None, "the tokeniser has no padding token"),
        ],
    )
    def test_broken_checkpoint(self, tmp_path: Path, file: str, setting: str, value: object, words: str) -> None:
        for path in MINI.iterdir():
            if path.suffix == ".json":
                shutil.copy(path, tmp_path)
        (tmp_path / "model.safetensors").symlink_to(MINI / "model.safetensors")
        content = json.loads((tmp_path / file).read_text("utf-8"))
        (tmp_path / file).write_text(json.dumps({**content, setting: value}), encoding="utf-8")
        (only,) = violations(check_model, dataclasses.replace(GOOD_MODEL, checkpoint=tmp_path))
        assert words in only

    def test_what_is_not_on_this_machine_is_warned_of(self) -> None:
        elsewhere = dataclasses.replace(GOOD_MODEL, checkpoint="nobody/has-this", requires=("no_such_package",))
        with pytest.warns(ConformanceWarning) as caught:
            check_model(elsewhere)
        assert ["normalise was not checked" in str(w.message) for w in caught].count(True) == 1
        assert ["the checkpoint was not checked" in str(w.message) for w in caught].count(True) == 1
        assert {Path(warning.filename) for warning in caught} == {Path(__file__)}


@dataclass(frozen=True)
class First(Strategy):
    """The first N layers: `first<N>`."""

    layers: int

    @property
    def name(self) -> str:
        return f"first{self.layers}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, frozenset(range(self.layers)))


def parse(name: str) -> First | None:
    number = name.removeprefix("first")
    return First(int(number)) if name != number and number.isascii() and number.isdigit() else None


def family(of: Callable[[str], Any] = parse, **changes: object) -> StrategyFamily:
    good = StrategyFamily(
        grammar="first<N>", title="The first N layers", source="this test", examples=("first2", "first3"), parse=of
    )
    return broken(good, **changes)  # type: ignore[no-any-return]


def family_of(kind: type[First]) -> StrategyFamily:
    return family(lambda name: kind(found.layers) if (found := parse(name)) is not None else None)


class Misnamed(First):
    @property
    def name(self) -> str:
        return f"last{self.layers}"


class Spaced(First):
    @property
    def name(self) -> str:
        return f"first {self.layers}"


class WithIdentity(First):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Unhashable(First):
    __hash__ = None  # type: ignore[assignment]


class Crashing(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        if shape.layers < self.layers:
            raise IndexError("list index out of range")
        return super().freeze_plan(shape)


class Unexplained(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        if shape.layers < self.layers:
            raise DoesNotFit
        return super().freeze_plan(shape)


class Fickle(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, frozenset(random.sample(range(shape.layers), shape.layers // 2)))


class OfAnotherShape(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(EncoderShape(12), frozenset(range(self.layers)))


class Deep(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        raise DoesNotFit("freezes layer 99")


class KeepsUpsideDown(First):
    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        return tuple(reversed(range(shape.layers)))


class CountsDroppedLayers(First):
    """Plans for the whole model, though one layer is gone."""

    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        if shape.layers < 2:
            raise DoesNotFit("drops 1 of 1 layers")
        return tuple(range(shape.layers - 1))

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(EncoderShape(shape.layers + 1, shape.hidden_size))


class AdapterBesideWeights(First):
    def adapter(self) -> Adapter:
        return Adapter("LORA")


class AdapterOfNoKind(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, embeddings=True, trained="adapters")

    def adapter(self) -> Adapter:
        return Adapter("LORRA")


class NeverAsked(First):
    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        return FreezePlan(plan.shape)


class Asked(NeverAsked):
    def revisions(self) -> Revisions:
        return Revisions(per_epoch=2)


class Moody(Asked):
    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        return FreezePlan(plan.shape, frozenset({random.randrange(plan.shape.layers)}))


class Forgetful(Asked):
    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> Any:
        return frozenset({0})


class BreaksPromise(Asked):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, frozenset({0}), embeddings=True)

    def revisions(self) -> Revisions:
        return Revisions(prefix_only_grows=True)


class ReadsNormsItDidNotAskFor(Asked):
    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        return FreezePlan(plan.shape, embeddings=progress.norms[-1].layers[0] is None)


def claims_everything(name: str) -> First:
    return First(2)


def raises_key_error(name: str) -> First:
    return {"first2": First(2), "first3": First(3)}[name]


def explains_near_misses(name: str) -> First | None:
    if name.endswith("-no-such-variant"):
        raise UsageError("first<N> has no variants")
    return parse(name)


class TestStrategy:
    @pytest.mark.parametrize(
        "good", [family(), family(explains_near_misses), family_of(Asked)], ids=["plain", "explains", "is asked"]
    )
    def test_good(self, good: StrategyFamily) -> None:
        check_strategy(good)

    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            (family(title="..."), "does not state its title"),
            (family(examples=["first2"]), "examples is a list; give a tuple"),
            (family(examples=("second2",)), "is an example of 'first<N>', but parse returns None"),
            (family(raises_key_error), "parse('no-such-strategy') raises KeyError"),
            (family(claims_everything), "parse('no-such-strategy') returns First(layers=2)"),
            (family(lambda name: name), "but parse returns 'first2'"),
            (family_of(Misnamed), "let the name parse to the same strategy"),
            (family_of(Spaced), "its name 'first 2' must match"),
            (family_of(WithIdentity), "parsing its name twice gives unequal values"),
            (family_of(Unhashable), "have no equal hash"),
            (family_of(Crashing), "'first2' on 1 layer: freeze_plan raises IndexError"),
            (family_of(Unexplained), "raises DoesNotFit without a reason"),
            (family_of(Fickle), "freeze_plan gives different plans"),
            (family_of(OfAnotherShape), "return a FreezePlan of the shape it is given"),
            (family_of(KeepsUpsideDown), "return a tuple of layers from low to high"),
            (family_of(CountsDroppedLayers), "return a FreezePlan of the shape it is given"),
            (family_of(AdapterBesideWeights), "let both speak of adapters, or neither"),
            (family_of(AdapterOfNoKind), "mend the kind or the options of its Adapter"),
            (family_of(NeverAsked), "revise is never called"),
            (family_of(Moody), "revise gives different plans"),
            (family_of(Forgetful), "return a FreezePlan of the same shape"),
            (family_of(BreaksPromise), "the frozen prefix shrinks"),
            (family_of(ReadsNormsItDidNotAskFor), "revise raises IndexError"),
            (family_of(Deep), "fits no encoder of 1 to 24 layers"),
        ],
        ids=itertools.count(),
    )
    def test_broken(self, bad: StrategyFamily, words: str) -> None:
        assert any(words in violation for violation in violations(check_strategy, bad))
