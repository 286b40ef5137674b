"""Hyper-parameters that publications recommend together, and rates that fall from layer to layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alue_bench import FreezePlan, Labels, UsageError
from alue_bench.contract.options import options_of
from alue_bench.contract.spec import HyperParameters, resolve_hyper_parameters
from alue_bench.planning.recipes import RECIPES, recipe
from alue_bench.studies.settings import merge_study
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.freezing import apply_plan
from alue_bench.training.optimizer import LearningRates, build_optimiser
from alue_bench.training.pretrained.loading import Checkpoint, load_model

ELSEWHERE = {"max_length", "select"} | {
    name for name, declared in options_of(HyperParameters).items() if declared.default_is_implied
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_all_that_makes_a_training(name: str) -> None:
    resolved = resolve_hyper_parameters([("recipe", recipe(name).values)])
    assert {key for key, origin in resolved.origins.items() if origin == "recipe"} == {
        *vars(HyperParameters())
    } - ELSEWHERE


def test_alue_is_the_default() -> None:
    assert HyperParameters(**recipe("alue").values) == HyperParameters()  # type: ignore[arg-type]


def test_mosbach_is_what_its_authors_published() -> None:
    assert HyperParameters(**recipe("mosbach").values) == HyperParameters(  # type: ignore[arg-type]
        epochs=20, batch_size=16, lr=2e-5, warmup=0.1, weight_decay=0.01, adam_eps=1e-6, clip=1.0
    )


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="unknown recipe 'mosbch'; known are alue, devlin, mosbach, sun"):
        recipe("mosbch")


def test_options_win_over_the_study_the_study_over_the_recipe_the_recipe_over_task_and_model(
    tmp_path: Path, registry: Any
) -> None:
    study = tmp_path / "study.toml"
    study.write_text('recipe = "mosbach"\nlr = 5e-5\nepochs = 7\n')
    settings, overrides = merge_study({"epochs": 2}, str(study), registry)
    assert settings == {}
    defaults = [("task", {"weight_decay": 0.5, "max_length": 64}), ("model", {"epochs": 9, "warmup": 0.3})]
    resolved = resolve_hyper_parameters([*defaults, *overrides])
    assert resolved.values == HyperParameters(
        epochs=2, lr=5e-5, warmup=0.1, weight_decay=0.01, adam_eps=1e-6, max_length=64
    )
    assert resolved.origins["warmup"] == "recipe mosbach"
    assert resolved.origins["epochs"] == "command line"


def test_on_the_command_line(run: Callable[..., Any]) -> None:
    said = run("-s", "bottom2", "-s", "bitfit", "--recipe", "sun", "--dry-run", "--json")
    assert said.code == 0, said.err
    for planned in json.loads(said.out)["planned"]:
        assert (planned["hyper"]["llrd"], planned["hyper"]["warmup"]) == (0.95, 0.1)
        assert planned["hyper"]["epochs"] == 1  # an option of these tests
    plain = json.loads(run("-s", "bottom2", "--dry-run", "--json").out)["planned"][0]
    assert plain["fingerprint"] != json.loads(said.out)["planned"][0]["fingerprint"]
    assert "known are alue" in run("--recipe", "none", "--dry-run").err


class TestLayerWiseRates:
    @pytest.fixture
    def stack(self, tiny_bert: Path) -> EncoderStack:
        checkpoint = Checkpoint(tiny_bert, "", pickled=False)
        return view_as_stack(load_model(checkpoint, Labels.binary("no", "yes"), init_seed=0))

    def rates(self, stack: EncoderStack, plan: FreezePlan, llrd: float) -> dict[str, float]:
        """By how much Adam's first step changes each parameter: its rate, whatever the gradient is."""
        apply_plan(stack, plan)
        before = {name: p.detach().clone() for name, p in stack.model.named_parameters()}
        hyper = HyperParameters(llrd=llrd, lr=1e-2, adam_eps=1e-12)
        optimiser = build_optimiser(stack, hyper)
        for parameter in stack.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn_like(parameter) + 3
        LearningRates(optimiser, on_device=False).set(1e-2)
        optimiser.step()
        return {name: float((p.detach() - before[name]).abs().max()) for name, p in stack.model.named_parameters()}

    def test_each_layer_has_a_part_of_the_rate_of_the_one_above(self, stack: EncoderStack) -> None:
        rates = self.rates(stack, FreezePlan(stack.shape), 0.5)
        for name, rate in rates.items():
            layer = name.split(".")[3] if ".layer." in name else None
            below_top = 4 if "embeddings" in name else 0 if layer is None else 3 - int(layer)
            assert rate == pytest.approx(1e-2 * 0.5**below_top, rel=1e-3), name

    def test_frozen_layers_count_as_steps_of_the_stairs(self, stack: EncoderStack) -> None:
        rates = self.rates(stack, FreezePlan(stack.shape, frozenset({2, 3})), 0.5)
        assert rates["bert.encoder.layer.1.output.dense.weight"] == pytest.approx(1e-2 / 4, rel=1e-3)
        assert rates["bert.encoder.layer.3.output.dense.weight"] == 0

    def test_without_it_there_are_the_two_groups_of_before(self, stack: EncoderStack) -> None:
        groups = build_optimiser(stack, HyperParameters(weight_decay=0.1)).param_groups
        assert [(group["rate"], group["weight_decay"]) for group in groups] == [(1.0, 0.1), (1.0, 0.0)]

    @pytest.mark.parametrize("llrd", [0.0, 1.1, float("nan")])
    def test_out_of_range(self, llrd: float) -> None:
        with pytest.raises(ValueError, match="llrd is"):
            HyperParameters(llrd=llrd)
