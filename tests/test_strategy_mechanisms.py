"""Strategies beyond static freezing: which weights change, when, and which operations are counted."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_config

from alue_bench import (
    BlockNorms,
    DoesNotFit,
    EncoderShape,
    FreezePlan,
    Labels,
    Revisions,
    Strategy,
    TrainingProgress,
)
from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import HyperParameters, RunResult
from alue_bench.contract.strategy import outline
from alue_bench.data.batches import Batch
from alue_bench.measure.flops import prefix_flops, step_flops, training_flops
from alue_bench.planning.build import Plan, PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.fine_tuning import Trained
from alue_bench.running.run import execute
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.forward import choose_forward
from alue_bench.training.freezing import apply_plan, count_parameters
from alue_bench.training.optimizer import build_optimiser
from alue_bench.training.pretrained.loading import load_model
from alue_bench.training.surgery import model_in_outline

PlanRuns = Callable[..., Plan]


@pytest.fixture
def plan_runs(tiny: Callable[..., Path], registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanRuns:
    """A plan on sample data with a tiny encoder, dropout on, and a cache of the test's own."""
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))

    def build(*strategies: str, architecture: str = "bert", **options: Any) -> Plan:
        hyper = {"epochs": 3, "max_length": 24, "lr": 1e-3, "batch_size": 8, "select": "last"}
        return build_plan(
            PlanRequest(
                tasks=("anger",),
                models=(str(tiny(architecture)),),
                strategies=strategies,
                overrides=(("test", hyper | options.pop("hyper", {})),),
                limit_train=40,
                limit_eval=30,
                sample=True,
                **{"precision": "fp32"} | options,
            ),
            registry,
        )

    return build


def one(plan: Plan) -> PlannedRun:
    (planned,) = plan.runs
    return planned


def do(planned: PlannedRun) -> tuple[RunResult, Trained]:
    return execute(planned.spec, planned.inputs)


def curve(result: RunResult, name: str = "train/loss") -> list[float]:
    return [point.value for point in result.curves if point.metric == name]


def before(planned: PlannedRun) -> dict[str, torch.Tensor]:
    model = load_model(planned.inputs.checkpoint, planned.inputs.task.labels, init_seed=planned.spec.init_seed)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def changed(planned: PlannedRun, trained: Trained) -> set[str]:
    """Names of the parameters of the pre-trained model that training changed; adapters' wrappers taken away."""
    old = before(planned)
    new = {name.replace(".base_layer", ""): p for name, p in trained.stack.model.named_parameters()}
    return {name for name, value in old.items() if not torch.equal(value, new[name].detach())}


def blocks(names: set[str]) -> set[str]:
    """Return the parts of BERT that parameters belong to: "embeddings", a layer's number, "pooler", "classifier"."""
    parts = [name.removeprefix("bert.").split(".") for name in names]
    return {part[2] if part[0] == "encoder" else part[0] for part in parts}


class TestGradualUnfreezing:
    def test_after_the_first_epoch_only_the_top_layer_pooler_and_head_changed(self, plan_runs: PlanRuns) -> None:
        planned = one(plan_runs("gradual-unfreeze", hyper={"epochs": 1}))
        assert blocks(changed(planned, do(planned)[1])) == {"3", "pooler", "classifier"}

    def test_each_epoch_one_more_layer_and_the_embeddings_last(self, plan_runs: PlanRuns) -> None:
        planned = one(plan_runs("gradual-unfreeze", hyper={"epochs": 3}))
        assert blocks(changed(planned, do(planned)[1])) == {"1", "2", "3", "pooler", "classifier"}
        planned = one(plan_runs("gradual-unfreeze-3", hyper={"epochs": 2}))
        assert blocks(changed(planned, do(planned)[1])) == {*"0123", "embeddings", "pooler", "classifier"}

    @pytest.mark.parametrize(("epochs", "frozen"), [(1, 11), (4, 8), (10, 2), (12, 0), (13, None)])
    def test_what_is_frozen_in_the_last_epoch(self, registry: Any, epochs: int, frozen: int | None) -> None:
        """None: not even the embeddings are."""
        strategy = registry.strategy("gradual-unfreeze")[0]
        plan = strategy.freeze_plan(EncoderShape(12))
        for epoch in range(1, epochs):
            plan = strategy.revise(plan, TrainingProgress(epoch, epochs, 10 * epoch, 10 * epochs, (0.0,) * epoch))
        assert plan.prefix_layers == frozen


