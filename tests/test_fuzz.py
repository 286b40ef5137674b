"""Whatever is written in a file, an option or a plugin: it is read, or refused in a sentence; never a traceback."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CommandLine
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from alue_bench import DataFile, Example, HeldOut, Labels, Model, Splits, StrategyFamily, Task
from alue_bench.contract.byte_sizes import parse_size
from alue_bench.contract.errors import AlueBenchError, DataError, UsageError
from alue_bench.contract.registry import Declared, Origin, PluginReport, Registry, _declared
from alue_bench.contract.strategy import EncoderShape, FreezePlan
from alue_bench.contract.task import TargetKind
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import load_rows
from alue_bench.planning.available import resolve_model
from alue_bench.studies.files import read_study, study_keys
from alue_bench.tracking.connection import connect

# Letters and what stands beside them in Arabic texts; half surrogate pairs, as undecodable arguments hold.
texts = st.text(st.characters(codec=None) | st.sampled_from("\u200d\u200f\u202e\u2067\0\x1b\ud800\udcff😀ـ٣"))
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.binary(), st.lists(texts, max_size=2),
    st.tuples(texts), st.dictionaries(texts, texts, max_size=2), st.just(print), st.just(Path("x")),
)  # fmt: skip
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def sentence(error: BaseException) -> None:
    """Check that an error message can be printed, and is not too long."""
    said = str(error)
    assert 10 < len(said) < 4000
    assert "\x1b" not in said
    assert "\0" not in said


class TestTheStrategyGrammar:
    words = st.sampled_from(["bottom", "top", "-trainemb", "random-", "-seed", "head-only", "full", "none", "last-"])
    numbers = st.integers(-5, 10**7).map(str) | st.sampled_from(["٣", "³", "007", "1_0", "1.5", "9" * 5000])
    names = st.lists(words | numbers, max_size=5).map("".join) | texts

    @given(name=names)
    @relaxed
    def test_a_name_is_a_strategy_of_that_name_or_refused(self, registry: Registry, name: str) -> None:
        try:
            strategy, _ = registry.strategy(name)
        except UsageError as error:
            sentence(error)
        else:
            assert registry.strategy(strategy.name)[0] == strategy
            assert strategy.name.isascii()
            for layers in (1, 12):
                with contextlib.suppress(AlueBenchError):
                    assert isinstance(strategy.freeze_plan(EncoderShape(layers)), FreezePlan)


class TestStudyFiles:
    keys = st.sampled_from(sorted(study_keys())) | texts.map(lambda text: repr(text))
    values = st.one_of(
        st.integers().map(str), st.floats().map(str), texts.map(repr),
        st.sampled_from(["true", "[]", "1979-05-27", '"full"', '"\\ud800"', "0x7f", '"""', "9" * 5000, "[" * 3000]),
    )  # fmt: skip
    lines = st.lists(st.tuples(keys, values).map(" = ".join) | texts, max_size=4).map("\n".join)

    @given(content=lines.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary())
    @relaxed
    def test_a_file_is_read_or_refused(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "study.toml"
        path.write_bytes(content)
        try:
            options = read_study(path)
        except UsageError as error:
            sentence(error)
        else:
            assert set(options) <= set(study_keys())


class TestSizesUrisAndNames:
    sizes = st.tuples(st.integers(), st.sampled_from(["GB", "MiB", "e9", ""])).map(lambda pair: f"{pair[0]}{pair[1]}")

    @given(text=texts | sizes)
    @relaxed
    def test_a_size(self, text: str) -> None:
        try:
            assert 0 <= parse_size(text) < 10**40
        except UsageError as error:
            sentence(error)

    places = st.sampled_from(["a/b@", "a/b/c", "@", "~", "..", ".\0"])

    @given(name=texts.map(lambda text: text.replace("/", "")) | places)
    @example(name="x" * 300)
    @relaxed
    def test_a_model(self, registry: Registry, name: str) -> None:
        try:
            assert isinstance(resolve_model(name, registry), Model)
        except UsageError as error:
            sentence(error)

    schemes = st.sampled_from(["sqlite", "sqlite+x", "postgresql", "mysql+x", "mssql", "http", "https", "file", "db"])
    rests = st.sampled_from(
        ["", "//", ":notaport", "@", "[::1", "127.0.0.1:9", "user:secret@127.0.0.1:9/x", "?a=b", "\0"]
    )

    @given(scheme=schemes, rest=rests | texts.map(lambda text: text.replace("/", "")))
    @settings(relaxed, max_examples=25)
    @pytest.mark.usefixtures("folders_of_its_own")
    def test_a_store(self, scheme: str, rest: str) -> None:
        if scheme.startswith("http") and not rest.startswith(("127.", "user", "[", ":", "@", "/")):
            rest = f"127.0.0.1:9/{rest}"  # no look-ups of names
        with pytest.raises(AlueBenchError) as refused:
            connect(f"{scheme}://{rest}", "x")
        sentence(refused.value)
        assert "secret" not in str(refused.value)


GOOD_TASK: dict[str, Any] = {
    "name": "t", "title": "t", "languages": ("ar",), "labels": Labels.binary("a", "b"), "source": "s",
    "licence": "l", "citation": "c", "splits": Splits(train=DataFile("f", print), dev=HeldOut(0.1), test=HeldOut(0.1)),
    "primary": "", "official_metric": "", "trained_on": None, "label_map": {}, "defaults": {}, "sample": None,
}  # fmt: skip
GOOD_MODEL: dict[str, Any] = {
    "name": "m", "title": "t", "checkpoint": Path("x"), "revision": None, "languages": ("ar",), "licence": "",
    "citation": "", "normalise": None, "normalisation": "none", "requires": (), "defaults": {},
}  # fmt: skip
GOOD_FAMILY: dict[str, Any] = {
    "grammar": "g", "title": "t", "source": "s", "examples": ("g",), "parse": lambda name: None,
}  # fmt: skip


class TestDeclarations:
    """One is refused when it is made, or it is of the right types throughout."""

    @pytest.mark.parametrize(
        ("kind", "good"),
        [(Task, GOOD_TASK), (Model, GOOD_MODEL), (StrategyFamily, GOOD_FAMILY)],
        ids=lambda v: str(v)[:30],
    )
    @given(data=st.data())
    @settings(relaxed, max_examples=150)
    def test_with_one_field_that_is_anything(self, kind: Any, good: dict[str, Any], data: st.DataObject) -> None:
        field, value = data.draw(st.sampled_from(sorted(good))), data.draw(anything)
        with contextlib.suppress(ValueError, TypeError):
            made = kind(**{**good, field: value})
            for name, right in good.items():
                stored = getattr(made, name)
                if right is None:
                    assert stored is None or type(stored).__name__ in ("str", "PosixPath", "builtin_function_or_method")
                elif isinstance(right, tuple):
                    assert all(isinstance(item, str) for item in stored)
                elif callable(right):
                    assert callable(stored)
                else:
                    assert isinstance(stored, (type(right), str))

    @given(returned=anything | st.lists(anything))
    @relaxed
    def test_a_hook_that_returns_anything_is_reported(self, returned: Any) -> None:
        def hook() -> Any:
            return returned

        hook.alue_bench_impl = {}  # type: ignore[attr-defined]
        report = PluginReport(Origin("d", "1", "e", "m"))
        declared = _declared(SimpleNamespace(alue_bench_tasks=hook), report, "alue_bench_tasks", Task)
        assert declared == []
        assert report.status == "failed" or returned in ([], {}, "", b"", ())

    @given(given=anything)
    @relaxed
    def test_a_grammar_that_gives_anything_is_a_sentence(self, given: Any) -> None:
        import pluggy

        family = StrategyFamily(**{**GOOD_FAMILY, "parse": lambda name: given})
        registry = Registry(
            pluggy.PluginManager("x"), (), {}, {}, (Declared(family, Origin("d", "1", "e", "m")),)
        )  # fmt: skip
        with pytest.raises(AlueBenchError) as refused:
            registry.strategy("g")
        sentence(refused.value)


class TestReadersOfPlugins:
    rows = st.lists(
        st.builds(Example, id=texts, text=texts, text_pair=st.none() | texts, target=anything, line=st.integers(1, 9))
        | anything
    )
    spaces = st.sampled_from([Labels.binary("a", "b"), Labels.multilabel("a", "b"), Labels.regression(0, 1)])

    @given(rows=rows, labels=spaces, drop=st.booleans())
    @settings(relaxed, max_examples=150)
    def test_every_row_kept_is_one_that_can_be_trained_on(
        self, rows: list[Any], labels: Labels, drop: bool, tmp_path: Path
    ) -> None:
        def read(path: Path) -> Iterator[Any]:
            yield from rows

        (tmp_path / "f").write_text("x")
        file = DataFile("f", read)
        task = Task(**{**GOOD_TASK, "labels": labels, "splits": Splits(train=file, dev=file, test=file)})
        try:
            loaded = load_rows(task, DataFolder(tmp_path, "real"), drop_bad=drop, limit_train=None, limit_eval=None)
        except DataError as error:
            sentence(error)
            return
        for row in loaded.splits["train"].examples:
            assert (row.text + row.id + (row.text_pair or "")).encode()
            if labels.kind is TargetKind.REGRESSION:
                assert isinstance(row.target, float | int)
                assert math.isfinite(row.target)
                assert 0 <= row.target <= 1
            elif labels.kind is TargetKind.MULTILABEL:
                assert isinstance(row.target, tuple)
                assert set(row.target) <= {"a", "b"}
            else:
                assert example.target in ("a", "b")


OPTIONS = (
    "--task", "--model", "--strategy", "--seed", "--seeds", "--lr", "--epochs", "--config", "--data-dir",
    "--experiment", "--tracking-uri", "--cache-size", "--device", "--precision", "--select", "--clip-by",
    "--limit-train",
)  # fmt: skip


values = texts | st.integers().map(str)
few = texts | st.integers().filter(lambda n: not 20 < n <= 10_000).map(str)  # thousands of runs are many times one run
given_options = st.sampled_from(OPTIONS).flatmap(
    lambda name: st.tuples(st.just(name), few if name == "--seeds" else values)
)


@given(options=st.lists(given_options, min_size=1, max_size=3))
@settings(relaxed, max_examples=40)
def test_whatever_the_options(alue_bench: CommandLine, tiny_bert: Path, options: list[tuple[str, str]]) -> None:
    arguments = [part for option in options for part in option]
    said = alue_bench("run", "-t", "anger", "-m", tiny_bert, *arguments, "--dry-run")
    assert said.code in (0, 2)
    assert "Traceback" not in said.everything
    assert "\0" not in said.err


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param({"entry_points.txt": "[alue_bench]\nx = no_such_module\n"}, "no_such_module", id="no metadata"),
        pytest.param(
            {"METADATA": "Name: x\n", "entry_points.txt": "[alue_bench]\nx = a b c\n"}, "x", id="no reference"
        ),
        pytest.param(
            {"METADATA": "\0\xff", "entry_points.txt": "[alue_bench]\nx = os:nothing\n"}, "nothing", id="garbage"
        ),
    ],
)
def test_a_broken_installation_is_reported_and_the_rest_goes_on(
    alue_bench: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], says: str
) -> None:
    info = tmp_path / "site" / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    for name, content in files.items():
        (info / name).write_text(content, encoding="latin-1")
    monkeypatch.syspath_prepend(str(info.parent))
    said = alue_bench("plugins")
    assert "Traceback" not in said.everything
    assert "failed" in said.everything
    assert says in said.everything
    assert alue_bench("list", "tasks").code == 0
