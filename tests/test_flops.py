"""The analytic count of operations against torch's own counter, and against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_config

from alue_bench import FreezePlan, Labels
from alue_bench.contract.registry import load_registry
from alue_bench.contract.strategy import EncoderShape
from alue_bench.data.batches import Batch
from alue_bench.measure.flops import training_flops
from alue_bench.training.architecture.encoder_stack import EncoderStack, LastLayer, view_as_stack
from alue_bench.training.bert.dropout import StepDropout
from alue_bench.training.forward import choose_forward
from alue_bench.training.freezing import apply_plan, count_parameters
from alue_bench.training.pretrained.loading import empty_model

LABELS = Labels.binary("no", "yes")
EXAMPLES, TOKENS = 4, 24


def plan_of(name: str, layers: int) -> FreezePlan:
    return load_registry().strategy(name)[0].freeze_plan(EncoderShape(layers))


@pytest.fixture(scope="module")
def base() -> EncoderStack:
    """BERT-base on the meta device, with the vocabulary of the original."""
    from transformers import BertConfig

    return view_as_stack(empty_model(BertConfig(), LABELS))


PARTS = {
    "norms": FreezePlan(EncoderShape(4), embeddings=True, trained="norms"),
    "norms and those of embeddings": FreezePlan(EncoderShape(4), trained="norms"),
    "attention": FreezePlan(EncoderShape(4), embeddings=True, trained="attention"),
    "attention of two": FreezePlan(EncoderShape(4), frozenset({0, 3}), embeddings=True, trained="attention"),
    "feed-forward": FreezePlan(EncoderShape(4), embeddings=True, trained="feed-forward"),
    "feed-forward of the top": FreezePlan(EncoderShape(4), frozenset({0, 1}), embeddings=True, trained="feed-forward"),
    "biases": FreezePlan(EncoderShape(4), embeddings=True, trained="biases"),
    "values": FreezePlan(EncoderShape(4), embeddings=True, trained="names", names=("*.value.weight",)),
    "queries of one": FreezePlan(EncoderShape(4), embeddings=True, trained="names", names=("*.1.*.query.*",)),
    "all but two": FreezePlan(
        EncoderShape(4),
        embeddings=True,
        frozen_parameters=frozenset(
            f"bert.encoder.layer.{matrix}" for matrix in ("0.attention.self.key.weight", "2.output.dense.weight")
        ),
    ),
}


def counted(plan: FreezePlan, layers: int, architecture: str = "bert") -> int:
    """Return torch's count of one training step on full-length examples, without dropout or fused attention."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForSequenceClassification

    config = tiny_config(architecture, layers=layers, attn_implementation="eager")
    stack = view_as_stack(AutoModelForSequenceClassification.from_config(config).eval())
    apply_plan(stack, plan)
    ids = torch.randint(10, 100, (EXAMPLES, TOKENS))
    with FlopCounterMode(display=False) as counter:
        logits = stack.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        torch.nn.functional.cross_entropy(logits, torch.zeros(EXAMPLES, dtype=torch.long)).backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", ["full", "bottom3", "bottom1top2", "top2", "bottom2-trainemb", "head-only"])
def test_agrees_with_the_counter_of_torch(name: str) -> None:
    plan = plan_of(name, 4)
    stack = view_as_stack(empty_model(tiny_config("bert", layers=4), LABELS))
    assert training_flops(stack, plan, np.full(EXAMPLES, TOKENS), epochs=1) == counted(plan, 4)


@pytest.mark.parametrize("plan", PARTS.values(), ids=PARTS)
def test_parts_of_layers_agree_with_the_counter_of_torch(plan: FreezePlan) -> None:
    stack = view_as_stack(empty_model(tiny_config("bert", layers=4), LABELS))
    assert training_flops(stack, plan, np.full(EXAMPLES, TOKENS), epochs=1) == counted(plan, 4)