class TestAutoFreeze:
    def test_the_frozen_part_only_grows_from_the_bottom(self, plan_runs: PlanRuns) -> None:
        result, trained = do(one(plan_runs("autofreeze")))
        segments = trained.training.schedule.segments
        depths = [segment.plan.prefix_layers or 0 for segment in segments]
        assert depths == sorted(set(depths))
        assert len(depths) > 1
        for segment in segments:
            assert segment.plan.frozen_layers == frozenset(range(segment.plan.bottom))
            assert segment.plan.embeddings == (segment.plan.bottom > 0)
            assert segment.depth == segment.plan.bottom  # the stored states follow
            assert segment.plan.bottom < 4
        assert curve(result, "train/frozen_layers") == sorted(curve(result, "train/frozen_layers"))

    def test_every_decision_follows_from_the_recorded_norms(self, plan_runs: PlanRuns) -> None:
        """Worked out again from the event log: below the lowest layer whose change reaches the median."""
        result, _ = do(one(plan_runs("autofreeze")))
        steps = sorted({event.step for event in result.freezing})
        assert len(steps) == 1 + 3 * 5 - 1  # the start, five points in each of three epochs, none at the very end
        at = {step: [e for e in result.freezing if e.step == step and e.block != "embeddings"] for step in steps}
        assert all(event.norm is None for event in at[0])
        bottom = 0
        for earlier, step in pairwise(steps[1:]):
            training = range(bottom, 4)
            changes = [abs(1 - at[step][k].norm / at[earlier][k].norm) for k in training]
            bottom += next(k for k, change in enumerate(changes) if change >= np.median(changes))
            assert [event.frozen for event in at[step]] == [k < bottom for k in range(4)]
        assert bottom > 0

    def test_a_block_has_a_norm_while_it_trains(self, plan_runs: PlanRuns) -> None:
        result, _ = do(one(plan_runs("autofreeze")))
        frozen: set[str] = set()
        for event in result.freezing:
            if event.step:
                assert (event.norm is None) == (event.block in frozen)
            frozen |= {event.block} if event.frozen else set()
        assert frozen

    @pytest.mark.parametrize(
        ("before", "now", "frozen"),
        [
            ([1.0, 1.0, 1.0, 1.0], [1.0, 1.1, 1.5, 2.0], 2),  # median of 0, .1, .5, 1 is .3: layer 2 is the first above
            ([1.0, 1.0, 1.0, 1.0], [2.0, 1.1, 1.5, 1.0], 0),
            ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], 0),  # all alike: none is calmer than the others
            ([1.0, 1.0, 1.0, 1.0], [1.0, float("inf"), 1.5, 2.0], 0),
            ([None, 1.0, 1.0, 1.0], [1.0, 1.1, 1.5, 2.0], 0),
        ],
    )
    def test_rule(self, registry: Any, before: list[float | None], now: list[float | None], frozen: int) -> None:
        norms = (BlockNorms(1.0, tuple(before)), BlockNorms(1.0, tuple(now)))
        plan = FreezePlan(EncoderShape(4))
        revised = registry.strategy("autofreeze")[0].revise(plan, TrainingProgress(1, 1, 4, 10, (), norms))
        assert revised == FreezePlan(EncoderShape(4), frozenset(range(frozen)), embeddings=frozen > 0)

    def test_the_first_interval_alone_freezes_nothing(self, registry: Any) -> None:
        plan = FreezePlan(EncoderShape(2))
        progress = TrainingProgress(1, 1, 4, 10, (), (BlockNorms(1.0, (1.0, 9.0)),))
        assert registry.strategy("autofreeze")[0].revise(plan, progress) == plan

    def test_norms_are_those_of_the_summed_gradients(self, tiny_bert: Path) -> None:
        from alue_bench.training.schedule import GradientWatch

        stack = view_as_stack(_model(tiny_bert))
        watch = GradientWatch(stack)
        for value in (1.0, -3.0):
            for parameter in stack.layers[1].parameters():
                parameter.grad = torch.full_like(parameter, value)
            watch.add()
        entries = sum(parameter.numel() for parameter in stack.layers[1].parameters())
        taken = watch.take()
        assert taken.layers[1] == pytest.approx(2 * entries**0.5)
        assert (taken.embeddings, taken.layers[0]) == (None, None)
        assert watch.take().layers[1] is None

    def test_an_update_that_is_left_out_counts_in_no_norm(self, tiny_bert: Path) -> None:
        """In fp16 the first updates often are, until the scale of the loss fits: their gradients are not finite."""
        from alue_bench.training.schedule import GradientWatch

        stack = view_as_stack(_model(tiny_bert))
        watch = GradientWatch(stack)
        for value in (float("inf"), 2.0, float("nan"), 1.0):
            for layer in stack.layers[:2]:
                for parameter in layer.parameters():
                    parameter.grad = torch.full_like(parameter, 1.0)
            next(stack.layers[1].parameters()).grad.fill_(value)
            watch.add(skipping_overflows=True)
        taken = watch.take()
        for layer, of_first in zip(stack.layers, (2.0, 3.0), strict=False):
            first, *others = layer.parameters()
            entries = sum(parameter.numel() for parameter in others)
            assert taken.layers[stack.layers.index(layer)] == pytest.approx(
                (first.numel() * of_first**2 + entries * 2.0**2) ** 0.5
            )

    def test_the_event_log_is_an_artifact(self, run: Any, runs: Any, client: Any, tmp_path: Path) -> None:
        assert run("-s", "autofreeze", "-s", "full", "--epochs", "2").code == 0
        run_ids = {r.data.params["strategy"]: r.info.run_id for r in runs("tags.kind = 'run'")}
        names = {s: {file.path for file in client.list_artifacts(run_id)} for s, run_id in run_ids.items()}
        assert "freezing.csv" in names["autofreeze"]
        assert "freezing.csv" not in names["full"]
        path = client.download_artifacts(run_ids["autofreeze"], "freezing.csv", str(tmp_path))
        rows = list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))
        assert list(rows[0]) == ["step", "epoch", "block", "norm", "frozen"]
        assert {row["block"] for row in rows} == {"embeddings", *(f"layer {k}" for k in range(4))}
        assert all(float(row["norm"]) > 0 for row in rows if row["norm"])


