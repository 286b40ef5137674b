"""Strategies that choose their layers by a probe: the scores, the choice, its cost and its checks."""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from alue_bench_strategies.weight_spectrum import signal_to_noise
from conftest import SHORT, CommandLine
from planted_runs import plant, spec

from alue_bench import Choice, EncoderShape, FreezePlan, Labels, Probe, ProbeCost, TargetKind
from alue_bench.contract.errors import TrainingError
from alue_bench.contract.probe import HeldOutScore, LayerScore
from alue_bench.cost.flops import forecast_flops
from alue_bench.cost.time import estimate_plan
from alue_bench.data.splits import SplitRows
from alue_bench.deployment.model_folder import FinishedRun, describe
from alue_bench.measure.flops import training_flops
from alue_bench.planning.build import Plan, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.reporting.charts import layer_scores
from alue_bench.reporting.comparison import compare
from alue_bench.reporting.content import Gallery
from alue_bench.reporting.page import build_page
from alue_bench.running.inputs import tokenized
from alue_bench.running.run import execute
from alue_bench.tracking.connection import connect
from alue_bench.tracking.reading import Results, read_results, read_targets
from alue_bench.training.architecture.encoder_stack import view_as_stack
from alue_bench.training.forward import last_layer_of
from alue_bench.training.probing import checked_choice

NAMES = ("surgical-2", "rgn-2", "prism-2", "spectrum-2", "subtuning-2", "random-2")


@pytest.fixture
def planned(tiny: Callable[..., Path], registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A plan on sample data with a tiny encoder and a cache of the test's own."""
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))

    def build(*strategies: str, task: str = "anger", **hyper: Any) -> Plan:
        settings = {"epochs": 1, "max_length": 24, "batch_size": 8, **hyper}
        model = (str(tiny("bert")),)
        request = PlanRequest(tasks=(task,), models=model, strategies=strategies, limit_train=24)
        return build_plan(replace(request, overrides=(("test", settings),)), registry)

    return build


class _Linear(torch.nn.Module):
    """A model of two layers: w (x (a0 + 2 a1) + b), where layer 0 has the tensors a and b, and layer 1 has w."""

    def __init__(self) -> None:
        super().__init__()
        self.below = torch.nn.ParameterList([torch.tensor([2.0, 0.0]), torch.tensor([1.0])])
        self.above = torch.nn.ParameterList([torch.tensor([5.0])])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        a, b = self.below
        return self.above[0] * (inputs * (a[0] + 2 * a[1]) + b)


class Rows:
    """A batch of numbers, or of texts of which only the attention mask matters."""

    def __init__(self, values: Any) -> None:
        self.input_ids = self.attention_mask = torch.as_tensor(values)

    def rows(self, chosen: slice) -> Rows:
        return Rows(self.input_ids[chosen])


def probe_with(layers: Sequence[torch.nn.Module], **given: Any) -> Any:
    """A hand-made probe, of which only what the test gives can be used."""
    nothing: dict[str, Any] = {"model": None, "batches": (), "loss": None, "hidden_states": None}
    nothing |= {"train_and_score": None, "generator": None}
    return Probe(shape=EncoderShape(len(layers)), layers=tuple(layers), **{**nothing, **given})


def linear_probe() -> Any:
    model = _Linear()
    batches = (Rows([1.0, 3.0]), Rows([-2.0]))
    return probe_with(
        (model.below, model.above),
        model=model,
        batches=batches,
        loss=lambda batch: model(batch.input_ids).mean(),
        generator=np.random.default_rng(1),
    )


