"""A declaration that cannot work is refused where it is made, in one sentence that names the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alue_bench import (
    Adapter,
    DataFile,
    Delimited,
    EncoderShape,
    FreezePlan,
    HeldOut,
    Labels,
    Model,
    Revisions,
    Splits,
    Strategy,
    StrategyFamily,
    Submission,
    TargetKind,
    Task,
)
from alue_bench.contract.spec import digest_of
from alue_bench.contract.strategy import outline

READ: dict[str, Any] = {"columns": 2, "text": 0, "target": 1}
HEADED: dict[str, Any] = {"header": True, "text": "text", "target": "label"}


def task(*, read: Any = None, test: Any = None, labels: Labels | None = None, **changes: Any) -> Task:
    read = read or Delimited(**READ)
    parts = {split: DataFile(f"{split}.tsv", read) for split in ("train", "dev")}
    declared: dict[str, Any] = {
        "name": "agreement", "title": "Yes or no", "languages": ("ar",), "labels": labels or Labels.binary("no", "yes"),
        "splits": Splits(**parts, test=test or DataFile("test.tsv", read)), "source": "this test",
        "licence": "Apache-2.0", "citation": "this test",
    }  # fmt: skip
    return Task(**declared | changes)


def model(**changes: Any) -> Model:
    return Model(**{"name": "mine", "title": "Mine", "checkpoint": "owner/name"} | changes)


def delimited(**changes: Any) -> Delimited:
    return Delimited(**READ | changes)


def family(**changes: Any) -> StrategyFamily:
    declared: dict[str, Any] = {
        "grammar": "g",
        "title": "t",
        "source": "s",
        "examples": ("g",),
        "parse": lambda name: None,
    }
    return StrategyFamily(**declared | changes)


def pairs(**changes: Any) -> Delimited:
    return Delimited(columns=3, text=0, text_pair=1, target=2)


SHAPE = EncoderShape(4)

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    # What a leaderboard wants
    "id": (lambda: Submission(file="a.tsv", id="index"), "id is 'index'; it must be 'given', 'row' or None"),  # type: ignore[arg-type]
    "folder above": (lambda: Submission(file=".."), "must be a file's name without a folder"),
    "header of letters": (lambda: Submission(file="a.tsv", header="id"), "it must be a tuple of strings"),  # type: ignore[arg-type]
    "header with a tab": (lambda: Submission(file="a.tsv", header=("a\tb",)), "contains a tab or a line end"),
    "numbers written": (lambda: Submission(file="a.tsv", encode={"no": 0}), "a mapping from strings to strings"),  # type: ignore[dict-item]
    "leaderboard": (lambda: Submission(file="a.tsv", leaderboard=" "), "does not state its leaderboard"),
    "all written alike": (
        lambda: task(submission=Submission(file="a.tsv", encode={"no": "1", "yes": "1"})),
        "writes '1' for every label",
    ),
    "marks encoded": (
        lambda: task(
            read=Delimited(header=True, text="text", target=("a", "b")),
            labels=Labels.multilabel("a", "b"),
            submission=Submission(file="a.tsv", encode={"a": "x"}),
        ),
        "a multi-label task holds 0 and 1; leave out encode",
    ),
    "not a submission": (lambda: task(submission="a.tsv"), "submission is 'a.tsv'; it must be of type Submission"),
    # Labels
    "three of two": (lambda: Labels(TargetKind.BINARY, ("a", "b", "c")), "a binary task has two labels, not 3"),
    "twice": (lambda: Labels.multiclass("a", "b", "a"), "names holds 'a' twice"),
    "no letters": (lambda: Labels.binary("a", " "), "none of its strings may be empty"),
    "line end": (lambda: Labels.binary("a", "b\n"), "holds a tab, a line end or another control character"),
    "threshold": (lambda: Labels.multilabel("a", "b", threshold=True), "threshold is True; it must be of type float"),
    # Files and splits
    "no name": (lambda: DataFile("", print), "must be a path below the data folder"),
    "backslash": (lambda: DataFile("a\\train.tsv", print), "must be a path below the data folder"),
    "case alone": (
        lambda: task(test=DataFile("Train.tsv", Delimited(**READ))),
        "'train.tsv' and 'Test.tsv'".replace("Test", "Train") + " differ only in case",
    ),
    "seed": (lambda: HeldOut(0.1, seed=-1), "seed -1 is not at least 0"),
    "protocol": (lambda: Splits(test=HeldOut(0.1), protocol=""), "does not state its protocol"),
    "pairs and single texts": (
        lambda: task(test=DataFile("test.tsv", pairs())),
        "the test file holds pairs of texts and the train file single ones",
    ),
    "no gold labels": (
        lambda: task(test=DataFile("test.tsv", Delimited(columns=1, text=0))),
        "the reader of the test file has no target",
    ),
    # Delimited
    "letters ignored": (lambda: delimited(ignore="MSA"), "ignore is 'MSA'; it must be of type frozenset or set"),
    "from the end": (lambda: delimited(text=-2), "column -2 is negative; columns are counted from 0"),
    "text is label": (lambda: delimited(target=0), "column 0 cannot be two of text, text_pair and target"),
    "text is text": (lambda: delimited(columns=3, text_pair=0), "column 0 cannot be two of text, text_pair and target"),
    "a list of columns": (lambda: delimited(target=["a", "b"]), "target is ['a', 'b']; it must be of type"),
    "no delimiter": (lambda: delimited(delimiter=""), "delimiter '' cannot separate the columns"),
    "long delimiter": (lambda: Delimited(**HEADED, quoted=True, delimiter="||"), "must be one character"),
    "decoded to numbers": (lambda: delimited(decode={"0": 0}), "decode is {'0': 0}; it must be a mapping"),
    "decoded to no label": (
        lambda: task(read=delimited(decode={"0": "no", "1": "yess"})),
        "decode gives 'yess', which is not one of the labels; declared are no, yes",
    ),
    "a label ignored": (
        lambda: task(read=delimited(ignore=frozenset({"yes", "maybe"}))),
        "ignores 'yes', which is a label of the task",
    ),
    "columns that are no labels": (
        lambda: task(read=Delimited(header=True, text="text", target=("a", "c")), labels=Labels.multilabel("a", "b")),
        "target=('a', 'b')",
    ),
    "several columns of one label": (
        lambda: task(read=Delimited(header=True, text="text", target=("no", "yes"))),
        "name one column, or declare Labels.multilabel",
    ),
    # Tasks and models
    "licence": (lambda: task(licence=" "), "task 'agreement' does not state its licence"),
    "languages in words": (lambda: task(languages=("Arabic",)), "'Arabic' in languages is not a BCP 47 code"),
    "a language twice": (lambda: task(languages=("ar", "ar")), "languages holds 'ar' twice"),
    "trained on itself": (
        lambda: task(splits=Splits(test=DataFile("test.tsv", Delimited(**READ))), trained_on="agreement"),
        "is trained on itself",
    ),
    "dev without train": (
        lambda: task(splits=Splits(dev=HeldOut(0.1), test=DataFile("test.tsv", Delimited(**READ))), trained_on="other"),
        "has no train split",
    ),
    "a folder as a text": (lambda: model(checkpoint="./my/model"), "is not a hub id like 'owner/name'"),
    "revision of a folder": (lambda: model(checkpoint=Path("/m"), revision="main"), "names no revision"),
    "distribution": (lambda: model(requires=("camel-tools",)), "'camel-tools' in requires cannot be imported"),
    "part of a package": (lambda: model(requires=("camel_tools.utils",)), "name the top-level module"),
    "language of a model": (lambda: model(languages=("Arabic",)), "'Arabic' in languages is not a BCP 47 code"),
    # Strategies
    "an example twice": (lambda: family(examples=("g", "g")), "examples holds 'g' twice"),
    "blank title": (lambda: family(title=" "), "does not state its title"),
    "trained": (lambda: FreezePlan(SHAPE, trained="bias"), "trained is 'bias'; it must be weights, biases, norms, "),  # type: ignore[arg-type]
    "names of weights": (lambda: FreezePlan(SHAPE, names=("*.query.*",)), 'together with trained="names"'),
    "no names": (lambda: FreezePlan(SHAPE, trained="names"), "give patterns in `names`"),
    "a text as names": (lambda: FreezePlan(SHAPE, trained="names", names="*"), "must be a tuple of strings"),  # type: ignore[arg-type]
    "a number as a parameter": (lambda: FreezePlan(SHAPE, frozen_parameters=frozenset({3})), "must be names of par"),  # type: ignore[arg-type]
    "flag": (lambda: FreezePlan(SHAPE, embeddings="yes"), "embeddings is 'yes'; it must be of type bool"),  # type: ignore[arg-type]
    "half a layer": (lambda: FreezePlan(SHAPE, frozenset({0.5})), "'float' object cannot be interpreted"),  # type: ignore[arg-type]
    "half an epoch": (lambda: Revisions(per_epoch=0.5), "per_epoch is 0.5; it must be of type int"),  # type: ignore[arg-type]
    "a set of modules": (lambda: Adapter("LORA", {"target_modules": {"query"}}), "use lists instead of sets"),
}


@pytest.mark.parametrize(("declare", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_in_a_sentence(declare: Callable[[], object], says: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        declare()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_these_are_variations_of_is_taken() -> None:
    task(submission=Submission(file="a.tsv", header=("", "label"), id="row", encode={"no": "0", "yes": "1"}))
    task(labels=Labels.multiclass("C+", "C#", "😀", "very angry"), languages=("ar-EG", "arb"))
    model(checkpoint="bert-base-uncased", revision="main", requires=("pyarabic",), languages=("AR-eg",))
    delimited(columns=4, delimiter="||", ignore={"MSA"}, decode={"0": "no"}, id=1)
    family()


class Drawn(Strategy):
    """A strategy whose numbers are NumPy's."""

    name = "drawn"

    def kept_layers(self, shape: EncoderShape) -> Any:
        return list(np.arange(shape.layers - 1))

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, np.array([1, 0]))  # type: ignore[arg-type]


def test_numbers_of_numpy_are_recorded_as_any_other() -> None:
    outlined = outline(Drawn(), SHAPE)
    plan = outlined.freeze_plan
    assert plan == FreezePlan(EncoderShape(3), frozenset({0, 1}))
    assert hash((plan, outlined.kept_layers)) == hash((plan, (0, 1, 2)))
    assert digest_of([sorted(plan.frozen_layers), outlined.kept_layers]) == digest_of([[0, 1], [0, 1, 2]])


def test_options_of_an_adapter_are_a_mapping_that_can_be_recorded() -> None:
    from types import MappingProxyType

    assert json.dumps(Adapter("LORA", MappingProxyType({"r": 8})).options) == '{"r": 8}'


def test_columns_beside_a_header_are_counted(tmp_path: Path) -> None:
    from alue_bench import DataError

    (tmp_path / "rows.tsv").write_text("text\tlabel\tmore\nنص\tyes\t\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.tsv:1: the header has 3 columns instead of 2"):
        list(Delimited(**HEADED, columns=2)(tmp_path / "rows.tsv"))
