"""Every supported architecture is seen as embeddings, layers and head, and freezes exactly what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import ARCHITECTURES, save_tiny_model, tiny_config

from alue_bench import DoesNotFit, FreezePlan, Labels, Model, UnavailableError
from alue_bench.contract.registry import load_registry
from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import EncoderShape
from alue_bench.data.batches import Padding, collate
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import load_rows
from alue_bench.data.tokenization import TokenCache
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.precision import Device
from alue_bench.training.forward import LibraryForward, choose_forward
from alue_bench.training.freezing import apply_plan, count_parameters, frozen_modules, training_mode
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.prefix.growing import FixedData
from alue_bench.training.pretrained.loading import (
    empty_model,
    encoder_shape,
    load_config,
    load_model,
    load_tokenizer,
    locate_checkpoint,
)
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.session import TrainingSession, fine_tune

LABELS = Labels.binary("no_anger", "anger")
FOUR = EncoderShape(4)
PLANS = {
    name: load_registry().strategy(name)[0].freeze_plan(FOUR)
    for name in ("full", "bottom2", "top1", "bottom1top2", "bottom2-trainemb", "head-only")
}

# What the layers are called in each architecture, to see that they are taken in their own order.
LAYER_NAMES = {
    "bert": "bert.encoder.layer.{}",
    "roberta": "roberta.encoder.layer.{}",
    "electra": "electra.encoder.layer.{}",
    "distilbert": "distilbert.transformer.layer.{}",
    "deberta-v2": "deberta.encoder.layer.{}",
    "xlm-roberta": "roberta.encoder.layer.{}",
    "modernbert": "model.layers.{}",
}
HEADS = {
    "bert": {"classifier"},
    "roberta": {"classifier"},
    "electra": {"classifier"},
    "distilbert": {"pre_classifier", "classifier"},
    "deberta-v2": {"pooler", "classifier"},
    "xlm-roberta": {"classifier"},
    "modernbert": {"model.final_norm", "head", "classifier"},
}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stack(architecture: str, tiny: Callable[[str], Path]) -> EncoderStack:
    return load(tiny(architecture))


def load(folder: Path, init_seed: int = 0) -> EncoderStack:
    checkpoint = locate_checkpoint(Model(name="tiny", title="tiny", checkpoint=folder))
    return view_as_stack(load_model(checkpoint, LABELS, init_seed=init_seed))


def tokens_of(folder: Path, cache: Path, split: str = "train", limit: int = 24) -> tuple[Any, Padding]:
    task = load_registry().task("anger")
    assert task.sample is not None
    rows = load_rows(task, DataFolder(task.sample, "sample"), drop_bad=False, limit_train=limit, limit_eval=limit)
    model = Model(name="tiny", title="tiny", checkpoint=folder)
    checkpoint = locate_checkpoint(model)
    tokenizer = load_tokenizer(checkpoint)
    tokenized = TokenCache(cache).tokenized(
        rows.splits[split],
        labels=LABELS,
        model=model,
        model_digest=checkpoint.digest,
        tokenizer=tokenizer,
        max_length=24,
    )
    return tokenized, Padding(tokenizer.pad_token_id)


def parts(stack: EncoderStack) -> dict[str, list[int]]:
    """The identities of the parameters of each part."""
    held = {f"layer {i}": [id(p) for p in layer.parameters()] for i, layer in enumerate(stack.layers)}
    held["embeddings"] = [id(p) for part in stack.embeddings for p in part.parameters()]
    held["pooler"] = [id(p) for p in stack.pooler.parameters()] if stack.pooler is not None else []
    elsewhere = {identity for part in held.values() for identity in part} | {id(p) for p in stack.idle}
    held["head"] = [id(p) for p in stack.model.parameters() if id(p) not in elsewhere]
    return held


class TestView:
    def test_layers_are_found_in_order(self, architecture: str, stack: EncoderStack) -> None:
        names = {id(module): name for name, module in stack.model.named_modules()}
        assert [names[id(layer)] for layer in stack.layers] == [LAYER_NAMES[architecture].format(n) for n in range(4)]
        assert stack.shape == EncoderShape(4, 32)

    def test_the_parts_hold_every_parameter_once(self, stack: EncoderStack) -> None:
        held = [identity for part in parts(stack).values() for identity in part]
        assert sorted(held) == sorted(id(p) for p in stack.model.parameters())

    def test_the_head_is_what_the_task_adds(self, architecture: str, stack: EncoderStack) -> None:
        head = set(parts(stack)["head"])
        names = {name for name, p in stack.model.named_parameters() if id(p) in head}
        assert {next((h for h in HEADS[architecture] if n.startswith(f"{h}.")), n) for n in names} == HEADS[
            architecture
        ]

    def test_the_configuration_alone_tells_the_number_of_layers(self, tiny: Any, architecture: str) -> None:
        checkpoint = locate_checkpoint(Model(name="t", title="t", checkpoint=tiny(architecture)))
        assert encoder_shape(load_config(checkpoint)) == EncoderShape(4, 32)

    def test_what_a_convolution_adds_to_the_first_layer_is_no_part_of_the_head(self, tmp_path: Path) -> None:
        """DeBERTa-v2 XL: were it trained above frozen layers, the prefix would not be constant."""
        save_tiny_model("deberta-v2", tmp_path / "conv", conv_kernel_size=3, conv_act="gelu")
        stack = load(tmp_path / "conv")
        head = set(parts(stack)["head"])
        assert not [n for n, p in stack.model.named_parameters() if id(p) in head and "conv" in n]

    def test_a_model_whose_layers_share_their_weights_is_refused_with_a_reason(self) -> None:
        from transformers import AlbertConfig

        config = AlbertConfig(
            vocab_size=50, embedding_size=8, hidden_size=8, num_hidden_layers=3, num_attention_heads=1,
            intermediate_size=8,
        )  # fmt: skip
        with pytest.raises(DoesNotFit, match="AlbertForSequenceClassification has no list of its encoder layers"):
            view_as_stack(empty_model(config, LABELS))


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
class TestFreezing:
    def test_exactly_the_planned_parts_do_not_train(self, stack: EncoderStack, plan: FreezePlan) -> None:
        apply_plan(stack, plan)
        trainable = {id(p) for p in stack.model.parameters() if p.requires_grad}
        frozen = {f"layer {n}" for n in plan.frozen_layers} | ({"embeddings"} if plan.embeddings else set())
        for name, members in parts(stack).items():
            assert {identity in trainable for identity in members} <= {name not in frozen}, name
        counts = count_parameters(stack, plan)
        assert counts.trainable == sum(p.numel() for p in stack.model.parameters() if p.requires_grad)
        assert counts.total == sum(p.numel() for p in stack.model.parameters())

    def test_another_plan_leaves_nothing_of_the_one_before(self, stack: EncoderStack, plan: FreezePlan) -> None:
        apply_plan(stack, PLANS["head-only"])
        apply_plan(stack, plan)
        twice = [p.requires_grad for p in stack.model.parameters()]
        stack.model.requires_grad_(True)
        apply_plan(stack, plan)
        assert twice == [p.requires_grad for p in stack.model.parameters()]

    def test_frozen_modules_have_no_dropout_and_the_others_do(self, stack: EncoderStack, plan: FreezePlan) -> None:
        training_mode(stack, plan)
        frozen = {id(m) for module in frozen_modules(stack, plan) for m in module.modules()}
        assert all(m.training == (id(m) not in frozen) for m in stack.model.modules())

    def test_a_fine_tune_changes_exactly_what_trains(
        self, architecture: str, stack: EncoderStack, plan: FreezePlan, tiny: Any, tmp_path: Path
    ) -> None:
        apply_plan(stack, plan)
        before = {name: p.detach().clone() for name, p in stack.model.named_parameters()}
        train, padding = tokens_of(tiny(architecture), tmp_path, limit=8)
        hyper = HyperParameters(epochs=1, lr=1e-2, batch_size=4, select="last")
        session = TrainingSession(
            stack,
            choose_forward(stack, torch.float32),
            FreezeSchedule(stack, plan),
            FixedData(Examples(train), Examples(train)),
            TrainingConfig(LABELS, hyper, data_seed=0, device=Device("cpu", "fp32"), padding=padding),
            score=lambda logits: {"score": 0.0},
        )
        fine_tune(session)
        changed = {name for name, p in stack.model.named_parameters() if not torch.equal(p, before[name])}
        trained = {name for name, p in stack.model.named_parameters() if p.requires_grad}
        # A key's bias has no effect on a softmax; DeBERTa's positions may lie beyond these short texts.
        idle = {name for name in trained - changed if "key" in name or "k_lin" in name or "position" in name}
        assert changed <= trained
        assert trained - changed <= idle


def test_frozen_layers_give_the_same_output_each_time_while_the_rest_has_dropout(tiny: Any, tmp_path: Path) -> None:
    stack = load(tiny("bert"))
    plan = PLANS["bottom2"]
    apply_plan(stack, plan)
    training_mode(stack, plan)
    train, padding = tokens_of(tiny("bert"), tmp_path)
    batch = collate(train, np.arange(8), padding)
    seen: dict[int, list[torch.Tensor]] = {1: [], 3: []}
    for index, outputs in seen.items():
        stack.layers[index].register_forward_hook(
            lambda module, args, output, outputs=outputs: outputs.append(
                output[0] if isinstance(output, tuple) else output
            )
        )
    forward = LibraryForward(stack)
    forward.logits(batch)
    forward.logits(batch)
    assert torch.equal(*seen[1])
    assert not torch.equal(*seen[3])


def test_padding_does_not_change_a_prediction(
    architecture: str, stack: EncoderStack, tiny: Any, tmp_path: Path
) -> None:
    train, padding = tokens_of(tiny(architecture), tmp_path)
    stack.model.eval()
    forward = choose_forward(stack, torch.float32)
    with torch.inference_mode():
        together = forward.logits(collate(train, np.arange(12), padding))
        alone = torch.cat([forward.logits(collate(train, np.array([i]), padding)) for i in range(12)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


class TestLoading:
    def test_the_encoder_is_the_one_on_disk_and_only_the_head_is_new(self, architecture: str, tiny: Any) -> None:
        one, other = load(tiny(architecture), init_seed=1), load(tiny(architecture), init_seed=2)
        fresh = {*parts(one)["head"], *parts(one)["pooler"]}
        pairs = zip(one.model.named_parameters(), other.model.parameters(), strict=True)
        differing = {name for (name, p), q in pairs if not torch.equal(p, q)}
        assert differing
        assert differing <= {name for name, p in one.model.named_parameters() if id(p) in fresh}

    def test_the_same_seed_gives_the_same_head_whatever_was_drawn_before(self, tiny: Any) -> None:
        one = load(tiny("bert"), init_seed=3)
        torch.rand(100)
        other = load(tiny("bert"), init_seed=3)
        assert all(torch.equal(p, q) for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True))

    def test_the_global_random_state_is_left_alone(self, tiny: Any) -> None:
        before = torch.random.get_rng_state()
        load(tiny("bert"))
        assert torch.equal(before, torch.random.get_rng_state())

    def test_an_encoder_without_its_weights_is_never_initialised_at_random(self, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        save_tiny_model("bert", tmp_path / "gaps")
        weights = tmp_path / "gaps" / "model.safetensors"
        kept = {name: tensor for name, tensor in load_file(weights).items() if "layer.2.attention" not in name}
        save_file(kept, weights, metadata={"format": "pt"})
        with pytest.raises(UnavailableError, match=r"no weights for .*layer\.2\.attention"):
            load(tmp_path / "gaps")

    def test_an_encoder_of_another_size_than_its_configuration_says_is_refused(self, tmp_path: Path) -> None:
        save_tiny_model("bert", tmp_path / "narrow")
        tiny_config("bert", intermediate_size=48).save_pretrained(tmp_path / "narrow")
        with pytest.raises(UnavailableError, match="intermediate"):
            load(tmp_path / "narrow")

    def test_a_head_of_another_task_is_replaced(self, tmp_path: Path) -> None:
        import transformers

        save_tiny_model("bert", tmp_path / "tuned")
        tuned = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "tuned", num_labels=5)
        tuned.save_pretrained(tmp_path / "tuned")
        assert load(tmp_path / "tuned").model.classifier.out_features == 2  # of the same size: see test_checkpoints.py

    def test_weights_in_a_pickle_are_read_and_told(self, tmp_path: Path) -> None:
        save_tiny_model("bert", tmp_path / "old")
        safe = load(tmp_path / "old")
        torch.save(load_file(tmp_path / "old" / "model.safetensors"), tmp_path / "old" / "pytorch_model.bin")
        assert not locate_checkpoint(Model(name="o", title="o", checkpoint=tmp_path / "old")).pickled
        (tmp_path / "old" / "model.safetensors").unlink()
        assert locate_checkpoint(Model(name="o", title="o", checkpoint=tmp_path / "old")).pickled
        pickled = load(tmp_path / "old")
        same = zip(safe.model.parameters(), pickled.model.parameters(), strict=True)
        assert all(torch.equal(p, q) for p, q in same)

    def test_the_digest_follows_weights_configuration_and_tokenizer(self, tmp_path: Path) -> None:
        save_tiny_model("bert", tmp_path / "m")
        model = Model(name="m", title="m", checkpoint=tmp_path / "m")
        digests = [locate_checkpoint(model).digest]
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            content = (tmp_path / "m" / name).read_bytes()
            (tmp_path / "m" / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            digests.append(locate_checkpoint(model).digest)
        (tmp_path / "m" / "README.md").write_text("a card")
        assert locate_checkpoint(model).digest == digests[-1]
        assert len(set(digests)) == 4


@pytest.mark.parametrize(
    ("architecture", "task"),
    [(architecture, "anger") for architecture in ARCHITECTURES] + [("bert", "mq2q"), ("roberta", "mq2q")],
)
def test_end_to_end(
    architecture: str, task: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Any
) -> None:
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path))
    request = PlanRequest(
        tasks=(task,),
        models=(str(tiny(architecture)),),
        strategies=("full", "bottom1top2"),
        overrides=(("test", {"epochs": 1, "max_length": 24, "lr": 1e-3, "batch_size": 8}),),
        limit_train=16,
        limit_eval=16,
        sample=True,
        precision="fp32",
    )
    plan = build_plan(request, registry)
    assert not plan.skipped
    results = [execute(planned.spec, planned.inputs)[0] for planned in plan.runs]
    for result in results:
        assert 0 <= result.metrics["test/score"] <= 1
        assert len(result.predictions.ids) == 16
    full, frozen = (result.metrics for result in results)
    assert frozen["params/trainable"] < full["params/trainable"] == full["params/total"]
    assert frozen["flops/train"] < full["flops/train"]
    assert (full["flops/train_vs_full"], frozen["flops/train_vs_full"] < 1) == (1, True)