@pytest.mark.parametrize("architecture", ["distilbert", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("part", ["norms", "attention", "feed-forward of the top"])
def test_parts_of_layers_of_other_architectures_do_too(part: str, architecture: str) -> None:
    """By formula, without biases or with other names; or by the counter, where the formulas do not hold."""
    stack = view_as_stack(empty_model(tiny_config(architecture, layers=4), LABELS))
    analytic = training_flops(stack, PARTS[part], np.full(EXAMPLES, TOKENS), epochs=1)
    assert analytic == pytest.approx(counted(PARTS[part], 4, architecture), rel=1e-3)


def test_where_biases_train_those_of_embeddings_that_are_not_frozen_do_too() -> None:
    plan = FreezePlan(EncoderShape(4), trained="biases")
    stack = view_as_stack(empty_model(tiny_config("bert"), LABELS))
    assert training_flops(stack, plan, np.full(EXAMPLES, TOKENS), epochs=1) == counted(plan, 4)


def test_a_frozen_pooler_is_crossed_or_lies_on_the_prefix() -> None:
    for frozen in (range(4), range(2)):
        plan = FreezePlan(EncoderShape(4), frozenset(frozen), embeddings=True, pooler=True)
        stack = view_as_stack(empty_model(tiny_config("bert"), LABELS))
        assert training_flops(stack, plan, np.full(EXAMPLES, TOKENS), epochs=1) == counted(plan, 4)


@pytest.mark.parametrize("last_layer", ["reordered", "first"])
@pytest.mark.parametrize("name", ["full", "bottom1top2", "head-only", *PARTS])
def test_the_lean_way_does_what_is_counted_for_it(name: str, last_layer: LastLayer) -> None:
    """With the last layer for the first token alone, by the layers for a CPU and those for an accelerator."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForSequenceClassification

    plan = PARTS[name] if name in PARTS else plan_of(name, 4)
    stack = view_as_stack(AutoModelForSequenceClassification.from_config(tiny_config("bert")))
    apply_plan(stack, plan)
    forward: Any = choose_forward(stack, torch.float32)
    if last_layer == "first":  # the layers for an accelerator are chosen by the source of dropout masks
        forward._masks = StepDropout(0, torch.device("cpu"))
    ids = torch.randint(10, 100, (EXAMPLES, TOKENS))
    whole = torch.ones_like(ids)
    batch = Batch(ids, whole, None, torch.zeros(EXAMPLES).long(), torch.arange(EXAMPLES), ids.numel())
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(forward.logits(batch), batch.targets).backward()
    analytic = training_flops(stack, plan, np.full(EXAMPLES, TOKENS), epochs=1, last_layer=last_layer)
    done = int(counter.get_total_flops())
    if last_layer == "first" and name in ("values", "queries of one"):
        # The backward pass of the fused attention gives the gradients of queries, keys and values, needed or not.
        assert analytic < done < 1.04 * analytic
    else:
        assert analytic == done


def test_a_cached_prefix_is_paid_once() -> None:
    stack = view_as_stack(empty_model(tiny_config("bert"), LABELS))
    lengths = np.array([5, 9, 9])

    def cost(epochs: int, cached: bool, name: str = "bottom3") -> float:
        return training_flops(stack, plan_of(name, 4), lengths, epochs, prefix_cached=cached)

    assert cost(1, cached=True) == cost(1, cached=False)
    each = cost(1, cached=False) - (cost(2, cached=False) - cost(2, cached=True))
    assert cost(10, cached=True) == pytest.approx(cost(1, cached=True) + 9 * each)
    assert cost(10, cached=True, name="full") == cost(10, cached=False, name="full")


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("bottom3-trainemb", 0.082),
        ("bottom3", 0.173),
        ("bottom6-trainemb", 0.164),
        ("bottom6", 0.340),
        ("bottom3top4-trainemb", 0.192),
        ("bottom3top4", 0.283),
        ("top4", 0.110),
        ("top6", 0.164),
        ("head-only", 0.667),
    ],
)
def test_compute_saved_on_bert_base_at_64_tokens_is_what_was_counted(
    base: EncoderStack, name: str, saved: float
) -> None:
    lengths = np.array([64])
    full = training_flops(base, plan_of("full", 12), lengths, epochs=1)
    assert 1 - training_flops(base, plan_of(name, 12), lengths, epochs=1) / full == pytest.approx(saved, abs=0.001)


class TestProportions:
    """In units of one layer forward, F; texts so short that attention's own products vanish."""

    @pytest.fixture(scope="class")
    def units(self) -> Any:
        from transformers import BertConfig

        # Wide feed-forward, so that the projections of attention, an eighth of F here, are no matter of rounding.
        stack = view_as_stack(empty_model(BertConfig(hidden_size=64, num_attention_heads=1), LABELS))
        lengths = np.array([1])
        layer = 2.0 * sum(p.numel() for n, p in stack.layers[0].named_parameters() if p.ndim == 2)
        head = 3.0 * 2 * (64 * 64 + 64 * 2)

        def of(name: str) -> float:
            return (training_flops(stack, plan_of(name, 12), lengths, epochs=1) - head) / layer

        return of

    @pytest.mark.parametrize(
        ("name", "layers"),
        [
            ("full", 36),
            ("top4", 12 + 24 - 4),
            ("bottom3-trainemb", 33),
            ("bottom3top4-trainemb", 29),
            ("head-only-trainemb", 24),
            ("head-only", 12),
        ],
    )
    def test_a_trained_layer_costs_three_a_crossed_one_two_a_prefix_one_one(
        self, units: Any, name: str, layers: int
    ) -> None:
        assert units(name) == pytest.approx(layers, rel=0.005)

    @pytest.mark.parametrize(("name", "layers"), [("bottom3", 30), ("bottom3top4", 26), ("bottom6", 24)])
    def test_above_a_prefix_the_lowest_trained_layer_spares_a_part_of_one(
        self, units: Any, name: str, layers: int
    ) -> None:
        assert layers - 0.25 < units(name) < layers


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("full", 109.5),
        ("bottom3-trainemb", 88.2),
        ("bottom3", 64.4),
        ("bottom6-trainemb", 67.0),
        ("bottom6", 43.1),
        ("top4", 81.1),
        ("bottom3top4-trainemb", 59.9),
        ("bottom3top4", 36.0),
        ("head-only-trainemb", 24.4),
        ("head-only", 0.6),
    ],
)
def test_trainable_parameters_of_bert_base(base: EncoderStack, name: str, millions: float) -> None:
    counts = count_parameters(base, plan_of(name, 12))
    assert counts.trainable / 1e6 == pytest.approx(millions, abs=0.05)
    # 30,522 pieces, 512 positions, 2 types, a norm; 12 layers; pooler; head.
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert counts.total == (30_522 + 512 + 2 + 2) * 768 + 12 * layer + 768 * 768 + 768 + 2 * 768 + 2


