"""Training of parts of layers and of single matrices: which weights change, when, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gallery import gallery_config
from tiny_models import tiny_config

from alue_bench import (
    DoesNotFit,
    EncoderShape,
    FreezePlan,
    Labels,
    MatrixChanges,
    Revisions,
    Strategy,
    TrainingProgress,
)
from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import RunResult
from alue_bench.measure.counted_flops import counted_prefix, counted_step
from alue_bench.planning.build import PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.fine_tuning import Trained
from alue_bench.running.run import execute
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.freezing import count_parameters, trainable_parameters, without_idle_parts
from alue_bench.training.pretrained.loading import empty_model, load_model
from alue_bench.training.schedule import GradientWatch

FOUR = EncoderShape(4)
BINARY = Labels.binary("no", "yes")
PARTS = ("attention", "feed-forward", "norms")
HIDDEN, INNER = 32, 64
HEAD = HIDDEN * HIDDEN + HIDDEN + 2 * HIDDEN + 2
"""The number of parameters of the pooler and head of a tiny BERT."""

PlanRun = Callable[..., PlannedRun]


@pytest.fixture
def plan_run(tiny: Callable[..., Path], registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanRun:
    """A run on sample data with a tiny encoder: 15 steps in three epochs, with a cache of the test's own."""
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))
    hyper = {"epochs": 3, "max_length": 24, "lr": 1e-3, "batch_size": 8, "select": "last"}

    def build(strategy: str, architecture: str = "bert", **options: Any) -> PlannedRun:
        request = PlanRequest(
            tasks=("anger",), models=(str(tiny(architecture)),), strategies=(strategy,), sample=True,
            overrides=(("test", hyper),), limit_train=40, limit_eval=30, **{"precision": "fp32"} | options,
        )  # fmt: skip
        (run,) = build_plan(request, registry).runs
        return run

    return build


def do(planned: PlannedRun) -> tuple[RunResult, Trained]:
    return execute(planned.spec, planned.inputs)


def changed(planned: PlannedRun, trained: Trained) -> set[str]:
    """Names of the parameters that training changed."""
    old = load_model(planned.inputs.checkpoint, planned.inputs.task.labels, init_seed=planned.spec.init_seed)
    new = dict(trained.stack.model.named_parameters())
    return {name for name, value in old.named_parameters() if not torch.equal(value, new[name])}


def stack_of(architecture: str) -> EncoderStack:
    return view_as_stack(empty_model(tiny_config(architecture), BINARY))


def names_of(stack: EncoderStack, plan: FreezePlan) -> set[str]:
    trained = {id(parameter) for parameter in trainable_parameters(stack, plan)}
    return {name for name, parameter in stack.model.named_parameters() if id(parameter) in trained}


