"""A task scored with a model that another one trained: labels that do not fit are refused, mapped ones are mapped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from alue_bench import DataFile, Delimited, HeldOut, Labels, Splits, Task
from alue_bench.contract.errors import PluginError
from alue_bench.contract.registry import Declared, Registry
from alue_bench.contract.transfer import misfit_reason, transferred_logits, transferred_targets
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import decide, probabilities
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.testing import ConformanceError, check_task

NLI = ("entailment", "neutral", "contradiction")


def task(name: str, labels: Labels, *, trained_on: str | None = None, **fields: Any) -> Task:
    columns: dict[str, Any] = {"columns": 2, "text": 0, "target": 1}
    if labels.names and labels.kind == "multilabel":
        columns = {"header": True, "text": "text", "target": labels.names}
    file = DataFile(f"{name}.tsv", Delimited(**columns))
    train = {} if trained_on else {"train": file, "dev": HeldOut(0.2), "protocol": "dev is 20 % of train"}
    return Task(
        name=name, title=name, languages=("ar",), labels=labels, splits=Splits(test=file, **train), source="this test",
        licence="CC0-1.0", citation="none, written for this test", trained_on=trained_on, **fields,
    )  # fmt: skip


def pair(theirs: Labels, own: Labels, **fields: Any) -> tuple[Task, Task]:
    """The task that is scored, and the one that trains."""
    return task("scored", own, trained_on="trains", **fields), task("trains", theirs)


THREE = Labels.multiclass(*NLI)


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("theirs", "own", "fields", "words"),
        [
            (
                THREE,
                Labels.multiclass("neutral", "entailment", "contradiction"),
                {},
                "whose labels are entailment, neutral, contradiction in this order, but its own are neutral, "
                "entailment, contradiction",
            ),
            (THREE, Labels.multiclass("entailment", "neutral", "contradicts"), {}, "own are entailment, neutral, co"),
            (THREE, Labels.binary("entailment", "contradiction"), {}, "but its own are entailment, contradiction"),
            (THREE, Labels.multiclass(*NLI, "unclear"), {}, "neutral, contradiction, unclear"),
            (THREE, Labels.multilabel(*NLI), {}, "its labels are multilabel (entailment, neutral, contradiction) and"),
            (Labels.multilabel(*"ab"), Labels.binary(*"ab"), {}, "can only be scored on a task of the same kind"),
            (Labels.regression(0, 1), Labels.binary(*"ab"), {}, "binary (a, b) and that one's numbers from"),
            (Labels.regression(0, 5), Labels.regression(1, 5), {}, "numbers from 1 to 5 and that one's numbers from 0"),
            (Labels.multilabel(*"ab", threshold=0.25), Labels.multilabel(*"ab"), {}, "but its own is 0.5"),
            (
                THREE,
                Labels.binary("yes", "no"),
                {"label_map": {"entailment": "yes", "neutral": "no"}},
                "label_map is wrong: 'contradiction' is not in it; map it to None",
            ),
            (
                THREE,
                Labels.binary("yes", "no"),
                {"label_map": dict.fromkeys(NLI, "yes")},
                "none of the former counts as 'no'",
            ),
            (
                Labels.binary(*"ab"),
                Labels.binary(*"ab"),
                {"label_map": {"a": "a", "b": "b", "c": "b"}},
                "label_map is wrong: 'c' is not a label of that task",
            ),
        ],
    )  # fmt: skip
    def test_is_told_in_a_sentence(self, theirs: Labels, own: Labels, fields: dict[str, Any], words: str) -> None:
        scored, trains = pair(theirs, own, **fields)
        problem = misfit_reason(scored, trains)
        assert problem is not None
        assert words in problem
        assert "'scored'" in problem
        assert "'trains'" in problem
        with pytest.raises(ConformanceError, match="scored"):
            check_task(scored, trained_on=trains)

    def test_the_map_that_it_offers_for_another_order_is_one_that_fits(self) -> None:
        scored, trains = pair(THREE, Labels.multiclass("neutral", "entailment", "contradiction"))
        offered = str(misfit_reason(scored, trains)).partition("label_map=")[2]
        assert misfit_reason(dataclasses.replace(scored, label_map=eval(offered)), trains) is None

    def test_a_training_task_without_a_train_split(self) -> None:
        scored, trains = pair(THREE, THREE)
        chained = dataclasses.replace(scored, name="chained", trained_on="scored")
        assert "'scored', which has no train split of its own; name in trained_on" in str(
            misfit_reason(chained, scored)
        )
        assert misfit_reason(scored, trains) is None

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"label_map": {"neutral": "perhaps"}}, "maps 'neutral' to 'perhaps', which is not one of its labels"),
            ({"label_map": {"neutral": 1}}, "both must be names"),
            ({"label_map": {"a": "a"}, "trained_on": None}, "label_map"),
        ],
    )
    def test_a_map_that_is_wrong_whatever_the_training_task_is_refused_at_once(
        self, changes: dict[str, Any], words: str
    ) -> None:
        scored, trains = pair(THREE, THREE)
        of = trains if "trained_on" in changes else scored
        with pytest.raises((ValueError, TypeError), match=words):
            dataclasses.replace(of, **changes)

    def test_the_kit_finds_the_training_task_among_the_installed_ones(self, registry: Registry) -> None:
        diag = registry.task("diag")
        check_task(diag)
        turned = dataclasses.replace(diag, labels=Labels.multiclass("neutral", "entailment", "contradiction"))
        with pytest.raises(ConformanceError, match="task 'diag' is scored with the model of task 'xnli', whose labels"):
            check_task(turned)


class TestMapping:
    LOGITS = np.array([[2.0, 1.0, 1.9], [0.0, 3.0, 1.0], [1.0, 1.1, 1.2]], dtype="float32")

    def mapped(self, own: Labels, label_map: dict[str, str | None]) -> Any:
        return transferred_logits(self.LOGITS, *pair(THREE, own, label_map=label_map))

    def test_another_order_changes_the_columns_and_nothing_else(self) -> None:
        own = Labels.multiclass("contradiction", "entailment", "neutral")
        assert (self.mapped(own, {name: name for name in NLI}) == self.LOGITS[:, [2, 0, 1]]).all()
        assert transferred_logits(self.LOGITS, *pair(THREE, THREE)) is self.LOGITS

    def test_probabilities_of_labels_that_count_as_one_add_up(self) -> None:
        """Inference models are scored so where neutral and contradiction are "not entailed". In the first row the
        largest single label is entailment, and the other two together are likelier."""
        own = Labels.binary("entailed", "not entailed")
        logits = self.mapped(
            own, {"entailment": "entailed", "neutral": "not entailed", "contradiction": "not entailed"}
        )
        alone = softmax(self.LOGITS, axis=1)
        assert probabilities(logits, own) == pytest.approx(
            np.stack([alone[:, 0], alone[:, 1] + alone[:, 2]], 1), abs=1e-6
        )
        assert decide(logits, own).tolist() == [1, 1, 1]

    def test_a_label_that_counts_as_none_is_never_predicted(self) -> None:
        own = Labels.binary("entailment", "contradiction")
        logits = self.mapped(own, {"entailment": "entailment", "neutral": None, "contradiction": "contradiction"})
        assert decide(logits, own).tolist() == [0, 1, 1]
        assert probabilities(logits, own).sum(axis=1) == pytest.approx(1)

    def test_of_several_labels_the_most_likely_counts(self) -> None:
        theirs, own = Labels.multilabel("rage", "anger", "joy"), Labels.multilabel("joy", "anger")
        scored, trains = pair(theirs, own, label_map={"rage": "anger", "anger": "anger", "joy": "joy"})
        logits = np.array([[3.0, -3.0, 1.0], [-3.0, -3.0, -1.0]])
        assert decide(transferred_logits(logits, scored, trains), own).tolist() == [[1, 1], [0, 0]]
        marks = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]])
        assert transferred_targets(marks, scored, trains).tolist() == [[0, 1], [1, 0], [0, 0]]

    def test_rows_whose_label_counts_as_none_are_unknown_to_the_trivial_predictor(self) -> None:
        own = Labels.binary("contradiction", "entailment")
        names = {"entailment": "entailment", "neutral": None, "contradiction": "contradiction"}
        targets = transferred_targets(np.array([1, 1, 1, 0, 2, 0]), *pair(THREE, own, label_map=names))
        assert targets.tolist() == [1, 0, 1]


class TestInAPlan:
    """`diag`, of which the labels or their order are other than those of `xnli`."""

    @pytest.fixture
    def planned(self, registry: Registry, tiny_bert: Path, folders_of_its_own: None) -> Callable[..., Any]:
        def plan(**changes: Any) -> Any:
            declared = registry.tasks["diag"]
            tasks = {
                **registry.tasks,
                "diag": Declared(dataclasses.replace(declared.value, **changes), declared.origin),
            }
            request = PlanRequest(
                tasks=("diag",), models=(str(tiny_bert),), strategies=("full",), sample=True, limit_train=40,
                limit_eval=30, overrides=(("test", {"epochs": 1}),), device="cpu", precision="fp32",
            )  # fmt: skip
            return build_plan(request, dataclasses.replace(registry, tasks=tasks)).runs[0]

        return plan

    def test_labels_that_do_not_fit_are_refused_with_the_plugin_named(self, planned: Callable[..., Any]) -> None:
        with pytest.raises(
            PluginError, match="task 'diag' is scored with the model of task 'xnli', whose labels are ent"
        ):
            planned(labels=Labels.multiclass("neutral", "entailment", "contradiction"))
        with pytest.raises(PluginError, match="is trained on 'mnli', which no plugin here declares"):
            planned(trained_on="mnli")

    def test_a_mapped_order_scores_as_the_same_order_does(self, planned: Callable[..., Any]) -> None:
        same = planned()
        turned = planned(
            labels=Labels.multiclass("neutral", "entailment", "contradiction"), label_map={name: name for name in NLI}
        )
        assert turned.spec.training_key == same.spec.training_key
        assert turned.spec.fingerprint != same.spec.fingerprint
        expected, trained = execute(same.spec, same.inputs)
        result, _ = execute(turned.spec, turned.inputs, before=trained)
        assert result.predictions.predicted == expected.predictions.predicted
        tested = {name: value for name, value in expected.metrics.items() if name.startswith("test/")}
        assert {name: result.metrics[name] for name in tested} == pytest.approx(tested)
        assert any("labels of xnli count as those of diag: entailment → entailment" in note for note in result.notes)

    def test_scores_and_columns_are_in_the_label_space_of_the_scored_task(self, planned: Callable[..., Any]) -> None:
        own = Labels.multiclass("entailment", "contradiction", "neutral")
        names: dict[str, str | None] = {
            "entailment": "entailment",
            "neutral": "neutral",
            "contradiction": "contradiction",
        }
        run = planned(labels=own, label_map=names)
        result, _ = execute(run.spec, run.inputs)
        index = {name: place for place, name in enumerate(own.names)}
        gold, predicted = (
            np.array([index[name] for name in side]) for side in (result.predictions.gold, result.predictions.predicted)
        )
        assert result.metrics["test/score"] == pytest.approx(metrics(gold, predicted, own)["mcc"])
        assert result.predictions.columns == own.names