class TestChangesOfMind:
    @pytest.mark.parametrize(
        ("architecture", "strategy"), [("bert", "autofreeze"), ("bert", "autofreeze-p75"), ("distilbert", "autofreeze")]
    )
    def test_losses_and_predictions_are_those_without_a_cache(
        self, architecture: str, strategy: str, plan_runs: PlanRuns
    ) -> None:
        cached, recomputed = (
            do(one(plan_runs(strategy, architecture=architecture, cache_size=size))) for size in ("1GB", "0")
        )
        np.testing.assert_allclose(curve(cached[0]), curve(recomputed[0]), rtol=2e-4)
        assert cached[1].prefixes["train"].depth > recomputed[1].prefixes["train"].depth == 0
        ours, theirs = (np.asarray(result.predictions.scores) for result, _ in (cached, recomputed))
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-4)

    def test_a_narrow_copy_of_the_weights_follows_what_begins_and_ceases_to_train(self, tiny_bert: Path) -> None:
        """Layers in bf16 compute with copies: those of weights that trained until now, or will from now on."""
        stack = view_as_stack(_model(tiny_bert))
        apply_plan(stack, FreezePlan(stack.shape, frozenset({1})))
        forward = choose_forward(stack, torch.bfloat16)
        ids = torch.randint(10, 60, (3, 9))
        batch = Batch(ids, torch.ones_like(ids), None, torch.zeros(3).long(), torch.arange(3), ids.numel())
        stack.model.eval()

        def gap() -> float:
            """Between what is computed and what a new way through an equal model computes."""
            with torch.no_grad():
                fresh = choose_forward(view_as_stack(copy.deepcopy(stack.model)), torch.bfloat16)
                return float((forward.logits(batch) - fresh.logits(batch)).abs().max())

        def train(layer: int) -> None:
            with torch.no_grad():
                for parameter in stack.layers[layer].parameters():
                    parameter.mul_(1.5)

        train(0)  # a last step, and then it is frozen, while layer 1 begins
        apply_plan(stack, FreezePlan(stack.shape, frozenset({0})))
        forward.refresh_weight_copies()
        assert gap() == 0
        train(1)
        assert gap() == 0

    def test_where_there_is_no_room_for_a_deeper_prefix_the_shallower_one_stays_in_use(
        self, plan_runs: PlanRuns
    ) -> None:
        tight, roomy = (do(one(plan_runs("autofreeze", cache_size=size))) for size in ("250KB", "1GB"))
        last = tight[1].training.schedule.segments[-1]
        assert 0 < last.depth < last.plan.bottom
        np.testing.assert_allclose(curve(tight[0]), curve(roomy[0]), rtol=2e-4)
        assert tight[0].metrics["flops/train"] > roomy[0].metrics["flops/train"]
        # Told once for each of the two splits, however often it was tried.
        assert ["are not kept" in note for note in tight[0].notes].count(True) == 2

    def test_when_a_strategy_is_asked_and_what_it_is_told(self, plan_runs: PlanRuns) -> None:
        """Three times in an epoch of five steps, the last time when it is scored; not when nothing is left to train."""
        planned = one(plan_runs("bottom2", hyper={"epochs": 2}))
        told: list[TrainingProgress] = []
        inputs = replace(planned.inputs, strategy=Hesitant(told=told))
        result, _ = execute(planned.spec, inputs)
        assert [(p.epoch, p.step, p.ends_epoch) for p in told] == [
            (1, 2, False), (1, 4, False), (1, 5, True), (2, 7, False), (2, 9, False),
        ]  # fmt: skip
        assert {(p.epochs, p.steps, p.norms) for p in told} == {(2, 10, ())}
        assert told[-1].dev_scores == (curve(result, "dev/score")[0],)

    def test_the_same_whatever_is_in_the_cache(self, plan_runs: PlanRuns) -> None:
        first, second = (do(one(plan_runs("autofreeze")))[0] for _ in range(2))
        assert curve(first) == curve(second)
        assert first.freezing == second.freezing
        assert (first.metrics["runtime/prefix_reused"], second.metrics["runtime/prefix_reused"]) == (0, 1)
        assert second.metrics["flops/train"] == first.metrics["flops/train"]

    def test_the_optimiser_knows_what_it_knew_of_all_that_still_trains(self, tiny_bert: Path) -> None:
        stack = view_as_stack(_model(tiny_bert))
        hyper = HyperParameters(weight_decay=0.1)
        apply_plan(stack, FreezePlan(stack.shape, frozenset({0})))
        old = build_optimiser(stack, hyper)
        for parameter in stack.model.parameters():
            parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
        old.step()
        apply_plan(stack, FreezePlan(stack.shape, frozenset({1})))
        new = build_optimiser(stack, hyper, old)
        for layer, known in ((0, False), (1, False), (2, True), (3, True)):
            for parameter in stack.layers[layer].parameters():
                assert (parameter in new.state) == known
                if known:
                    assert new.state[parameter] is old.state[parameter]
                    assert new.state[parameter]["step"] == 1

    def test_a_strategy_that_never_changes_its_mind_gives_what_static_freezing_gives(self, plan_runs: PlanRuns) -> None:
        static = one(plan_runs("bottom2"))
        hesitant = replace(static.inputs, strategy=Hesitant())
        (ours, _), (theirs, _) = execute(static.spec, hesitant), do(static)
        assert curve(ours) == curve(theirs)
        assert np.array_equal(np.asarray(ours.predictions.scores), np.asarray(theirs.predictions.scores))
        assert ours.metrics["flops/train"] == theirs.metrics["flops/train"]
        assert {event.frozen for event in ours.freezing if event.block in ("embeddings", "layer 0", "layer 1")} == {
            True
        }

    @pytest.mark.parametrize(
        ("answer", "complaint"),
        [
            (FreezePlan(EncoderShape(3)), "it must be a FreezePlan like the one that it was given"),
            (None, "it must be a FreezePlan"),
            (
                FreezePlan(EncoderShape(4, 32), frozenset({0}), embeddings=True),
                "a frozen prefix of 1 layers after one of 2",
            ),
        ],
    )
    def test_an_answer_that_makes_no_sense_fails_the_run_with_a_sentence(
        self, answer: Any, complaint: str, plan_runs: PlanRuns
    ) -> None:
        static = one(plan_runs("bottom2"))
        inputs = replace(static.inputs, strategy=Hesitant(answer, answers=True))
        with pytest.raises(TrainingError, match=complaint):
            execute(static.spec, inputs)


