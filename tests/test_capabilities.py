"""Tests of what a model can do, before anything runs: the padding side, number formats, positions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gallery import gallery_config, gallery_model
from tiny_models import save_tokenizer

from alue_bench import DoesNotFit
from alue_bench.contract.registry import load_registry
from alue_bench.data.batches import Padding, batches, collate, evaluation_order
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.planning.build import Plan, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.training.architecture.capabilities import Capabilities, capabilities_of, positions_of


def gallery_capabilities(name: str, *, side: str = "right", precision: Any = "fp32") -> Capabilities:
    config = gallery_config(name)
    pad = getattr(config, "pad_token_id", None)
    tokenizer = SimpleNamespace(pad_token_id=pad or 0, padding_side=side, pad_token_type_id=0)
    return capabilities_of(config, tokenizer, precision, "cpu")


def planned(model: Path, **options: Any) -> Plan:
    request = PlanRequest(
        tasks=("anger",), models=(str(model),), strategies=("full",), sample=True, limit_train=16, device="cpu",
        overrides=(("test", {"epochs": 1, "lr": 1e-3}),), **{"precision": "fp32", "limit_eval": 12, **options},
    )  # fmt: skip
    return build_plan(request, load_registry())


def saved(name: str, folder: Path, *, side: str = "right") -> Path:
    """A checkpoint of the gallery, with the letter tokenizer."""
    from transformers import AutoTokenizer

    gallery_model(name).save_pretrained(folder)
    kind = "roberta" if getattr(gallery_config(name), "pad_token_id", None) == 1 else "distilbert"
    save_tokenizer(folder, kind)
    AutoTokenizer.from_pretrained(folder, padding_side=side).save_pretrained(folder)
    return folder


class TestPadding:
    @pytest.mark.parametrize(
        ("name", "side", "padded"),
        [
            ("bert", "right", "right"),
            ("bert", "left", "right"),  # positions are counted from the left end of the batch
            ("gpt2", "left", "right"),
            ("roberta", "left", "right"),  # the head reads the first place
            ("llama", "left", "left"),  # rotary positions and the last token: either side will do
            ("llama", "right", "right"),
            ("xlnet", "right", "left"),  # the head reads the last place
            ("xlnet", "left", "left"),
        ],
    )
    def test_the_tokenizers_side_is_taken_where_it_changes_nothing(self, name: str, side: str, padded: str) -> None:
        capabilities = gallery_capabilities(name, side=side)
        assert capabilities.independent
        assert capabilities.padding.side == padded
        assert [note for note in capabilities.notes if f"padded on the {padded}, although" in note] == list(
            capabilities.notes
        )
        assert bool(capabilities.notes) == (side != padded)

    @pytest.mark.parametrize("name", ["fnet", "convbert", "yoso", "canine"])
    def test_an_architecture_that_cannot_promise_it_says_so(self, name: str) -> None:
        capabilities = gallery_capabilities(name)
        assert not capabilities.independent
        (note,) = capabilities.notes
        assert "depend on the length of the other texts in its batch" in note

    def test_left_padding_keeps_tokens_in_their_order(self) -> None:
        split = TokenizedSplit(torch.arange(10, 18), None, torch.tensor([0, 5, 8]), torch.zeros(2), ["a", "b"], 0)
        batch = collate(split, np.array([0, 1]), Padding(3, "left"))
        assert batch.input_ids.tolist() == [[10, 11, 12, 13, 14], [3, 3, 15, 16, 17]]
        assert batch.attention_mask.tolist() == [[1] * 5, [0, 0, 1, 1, 1]]
        part = batch.rows(slice(1, 2))
        assert part.input_ids.tolist() == [[15, 16, 17]]

    @pytest.mark.parametrize("name", ["xlnet", "gpt2"])
    def test_predictions_are_the_same_whatever_is_tested_beside_them(self, name: str, tmp_path: Path) -> None:
        """Predictions are made as in a run: with few and with many test rows, with stored states and without."""
        folder = saved(name, tmp_path / name)
        scores: dict[str, list[float]] = {}
        for limit in (4, 12):
            (run,) = planned(folder, limit_eval=limit).runs
            result, trained = execute(run.spec, run.inputs)
            table = result.predictions
            for place, number in enumerate(table.ids):
                scores.setdefault(number, []).append(float(np.asarray(table.scores)[place].ravel()[0]))
        both = [values for values in scores.values() if len(values) == 2]
        assert len(both) == 4
        # The same model was trained twice, with another dev split: its weights do not depend on that.
        assert all(one == pytest.approx(other, rel=1e-4) for one, other in both)
        assert len({round(one, 6) for one, _ in both}) > 1, "the predictions must differ between texts"
        assert not getattr(trained.stack.model.config, "use_cache", False)


class TestPrecision:
    @pytest.mark.parametrize("name", ["deberta", "xmod", "big_bird"])
    def test_what_cannot_compute_in_bf16_computes_in_fp32_and_says_so(self, name: str) -> None:
        capabilities = gallery_capabilities(name, precision="bf16")
        assert capabilities.precision == "fp32"
        assert any("computed in fp32" in note and "cannot compute in bf16" in note for note in capabilities.notes)

    @pytest.mark.parametrize("name", ["bert", "deberta-v2", "gpt2"])
    def test_others_compute_in_what_was_asked_for(self, name: str) -> None:
        assert gallery_capabilities(name, precision="bf16").precision == "bf16"

    def test_the_plan_and_the_run_tell(self, tmp_path: Path) -> None:
        plan = planned(saved("deberta", tmp_path / "deberta"), precision="bf16")
        (run,) = plan.runs
        assert run.spec.precision == "fp32"
        assert any("cannot compute in bf16" in note for note in plan.notes)
        result, _ = execute(run.spec, run.inputs)
        assert any("cannot compute in bf16" in note for note in result.notes)


class TestPositions:
    @pytest.mark.parametrize(
        ("name", "most"),
        [
            ("bert", 66),
            ("roberta", 64),
            ("roberta-pad0", 65),
            ("mpnet", 64),
            ("esm", 64),
            ("esm-rotary", 66),
            ("luke", 64),
            ("opt", 66),
            ("gpt2", 66),
            ("xlnet", None),
        ],
    )
    def test_a_model_takes_what_its_table_of_positions_holds(self, name: str, most: int | None) -> None:
        assert positions_of(gallery_config(name)) == most
        if most is not None:
            model = gallery_model(name)
            ids = torch.full((1, most), 9)
            with torch.no_grad():
                model(input_ids=ids, attention_mask=torch.ones_like(ids))

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_far_fewer_than_the_configuration_says_are_found(self, precision: str) -> None:
        config = gallery_config("canine", max_position_embeddings=128, num_hash_buckets=50)  # a position a bucket
        tokenizer = SimpleNamespace(pad_token_id=0, padding_side="right", pad_token_type_id=0)
        assert capabilities_of(config, tokenizer, precision, "cpu").positions == 50

    def test_longer_texts_are_cut_to_it_in_the_plan(self, tmp_path: Path) -> None:
        (run,) = planned(saved("mpnet", tmp_path / "mpnet")).runs
        assert run.spec.hyper.max_length == 64
        assert run.hyper.origins["max_length"] == "the model's limit of 64 tokens"


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("bart", "an encoder with a decoder"),
            ("t5", "an encoder with a decoder"),
            ("albert", "runs once for each of them, so that all layers share its weights"),
            ("funnel", "no list of its encoder layers"),
            ("nystromformer", "cannot be run on texts of"),
            ("reformer", "cannot be trained on texts alone"),
        ],
    )
    def test_what_cannot_be_split_or_run_is_refused_with_the_reason(self, name: str, told: str) -> None:
        with pytest.raises(DoesNotFit, match=told):
            gallery_capabilities(name)

    def test_the_plan_skips_it_with_that_reason(self, tmp_path: Path) -> None:
        plan = planned(saved("bart", tmp_path / "bart"))
        assert plan.runs == []
        assert ["an encoder with a decoder" in skipped.reason for skipped in plan.skipped] == [True]


def test_batches_of_an_order_are_padded_on_the_side_asked_for() -> None:
    split = TokenizedSplit(torch.arange(5, 13), None, torch.tensor([0, 5, 8]), torch.zeros(2), ["a", "b"], 0)
    (batch,) = batches(split, evaluation_order(split.lengths, 64), Padding(0, "left"))
    assert sorted(batch.attention_mask.sum(1).tolist()) == [3, 5]
    assert batch.attention_mask[:, -1].all()
