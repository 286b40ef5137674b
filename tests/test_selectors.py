"""Strategies that choose their layers by a probe: the scores, the choice, its cost and its checks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alue_bench_strategies.weight_spectrum import signal_to_noise

from alue_bench import Choice, EncoderShape, FreezePlan
from alue_bench.contract.errors import TrainingError
from alue_bench.deployment.model_folder import FinishedRun, describe
from alue_bench.planning.build import Plan, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.training.probing import checked_choice

NAMES = ("surgical-2", "rgn-2", "spectrum-2", "random-2")


@pytest.fixture
def planned(tiny: Callable[..., Path], registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A plan on sample data with a tiny encoder and a cache of the test's own."""
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))

    def build(*strategies: str, **hyper: Any) -> Plan:
        settings = {"epochs": 1, "max_length": 24, "batch_size": 8, **hyper}
        model = (str(tiny("bert")),)
        request = PlanRequest(tasks=("anger",), models=model, strategies=strategies, limit_train=24)
        return build_plan(replace(request, overrides=(("test", settings),)), registry)

    return build


class _Linear(torch.nn.Module):
    """A model of two scalar layers, whose loss is w0 w1 x."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList([torch.tensor([2.0]), torch.tensor([5.0])])


def linear_probe() -> Any:
    from alue_bench import Probe

    model = _Linear()
    layers = tuple(torch.nn.ParameterList([weight]) for weight in model.weights)

    class Rows:
        def __init__(self, values: torch.Tensor) -> None:
            self.input_ids = values

        def rows(self, chosen: slice) -> Rows:
            return Rows(self.input_ids[chosen])

    def loss(batch: Any) -> Any:
        return (model.weights[0] * model.weights[1] * batch.input_ids).mean()

    batches = (Rows(torch.tensor([1.0, 3.0])), Rows(torch.tensor([-2.0])))
    return Probe(model, EncoderShape(2), layers, batches, loss, lambda batch: (), np.random.default_rng(1))


class TestScores:
    def test_fisher_information_and_relative_gradient_as_computed_by_hand(self, registry: Any) -> None:
        """The gradients of an example x are 5 x and 2 x; x is 1, 3 and -2."""
        surgical = registry.strategy("surgical-1")[0].choose(linear_probe())
        assert surgical.scores == pytest.approx((25 * 14 / 3, 4 * 14 / 3))
        assert surgical.plan == FreezePlan(EncoderShape(2), frozenset({1}), embeddings=True)
        relative = registry.strategy("rgn-1")[0].choose(linear_probe())
        assert relative.scores == pytest.approx((5 * (2 / 3) / 2, 2 * (2 / 3) / 5))

    def test_signal_to_noise_of_a_planted_spectrum(self) -> None:
        """Quartiles 1.75 and 4.75 give the edge 2 x 3 / 1.349 = 4.45: 10 is above it, the others below."""
        values = torch.tensor([10.0, 3.0, 2.0, 1.0])
        rotation = torch.linalg.qr(torch.arange(16.0).reshape(4, 4).cos())[0]
        edge = 2 * (4.75 - 1.75) / 1.349
        above = values[values > edge].sum()
        assert signal_to_noise(rotation @ values.diag()) == pytest.approx(float(above / (16 - above) / 10), rel=1e-4)

    def test_equal_scores_favour_upper_layers(self) -> None:
        assert Choice.highest(EncoderShape(4), [1, 1, 0, 1], 2).plan.frozen_layers == {0, 2}


class TestRun:
    def test_a_run_trains_what_was_chosen_and_charges_for_it(self, planned: Any) -> None:
        for run in planned(*NAMES).runs:
            before: Any = copy.deepcopy(
                run.inputs.models.model(
                    run.inputs.checkpoint, run.inputs.train_task.labels, init_seed=run.spec.init_seed
                )
            )
            result, trained = execute(run.spec, run.inputs)
            after: Any = trained.stack.model
            again, _ = execute(run.spec, run.inputs)
            assert result.layer_scores == again.layer_scores
            assert result.metrics["test/score"] == again.metrics["test/score"]
            frozen = {one.layer for one in result.layer_scores if one.frozen}
            assert len(frozen) == 2
            plan = trained.training.schedule.segments[0].plan
            assert plan.frozen_layers == frozen
            assert trained.prefixes["train"].depth == plan.prefix_layers
            unchanged = {
                layer
                for layer in range(4)
                if all(
                    torch.equal(a, b)
                    for a, b in zip(
                        before.bert.encoder.layer[layer].parameters(),
                        after.bert.encoder.layer[layer].parameters(),
                        strict=True,
                    )
                )
            }
            assert unchanged == frozen
            kept = describe(FinishedRun("", run.spec, run.inputs, trained, result))
            assert kept.spec["freeze_plan"]["frozen_layers"] == sorted(frozen), "a kept model states the choice"
            metrics = result.metrics
            assert 0 < metrics["runtime/probe_s"] < metrics["runtime/train_s"]
            assert (metrics["flops/probe"] > 0) == (run.spec.strategy in ("surgical-2", "rgn-2"))

    def test_the_plan_says_that_the_choice_is_made_in_the_run(self, planned: Any) -> None:
        assert any(
            "surgical-2 chooses its layers at the start of the run" in note for note in planned("surgical-2").notes
        )

    def test_probe_rows_are_part_of_the_fingerprint_of_strategies_that_choose_only(self, planned: Any) -> None:
        default = [run.spec.fingerprint for run in planned("full", "surgical-2").runs]
        fewer = [run.spec.fingerprint for run in planned("full", "surgical-2", probe_rows=8).runs]
        assert [a == b for a, b in zip(default, fewer, strict=True)] == [True, False]

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            (None, "must return a Choice"),
            (Choice(FreezePlan(EncoderShape(2), frozenset(), embeddings=True), (0.0, 0.0)), "at least as many layers"),
            (Choice(FreezePlan(EncoderShape(2), frozenset({0})), (0.0, 0.0)), "and the embeddings"),
            (Choice(FreezePlan(EncoderShape(2), frozenset({0}), embeddings=True), (0.0,)), "one for each of 2 layers"),
            (Choice(FreezePlan(EncoderShape(2), frozenset({0}), embeddings=True), (0.0, float("nan"))), "not finite"),
        ],
    )
    def test_a_wrong_choice_is_refused(self, registry: Any, choice: Any, message: str) -> None:
        strategy = registry.strategy("random-1")[0]

        class Wrong(type(strategy)):  # type: ignore[misc]
            def choose(self, probe: Any) -> Any:
                return choice

        with pytest.raises(TrainingError, match=message):
            checked_choice(Wrong(1), strategy.freeze_plan(EncoderShape(2)), linear_probe())
