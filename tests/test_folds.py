"""Cross-validation: the folds, what their runs share, and the comparison over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_runs import plant, spec
from test_comparison import BINARY, compared, connection, difference, only  # noqa: F401 - fixtures
from test_training import outcome, plan_runs  # noqa: F401 - fixtures

from alue_bench import DataError, DataFile, Example, HeldOut, Labels, Splits, Task
from alue_bench.contract.spec import Fold
from alue_bench.data.folds import load_folds
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import TaskRows
from alue_bench.evaluation.resampled import corrected_resampled_test
from alue_bench.executors.replan import rebuild_run, source_of
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import Plan
from alue_bench.reporting.comparison import Verdict
from alue_bench.reporting.comparison_table import explain, records, text_tables
from alue_bench.running.run import execute
from alue_bench.training.prefix.store import PrefixStore

KINDS: dict[str, tuple[Labels, Callable[[int], Any]]] = {
    "binary": (Labels.binary("a", "b"), lambda n: "ab"[n % 7 == 0]),
    "multiclass": (Labels.multiclass("a", "b", "c"), lambda n: "abc"[min(2, n % 9)]),
    "multilabel": (
        Labels.multilabel("a", "b", "c"),
        lambda n: tuple(x for x, k in zip("abc", (2, 3, 20), strict=True) if n % k == 0),
    ),
    "regression": (Labels.regression(0, 1), lambda n: (n * 37 % 101) / 101),
}


def task_of(kind: str, rows: int = 120, *, dev_file: bool = False, test: Any = None, repeated: int = 3) -> Task:
    labels, target = KINDS[kind]

    def read(first: int, number: int) -> Any:
        return lambda path: (
            # Every tenth text is that of the row some places before it.
            Example(str(n), f"text {n - repeated if n % 10 == 9 else n}", None, target(n), n + 1)
            for n in range(first, first + number)
        )

    splits = Splits(
        train=DataFile("train", read(0, rows)),
        dev=DataFile("dev", read(rows, 20)) if dev_file else HeldOut(0.2),
        test=test or HeldOut(0.2),
    )
    return Task(
        name="made",
        title="Made",
        languages=("ar",),
        labels=labels,
        splits=splits,
        source="-",
        licence="-",
        citation="-",
    )


@pytest.fixture
def divide(tmp_path: Path) -> Callable[..., list[TaskRows]]:
    for name in ("train", "dev"):
        (tmp_path / name).write_text("read by the test\n")

    def do(task: Task, folds: int, repeats: int = 1, **limits: Any) -> list[TaskRows]:
        asked = [Fold(folds, repeat, number) for repeat in range(1, repeats + 1) for number in range(1, folds + 1)]
        options = {"drop_bad": False, "limit_train": None, "limit_eval": None} | limits
        return load_folds(task, DataFolder(tmp_path, "real"), asked, **options)

    return do


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dev_file", [False, True])
def test_each_row_is_tested_once_and_no_text_is_on_two_sides(divide: Any, kind: str, dev_file: bool) -> None:
    task = task_of(kind, dev_file=dev_file, test=DataFile("not here", lambda path: iter(())) if dev_file else None)
    divided = divide(task, 5, repeats=2)
    assert len({rows.folds_digest for rows in divided}) == 1
    assert len({rows.splits["test"].digest for rows in divided}) == 10
    whole = divided[0].splits["train"].all_rows
    assert whole is not None
    assert len(whole.examples) == 120 + 20 * dev_file
    for repeat in (1, 2):
        tested = [e for rows in divided if rows.fold.repeat == repeat for e in rows.splits["test"].examples]  # type: ignore[union-attr]
        assert sorted(e.id for e in tested) == sorted(e.id for e in whole.examples)
    for rows in divided:
        parts = [rows.splits[name].examples for name in ("train", "dev", "test")]
        texts = [{e.text for e in part} for part in parts]
        assert sum(map(len, parts)) == len(whole.examples)
        assert all(parts)
        assert not any(texts[i] & texts[j] for i, j in ((0, 1), (0, 2), (1, 2)))
        assert len(parts[1]) == pytest.approx((0.1 if dev_file else 0.2) * (len(parts[0]) + len(parts[1])), abs=3)
        assert any("not here is not used" in note for note in rows.notes) == dev_file
    assert [rows.splits["train"].digest for rows in divide(task, 5, repeats=2)] == [
        rows.splits["train"].digest for rows in divided
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_folds_are_stratified(divide: Any, kind: str) -> None:
    tested = [[e.target for e in rows.splits["test"].examples] for rows in divide(task_of(kind, repeated=0), 5)]
    if kind == "regression":
        assert np.ptp([np.mean(targets) for targets in tested]) < 0.03
        return
    names = KINDS[kind][0].names
    counts = [
        Counter(x for target in targets for x in (target if kind == "multilabel" else [target])) for targets in tested
    ]
    for name in names:
        of_label = [count[name] for count in counts]
        assert max(of_label) - min(of_label) <= (2 if kind == "multilabel" else 1)


def test_limits_and_rows_that_are_too_few(divide: Any) -> None:
    limited = divide(task_of("binary"), 3, limit_train=60, limit_eval=5)
    assert sum(len(rows.splits["train"].examples) for rows in limited) > 60
    assert all(len(rows.splits[name].examples) <= 5 for rows in limited for name in ("dev", "test"))
    assert limited[0].folds_digest != divide(task_of("binary"), 3, limit_train=60)[0].folds_digest
    with pytest.raises(
        DataError, match="--folds 8: label 'b' of task 'made' has 6 rows with different texts, too few for 8"
    ):
        divide(task_of("binary", rows=40), 8)
    with pytest.raises(DataError, match=r"task 'made' has 4 rows with different texts, .*take --folds 4 or fewer"):
        divide(task_of("regression", rows=4), 6)
    with pytest.raises(DataError, match="has 1 row with different texts, too few for 2 folds; add rows"):
        divide(task_of("binary", rows=3), 2)


class TestRunsOfFolds:
    @pytest.fixture
    def plan(self, plan_runs: Callable[..., Plan]) -> Plan:  # noqa: F811
        return plan_runs(strategies=("full", "bottom4"), folds=3, repeats=2)

    def test_the_fold_is_part_of_spec_and_fingerprint_and_a_worker_plans_it_alone(
        self,
        plan: Plan,
        plan_runs: Callable[..., Plan],  # noqa: F811
        registry: Any,
    ) -> None:
        specs = [run.spec for run in plan.runs]
        assert len({one.fingerprint for one in specs}) == len(specs) == 3 * 2 * 2
        assert [one.label.rsplit("/", 1)[1] for one in specs[::2]] == [
            *(f"fold{n}of3" for n in (1, 2, 3)),
            *(f"repeat2fold{n}of3" for n in (1, 2, 3)),
        ]
        fewer = plan_runs(strategies=("full",), folds=3)
        assert {run.spec.fingerprint for run in fewer.runs} < {one.fingerprint for one in specs}
        assert replace(specs[0], fold=None).fingerprint != specs[0].fingerprint
        again = rebuild_run(plan.runs[7].spec, source_of(plan.runs[7], registry), registry, PlanCache())
        assert again.spec == plan.runs[7].spec
        assert again.inputs.train_rows.splits == plan.runs[7].inputs.train_rows.splits

    def test_folds_share_the_outputs_of_frozen_layers_and_each_pays_for_its_own_rows(self, plan: Plan) -> None:
        first, second = [run for run in plan.runs if run.spec.strategy == "bottom4"][:2]
        results = [execute(run.spec, run.inputs) for run in (first, second)]
        assert len(first.inputs.prefixes.entries()) == 1
        assert [trained.prefixes["train"].prefix.reused for _, trained in results] == [False, True]  # type: ignore[union-attr]
        states = [results[0][1].prefixes[name].prefix for name in ("train", "dev")]
        tokens = [int(one.lengths.sum()) for one in states if one]
        assert states[0].seconds / states[1].seconds == pytest.approx(tokens[0] / tokens[1])  # type: ignore[union-attr]
        nowhere = PrefixStore(Path("nowhere"), 0, print)
        alone, _ = execute(first.spec, replace(first.inputs, prefixes=nowhere))
        assert np.allclose(alone.predictions.scores, results[0][0].predictions.scores, atol=1e-4)
        assert alone.predictions.ids == results[0][0].predictions.ids


class TestAComparisonOverFolds:
    @pytest.fixture
    def put(self, connection: Any) -> Callable[..., None]:  # noqa: F811
        def plant_folds(strategy: str, right: list[int], folds: int = 5, repeat: int = 1, **changes: Any) -> None:
            """Runs of which each has so many of its 40 test rows right."""
            gold = np.tile([0, 1], 20)
            for number, correct in enumerate(right, 1):
                predicted = np.where(np.arange(40) < correct, gold, 1 - gold)
                planted = spec("oold", strategy, test_rows=f"{folds} {repeat} {number}", **changes)
                planted = replace(planted, fold=Fold(folds, repeat, number))
                plant(connection, planted, BINARY, gold, predicted, more={"data/train_rows": 150.0})

        return plant_folds

    def test_is_the_corrected_test_of_the_folds_means_over_seeds(self, put: Any, compared: Any) -> None:  # noqa: F811
        full = {42: [30, 31, 33], 43: [32, 31, 34]}
        frozen = {42: [12, 15, 16], 43: [15, 14, 17]}
        for seed in full:
            put("full", full[seed], 3, seed=seed), put("head-only", frozen[seed], 3, seed=seed)
        block = only(compared(metric="accuracy"))
        by_fold = (np.mean([*frozen.values()], axis=0) - np.mean([*full.values()], axis=0)) / 40
        found = difference(block, "head-only")
        expected = corrected_resampled_test([*by_fold], 40 / 150)
        assert (found.mean, found.seeds) == (pytest.approx(expected.difference), 3)
        assert found.test is not None
        assert (found.test.p_value, found.test.half_width) == pytest.approx((expected.p_value, expected.half_width))
        assert found.verdict is Verdict.WORSE
        assert block.rows[0].score is not None
        assert (block.rows[0].score.values, block.rows[0].folds, block.rows[0].seeds) == (3, 3, (42, 43))
        (table,) = text_tables(compared())
        assert "2 seeds; 3 folds" in table.subtitle
        assert any("corrected resampled t-test (Nadeau & Bengio 2003)" in line for line in explain(compared()))
        assert records(compared())[1]["test"] == "corrected resampled t"

    def test_pools_repeats_and_keeps_other_protocols_apart(self, put: Any, compared: Any) -> None:  # noqa: F811
        for strategy, right in (("full", 30), ("head-only", 29)):
            put(strategy, [right] * 3, 3), put(strategy, [right, right + 1, right], 3, repeat=2)
            put(strategy, [right, right], 2)
        blocks = {block.folds: block for block in compared().blocks}
        assert {folds: block.rows[0].folds for folds, block in blocks.items()} == {2: 2, 3: 6}
        assert all("folds" in block.differing for block in blocks.values())
        assert difference(blocks[3], "head-only").seeds == 6
        assert any("6 folds (3 in each repeat)" in table.subtitle for table in text_tables(compared()))

        found = difference(blocks[2], "head-only")
        assert (found.verdict, found.reason) == (
            Verdict.TOO_FEW_SEEDS,
            "2 folds in common with the baseline; a verdict needs 3",
        )
        assert any("fewer than 3 folds, so no verdict; use --folds 5" in line for line in explain(compared()))