class TestScores:
    def test_fisher_information_as_computed_by_hand(self, registry: Any) -> None:
        """An example x has the gradients (5 x, 10 x), 5 and 2 x + 1; x is 1, 3 and -2, with the mean square 14 / 3."""
        choice = registry.strategy("surgical-1")[0].choose(linear_probe())
        assert choice.scores == pytest.approx((14 / 3 * math.hypot(25, 100) + 25, (9 + 49 + 9) / 3))
        assert choice.plan == FreezePlan(EncoderShape(2), frozenset({1}), embeddings=True)

    def test_relative_gradient_norm_as_computed_by_hand(self, registry: Any) -> None:
        """The batches have the mean x 2 and -2, and so the gradients (10, 20), 5, 5 and (-10, -20), 5, -3."""
        choice = registry.strategy("rgn-1")[0].choose(linear_probe())
        assert choice.scores == pytest.approx((math.sqrt(525) / math.sqrt(5), (5 + 3) / 2 / 5))

    def test_signal_to_noise_of_a_planted_spectrum(self) -> None:
        """Quartiles 1.75 and 4.75 give the edge 2 x 3 / 1.349 = 4.45: 10 is above it, the others below."""
        values = torch.tensor([10.0, 3.0, 2.0, 1.0])
        rotation = torch.linalg.qr(torch.arange(16.0).reshape(4, 4).cos())[0]
        edge = 2 * (4.75 - 1.75) / 1.349
        above = values[values > edge].sum()
        assert signal_to_noise(rotation @ values.diag()) == pytest.approx(float(above / (16 - above) / 10), rel=1e-4)

    def test_spectra_are_compared_within_each_kind_of_matrix(self, registry: Any) -> None:
        """The second matrix has much larger ratios; each kind of matrix counts as much as the other."""

        def layer(first: float, second: float) -> torch.nn.Module:
            spectra = ([first, 3.0, 2.0, 1.0], [second, 0.03, 0.02, 0.01])
            return torch.nn.ParameterList([torch.tensor(spectrum).diag() for spectrum in spectra])

        layers = (layer(12.0, 0.4), layer(10.0, 0.3), layer(11.0, 0.5), layer(10.0, 0.1))
        ratios = [[signal_to_noise(matrix.detach()) for matrix in one.parameters()] for one in layers]
        ranks = [
            [(sum(o[k] < r[k] for o in ratios) + (sum(o[k] == r[k] for o in ratios) - 1) / 2) / 3 for k in (0, 1)]
            for r in ratios
        ]
        choice = registry.strategy("spectrum-2")[0].choose(probe_with(layers))
        assert choice.scores == pytest.approx([sum(of_layer) / 2 for of_layer in ranks])
        assert ranks[1][0] == ranks[3][0], "equal matrices have equal ranks"

    def test_planted_similarity(self, registry: Any) -> None:
        """The outputs of layer 1 and of layer 2 lie between those of the others; each half has its own choice.

        The first text begins with padding, which must not be looked at.
        """
        angles = [0, 10, 50, 80]  # degrees; the embeddings' output, before them, points elsewhere
        states = []
        for angle in (200, *angles):
            direction = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
            noise = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(angle))
            noise[0, 1], noise[1, 0] = 3 * direction, direction  # the length does not matter
            states.append(noise)
        probe = probe_with(
            [torch.nn.Identity()] * 4,
            batches=(Rows([[0, 1, 1], [1, 1, 1]]),),
            hidden_states=lambda batch: tuple(states),
        )
        between = [[math.cos(math.radians(a - b)) for b in angles if b != a] for a in angles]
        choice = registry.strategy("prism-2")[0].choose(probe)
        assert choice.scores == pytest.approx([sum(similar) / 3 for similar in between])
        assert choice.plan.frozen_layers == {0, 3}
        assert registry.strategy("prism-1")[0].choose(probe).plan.frozen_layers == {0, 1, 3}
        assert registry.strategy("prism-3")[0].choose(probe).plan.frozen_layers == {3}, "one layer, one layer, two"

    def test_greedy_selection_of_a_planted_order(self, registry: Any) -> None:
        """Alone, layer 0 is best; with it, layer 3 is better than layer 1, which is second alone; then a tie."""
        scores = {(0,): 0.5, (1,): 0.4, (2,): 0.1, (3,): 0.2, (0, 1): 0.6, (0, 2): 0.6, (0, 3): 0.7}
        scores |= {(0, 1, 3): 0.8, (0, 2, 3): 0.8}
        tried: list[tuple[int, ...]] = []

        def train_and_score(plan: FreezePlan) -> HeldOutScore:
            assert plan.embeddings
            trained = tuple(sorted(set(range(4)) - plan.frozen_layers))
            tried.append(trained)
            return HeldOutScore(scores[trained], loss=1.0 if 1 in trained else 2.0)

        probe = probe_with([torch.nn.Identity()] * 4, train_and_score=train_and_score)
        choice = registry.strategy("subtuning-3")[0].choose(probe)
        assert choice.scores == (0.5, 0.4, 0.1, 0.2)
        assert choice.plan.frozen_layers == {2}, "of equal scores, the lower loss decides"
        assert tried == [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (0, 3), (0, 1, 3), (0, 2, 3)]

    def test_equal_scores_favour_upper_layers(self) -> None:
        assert Choice.highest(EncoderShape(4), [1, 1, 0, 1], 2).plan.frozen_layers == {0, 2}