class TestParts:
    @pytest.mark.parametrize(
        "architecture", ["bert", "distilbert", "deberta-v2", "modernbert", "xlm", "gpt2", "squeezebert", "nomic_bert"]
    )
    def test_make_up_each_layer_and_do_not_overlap(self, architecture: str) -> None:
        """By whatever names, with and without biases, and where a layer is spread over several lists."""
        stack = view_as_stack(empty_model(gallery_config(architecture), BINARY))
        layers = {id(p) for layer in stack.layers for p in layer.parameters()} - {id(p) for p in stack.idle}
        plans = [FreezePlan(stack.shape, embeddings=True, trained=part) for part in PARTS]  # type: ignore[arg-type]
        found = [{id(p) for p in trainable_parameters(stack, plan)} & layers for plan in plans]
        assert all(found)
        assert sum(map(len, found)) == len(layers)
        assert set().union(*found) == layers

    @pytest.mark.parametrize(
        ("architecture", "pattern"),
        [
            ("bert", "*.attention.*"),
            ("distilbert", "*.attention.*"),
            ("modernbert", "*.attn.*"),
            ("xlm", "*.attentions.*"),
            ("gpt2", "*.attn.*"),
            ("nomic_bert", "*.self_attn.*"),
        ],
    )
    def test_attention_is_what_the_architecture_calls_so_without_norms(self, architecture: str, pattern: str) -> None:
        stack = view_as_stack(empty_model(gallery_config(architecture), BINARY))
        inside = {id(p) for layer in stack.layers for p in layer.parameters()}
        named = {name for name, p in stack.model.named_parameters() if id(p) in inside and fnmatchcase(name, pattern)}
        head = names_of(stack, FreezePlan(stack.shape, frozenset(range(stack.shape.layers)), embeddings=True))
        found = names_of(stack, FreezePlan(stack.shape, embeddings=True, trained="attention")) - head
        assert found == {name for name in named if "norm" not in name.lower()}

    def test_layers_without_attention_have_none_to_train(self) -> None:
        stack = view_as_stack(empty_model(gallery_config("fnet"), BINARY))
        with pytest.raises(DoesNotFit, match=r"trains only attention, but the layers of FNet.* have none"):
            trainable_parameters(stack, FreezePlan(stack.shape, trained="attention"))
        assert trainable_parameters(stack, FreezePlan(stack.shape, trained="feed-forward"))

    @pytest.mark.parametrize(
        ("strategy", "trainable"),
        [
            ("lntune", 4 * 4 * HIDDEN + HEAD),
            ("full-attention", 4 * 4 * (HIDDEN * HIDDEN + HIDDEN) + HEAD),
            ("bottom2-feedforward", 2 * (2 * HIDDEN * INNER + INNER + HIDDEN) + HEAD),
            ("bottom1top2-norms", 4 * HIDDEN + HEAD),
            ("top3-biases", 4 * HIDDEN + INNER + HIDDEN + 2 * HIDDEN + HEAD),
        ],
    )
    def test_counts_by_hand(self, registry: Any, strategy: str, trainable: int) -> None:
        plan = registry.strategy(strategy)[0].freeze_plan(FOUR)
        assert count_parameters(stack_of("bert"), plan).trainable == trainable

    def test_norms_without_biases_count_their_weights_alone(self, registry: Any) -> None:
        stack = stack_of("modernbert")
        plan = registry.strategy("lntune")[0].freeze_plan(FOUR)
        head = FreezePlan(FOUR, frozenset(range(4)), embeddings=True)
        # The first layer of ModernBERT has no norm before its attention.
        assert count_parameters(stack, plan).trainable == 7 * HIDDEN + count_parameters(stack, head).trainable

    @pytest.mark.parametrize(
        ("strategy", "patterns", "layers"),
        [
            ("full-attention", ("*.attention.*.query.*", "*.key.*", "*.value.*", "*.attention.output.dense.*"), "0123"),
            ("bottom1top1-feedforward", ("*.intermediate.dense.*", "*.[123].output.dense.*"), "12"),
            ("lntune", ("*.LayerNorm.*",), "0123"),
            ("bottom2-biases", ("*.bias",), "23"),
        ],
    )
    def test_exactly_the_part_changes_in_training(
        self, plan_run: PlanRun, strategy: str, patterns: tuple[str, ...], layers: str
    ) -> None:
        planned = plan_run(strategy)
        of_layers = {name for name in changed(planned, do(planned)[1]) if ".layer." in name}
        every = dict(load_model(planned.inputs.checkpoint, BINARY, init_seed=0).named_parameters())
        expected = {
            name
            for name in every
            if any(f".layer.{layer}." in name for layer in layers) and any(fnmatchcase(name, p) for p in patterns)
        }
        assert of_layers == expected

    def test_losses_are_those_without_a_cached_prefix(self, plan_run: PlanRun) -> None:
        cached, recomputed = (do(plan_run("bottom2-attention", cache_size=size)) for size in ("1GB", "0"))
        assert (cached[1].prefixes["train"].depth, recomputed[1].prefixes["train"].depth) == (2, 0)
        losses = [[p.value for p in result.curves if p.metric == "train/loss"] for result, _ in (cached, recomputed)]
        np.testing.assert_allclose(*losses, rtol=2e-4)


