"""Models scored on other tasks (--also-test): no training for it, labels mapped or refused, changes tested."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CommandLine
from planted_runs import classes, plant, spec

from alue_bench import DataFile, Delimited, Labels, Splits, Task
from alue_bench.contract.label_fit import LabelMisfit, fit_labels
from alue_bench.contract.registry import load_registry
from alue_bench.evaluation.domain_change import Contrast, domain_change
from alue_bench.evaluation.metrics import metrics
from alue_bench.executors.replan import rebuild_run, source_of
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.reporting.comparison import compare
from alue_bench.reporting.out_of_domain import out_of_domain
from alue_bench.running.run import execute
from alue_bench.tracking.connection import connect
from alue_bench.tracking.prediction_files import write_predictions
from alue_bench.tracking.reading import read_results, read_targets, read_targets_elsewhere
from alue_bench.tracking.record import Closing, Opening
from alue_bench.tracking.recording import Recorder
from alue_bench.tracking.scores_elsewhere import predictions_file, tags_of_scores


def task(name: str, labels: Labels, **fields: Any) -> Task:
    columns: dict[str, Any] = {"columns": 2, "text": 0, "target": 1}
    if labels.kind == "multilabel":
        columns = {"header": True, "text": "text", "target": labels.names}
    return Task(
        name=name, title=name, languages=("ar",), labels=labels, source="this test", licence="CC0-1.0",
        splits=Splits(test=DataFile(f"{name}.tsv", Delimited(**columns)), protocol="a test set"), citation="none",
        **fields,
    )  # fmt: skip


CITIES = Labels.multiclass("CAI", "ALX", "TUN", "MSA")
COUNTRIES = Labels.multiclass("EG", "TN", "KW", "MSA")


class TestLabels:
    def test_several_labels_count_as_one_and_what_none_counts_as_is_left_out(self) -> None:
        cities = task("cities", CITIES, companions={"countries": {"CAI": "EG", "ALX": "EG", "TUN": "TN", "MSA": "MSA"}})
        fit = fit_labels(task("countries", COUNTRIES), cities)
        assert fit.labels.names == ("EG", "TN", "MSA")
        assert fit.sources == ((0, 1), (2,), (3,))
        assert fit.unreachable == ("KW",)

    def test_the_option_goes_before_the_declared_map_and_equal_names_need_none(self) -> None:
        own, declared = Labels.binary("a,b", "c=d"), {"no": "a,b", "yes": "c=d"}
        source = task("source", Labels.binary("no", "yes"), companions={"other": declared})
        assert dict(fit_labels(task("other", own), source).label_map) == declared
        turned = fit_labels(task("other", own), source, "no=c=d,yes=a,b")
        assert turned.label_map == {"no": "c=d", "yes": "a,b"}
        reordered = fit_labels(task("again", Labels.binary("yes", "no")), source)
        assert reordered.sources == ((1,), (0,))
        third = Labels.multiclass("no", "yes", "perhaps")
        assert fit_labels(task("third", third), source, "yes=yes").label_map == {"no": "no", "yes": "yes"}

    @pytest.mark.parametrize(
        ("theirs", "own", "given", "words"),
        [
            (CITIES, COUNTRIES, "CAI=EG", "does not say what 'ALX' counts as; add ALX=LABEL"),
            (CITIES, COUNTRIES, "CAI=XX,ALX=EG,TUN=TN", "'XX' is not a label of the scored task, whose labels are EG"),
            (CITIES, COUNTRIES, "OSL=EG", "'OSL' is not a label of the trained task, whose labels are CAI, ALX"),
            (CITIES, COUNTRIES, "CAI=EG,CAI=EG", "maps 'CAI' twice"),
            (CITIES, COUNTRIES, "CAI=EG,ALX=EG,TUN=,MSA=", "could predict only 'EG' of its labels EG, TN, KW, MSA"),
            (CITIES, Labels.regression(0, 1), None, "CAI, ALX, TUN, MSA), but task 'other' has numbers from 0 to 1"),
            (Labels.regression(0, 1), Labels.regression(0, 5), None, "with the same range"),
            (CITIES, Labels.multilabel("EG", "TN"), None, "but task 'other' has multilabel labels (EG, TN)"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, theirs: Labels, own: Labels, given: str | None, words: str) -> None:
        with pytest.raises(LabelMisfit, match=re.escape(words)):
            fit_labels(task("other", own), task("source", theirs), given)

    @pytest.mark.parametrize("several", [False, True])
    def test_the_proposed_map_can_be_copied(self, several: bool) -> None:
        own, source = task("other", COUNTRIES), task("source", CITIES)
        with pytest.raises(
            LabelMisfit, match="predict CAI, ALX, TUN, MSA, but the labels of task 'other' are EG, TN"
        ) as e:
            fit_labels(own, source, several=several)
        _, _, words = str(e.value).partition("for example ")
        flag, value, *_ = shlex.split(words.partition(" (correct")[0])
        assert flag == "--map"
        assert value.startswith("other:") == several
        assert len(fit_labels(own, source, value.removeprefix("other:")).labels.names) == 4


class TestAPlan:
    @pytest.fixture
    def planned(self, registry: Any, tiny_bert: Path, folders_of_its_own: None) -> Callable[..., PlannedRun]:
        def plan(name: str, *also_test: str, maps: tuple[str, ...] = ()) -> PlannedRun:
            request = PlanRequest(
                tasks=(name,), models=(str(tiny_bert),), strategies=("bottom1",), sample=True, limit_train=40,
                limit_eval=30, overrides=(("test", {"epochs": 1}),), device="cpu", precision="fp32",
                also_test=also_test, maps=maps,
            )  # fmt: skip
            return build_plan(request, registry).runs[0]

        return plan

    def test_nothing_is_trained_again_and_the_run_stays_the_same(self, planned: Callable[..., PlannedRun]) -> None:
        steps: list[tuple[int, int]] = []
        alone = planned("oold")
        both = planned("oold", "mlma-offensive", "fid", maps=("fid:OFF=ironic,NOT_OFF=not_ironic",))
        assert both.spec.fingerprint == alone.spec.fingerprint
        expected, _ = execute(alone.spec, alone.inputs)
        result, _ = execute(both.spec, both.inputs, on_step=lambda done, total: steps.append((done, total)))
        assert len(steps) == expected.metrics["data/train_steps"] == steps[-1][1]
        assert result.predictions.predicted == expected.predictions.predicted
        same = [name for name in expected.metrics if name.startswith(("test/", "selection/", "data/"))]
        assert {name: result.metrics[name] for name in same} == {name: expected.metrics[name] for name in same}
        assert result.predictions_elsewhere.keys() == {"mlma-offensive", "fid"}
        assert not any(name.startswith("also_test/") for name in expected.metrics)

    def test_predictions_are_scored_in_the_labels_of_the_other_task(self, planned: Callable[..., PlannedRun]) -> None:
        run = planned("mdd", "qadi")
        (companion,) = run.inputs.companions
        result, _ = execute(run.spec, run.inputs)
        table, labels = result.predictions_elsewhere["qadi"], companion.fit.labels
        assert len(labels.names) == 16
        assert set(table.gold) <= set(labels.names)
        assert table.columns == labels.names
        assert np.asarray(table.scores).sum(axis=1) == pytest.approx(1, abs=1e-5)
        place = {name: index for index, name in enumerate(labels.names)}
        gold, predicted = (np.array([place[name] for name in side]) for side in (table.gold, table.predicted))
        assert result.metrics["also_test/qadi/f1_macro"] == pytest.approx(metrics(gold, predicted, labels)["f1_macro"])
        assert result.metrics["also_test/qadi/score"] == result.metrics["also_test/qadi/f1_macro"]
        left_out = result.metrics["also_test/qadi/left_out_rows"]
        assert len(table.gold) + left_out == 30
        assert left_out > 0
        assert any(f"{left_out:.0f} of 30 test rows are left out" in note for note in result.notes)
        assert any("CAI → EG" in note for note in result.notes)

    def test_a_worker_plans_the_same(self, planned: Callable[..., PlannedRun], registry: Any) -> None:
        maps = ("fid:OFF=ironic,NOT_OFF=not_ironic",)
        run = planned("oold", "mlma-offensive", "fid", maps=maps)
        source = pickle.loads(pickle.dumps(source_of(run, registry)))
        again = rebuild_run(run.spec, source, registry, PlanCache())
        assert again.inputs.companions == run.inputs.companions
        assert set(run.spec.scored_elsewhere) == {"mlma-offensive", "fid"}

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (
                ("--task", "oold", "--also-test", "qadi"),
                ["predict NOT_OFF, OFF", "qadi' are AE, BH, DZ", "--map NOT_OFF=AE,OFF=BH"],
            ),
            (("--task", "svreg", "--also-test", "oold"), ["numbers from 0 to 1", "binary labels (NOT_OFF, OFF)"]),
            (("--task", "oold", "--also-test", "arabicner"), ["task 'arabicner' tags words; choose tasks with one"]),
            (("--task", "arabicner", "--also-test", "oold"), ["task 'arabicner' tags words; choose tasks with one"]),
            (("--task", "oold", "--also-test", "nowhere"), ["nowhere"]),
            (("--task", "oold", "--map", "OFF=a"), ["add --also-test TASK"]),
            (
                ("--task", "oold", "--also-test", "fid", "--also-test", "mlma-offensive", "--map", "OFF=x"),
                ["fid:LABEL"],
            ),
            (("--task", "mlma-hateful"), ["has no train split and trains no model", "--also-test mlma-hateful"]),
        ],
    )
    def test_a_wrong_question_ends_in_the_plan(
        self, alue_bench: CommandLine, tiny_bert: Path, options: tuple[str, ...], words: list[str]
    ) -> None:
        ended = alue_bench("run", "--model", tiny_bert, "--sample", "--strategy", "full", *options)
        assert ended.code == 2
        said = " ".join(ended.err.split())
        for word in words:
            assert word in said

    def test_a_task_that_fits_only_one_of_several_is_left_out_for_the_others(
        self, registry: Any, tiny_bert: Path, folders_of_its_own: None
    ) -> None:
        request = PlanRequest(
            tasks=("oold", "ohsd"), models=(str(tiny_bert),), strategies=("full",), sample=True, device="cpu",
            also_test=("mlma-offensive", "mlma-hateful"),
        )  # fmt: skip
        plan = build_plan(request, registry)
        assert {run.spec.task: [*run.spec.scored_elsewhere] for run in plan.runs} == {
            "oold": ["mlma-offensive"], "ohsd": ["mlma-hateful"],
        }  # fmt: skip
        assert sum(note.startswith("not scored elsewhere") for note in plan.notes) == 2


FILE = """
kind = "binary"
labels = ["no", "yes"]