class TestRun:
    def test_a_run_trains_what_was_chosen_and_charges_for_it(self, planned: Any) -> None:
        for run in planned(*NAMES, probe_rows=24).runs:
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
            assert (metrics["flops/probe"] > 0) == (run.spec.strategy not in ("spectrum-2", "random-2"))

    @pytest.mark.parametrize("task", ["anger", "arabicner"])
    def test_short_trainings_are_repeatable_and_charged(self, planned: Any, registry: Any, task: str) -> None:
        """They train on four fifths of the probe; the FLOPs are those of trainings without a cached prefix."""
        run = planned("random-2", task=task, probe_rows=10).runs[0]
        seen: list[HeldOutScore] = []

        class Trying(type(run.inputs.strategy)):  # type: ignore[misc]
            def choose(self, probe: Probe) -> Choice:
                for layers in ((0, 1, 2), (0, 1, 2), (2, 3)):
                    seen.append(probe.train_and_score(FreezePlan(probe.shape, frozenset(layers), embeddings=True)))
                return Choice.highest(probe.shape, [0, 1, 2, 3], 2)

        result, _ = execute(run.spec, replace(run.inputs, strategy=Trying(2)))
        assert seen[0] == seen[1] != seen[2]
        assert all(math.isfinite(one.loss) for one in seen)
        stack = view_as_stack(run.inputs.models.model(run.inputs.checkpoint, run.inputs.train_task.labels, init_seed=0))
        rows = run.inputs.train_rows.splits["train"]
        drawn = np.random.default_rng([run.spec.data_seed, 1]).permutation(len(rows.examples))[2:10]
        part = SplitRows(tuple(rows.examples[place] for place in drawn), "part")
        tokenizer = run.inputs.models.tokenizer(run.inputs.checkpoint)
        rows_of_part = replace(run.inputs.train_rows, splits={"train": part})
        lengths = tokenized(rows_of_part, "train", run.spec, run.inputs, tokenizer).lengths
        top, upper = (
            training_flops(
                stack, FreezePlan(stack.shape, frozenset(layers), embeddings=True), lengths, 1, prefix_cached=False,
                last_layer=last_layer_of(stack, "cpu"), batch_size=8,
            )
            for layers in ((0, 1, 2), (2, 3))
        )  # fmt: skip
        assert result.metrics["flops/probe"] == pytest.approx(2 * top + upper)

    def test_a_probe_of_one_example_cannot_be_divided(self, planned: Any) -> None:
        run = planned("subtuning-1", probe_rows=1).runs[0]
        with pytest.raises(TrainingError, match="the probe has 1; raise --probe-rows"):
            execute(run.spec, run.inputs)

    def test_meters_cover_the_choice(self, planned: Any) -> None:
        run = planned("random-2").runs[0]

        class Hungry(type(run.inputs.strategy)):  # type: ignore[misc]
            def choose(self, probe: Probe) -> Choice:
                filled = torch.ones(2**26)  # 256 MiB
                began = time.process_time()
                while time.process_time() < began + 0.3:
                    filled[::4096] += 1
                return super().choose(probe)

        frugal, hungry = (
            execute(run.spec, replace(run.inputs, strategy=kind(2)))[0].metrics
            for kind in (type(run.inputs.strategy), Hungry)
        )
        assert hungry["memory/process_peak_mib"] - frugal["memory/process_peak_mib"] > 200
        assert hungry["runtime/cpu_s"] - frugal["runtime/cpu_s"] > 0.15

    def test_the_estimated_cost_includes_the_choice(self, planned: Any, registry: Any) -> None:
        """The recorded FLOPs count padding; the estimate counts the gradients of the head, which no probe computes."""
        plan = planned(*NAMES, probe_rows=24)
        estimated = {one.strategy: one.flops for one in estimate_plan(plan, registry).runs}
        forecast = forecast_flops(plan.runs)
        for run, foreseen in zip(plan.runs, forecast, strict=True):
            cost = run.inputs.strategy.probe_cost(run.spec.freeze_plan.shape)
            without = type("Unknown", (type(run.inputs.strategy),), {"probe_cost": lambda self, shape: None})(2)
            (bare,) = forecast_flops([replace(run, inputs=replace(run.inputs, strategy=without))])
            assert estimated[run.spec.strategy] == foreseen
            recorded = execute(run.spec, run.inputs)[0].metrics["flops/probe"]
            assert foreseen - bare == pytest.approx(recorded, rel=0.05)
            assert (recorded > 0) == (cost != ProbeCost())

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


