"""Parts of a model are told by use: what is called frozen is frozen, whatever stands where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gallery import gallery_config, gallery_model
from tiny_models import save_tiny_model

from alue_bench import FreezePlan
from alue_bench.contract.errors import TrainingError
from alue_bench.contract.registry import load_registry
from alue_bench.contract.strategy import EncoderShape
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.training.architecture.anatomy import anatomy_of, small_copy
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.freezing import apply_plan, check_frozen, count_parameters, frozen_weights
from alue_bench.training.pretrained.loading import empty_model

FOUR = EncoderShape(4)
HEAD_ONLY = FreezePlan(FOUR, frozenset(range(4)), embeddings=True)


def parts(name: str) -> dict[str, str]:
    """The part of each parameter, by name."""
    stack = view_as_stack(gallery_model(name))
    part_of: dict[int, str] = {id(p): "head" for p in stack.model.parameters()}
    part_of |= {id(p): "embeddings" for module in stack.embeddings for p in module.parameters()}
    part_of |= {id(p): f"layer {n}" for n, layer in enumerate(stack.layers) for p in layer.parameters()}
    part_of |= {id(p): "pooler" for p in (stack.pooler.parameters() if stack.pooler is not None else ())}
    part_of |= {id(p): "idle" for p in stack.idle}
    return {key: part_of[id(p)] for key, p in stack.model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "parameter", "part"),
    [
        ("nomic_bert", "nomic_bert.pooler.dense.weight", "pooler"),  # registered before the layers
        ("gte", "gte.pooler.dense.weight", "pooler"),
        ("rembert", "rembert.encoder.embedding_hidden_mapping_in.weight", "embeddings"),  # behind them
        ("electra", "electra.embeddings_project.weight", "embeddings"),
        ("opt", "model.decoder.project_in.weight", "embeddings"),
        ("opt", "model.decoder.project_out.weight", "head"),
        ("deberta-v2", "deberta.encoder.rel_embeddings.weight", "embeddings"),  # read by every layer
        ("deberta-v3", "deberta.encoder.LayerNorm.weight", "embeddings"),
        ("deberta-v3", "deberta.encoder.conv.conv.weight", "layer 0"),  # beside it
        ("mpnet", "mpnet.encoder.relative_attention_bias.weight", "embeddings"),
        ("xlm", "transformer.ffns.2.lin1.weight", "layer 2"),  # layers kept in several lists
        ("xlm", "transformer.layer_norm2.0.weight", "layer 0"),
        ("squeezebert", "transformer.encoder.layers.3.output.conv1d.weight", "layer 3"),  # `forward` called directly
        ("gpt2", "transformer.wpe.weight", "embeddings"),
        ("gpt2", "transformer.ln_f.weight", "head"),
        ("modernbert", "model.final_norm.weight", "head"),
        ("canine", "canine.initial_char_encoder.layer.0.output.dense.weight", "embeddings"),
        ("canine", "canine.final_char_encoder.layer.0.output.dense.weight", "idle"),  # not on the way to the logits
        ("esm", "esm.contact_head.regression.weight", "idle"),
        ("xlnet", "transformer.mask_emb", "idle"),
        ("luke", "luke.entity_embeddings.LayerNorm.weight", "idle"),
        ("roformer", "roformer.encoder.embed_positions.weight", "idle"),  # sines, kept fixed
    ],
)
def test_a_parameter_belongs_to_the_part_that_reads_it(name: str, parameter: str, part: str) -> None:
    assert parts(name)[parameter] == part


@pytest.mark.parametrize("name", ["nomic_bert", "canine", "xlm", "opt", "esm"])
def test_idle_parameters_count_as_weights_and_not_as_trained(name: str) -> None:
    stack = view_as_stack(empty_model(gallery_config(name)))
    idle = sum(p.numel() for p in stack.idle)
    counts = count_parameters(stack, FreezePlan(FOUR))
    assert counts.total - counts.trainable == idle


def test_a_large_models_parts_are_found_on_a_small_copy() -> None:
    config = gallery_config("bert", hidden_size=768, num_hidden_layers=12, num_attention_heads=12, vocab_size=30_000,
                            intermediate_size=3072, max_position_embeddings=512)  # fmt: skip
    model = empty_model(config)
    copy = small_copy(type(model), config)
    assert len(copy.bert.encoder.layer) == 4
    assert copy.config.vocab_size == 512
    assert anatomy_of(model).lists == ("bert.encoder.layer",)
    assert len(view_as_stack(model).layers) == 12


def test_torchs_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    anatomy_of(empty_model(gallery_config("bert", intermediate_size=48)))
    assert torch.equal(torch.rand(3), wanted)


class TestFrozenWeights:
    """Compared with what they were, after every training."""

    @pytest.fixture
    def stack(self) -> EncoderStack:
        stack = view_as_stack(gallery_model("bert"))
        apply_plan(stack, HEAD_ONLY)
        return stack

    def test_one_bit_of_one_of_them_is_noticed(self, stack: EncoderStack) -> None:
        before = frozen_weights(stack, HEAD_ONLY)
        check_frozen(stack, before, [HEAD_ONLY])
        weight: Any = stack.layers[2].get_parameter("output.dense.weight")
        with torch.no_grad():
            weight.view(torch.int32)[3, 4] ^= 1
        with pytest.raises(TrainingError, match=r"1 parameters changed.*layer\.2\.output\.dense\.weight"):
            check_frozen(stack, before, [HEAD_ONLY])

    def test_what_trained_for_a_time_may_have_changed(self, stack: EncoderStack) -> None:
        before = frozen_weights(stack, HEAD_ONLY)
        with torch.no_grad():
            stack.layers[3].get_parameter("output.dense.weight").add_(1)
        later = FreezePlan(FOUR, frozenset(range(3)), embeddings=True)
        check_frozen(stack, before, [HEAD_ONLY, later])

    def test_such_a_run_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import alue_bench.running.fine_tuning as module

        whole = module.fine_tune

        def careless(session: Any, **options: Any) -> Any:
            done = whole(session, **options)
            with torch.no_grad():
                next(session.stack.layers[0].parameters()).add_(1e-3)
            return done

        monkeypatch.setattr(module, "fine_tune", careless)
        save_tiny_model("bert", tmp_path / "tiny")
        request = PlanRequest(
            tasks=("anger",), models=(str(tmp_path / "tiny"),), strategies=("bottom2",), sample=True, limit_train=8,
            limit_eval=8, overrides=(("test", {"epochs": 1}),), device="cpu", precision="fp32",
        )  # fmt: skip
        (run,) = build_plan(request, load_registry()).runs
        with pytest.raises(TrainingError, match="changed although the strategy freezes them"):
            execute(run.spec, run.inputs)