[files]
test = "mine.csv"

[columns]
text = "text"
label = "label"
"""


class TestTheStore:
    def test_a_finished_run_without_the_score_is_done_again_and_then_reused(
        self, run: CommandLine, runs: Callable[..., list[Any]], easy: tuple[str, str], tmp_path: Path
    ) -> None:
        """With a task of another plugin and a task file."""
        rows = [f"{'a b ' * 4 if n % 2 else 'z y ' * 4}{n},{'no' if n % 2 else 'yes'}" for n in range(20)]
        (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
        (tmp_path / "mine.toml").write_text(FILE, encoding="utf-8")
        elsewhere = ("--also-test", easy[1], "--also-test", tmp_path / "mine.toml")
        for options in ((), elsewhere, elsewhere[:2], ()):
            run("--strategy", "full", *options, task=easy[0])
        first, second = runs("attributes.status = 'FINISHED'")
        assert first.data.tags["fingerprint"] == second.data.tags["fingerprint"]
        assert first.data.metrics["test/score"] == second.data.metrics["test/score"]
        assert set(json.loads(second.data.tags["also_test"])) == {"easy-too", "mine"}
        assert second.data.metrics["also_test/easy-too/score"] == second.data.metrics["test/score"]
        assert second.data.metrics["also_test/mine/rows"] > 0

    def test_a_finished_run_counts_only_with_the_scores_also_from_the_spool(
        self, own_store: str, experiment: str, folders_of_its_own: None, tmp_path: Path
    ) -> None:
        recorder, print_ = Recorder(connect(own_store, experiment)), spec().fingerprint
        wanted, gold = {"mlma-offensive": "some digest"}, np.array([0, 1] * 5)
        plant(recorder.connection, spec(), Labels.binary("no", "yes"), gold, gold)
        assert recorder.finished(print_) is not None
        assert recorder.finished(print_, scored=wanted) is None
        tags = {**tags_of_scores({**wanted, "fid": "other"}), "fingerprint": print_, "kind": "run"}
        kept = {"opening": Opening("kept", 1, tags), "closing": Closing("FINISHED", 2), "again": False}
        (files := tmp_path / "files").mkdir()
        recorder.spool.add(files, run_id="spool-1", fingerprint=print_, **kept)
        for where in ("in the spool", "in the store"):
            done = recorder.finished(print_, scored=wanted)
            assert done is not None, where
            assert done.scored_elsewhere == {**wanted, "fid": "other"}
            assert recorder.finished(print_, scored={"mlma-offensive": "other rows"}) is None
            assert [one.outcome for one in recorder.send_spooled()] == ["written"] * (where == "in the spool")


class TestTheDifference:
    def test_of_means_it_is_what_the_formulas_give(self) -> None:
        """Two seeds, three examples in domain and two out of domain, computed by hand."""
        inside = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
        outside = np.array([[0.0, 2.0], [4.0, 6.0]])
        result = domain_change(Contrast(inside.mean(axis=1), inside), Contrast(outside.mean(axis=1), outside))
        # Means by seed: 1 and 1 in domain, 1 and 5 out of domain, so that the changes are 0 and 4.
        assert result.difference == 2
        of_seeds = 8 / 2  # the variance 8 of the changes, of a mean over two seeds
        # In domain: the means by example 2, 0, 1 give 2 · 2 / 2 = 2 for examples; the rest is 2 + 0 + 2 over 2.
        # Out of domain: the means 2 and 4 give 2 · 2 / 1 = 4; there is no rest.
        inside_examples, inside_rest, outside_examples = 2 / 6, (1 + 1) * 2 / 2 / 6, 4 / 4
        variance = of_seeds + max(0.0, inside_examples - inside_rest) + outside_examples
        assert result.error == pytest.approx(variance**0.5)
        below = of_seeds**2 / 1 + inside_examples**2 / 2 + inside_rest**2 / 2 + outside_examples**2 / 1
        assert result.degrees == pytest.approx(max(1.0, variance**2 / below))

    @pytest.mark.parametrize("correlation", [0.0, 0.9])
    def test_it_rejects_a_true_null_as_often_as_it_says(self, correlation: float) -> None:
        """Seed effects that are alike in both test sets cancel out, and examples are independent."""
        rng = np.random.default_rng(7)
        rejected = []
        for _ in range(400):
            shared = rng.normal(size=(2, 5)) * 0.05
            effects = shared[0], correlation * shared[0] + (1 - correlation**2) ** 0.5 * shared[1]
            tables = [
                0.02 + effect[:, None] + 0.3 * rng.normal(size=size) + 0.2 * rng.normal(size=(5, size))
                for effect, size in zip(effects, (80, 50), strict=True)
            ]
            result = domain_change(*(Contrast(table.mean(axis=1), table) for table in tables))
            rejected.append(result.p_value < 0.05)
        assert 0.01 <= np.mean(rejected) <= 0.085  # 0.05 within three standard errors, and never far above

    def test_the_table_finds_what_is_planted(self, own_store: str, experiment: str, tmp_path: Path) -> None:
        """A strategy that loses nothing in domain and much out of domain."""
        connection, rng = connect(own_store, experiment), np.random.default_rng(3)
        labels = Labels.binary("no", "yes")
        gold, other_gold = rng.integers(0, 2, 300), rng.integers(0, 2, 200)
        for strategy, inside, outside in (("full", 0.9, 0.8), ("bottom3top4", 0.9, 0.55)):
            for seed in (42, 43, 44):
                predicted = classes(rng, other_gold, outside, 2)
                more = {f"also_test/other/{name}": v for name, v in metrics(other_gold, predicted, labels).items()}
                planted = spec(strategy=strategy, seed=seed, scored_elsewhere={"other": "digest"})
                run_id = plant(
                    connection, planted, labels, gold, classes(rng, gold, inside, 2),
                    more={**more, "also_test/other/rows": 200, "also_test/other/left_out_rows": 7},
                )  # fmt: skip
                path = tmp_path / predictions_file("other")
                write_predictions(path, _table(labels, other_gold, predicted))
                connection.client.log_artifact(run_id, str(path))
        results = read_results(connection)
        load = partial(read_targets, results)
        compared = compare(results.frame, load)
        (table,) = out_of_domain(compared.blocks, results.frame, load, partial(read_targets_elsewhere, results))
        assert (table.task, table.elsewhere, table.examples, table.left_out) == ("anger", "other", 200, 7)
        base, row = table.rows
        assert base.test is None
        assert row.test is not None
        assert row.change_outside is not None
        assert row.change_inside is not None
        assert row.test.difference == pytest.approx(row.change_outside - row.change_inside)
        assert row.test.difference < -0.1
        assert row.p_corrected is not None
        assert row.p_corrected < 0.05


def _table(labels: Labels, gold: Any, predicted: Any) -> Any:
    from alue_bench.evaluation.predictions import predictions_table

    return predictions_table([str(n) for n in range(len(gold))], gold, np.eye(2)[predicted], labels)


class TestDeclarations:
    def test_declared_companions_fit(self) -> None:
        tasks = {name: declared.value for name, declared in load_registry().tasks.items()}
        pairs = [(one, tasks[name]) for one in tasks.values() for name in one.companions]
        assert {(one.name, other.name) for one, other in pairs} >= {
            ("oold", "mlma-offensive"), ("ohsd", "mlma-hateful"), ("fid", "arsarcasm"), ("mdd", "qadi"),
            ("arbanking77", "arbanking77-saudi"),
        }  # fmt: skip
        for one, other in pairs:
            fit = fit_labels(other, one)
            assert fit.unreachable == (("AE", "BH", "KW") if other.name == "qadi" else ())

    @pytest.mark.parametrize(
        "companions", [{"Not A Name": {}}, {"source": {}}, {"other": {"no": "a"}}, {"other": {"no": 1, "yes": "b"}}]
    )
    def test_a_wrong_declaration_is_refused(self, companions: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="companion"):
            dataclasses.replace(task("source", Labels.binary("no", "yes")), companions=companions)