class TestRecord:
    @pytest.fixture
    def recorded(
        self, alue_bench: CommandLine, store: str, experiment: str, tiny_bert: Path
    ) -> Callable[..., tuple[Results, pd.DataFrame]]:
        """A function that runs `full` and two selectors, and returns the recorded runs, also by strategy."""

        def record(*options: str) -> tuple[Results, pd.DataFrame]:
            name = "-".join([experiment, *options])
            strategies = ("-s", "full", "-s", "surgical-1", "-s", "random-1")
            done = alue_bench(
                "run", "--tracking-uri", store, "--experiment", name, "-t", "anger", "-m", tiny_bert, *strategies,
                *SHORT, *options,
            )  # fmt: skip
            assert done.code == 0, done.err
            results = read_results(connect(store, name))
            return results, results.frame.set_index("strategy")

        return record

    @pytest.mark.stress
    def test_worker_processes_record_the_same_choices(self, recorded: Any) -> None:
        (_, alone), (_, workers) = recorded(), recorded("--jobs", "2")
        same = ["chosen_layers", "freeze_bottom", "freeze_top", "freeze_embeddings", "flops/probe", "score"]
        pd.testing.assert_frame_equal(alone[same], workers.loc[alone.index, same])

    def test_the_choice_is_recorded_and_drawn(self, recorded: Any) -> None:
        results, alone = recorded()
        (section,) = [one for one in build_page(results).sections if one.anchor == "choices"]
        pictures = [one for item in section.blocks[0].items if isinstance(item, Gallery) for one in item.pictures]
        assert len(pictures) == 2
        assert alone["chosen_layers"].notna().to_dict() == {"full": False, "surgical-1": True, "random-1": True}
        for strategy in ("surgical-1", "random-1"):
            row = alone.loc[strategy]
            (chosen,) = (int(layer) for layer in row["chosen_layers"].split(","))
            layers = 4
            assert row["freeze_bottom"] == chosen
            assert row["freeze_top"] == layers - 1 - chosen
            (text,) = [one.alt for one in pictures if f"by {strategy}," in one.alt]
            assert re.findall(r"layer (\d) [^;]*chosen in 1", text) == [str(chosen)]
        assert alone.loc["surgical-1", "params/trainable_share"] < alone.loc["full", "params/trainable_share"]


class TestProbeRows:
    def test_probes_of_different_sizes_are_compared_apart_each_with_all_others(
        self, store: str, experiment: str
    ) -> None:
        connection = connect(store, experiment)
        labels = Labels(TargetKind.MULTICLASS, ("a", "b"))
        gold = np.array([0, 1] * 10)
        for strategy, rows in (("full", 256), ("head-only", 256), ("surgical-1", 256), ("surgical-1", 64)):
            more = {"flops/probe": 1.0} if strategy == "surgical-1" else {}
            for seed in (1, 2):
                plant(
                    connection, spec(strategy=strategy, seed=seed, hyper={"probe_rows": rows}), labels, gold,
                    np.roll(gold, seed), more=more,
                )  # fmt: skip
        results = read_results(connection)

        def compared(part: pd.DataFrame) -> list[tuple[list[str], bool]]:
            return [
                (sorted(row.strategy for row in block.rows), "probe_rows" in str(block.conditions["other_hyper"]))
                for block in compare(part, partial(read_targets, results)).blocks
            ]

        frame = results.frame
        everything = ["full", "head-only", "surgical-1"]
        assert sorted(compared(frame)) == [(everything, False), (everything, True)]
        small = frame["other_hyper"].str.contains("probe_rows")
        assert compared(frame[small | (frame["strategy"] != "surgical-1")]) == [(everything, True)]
        assert compared(frame[frame["strategy"] != "surgical-1"]) == [(["full", "head-only"], False)]
        alone = [(["surgical-1"], False), (["surgical-1"], True)]
        assert sorted(compared(frame[frame["strategy"] == "surgical-1"])) == alone


def test_the_chart_of_layer_scores_marks_what_most_runs_chose() -> None:
    runs = [
        [LayerScore(0, 1.0, True), LayerScore(1, 3.0, False), LayerScore(2, 2.0, frozen=one != 0)] for one in range(3)
    ]
    picture = layer_scores(runs, name="chart", strategy="surgical-1", figure_title="anger · mini")
    assert "layer 0 1; layer 1 3, chosen in 3; layer 2 2, chosen in 1" in picture.alt
    assert "mean of 3 runs" in picture.alt
    bars = re.findall(r'style="fill: ([^;"]+)[^"]*stroke: #0072b2', picture.svg)
    assert bars == ["#ffffff", "#0072b2", "#ffffff"]