@dataclass(frozen=True)
class Hesitant(Strategy):
    """Is asked, and by default leaves things as they are."""

    answer: Any = None
    answers: bool = False
    told: Any = None

    @property
    def name(self) -> str:
        return "hesitant"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, frozenset({0, 1}), embeddings=True)

    def revisions(self) -> Revisions:
        return Revisions(per_epoch=3, prefix_only_grows=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> Any:
        if self.told is not None:
            self.told.append(progress)
        return self.answer if self.answers else plan


class TestDroppedLayers:
    @pytest.mark.parametrize(
        ("name", "kept"),
        [
            ("drop-top4", (0, 1, 2, 3, 4, 5, 6, 7)),
            ("drop-alternate4", (0, 1, 2, 3, 4, 6, 8, 10)),
            ("drop-alternate", (0, 2, 4, 6, 8, 10)),
            ("drop-symmetric6", (0, 1, 2, 9, 10, 11)),  # the paper's own example
            ("drop-symmetric5", (0, 1, 2, 3, 9, 10, 11)),
        ],
    )
    def test_what_is_kept_of_twelve(self, registry: Any, name: str, kept: tuple[int, ...]) -> None:
        assert registry.strategy(name)[0].kept_layers(EncoderShape(12)) == kept

    @pytest.mark.parametrize(("name", "layers"), [("drop-top4", 4), ("drop-alternate3", 5), ("drop-symmetric", 1)])
    def test_one_layer_at_least_is_left(self, registry: Any, name: str, layers: int) -> None:
        with pytest.raises(DoesNotFit, match="it can drop"):
            outline(registry.strategy(name)[0], EncoderShape(layers))

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_the_model_is_one_built_from_the_kept_layers(
        self, architecture: str, tiny: Callable[..., Path], registry: Any, tmp_path: Path
    ) -> None:
        from transformers import AutoModelForSequenceClassification

        from alue_bench.training.surgery import modify_model

        whole = _model(tiny(architecture))
        names = [name for name, module in whole.named_modules() if isinstance(module, torch.nn.ModuleList)]
        (layers,) = [name for name in names if len(whole.get_submodule(name)) == 4]
        kept = registry.strategy("drop-symmetric2")[0].kept_layers(EncoderShape(4))
        assert kept == (0, 3)
        config = tiny_config(architecture, layers=2, num_labels=2)
        if getattr(config, "layer_types", None):  # each keeps its own kind of attention
            config.layer_types = [whole.config.layer_types[index] for index in kept]
        built = AutoModelForSequenceClassification.from_config(config).eval()
        values = {}
        for name, value in whole.state_dict().items():
            place, _, rest = name.removeprefix(f"{layers}.").partition(".")
            if not name.startswith(f"{layers}."):
                values[name] = value
            elif int(place) in kept:
                values[f"{layers}.{kept.index(int(place))}.{rest}"] = value
        built.load_state_dict(values)
        ids = torch.randint(10, 60, (3, 9))
        smaller = modify_model(view_as_stack(whole), kept, None).model.eval()
        with torch.no_grad():
            assert torch.equal(smaller(input_ids=ids).logits, built(input_ids=ids).logits)

    def test_a_run_trains_the_smaller_model_and_compares_with_the_whole_one(self, plan_runs: PlanRuns) -> None:
        full, dropped = (do(planned)[0].metrics for planned in plan_runs("full", "drop-top2").runs)
        layer = 4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32
        assert full["params/total"] - dropped["params/total"] == 2 * layer
        assert dropped["params/trainable"] == dropped["params/total"]
        assert dropped["flops/train_vs_full"] == dropped["flops/train"] / full["flops/train"] < 0.6


class TestBitFit:
    def test_only_biases_of_layers_change_with_pooler_and_head(self, plan_runs: PlanRuns) -> None:
        planned = one(plan_runs("bitfit"))
        _, trained = do(planned)
        moved = changed(planned, trained)
        encoder = {name for name in moved if name.startswith("bert.encoder")}
        biases = {name for name in before(planned) if name.startswith("bert.encoder") and name.endswith(".bias")}
        # The bias of the keys adds the same to all scores of a query: softmax does not see it.
        keys = {name for name in biases if ".key." in name}
        assert biases - keys <= encoder <= biases
        assert blocks(moved - encoder) == {"pooler", "classifier"}

    def test_a_model_without_biases_is_skipped_with_the_reason(self, plan_runs: PlanRuns) -> None:
        plan = plan_runs("bitfit", "full", architecture="modernbert")
        assert [run.spec.strategy for run in plan.runs] == ["full"]
        assert "have none" in plan.skipped[0].reason


class TestAdapters:
    @pytest.mark.parametrize(
        ("strategy", "architecture"),
        [("lora-r4", "bert"), ("lora-r4", "deberta-v2"), ("ia3", "roberta"), ("ia3", "distilbert")],
    )
    def test_the_pre_trained_weights_stay_to_the_last_bit(
        self, strategy: str, architecture: str, plan_runs: PlanRuns
    ) -> None:
        planned = one(plan_runs(strategy, architecture=architecture, hyper={"epochs": 1, "lr": 0.01}))
        _, trained = do(planned)
        assert trained.forward.name == "library"
        inside = {id(p) for part in (*trained.stack.embeddings, *trained.stack.layers) for p in part.parameters()}
        base = {
            name.replace(".base_layer", "") for name, p in trained.stack.model.named_parameters() if id(p) in inside
        }
        assert not changed(planned, trained) & base
        adapters = [p for name, p in trained.stack.model.named_parameters() if "lora_B" in name or "ia3_l" in name]
        assert adapters
        assert all(p.unique().numel() > 1 for p in adapters)  # they began as all zeros, or all ones

    def test_at_first_the_model_is_the_pre_trained_one(self, tiny_bert: Path, registry: Any) -> None:
        from alue_bench.training.surgery import modify_model

        ids = torch.randint(10, 60, (3, 9))
        with torch.no_grad():
            plain = _model(tiny_bert).eval()(input_ids=ids).logits
            for name in ("lora-r4", "ia3"):
                adapter = registry.strategy(name)[0].adapter()
                stack = modify_model(view_as_stack(_model(tiny_bert)), None, adapter)
                assert torch.allclose(stack.model.eval()(input_ids=ids).logits, plain, atol=1e-6)

    def test_matrices_decay_and_factors_do_not(self, tiny_bert: Path, registry: Any) -> None:
        """A factor that decays would go to zero, where nothing passes, and not to one."""
        from alue_bench.training.surgery import modify_model

        for name, decays in (("ia3", False), ("lora-r1", True)):
            strategy = registry.strategy(name)[0]
            stack = modify_model(view_as_stack(_model(tiny_bert)), None, strategy.adapter())
            apply_plan(stack, strategy.freeze_plan(stack.shape))
            inside = {id(p) for layer in stack.layers for p in layer.parameters() if p.requires_grad}
            groups = build_optimiser(stack, HyperParameters(weight_decay=0.1)).param_groups
            decaying = {id(p): group["weight_decay"] > 0 for group in groups for p in group["params"]}
            assert inside
            assert {decaying[parameter] for parameter in inside} == {decays}
            assert decaying[id(stack.model.classifier.weight)]

    def test_the_seed_decides_where_they_begin(self, plan_runs: PlanRuns) -> None:
        once, again, other = (do(one(plan_runs("lora-r4", init_seed=seed)))[0] for seed in (1, 1, 2))
        assert curve(once) == curve(again) != curve(other)

    def test_an_architecture_without_a_place_for_them_is_skipped_with_the_reason(self, plan_runs: PlanRuns) -> None:
        plan = plan_runs("lora-r4", "full", architecture="modernbert")
        assert [run.spec.strategy for run in plan.runs] == ["full"]
        assert "LORA cannot be put into ModernBert" in plan.skipped[0].reason


class TestCounts:
    """Numbers worked out by hand for BERT-base: 12 layers, hidden size 768, feed-forward 3072, two labels."""

    HEAD = 768 * 768 + 768 + 2 * 768 + 2
    LAYER = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    EMBEDDINGS = (30_522 + 512 + 2 + 2) * 768

    @pytest.mark.parametrize(
        ("name", "trainable"),
        [
            ("bitfit", 12 * (4 * 768 + 3072 + 768 + 2 * 768) + HEAD),
            ("lora-r8", 12 * 2 * 2 * 8 * 768 + HEAD),
            ("ia3", 12 * (2 * 768 + 3072) + HEAD),
            ("gradual-unfreeze", LAYER + HEAD),
            ("gradual-unfreeze-3", 3 * LAYER + HEAD),
            ("autofreeze", EMBEDDINGS + 12 * LAYER + HEAD),
            ("drop-top4", EMBEDDINGS + 8 * LAYER + HEAD),
            ("drop-alternate", EMBEDDINGS + 6 * LAYER + HEAD),
            ("drop-symmetric4", EMBEDDINGS + 8 * LAYER + HEAD),
            ("last-quarter", 3 * LAYER + HEAD),
            ("random-7-seed0", 5 * LAYER + HEAD),
            ("lntune", 12 * 4 * 768 + HEAD),
            ("bottom3top4-attention", 5 * 4 * (768 * 768 + 768) + HEAD),
            ("lisa-2", EMBEDDINGS + 2 * LAYER + HEAD),
            ("grades", EMBEDDINGS + 12 * LAYER + HEAD),
        ],
    )
    def test_trainable_parameters(self, registry: Any, name: str, trainable: int) -> None:
        from transformers import BertConfig

        outlined = outline(registry.strategy(name)[0], EncoderShape(12, 768))
        stack = model_in_outline(BertConfig(), outlined)
        assert count_parameters(stack, outlined.freeze_plan).trainable == trainable

    @pytest.mark.parametrize(
        ("name", "passes"),
        [
            # Over n tokens in one example, with D = 2 n 768² for one square matrix: a layer is 4 D + 8 D and attention
            # A = 4 n² 768. Trained 3 (12 D + A), crossed 2 · 12 D + 3 A, in the prefix 12 D + A.
            ("full", lambda d, a, n: 12 * (36 * d + 3 * a)),
            # Frozen from below: the lowest trained layer spares the gradient of its input, through three matrices.
            ("last-quarter", lambda d, a, n: 9 * (12 * d + a) + 3 * (36 * d + 3 * a) - 3 * d),
            ("gradual-unfreeze", lambda d, a, n: 11 * (12 * d + a) + 36 * d + 3 * a - 3 * d),
            ("autofreeze", lambda d, a, n: 12 * (36 * d + 3 * a)),
            ("drop-top4", lambda d, a, n: 8 * (36 * d + 3 * a)),
            ("drop-alternate", lambda d, a, n: 6 * (36 * d + 3 * a)),
            ("drop-symmetric4", lambda d, a, n: 8 * (36 * d + 3 * a)),
            # Layer 0 is the prefix, 1, 5, 8, 9 and 10 train, the other six are crossed.
            ("random-7-seed0", lambda d, a, n: 12 * d + a + 5 * (36 * d + 3 * a) - 3 * d + 6 * (24 * d + 3 * a)),
            # Biases: every layer is crossed but for the projections of the lowest one.
            ("bitfit", lambda d, a, n: 12 * (24 * d + 3 * a) - 3 * d),
            # Norms: as biases, but nothing before the first norm gets a gradient in the lowest layer: neither attention
            # nor any of its four matrices.
            ("lntune", lambda d, a, n: 12 * (24 * d + 3 * a) - 4 * d - 2 * a),
            # Three layers are the prefix, four are crossed, five train attention: 4 of 12 matrices.
            (
                "bottom3top4-attention",
                lambda d, a, n: 3 * (12 * d + a) + 5 * (28 * d + 3 * a) - 3 * d + 4 * (24 * d + 3 * a),
            ),
            # The embeddings train: every layer is crossed.
            ("lisa-2", lambda d, a, n: 2 * (36 * d + 3 * a) + 10 * (24 * d + 3 * a)),
            # Rank 8: beside two projections a pair of 768 x 8 matrices, three passes each, but for the gradient of the
            # input of the first ones in the lowest layer; no gradient of its keys, a quarter of backward attention.
            (
                "lora-r8",
                lambda d, a, n: 12 * (24 * d + 3 * a + 4 * 3 * 2 * n * 8 * 768) - 3 * d - 2 * 2 * n * 8 * 768 - a / 2,
            ),
            # Scales of keys and values: as biases, but the lowest layer's queries get no gradient.
            ("ia3", lambda d, a, n: 12 * (24 * d + 3 * a) - 3 * d - a / 2),
        ],
    )
    def test_flops(self, registry: Any, name: str, passes: Callable[[float, float, int], float]) -> None:
        from transformers import BertConfig

        tokens = 40
        square, attention = 2.0 * tokens * 768 * 768, 4.0 * tokens * tokens * 768
        head = 3 * 2 * (768 * 768 + 2 * 768)
        outlined = outline(registry.strategy(name)[0], EncoderShape(12, 768))
        stack = model_in_outline(BertConfig(), outlined)
        flops = step_flops(stack, outlined.freeze_plan, np.array([tokens]))
        assert flops == passes(square, attention, tokens) + head

    @pytest.mark.parametrize(
        "name",
        ["bitfit", "lora-r4", "ia3", "drop-top1", "drop-alternate", "gradual-unfreeze", "lntune", "lisa-1"],
    )
    def test_agree_with_the_counter_of_torch(self, registry: Any, name: str) -> None:
        """The counted step uses the library's own modules, without fused attention."""
        assert _analytic(registry, "bert", name) == pytest.approx(_counted(registry, "bert", name), rel=0.002)

    def test_agree_with_it_where_a_norm_comes_before_the_projections(self, registry: Any) -> None:
        """ModernBERT: such a norm wants the gradient of its output, though nothing below it trains."""
        analytic = _analytic(registry, "modernbert", "bottom2")
        assert analytic == pytest.approx(_counted(registry, "modernbert", "bottom2"), rel=0.005)

    @pytest.mark.parametrize("strategy", ["gradual-unfreeze-3", "autofreeze"])
    def test_a_changing_plan_is_counted_segment_by_segment(self, strategy: str, plan_runs: PlanRuns) -> None:
        result, trained = do(one(plan_runs(strategy)))
        stack, segments = trained.stack, trained.training.schedule.segments
        lengths = trained.prefixes["train"].split.lengths
        assert sum(len(segment.indices) for segment in segments) == 3 * len(lengths)
        expected = 0.0
        for segment in segments:
            of_segment = lengths[segment.indices]
            expected += step_flops(stack, segment.plan, of_segment, last_layer="reordered")
            expected -= prefix_flops(stack, segment.depth, of_segment, last_layer="reordered")
        expected += prefix_flops(stack, segments[-1].depth, lengths, last_layer="reordered")
        assert result.metrics["flops/train"] == expected
        full = training_flops(stack, FreezePlan(stack.shape), lengths, 3, last_layer="reordered")
        assert result.metrics["flops/train_vs_full"] == expected / full < 1


def _model(folder: Path) -> Any:
    from alue_bench.training.pretrained.loading import Checkpoint

    return load_model(Checkpoint(folder, "", pickled=False), Labels.binary("no", "yes"), init_seed=0)


def _outlined(registry: Any, architecture: str, name: str) -> tuple[EncoderStack, FreezePlan]:
    from transformers import AutoModelForSequenceClassification

    from alue_bench.training.surgery import modify_model

    outlined = outline(registry.strategy(name)[0], EncoderShape(4, 32))
    # Attention spelt out sees all tokens: so wide is the window.
    wide = {"local_attention": 64} if architecture == "modernbert" else {}
    config = tiny_config(architecture, attn_implementation="eager", **wide)
    stack = view_as_stack(AutoModelForSequenceClassification.from_config(config).eval())
    return modify_model(stack, outlined.kept_layers, outlined.adapter), outlined.freeze_plan


def _analytic(registry: Any, architecture: str, name: str) -> float:
    stack, plan = _outlined(registry, architecture, name)
    return step_flops(stack, plan, np.full(4, 24))


def _counted(registry: Any, architecture: str, name: str) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    stack, plan = _outlined(registry, architecture, name)
    apply_plan(stack, plan)
    ids = torch.randint(10, 60, (4, 24))
    with FlopCounterMode(display=False) as counter:
        logits = stack.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        torch.nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.long)).backward()
    return int(counter.get_total_flops())


@pytest.fixture(autouse=True)
def same_random_state_after() -> Iterator[None]:
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