class TestLengths:
    @pytest.fixture(scope="class")
    def stack(self) -> EncoderStack:
        return view_as_stack(empty_model(tiny_config("bert"), LABELS))

    def test_epochs_multiply(self, stack: EncoderStack) -> None:
        lengths, plan = np.array([5, 9]), plan_of("bottom2", 4)
        assert training_flops(stack, plan, lengths, 3) == 3 * training_flops(stack, plan, lengths, 1)

    def test_examples_add_up(self, stack: EncoderStack) -> None:
        plan = plan_of("bottom1top2", 4)
        apart = sum(training_flops(stack, plan, np.array([length]), 1) for length in (5, 9, 9))
        assert training_flops(stack, plan, np.array([5, 9, 9]), 1) == pytest.approx(apart)

    def test_twice_the_tokens_cost_more_than_twice(self, stack: EncoderStack) -> None:
        plan = plan_of("full", 4)
        assert training_flops(stack, plan, np.array([40]), 1) > 2 * training_flops(stack, plan, np.array([20]), 1)

    def test_local_attention_costs_what_is_computed(self) -> None:
        """All pairs of tokens, most of them masked."""
        wide, narrow = (
            view_as_stack(empty_model(tiny_config("modernbert", local_attention=width), LABELS)) for width in (64, 8)
        )
        plan, lengths = plan_of("full", 4), np.array([60])
        assert training_flops(narrow, plan, lengths, 1) == training_flops(wide, plan, lengths, 1)


class TestList:
    """`alue-bench list strategies --model`: the same numbers, without loading weights."""

    def test_numbers(self, alue_bench: Any, tiny_bert: Path) -> None:
        import json

        said = alue_bench(
            "list", "strategies", "-m", tiny_bert, "-s", "full", "-s", "bottom2", "-s", "bottom9", "--json"
        )
        full, bottom, unfit = json.loads(said.out)
        assert (full["flops_saved"], full["frozen"]) == (0, "nothing")
        assert full["trainable"] == full["total"]
        assert 0.2 < bottom["flops_saved"] < 0.5
        assert bottom["trainable"] < bottom["total"]
        assert "bottom9 freezes 9 layers, but the model has only 4" in unfit["reason"]

    def test_without_a_model_names_choose_families_and_wrong_ones_are_refused(self, alue_bench: Any) -> None:
        import json

        said = alue_bench("list", "strategies", "-s", "bottom3top4", "-s", "bottom2top1", "-s", "full", "--json")
        grammars = [family["grammar"] for family in json.loads(said.out)]
        assert any("bottom" in grammar for grammar in grammars)
        assert 1 <= len(grammars) <= 2
        for arguments, told in (
            (("-s", "nosuch"), "unknown strategy 'nosuch'"),
            (("--tokens", "9"), "--tokens needs --model"),
        ):
            said = alue_bench("list", "strategies", *arguments)
            assert (said.code, said.out) == (2, "")
            assert told in said.err

    def test_weights_are_not_read(self, alue_bench: Any, tiny_bert: Path, tmp_path: Path) -> None:
        import shutil

        folder = tmp_path / "hollow"
        shutil.copytree(tiny_bert, folder)
        weights = folder / "model.safetensors"
        content = weights.read_bytes()
        header = 8 + int.from_bytes(content[:8], "little")  # which says what there is
        weights.write_bytes(content[:header] + b"\xff" * (len(content) - header))
        assert alue_bench("list", "strategies", "-m", folder).code == 0
