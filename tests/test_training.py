"""Training: what decides a result, and what does not."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import FreezePlan, Strategy
from alue_bench.data.batches import Padding
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.planning.build import Plan, PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.precision import Device
from alue_bench.training.forward import choose_forward
from alue_bench.training.freezing import apply_plan
from alue_bench.training.inference import predict_logits
from alue_bench.training.optimizer import build_optimiser, learning_rate
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.prefix.growing import FixedData
from alue_bench.training.pretrained.loading import load_model, load_tokenizer
from alue_bench.training.result import TrainingResult
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.session import TrainingSession, fine_tune

CPU = Device("cpu", "fp32")
MEASURED = ("runtime/", "throughput/", "memory/")


@pytest.fixture
def plan_runs(tiny_bert: Path, registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """A plan on sample data with the tiny BERT, small enough to train in a second."""
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))

    def build(*tasks: str, strategies: tuple[str, ...] = ("full",), **options: Any) -> Plan:
        hyper = {"epochs": 2, "max_length": 24, "lr": 1e-3, "batch_size": 16} | options.pop("hyper", {})
        request = PlanRequest(
            tasks=tasks or ("anger",),
            models=(str(tiny_bert),),
            strategies=strategies,
            overrides=(("test", hyper),),
            limit_train=40,
            limit_eval=30,
            sample=True,
            precision="fp32",
            **options,
        )
        return build_plan(request, registry)

    return build


def one(plan: Plan) -> PlannedRun:
    (planned,) = plan.runs
    return planned


def outcome(planned: PlannedRun, before: Any = None) -> dict[str, float]:
    """Everything of a result that is not a measurement of this machine."""
    result, _ = execute(planned.spec, planned.inputs, before=before)
    kept = {name: value for name, value in result.metrics.items() if not name.startswith(MEASURED)}
    curves = {f"{point.metric} at {point.step}": point.value for point in result.curves}
    return kept | curves | {f"score {i}": float(s) for i, s in enumerate(np.ravel(result.predictions.scores))}


@dataclasses.dataclass
class Bench:
    """A model and its data, for tests of the loop itself."""

    planned: PlannedRun

    def __post_init__(self) -> None:
        inputs = self.planned.inputs
        self.labels = inputs.task.labels
        self.tokenizer = load_tokenizer(inputs.checkpoint)
        self.splits: dict[str, TokenizedSplit] = {
            name: inputs.tokens.tokenized(
                rows,
                labels=self.labels,
                model=inputs.model,
                model_digest=inputs.checkpoint.digest,
                tokenizer=self.tokenizer,
                max_length=24,
            )
            for name, rows in inputs.rows.splits.items()
        }

    def stack(self, plan: FreezePlan | None = None, init_seed: int = 0) -> EncoderStack:
        stack = view_as_stack(load_model(self.planned.inputs.checkpoint, self.labels, init_seed=init_seed))
        apply_plan(stack, plan or FreezePlan(stack.shape))
        return stack

    def tune(
        self,
        stack: EncoderStack,
        scores: list[float] | None = None,
        strategy: Strategy | None = None,
        **options: Any,
    ) -> TrainingResult:
        """Fine-tune; `scores` are what the dev split is said to give, epoch by epoch."""
        plan = strategy.freeze_plan(stack.shape) if strategy else FreezePlan(stack.shape)
        apply_plan(stack, plan)
        given = iter(scores or [0.0] * 100)
        hyper = HyperParameters(**{"epochs": 1, "lr": 1e-3, "batch_size": 8, "max_length": 24} | options)
        session = TrainingSession(
            stack,
            choose_forward(stack, torch.float32),
            FreezeSchedule(stack, plan, strategy),
            FixedData(Examples(self.splits["train"]), Examples(self.splits["dev"])),
            TrainingConfig(self.labels, hyper, 0, CPU, Padding(self.tokenizer.pad_token_id)),
            score=lambda logits: {"score": next(given)},
        )
        return fine_tune(session)


@pytest.fixture
def bench(plan_runs: Callable[..., Plan]) -> Bench:
    return Bench(one(plan_runs()))


def weights(stack: EncoderStack) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in stack.model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class TestWhatDecidesAResult:
    def test_the_same_alone_or_third_in_a_plan(self, plan_runs: Callable[..., Plan]) -> None:
        strategies = ("full", "bottom2", "bottom1top2")
        together = [outcome(planned) for planned in plan_runs(strategies=strategies).runs]
        torch.manual_seed(999)
        np.random.seed(999)
        assert outcome(one(plan_runs(strategies=("bottom1top2",)))) == together[2]
        assert together[2] != together[1]

    def test_the_same_seed_gives_the_same_result(self, plan_runs: Callable[..., Plan]) -> None:
        assert outcome(one(plan_runs(seeds=(3,)))) == outcome(one(plan_runs(seeds=(3,))))

    @pytest.mark.parametrize("which", ["init_seed", "data_seed"])
    def test_each_of_the_two_seeds_matters(self, plan_runs: Callable[..., Plan], which: str) -> None:
        before, after = (one(plan_runs(**{which: seed})) for seed in (1, 2))
        assert before.spec.fingerprint != after.spec.fingerprint
        assert outcome(before) != outcome(after)

    def test_both_seeds_are_the_run_s_unless_said_otherwise(self, plan_runs: Callable[..., Plan]) -> None:
        spec = one(plan_runs(seeds=(5,), init_seed=9)).spec
        assert (spec.seed, spec.init_seed, spec.data_seed) == (5, 9, 5)

    def test_the_token_cache_changes_nothing(self, plan_runs: Callable[..., Plan], tmp_path: Path) -> None:
        first = outcome(one(plan_runs()))
        entries = list((tmp_path / "cache" / "tokens").iterdir())
        assert len(entries) == 3
        assert outcome(one(plan_runs())) == first
        for entry in entries:
            for file in entry.iterdir():
                file.write_bytes(b"damaged")
        assert outcome(one(plan_runs())) == first


class TestDiagnosticSet:
    """Scored with a model trained on another task, which need not be trained twice."""

    def test_after_its_training_task_it_uses_that_model_and_equals_itself_alone(
        self, plan_runs: Callable[..., Plan]
    ) -> None:
        xnli, diag = plan_runs("xnli", "diag").runs
        assert (xnli.spec.task, diag.spec.task, diag.spec.train_task) == ("xnli", "diag", "xnli")
        assert xnli.spec.training_key == diag.spec.training_key
        _, trained = execute(xnli.spec, xnli.inputs)
        reused, _ = execute(diag.spec, diag.inputs, before=trained)
        assert reused.metrics["runtime/train_reused"] == 1
        assert reused.metrics["runtime/train_s"] == trained.training.loop_s
        assert outcome(diag, before=trained) == outcome(diag)

    def test_a_plan_brings_what_shares_a_training_together(self, plan_runs: Callable[..., Plan]) -> None:
        plan = plan_runs("diag", "anger", "xnli", strategies=("full", "bottom2"))
        assert [(run.spec.task, run.spec.strategy) for run in plan.runs] == [
            ("diag", "full"),
            ("xnli", "full"),
            ("diag", "bottom2"),
            ("xnli", "bottom2"),
            ("anger", "full"),
            ("anger", "bottom2"),
        ]

    def test_a_model_trained_otherwise_is_not_used(self, plan_runs: Callable[..., Plan]) -> None:
        full, frozen = plan_runs("xnli", strategies=("full", "bottom2")).runs
        _, trained = execute(full.spec, full.inputs)
        result, _ = execute(frozen.spec, frozen.inputs, before=trained)
        assert result.metrics["runtime/train_reused"] == 0


class TestEpochSelection:
    def trained(self, bench: Bench, select: str, scores: list[float]) -> tuple[TrainingResult, dict[str, torch.Tensor]]:
        stack = bench.stack()
        training = bench.tune(stack, scores, select=select, epochs=3)
        return training, weights(stack)

    @pytest.mark.parametrize("strategy", ["full", "bottom2", "gradual-unfreeze", "autofreeze"])
    def test_best_takes_back_the_weights_of_the_best_epoch(self, bench: Bench, registry: Any, strategy: str) -> None:
        """Layers that began or ceased to train after the best epoch get their weights of that epoch too."""
        stack, after_epoch = bench.stack(), []

        class Scores(list[float]):
            def __iter__(self) -> Any:
                for value in (0.1, 0.9, 0.5):
                    after_epoch.append(weights(stack))
                    yield value

        training = bench.tune(stack, Scores([1.0]), registry.strategy(strategy)[0], epochs=3)
        assert training.selected_epoch == 2
        assert training.dev_scores == [0.1, 0.9, 0.5]
        assert same(weights(stack), after_epoch[1])
        assert not same(after_epoch[1], after_epoch[2])

    @pytest.mark.parametrize(
        ("select", "scores", "epoch"),
        [
            ("last", [0.9, 0.5, 0.1], 3),
            ("best", [0.1, 0.5, 0.9], 3),
            ("best", [0.9, 0.5, 0.1], 1),
            ("best", [0.5, 0.5, 0.5], 1),  # no better is not better
            ("best", [math.nan, 0.1, math.nan], 2),
            ("best", [0.1, math.nan, 0.0], 1),
            ("best", [math.nan] * 3, 1),
            ("best", [-0.5, -0.1, -0.9], 2),
        ],
    )
    def test_which_epoch(self, bench: Bench, select: str, scores: list[float], epoch: int) -> None:
        assert self.trained(bench, select, scores)[0].selected_epoch == epoch

    def test_the_first_epoch_of_three_is_not_that_of_one_since_the_rate_falls_slower(self, bench: Bench) -> None:
        short = bench.stack()
        bench.tune(short, epochs=1)
        assert not same(self.trained(bench, "best", [0.9, 0.5, 0.1])[1], weights(short))


class TestLearningRate:
    @given(
        total=st.integers(1, 500),
        warmup=st.floats(0, 0.99),
        lr=st.floats(1e-6, 1),
    )
    def test_it_is_positive_never_above_the_peak_and_rises_before_it_falls(
        self, total: int, warmup: float, lr: float
    ) -> None:
        hyper = HyperParameters(lr=lr, warmup=warmup)
        rates = [learning_rate(step, total, hyper) for step in range(total)]
        assert all(0 < rate <= lr * (1 + 1e-9) for rate in rates)
        peak = rates.index(max(rates))
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)

    def test_by_hand(self) -> None:
        hyper = HyperParameters(lr=1.0, warmup=0.5)
        assert [learning_rate(step, 6, hyper) for step in range(6)] == pytest.approx(
            [1 / 4, 2 / 4, 3 / 4, 1, 2 / 3, 1 / 3]
        )

    def test_without_warm_up_it_begins_at_the_peak(self) -> None:
        assert learning_rate(0, 10, HyperParameters(lr=1.0)) == 1
        assert learning_rate(9, 10, HyperParameters(lr=1.0)) == pytest.approx(0.1)


class TestOptimiser:
    def test_it_holds_what_trains_and_nothing_else(self, bench: Bench) -> None:
        stack = bench.stack(FreezePlan(bench.stack().shape, frozenset({0, 1}), embeddings=True))
        groups = build_optimiser(stack, HyperParameters(weight_decay=0.1)).param_groups
        held = [id(p) for group in groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in stack.model.parameters() if p.requires_grad)

    def test_biases_and_norms_do_not_decay(self, bench: Bench) -> None:
        stack = bench.stack()
        optimiser = build_optimiser(stack, HyperParameters(weight_decay=0.1))
        decaying = {id(p) for g in optimiser.param_groups if g["weight_decay"] for p in g["params"]}
        spared = {name for name, p in stack.model.named_parameters() if id(p) not in decaying}
        assert spared
        assert all(name.endswith("bias") or "LayerNorm" in name for name in spared)


class TestTheLoop:
    def test_steps_samples_and_tokens_are_counted(self, bench: Bench) -> None:
        training = bench.tune(bench.stack(), epochs=2, batch_size=16)
        assert (training.steps, training.samples) == (2 * 3, 2 * 40)
        assert training.tokens == 2 * int(bench.splits["train"].lengths.sum()) <= training.padded_tokens

    def test_clipping_bounds_a_step_and_zero_turns_it_off(self, bench: Bench) -> None:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        norms = {}
        for clip in (0.0, 1e-3):
            stack = bench.stack()
            gradients: list[float] = []

            def look(*_: Any, seen: list[float] = gradients, weight: Any = stack.model.classifier.weight) -> None:
                seen.append(float(weight.grad.norm()))

            hook = register_optimizer_step_pre_hook(look)
            bench.tune(stack, clip=clip)
            hook.remove()
            norms[clip] = max(gradients)
        assert norms[1e-3] <= 1e-3 < norms[0.0]

    def test_a_loss_that_is_not_finite_is_named_with_its_step_and_learning_rate(self, bench: Bench) -> None:
        stack = bench.stack()
        with torch.no_grad():
            stack.model.classifier.weight.fill_(float("nan"))
        message = r"the loss is nan at step 1 of 5 \(learning rate 1\.00e-03, gradient norm nan\); try a smaller --lr"
        with pytest.raises(TrainingError, match=message):
            bench.tune(stack)

    def test_predictions_come_in_the_order_of_the_split(self, bench: Bench) -> None:
        stack, split = bench.stack(), bench.splits["test"]
        forward = choose_forward(stack, torch.float32)
        logits = predict_logits(stack, forward, Examples(split), device=CPU, padding=Padding(0))
        shuffled = np.random.default_rng(0).permutation(len(split))
        parts = [split.input_ids[split.offsets[i] : split.offsets[i + 1]] for i in shuffled]
        moved = dataclasses.replace(
            split,
            input_ids=torch.cat(parts),
            token_type_ids=torch.zeros(sum(map(len, parts)), dtype=torch.long),
            offsets=torch.tensor([0, *np.cumsum([len(part) for part in parts])]),
            targets=split.targets[shuffled],
        )
        np.testing.assert_allclose(
            predict_logits(stack, forward, Examples(moved), device=CPU, padding=Padding(0)),
            logits[shuffled],
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("task", ["anger", "mdd", "sec", "svreg", "xnli"])
def test_every_kind_of_target_trains_and_is_scored(plan_runs: Callable[..., Plan], task: str) -> None:
    planned = one(plan_runs(task))
    result, _ = execute(planned.spec, planned.inputs)
    primary = planned.inputs.task.primary
    assert result.metrics["test/score"] == pytest.approx(result.metrics[f"test/{primary}"], nan_ok=True)
    assert np.asarray(result.predictions.scores).shape == (30, planned.inputs.task.labels.outputs)
    assert len(result.predictions.gold) == len(result.predictions.predicted) == 30
    assert result.metrics["data/train_steps"] == 2 * 3
    assert result.metrics["data/train_rows"] == 40
    assert result.metrics["runtime/cpu_s"] > 0
    assert 0 < result.metrics["runtime/cpu_cores"] < 1.1 * (os.cpu_count() or 1)
    assert result.metrics["runtime/load_average"] >= 0


def test_texts_that_were_cut_are_counted(plan_runs: Callable[..., Plan]) -> None:
    planned = one(plan_runs(hyper={"max_length": 8}))
    result, _ = execute(planned.spec, planned.inputs)
    assert "40 of 40 train texts cut to 8 tokens" in result.notes
    assert "30 of 30 test texts cut to 8 tokens" in result.notes