class TestNames:
    def test_only_parameters_that_match_train(self) -> None:
        plan = FreezePlan(FOUR, embeddings=True, trained="names", names=("*.2.*.query.weight", "*.value.bias"))
        chosen = {name for name in names_of(stack_of("bert"), plan) if ".layer." in name}
        values = {f"bert.encoder.layer.{layer}.attention.self.value.bias" for layer in range(4)}
        assert chosen == {"bert.encoder.layer.2.attention.self.query.weight", *values}

    def test_the_frozen_prefix_ends_below_the_lowest_layer_in_which_something_trains(self) -> None:
        stack = stack_of("bert")
        plan = FreezePlan(FOUR, trained="names", names=("*.2.*.query.*", "classifier.*"))
        settled = without_idle_parts(stack, plan)
        assert (settled.prefix_layers, settled.frozen_layers) == (2, {0, 1, 3})
        assert names_of(stack, settled) == names_of(stack, plan)
        for whole in (FreezePlan(FOUR), FreezePlan(FOUR, frozenset({1}))):
            assert without_idle_parts(stack, whole) is whole

    def test_what_is_nowhere_does_not_fit(self) -> None:
        with pytest.raises(DoesNotFit, match=r"trains only \*\.querry\.\*, but the layers of Bert.* have none"):
            trainable_parameters(stack_of("bert"), FreezePlan(FOUR, trained="names", names=("*.querry.*",)))
        with pytest.raises(DoesNotFit, match=r"freezes the parameter 'bert\.nowhere', which Bert.* does not have"):
            trainable_parameters(stack_of("bert"), FreezePlan(FOUR, frozen_parameters=frozenset({"bert.nowhere"})))

    def test_plans_without_names_are_recorded_as_before(self) -> None:
        """Their runs' fingerprints contain what they contained."""
        recorded = FreezePlan(FOUR, trained="biases").as_dict()
        assert list(recorded) == ["layers", "frozen_layers", "embeddings", "pooler", "trained"]
        named = FreezePlan(FOUR, trained="names", names=("*.query.*",))
        assert named.as_dict()["names"] == ["*.query.*"]
        assert named.single_parameters() != replace(named, names=("*.key.*",)).single_parameters()


