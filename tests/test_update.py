"""One update of the weights: in parts where the memory is short, clipped as asked, never with a loss that is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alue_bench.contract.errors import NonFiniteLossError, TrainingError
from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import FreezePlan
from alue_bench.contract.task import Labels
from alue_bench.data.batches import Batch, Padding
from alue_bench.planning.build import Plan, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.bert.forward import LeanForward
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.precision import Device
from alue_bench.training.forward import choose_forward
from alue_bench.training.freezing import apply_plan
from alue_bench.training.optimizer import build_optimiser
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.update import Updater

LABELS = Labels.binary("no", "yes")
CPU = Device("cpu", "fp32")
LENGTHS = (9, 5, 7, 3, 9, 4)


@pytest.fixture
def stack() -> EncoderStack:
    from tiny_models import tiny_config
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    config = tiny_config("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    stack = view_as_stack(AutoModelForSequenceClassification.from_config(config))
    apply_plan(stack, FreezePlan(stack.shape))
    return stack


@pytest.fixture
def batch() -> Batch:
    mask = (torch.arange(9)[None] < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    return Batch(ids, mask, None, torch.tensor([0, 1, 1, 0, 1, 0]), torch.arange(6), sum(LENGTHS))


def updater(stack: EncoderStack, **hyper: Any) -> Updater:
    recipe = HyperParameters(batch_size=6, lr=1e-3, **hyper)
    nothing: Any = None
    return Updater(
        choose_forward(stack, torch.float32),
        Examples(nothing),
        build_optimiser(stack, recipe),
        TrainingConfig(LABELS, recipe, data_seed=0, device=CPU, padding=Padding(0)),
    )


def limit_memory(stack: EncoderStack, examples: int) -> None:
    """Make the model fail as on a device whose memory holds so many examples and no more."""

    def allocate(module: Any, args: Any, options: dict[str, Any]) -> None:
        if len(options["input_ids"]) > examples:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    stack.embeddings[0].register_forward_pre_hook(allocate, with_kwargs=True)


def weights(stack: EncoderStack) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in stack.model.named_parameters()}


class TestMemory:
    @pytest.mark.parametrize(("holds", "parts_of"), [(6, 6), (5, 3), (2, 2), (1, 1)])
    def test_a_batch_that_does_not_fit_is_trained_on_in_parts_to_the_same_end(
        self, stack: EncoderStack, batch: Batch, holds: int, parts_of: int
    ) -> None:
        start = weights(stack)
        whole = updater(stack)
        loss, norm = whole.update(batch, 1e-3)
        expected = weights(stack)
        with torch.no_grad():
            for name, parameter in stack.model.named_parameters():
                parameter.copy_(start[name])
        limit_memory(stack, holds)
        parted = updater(stack)
        torch.testing.assert_close(parted.update(batch, 1e-3), (loss, norm), rtol=1e-4, atol=1e-6)
        assert parted.micro_batch == parts_of
        change = {name: expected[name] - start[name] for name in start}
        moved = {name: value - start[name] for name, value in weights(stack).items()}
        # Adam's first step is the sign of the gradient: where that is noise, as for a key's bias, so is the step.
        for name in change:
            if "key.bias" not in name:
                torch.testing.assert_close(moved[name], change[name], rtol=1e-2, atol=2e-4, msg=name)

    def test_the_parts_stay_small_from_then_on(self, stack: EncoderStack, batch: Batch) -> None:
        limit_memory(stack, 2)
        parted = updater(stack)
        parted.update(batch, 1e-3)
        parted.update(batch.rows(slice(0, 3)), 1e-3)
        assert parted.micro_batch == 2

    def test_a_single_example_too_large_ends_the_run_with_a_remedy(self, stack: EncoderStack, batch: Batch) -> None:
        limit_memory(stack, 0)
        with pytest.raises(TrainingError, match=r"one example of 9 tokens does not fit into memory; try"):
            updater(stack).update(batch, 1e-3)

    def test_any_other_error_is_itself(self, stack: EncoderStack, batch: Batch) -> None:
        outside = dataclasses.replace(batch, input_ids=batch.input_ids + 10_000)
        with pytest.raises(IndexError):
            updater(stack).update(outside, 1e-3)


class TestWarmUp:
    def test_it_leaves_weights_and_gradients_as_they_were_and_no_trace_in_what_follows(
        self, stack: EncoderStack, batch: Batch
    ) -> None:
        start = weights(stack)
        cold = updater(stack)
        expected = [cold.update(batch, 1e-3)[0] for _ in range(3)]
        with torch.no_grad():
            for name, parameter in stack.model.named_parameters():
                parameter.copy_(start[name])
        warm = updater(stack, weight_decay=0.1)
        warm.warm_up(batch)
        assert all(torch.equal(value, start[name]) for name, value in weights(stack).items())
        assert all(parameter.grad is None for parameter in stack.model.parameters())
        warm = updater(stack)
        warm.warm_up(batch)
        assert [warm.update(batch, 1e-3)[0] for _ in range(3)] == expected


class TestClipping:
    def gradients_at_the_step(self, stack: EncoderStack, batch: Batch, **hyper: Any) -> tuple[dict[str, float], float]:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        seen: dict[str, float] = {}

        def look(*_: Any) -> None:
            seen.update({n: float(p.grad.norm()) for n, p in stack.model.named_parameters() if p.grad is not None})

        hook = register_optimizer_step_pre_hook(look)
        _, norm = updater(stack, **hyper).update(batch, 1e-9)
        hook.remove()
        return seen, float(norm)

    def test_by_the_norm_of_all_gradients_together(self, stack: EncoderStack, batch: Batch) -> None:
        free, norm = self.gradients_at_the_step(stack, batch, clip=0.0)
        assert norm == pytest.approx(math.hypot(*free.values()), rel=1e-4)
        clipped, same_norm = self.gradients_at_the_step(stack, batch, clip=norm / 10)
        assert same_norm == pytest.approx(norm, rel=1e-4)
        assert clipped == pytest.approx({name: value / 10 for name, value in free.items()}, rel=1e-3, abs=1e-7)
        unclipped, _ = self.gradients_at_the_step(stack, batch, clip=norm * 2)
        assert unclipped == pytest.approx(free, rel=1e-4)

    def test_or_by_each_parameters_own(self, stack: EncoderStack, batch: Batch) -> None:
        free, _ = self.gradients_at_the_step(stack, batch, clip=0.0)
        limit = float(np.median(list(free.values())))
        clipped, _ = self.gradients_at_the_step(stack, batch, clip=limit, clip_by="component")
        assert clipped == pytest.approx({n: min(v, limit) for n, v in free.items()}, rel=1e-2, abs=1e-7)
        assert min(clipped.values()) < limit


class TestLossThatIsNotFinite:
    @pytest.fixture
    def plan_runs(
        self, tiny_bert: Path, registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Plan]:
        monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))

        def build(precision: str, **hyper: Any) -> Plan:
            recipe = {"epochs": 1, "max_length": 24, "batch_size": 16} | hyper
            return build_plan(
                PlanRequest(
                    tasks=("svreg",),
                    models=(str(tiny_bert),),
                    strategies=("full",),
                    overrides=(("test", recipe),),
                    limit_train=40,
                    limit_eval=30,
                    sample=True,
                    precision=precision,
                ),
                registry,
            )

        return build

    def test_in_a_narrow_format_the_run_is_done_again_in_fp32_and_says_so(
        self, plan_runs: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What overflows bf16 overflows fp32, whose range is the same: the failure is put in by hand, in bf16 only.
        lean = LeanForward.logits

        def overflowing(self: Any, *arguments: Any) -> torch.Tensor:
            logits = lean(self, *arguments)
            return logits * math.inf if torch.is_autocast_enabled("cpu") else logits

        monkeypatch.setattr(LeanForward, "logits", overflowing)
        (planned,) = plan_runs("bf16").runs
        result, trained = execute(planned.spec, planned.inputs)
        assert trained.device.precision == "fp32"
        assert result.environment["engine"]["precision"] == "fp32"
        assert any(note.startswith("trained in fp32, after bf16 failed: the loss is") for note in result.notes)

    def test_in_fp32_the_run_fails_with_step_rate_and_gradient_norm(self, plan_runs: Callable[..., Plan]) -> None:
        (planned,) = plan_runs("fp32", lr=1e30, clip=0.0).runs
        with pytest.raises(NonFiniteLossError, match=r"at step \d+ of 3 \(learning rate .+e\+.., gradient norm .+\)"):
            execute(planned.spec, planned.inputs)

    def test_a_model_whose_outputs_are_none_has_no_score(self, plan_runs: Callable[..., Plan]) -> None:
        """It diverged in its last update, after the last loss that was looked at."""
        (planned,) = plan_runs("fp32", lr=1e30, batch_size=40, clip=0.0).runs
        with pytest.raises(NonFiniteLossError, match=r"outputs are not finite for \d+ of 30 texts; try a smaller --lr"):
            execute(planned.spec, planned.inputs)

    def test_scoring_takes_smaller_batches_where_the_memory_is_short(self, plan_runs: Callable[..., Plan]) -> None:
        (planned,) = plan_runs("fp32").runs
        expected, trained = execute(planned.spec, planned.inputs)

        def allocate(module: Any, args: Any, options: dict[str, Any]) -> None:
            if options["input_ids"].numel() > 150:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        trained.stack.embeddings[0].register_forward_pre_hook(allocate, with_kwargs=True)
        again, _ = execute(planned.spec, planned.inputs, before=trained)
        np.testing.assert_allclose(again.predictions.scores, expected.predictions.scores, rtol=1e-4, atol=1e-5)
