"""Decoders (GPT-2, Llama, Qwen2) are fine-tuned to classify texts, although their tokenizers have no padding token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import split
from gallery import save_decoder

from alue_bench.data.batches import Padding, collate
from alue_bench.measure.counted_flops import counting_flops
from alue_bench.planning.build import Plan, PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.fine_tuning import Trained
from alue_bench.running.run import execute
from alue_bench.training.freezing import apply_plan

DECODERS = ("gpt2", "llama", "qwen2")
STRATEGIES = ("full", "bottom1", "head-only")
HYPER = {"epochs": 2, "max_length": 8, "lr": 1e-2, "batch_size": 4}
"""All texts have at least eight tokens, so that batches have no padding and their FLOPs are comparable to the last."""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("decoders")
    return lambda name: folder if (folder := root / name).exists() else save_decoder(name, folder)


@pytest.fixture
def plan_runs(
    decoder: Callable[[str], Path], registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Plan]:
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))

    def build(name: str, *strategies: str, task: str = "anger", **options: Any) -> Plan:
        hyper = {**HYPER, **options.pop("hyper", {})}
        request = PlanRequest(
            tasks=(task,), models=(str(decoder(name)),), strategies=strategies, overrides=(("test", hyper),),
            sample=True, limit_train=12, limit_eval=8, precision="fp32", device="cpu", **options,
        )  # fmt: skip
        return build_plan(request, registry)

    return build


def weights_before(run: PlannedRun) -> dict[str, torch.Tensor]:
    labels, seed = run.inputs.task.labels, run.spec.init_seed
    model = run.inputs.models.model(run.inputs.checkpoint, labels, init_seed=seed)
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def is_frozen(name: str, strategy: str) -> bool:
    """Return whether a strategy freezes a parameter, by the names that these architectures give to their parts."""
    if strategy == "bottom1":
        return any(part in name for part in (".wte.", ".wpe.", ".embed_tokens.", ".h.0.", ".layers.0."))
    trains = ("score.", ".ln_f.", "model.norm.")
    return strategy == "head-only" and not any(part in name for part in trains)


def logits_of(trained: Trained, places: Sequence[int]) -> torch.Tensor:
    """Return the trained model's logits for some of the texts of `split` in one batch."""
    padding = Padding(trained.tokenizer.pad_token_id)
    trained.stack.model.eval()
    with torch.no_grad():
        return trained.forward.logits(collate(split(), np.asarray(places), padding))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", DECODERS)
class TestFineTuning:
    def test_changes_what_the_strategy_lets_train_and_nothing_else(
        self, name: str, strategy: str, plan_runs: Callable[..., Plan]
    ) -> None:
        plan = plan_runs(name, strategy)
        (run,) = plan.runs
        before = weights_before(run)
        result, trained = execute(run.spec, run.inputs)
        for notes in (plan.notes, result.notes):
            assert any("no padding token; batches are padded with '[SEP]'" in note for note in notes)
        after = dict(trained.stack.model.named_parameters())
        frozen = {key for key in after if is_frozen(key, strategy)}
        assert bool(frozen) == (strategy != "full")
        assert {key for key in after if torch.equal(before[key], after[key])} == frozen

    def test_gives_the_same_losses_from_stored_outputs(
        self, name: str, strategy: str, plan_runs: Callable[..., Plan]
    ) -> None:
        outcomes = []
        for size in ("1GB", "0"):
            (run,) = plan_runs(name, strategy, cache_size=size, hyper={"max_length": 24}).runs
            result, trained = execute(run.spec, run.inputs)
            losses = [point.value for point in result.curves if point.metric == "train/loss"]
            outcomes.append((losses, result.predictions.predicted, trained.prefixes["train"].depth))
        (cached, labels, depth), (computed, again, none) = outcomes
        assert (depth, none) == ({"full": 0, "bottom1": 1, "head-only": 4}[strategy], 0)
        np.testing.assert_allclose(cached, computed, rtol=2e-4)
        assert labels == again

    def test_predicts_the_same_for_a_text_alone_and_among_longer_ones(
        self, name: str, strategy: str, plan_runs: Callable[..., Plan]
    ) -> None:
        (run,) = plan_runs(name, strategy).runs
        _, trained = execute(run.spec, run.inputs)
        assert len(set(split().lengths)) > 1
        together = logits_of(trained, range(5))
        alone = torch.cat([logits_of(trained, [place]) for place in range(5)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

    def test_costs_what_torch_counts(self, name: str, strategy: str, plan_runs: Callable[..., Plan]) -> None:
        (run,) = plan_runs(name, strategy, cache_size="0").runs
        result, trained = execute(run.spec, run.inputs)
        texts = trained.prefixes["train"].split
        assert set(texts.lengths) == {HYPER["max_length"]}
        apply_plan(trained.stack, run.spec.freeze_plan)
        batch = collate(texts, np.arange(len(texts)), Padding(trained.tokenizer.pad_token_id))
        with counting_flops() as counted:
            trained.forward.logits(batch).sum().backward()
        assert result.metrics["flops/train"] == pytest.approx(HYPER["epochs"] * counted.total, rel=1e-9)


@pytest.mark.parametrize("name", DECODERS)
def test_they_do_not_tag_words(name: str, plan_runs: Callable[..., Plan]) -> None:
    plan = plan_runs(name, "full", task="arabicner")
    assert not plan.runs
    (skipped,) = plan.skipped
    assert "reads texts from left to right only (a decoder)" in skipped.reason
    assert "take an encoder" in skipped.reason