@dataclass(frozen=True)
class Planted(Strategy):
    """Freezes single parameters from the start."""

    frozen: tuple[str, ...]

    @property
    def name(self) -> str:
        return "planted"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape)

    def revisions(self) -> Revisions:
        return Revisions(at_start=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        return replace(plan, frozen_parameters=frozenset(self.frozen))


class TestSingleParameters:
    QUERY = "bert.encoder.layer.1.attention.self.query.weight"
    WORDS = "bert.embeddings.word_embeddings.weight"

    def test_those_frozen_at_the_start_do_not_change_and_all_others_do(self, plan_run: PlanRun) -> None:
        full = plan_run("full")
        every = changed(full, do(full)[1])
        assert every >= {self.QUERY, self.WORDS}
        result, trained = execute(full.spec, replace(full.inputs, strategy=Planted((self.QUERY, self.WORDS))))
        assert every - changed(full, trained) == {self.QUERY, self.WORDS}
        stack = trained.stack
        both = sum(stack.model.get_parameter(name).numel() for name in (self.QUERY, self.WORDS))
        assert result.metrics["params/trainable"] == count_parameters(stack, FreezePlan(FOUR)).trainable - both
        assert trained.forward.name == "lean"  # query, key and value are one product there

    def test_a_plan_for_a_parameter_that_is_not_there_is_refused(self, plan_run: PlanRun) -> None:
        full = plan_run("full")
        with pytest.raises(DoesNotFit, match="freezes the parameter 'nowhere'"):
            execute(full.spec, replace(full.inputs, strategy=Planted(("nowhere",))))

    def test_a_strategy_may_not_change_which_part_trains(self, plan_run: PlanRun) -> None:
        class Switches(Planted):
            def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
                return replace(plan, trained="norms")

        full = plan_run("full")
        with pytest.raises(TrainingError, match="it must be a FreezePlan like the one that it was given"):
            execute(full.spec, replace(full.inputs, strategy=Switches(())))


class TestLisa:
    def test_each_draw_trains_as_many_layers_and_the_embeddings(self, registry: Any) -> None:
        strategy = registry.strategy("lisa-2")[0]
        plan = strategy.freeze_plan(EncoderShape(12))
        draws = [strategy.revise(plan, TrainingProgress(1, 3, 8 * n, 300, data_seed=1)) for n in range(300)]
        assert all((len(draw.frozen_layers), draw.embeddings, draw.pooler) == (10, False, False) for draw in draws)
        trained = [layer for draw in draws for layer in range(12) if layer not in draw.frozen_layers]
        often = np.bincount(trained, minlength=12)  # 50 times each, with a standard deviation of 6.5
        assert all(25 < count < 75 for count in often)

    def test_draws_depend_on_data_seed_and_step_alone(self, registry: Any) -> None:
        strategy, plan = registry.strategy("lisa-2")[0], FreezePlan(EncoderShape(12))

        def draws(**progress: Any) -> list[FreezePlan]:
            steps = range(0, 80, 8)
            return [strategy.revise(plan, replace(TrainingProgress(1, 3, n, 99), **progress)) for n in steps]

        first = draws(data_seed=1)
        assert draws(data_seed=1, epoch=2, dev_scores=(0.3, 0.4)) == first
        assert draws(data_seed=2) != first
        assert len(set(first)) > 1

    def test_in_a_run_only_drawn_layers_embeddings_and_head_change(self, plan_run: PlanRun) -> None:
        planned = plan_run("lisa-1", init_seed=3, data_seed=5)
        result, trained = do(planned)
        segments = trained.training.schedule.segments
        drawn = {layer for one in segments for layer in range(4) if layer not in one.plan.frozen_layers}
        names = changed(planned, trained)
        layers = {name.split(".layer.")[1][0] for name in names if ".layer." in name}
        assert layers == {str(layer) for layer in drawn}
        assert any("word_embeddings" in name for name in names)
        assert result.metrics["params/trainable"] == count_parameters(trained.stack, segments[0].plan).trainable
        # The first step is made with a draw, and not with the plan for estimates.
        first = planned.inputs.strategy.revise(planned.spec.freeze_plan, TrainingProgress(1, 3, 0, 15, data_seed=5))
        assert segments[0].plan == first
        again = do(plan_run("lisa-1", init_seed=4, data_seed=5))[0]
        assert [(e.step, e.block, e.frozen) for e in again.freezing] == [
            (e.step, e.block, e.frozen) for e in result.freezing
        ]

    def test_more_layers_than_there_are_do_not_fit(self, registry: Any) -> None:
        with pytest.raises(DoesNotFit, match="lisa-4 trains 4 layers at a time, but the model has only 4; use full"):
            registry.strategy("lisa-4")[0].freeze_plan(FOUR)


def changes(*layers: dict[str, float]) -> MatrixChanges:
    return MatrixChanges(layers)


class TestGrades:
    """GradES with two layers of two matrices: a threshold of half of the largest change, a grace of 30 of 100 steps."""

    SHAPE = EncoderShape(2)

    def revised(self, registry: Any, *points: MatrixChanges, step: int = 60, plan: FreezePlan | None = None) -> Any:
        progress = TrainingProgress(1, 1, step, 100, changes=(changes({}, {}), *points))
        return registry.strategy("grades")[0].revise(plan or FreezePlan(self.SHAPE), progress)

    def test_a_matrix_is_frozen_whose_change_is_half_of_its_largest(self, registry: Any) -> None:
        before = changes({"a": 8.0, "b": 8.0}, {"c": 1.0, "d": 2.0})
        now = changes({"a": 3.9, "b": 4.0}, {"c": 9.0, "d": 2.0})
        assert self.revised(registry, before, now) == FreezePlan(self.SHAPE, frozen_parameters=frozenset({"a"}))
        middle = changes({"a": 5.0, "b": 5.0}, {"c": 1.0, "d": 2.0})  # the largest one counts, not the last one
        assert self.revised(registry, before, middle, now).frozen_parameters == {"a"}

    def test_not_in_the_grace_period(self, registry: Any) -> None:
        points = changes({"a": 8.0}, {"c": 8.0}), changes({"a": 0.1}, {"c": 0.1})
        assert self.revised(registry, *points, step=29) == FreezePlan(self.SHAPE)
        assert self.revised(registry, *points, step=30) != FreezePlan(self.SHAPE)

    def test_a_layer_of_frozen_matrices_is_frozen_as_a_whole_and_the_embeddings_with_the_lowest(
        self, registry: Any
    ) -> None:
        first = changes({"a": 8.0, "b": 8.0}, {"c": 8.0, "d": 8.0})
        top = self.revised(registry, first, changes({"a": 8.0, "b": 1.0}, {"c": 1.0, "d": 1.0}))
        assert (top.frozen_layers, top.embeddings, top.prefix_layers) == ({1}, False, None)
        whole = self.revised(registry, first, changes({"a": 8.0, "b": 1.0}, {"c": 1.0, "d": 1.0}),
                             changes({"a": 1.0}, {}), plan=top)  # fmt: skip
        assert (whole.frozen_layers, whole.embeddings, whole.prefix_layers) == ({0, 1}, True, 2)

    def test_nothing_thaws(self, registry: Any) -> None:
        frozen = FreezePlan(self.SHAPE, frozen_parameters=frozenset({"a"}))
        points = changes({"a": 1.0, "b": 1.0}, {"c": 1.0}), changes({"b": 9.0}, {"c": 9.0})
        assert self.revised(registry, *points, plan=frozen) == frozen

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_is_not_finite_settles_nothing(self, registry: Any, value: float) -> None:
        """Neither as the last change, nor as the largest one."""
        for points in ((1.0, value), (value, 1.0), (value, value)):
            assert self.revised(registry, *(changes({"a": point}, {}) for point in points)) == FreezePlan(self.SHAPE)

    def test_changes_are_those_of_average_gradients(self, tiny_bert: Path) -> None:
        from alue_bench.training.pretrained.loading import Checkpoint

        stack = view_as_stack(load_model(Checkpoint(tiny_bert, "", pickled=False), BINARY, init_seed=0))
        matrices = {n: p.numel() for n, p in stack.model.named_parameters() if ".layer.1." in n and p.ndim == 2}
        watch, measured = GradientWatch(stack), []
        for steps in ((1.0, 3.0), (-1.0, 1.0, 3.0), (0.5,)):
            for value in steps:
                for parameter in stack.layers[1].parameters():
                    parameter.grad = torch.full_like(parameter, value)
                watch.add()
            measured.append(watch.changes())
            watch.reset()
        first, *others = measured
        assert first == MatrixChanges(({},) * 4)
        for changed_by, of_point in zip((1.0, 0.5), others, strict=True):  # averages of 2, 1 and 0.5
            assert of_point.layers[1] == pytest.approx({name: size * changed_by for name, size in matrices.items()})
            assert not of_point.layers[0]

    def test_in_a_run_a_frozen_matrix_has_no_gradient_and_no_optimiser_state_any_more(self, plan_run: PlanRun) -> None:
        planned = plan_run("grades-p99")
        result, trained = do(planned)
        segments = trained.training.schedule.segments
        assert len(segments) > 2
        frozen = [segment.plan.frozen_parameters for segment in segments]
        assert all(earlier <= later for earlier, later in pairwise(frozen))
        last = segments[-1].plan
        still = {name for name, p in trained.stack.model.named_parameters() if p.requires_grad}
        assert still == names_of(trained.stack, last)
        assert not still & last.frozen_parameters
        logged = {event.block for event in result.freezing if event.frozen}
        assert last.frozen_parameters <= logged

    @pytest.mark.parametrize("strategy", ["lisa-1", "grades-p99"])
    def test_flops_are_those_that_the_counter_finds_in_each_interval(self, plan_run: PlanRun, strategy: str) -> None:
        """With the modules of transformers, whose last layer is computed for all tokens."""
        result, trained = do(plan_run(strategy, architecture="distilbert"))
        stack, segments = trained.stack, trained.training.schedule.segments
        lengths = trained.prefixes["train"].split.lengths
        counted = sum(counted_step(stack, one.plan, lengths[one.indices], 8, start=one.depth) for one in segments)
        counted += counted_prefix(stack, max(one.depth for one in segments), lengths, 8)
        assert result.metrics["flops/train"] == pytest.approx(counted, rel=1e-3)
        assert result.metrics["flops/train_vs_full"] < 1

    def test_losses_are_those_without_a_cached_prefix(self, plan_run: PlanRun) -> None:
        class Quick(Strategy):
            """Freezes all matrices of the lowest layer after the first epoch, as GradES would."""

            name = "quick"

            def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
                return FreezePlan(shape)

            def revisions(self) -> Revisions:
                return Revisions(matrix_changes=True, prefix_only_grows=True)

            def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
                settled = frozenset(progress.changes[-1].layers[1])
                return FreezePlan(plan.shape, frozenset({0}), embeddings=True, frozen_parameters=settled)

        runs = [plan_run("full", cache_size=size) for size in ("1GB", "0")]
        results = [execute(run.spec, replace(run.inputs, strategy=Quick())) for run in runs]
        assert [trained.prefixes["train"].depth for _, trained in results] == [1, 0]
        assert results[0][1].training.schedule.plan.frozen_parameters
        losses = [[p.value for p in result.curves if p.metric == "train/loss"] for result, _ in results]
        np.testing.assert_allclose(*losses, rtol=2e-4)
