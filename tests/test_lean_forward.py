"""The lean way through the BERT family gives the numbers of the library's modules, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from alue_bench import FreezePlan, Labels, Model
from alue_bench.contract.strategy import EncoderShape
from alue_bench.data.batches import Batch
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.bert.dropout import CHUNK, LEVELS, DropoutMasks
from alue_bench.training.bert.forward import LeanForward
from alue_bench.training.bert.layer import FLASH_FROM
from alue_bench.training.forward import LibraryForward, choose_forward
from alue_bench.training.freezing import apply_plan, training_mode
from alue_bench.training.pretrained.loading import load_model, locate_checkpoint

FAMILY = ("bert", "roberta", "xlm-roberta", "electra")
OTHERS = ("distilbert", "deberta-v2", "modernbert")
LABELS = Labels.binary("no", "yes")
FOUR = EncoderShape(4)
PLANS = {
    "full": FreezePlan(FOUR),
    "bottom2": FreezePlan(FOUR, frozenset({0, 1}), embeddings=True),
    "top1": FreezePlan(FOUR, frozenset({3}), pooler=True),
    "bottom1top2": FreezePlan(FOUR, frozenset({0, 2, 3}), embeddings=True, pooler=True),
    "bottom1-trainemb": FreezePlan(FOUR, frozenset({0})),
    "head-only": FreezePlan(FOUR, frozenset(range(4)), embeddings=True, pooler=True),
    "attention": FreezePlan(FOUR, embeddings=True, trained="attention"),
    "feed-forward": FreezePlan(FOUR, frozenset({0}), embeddings=True, trained="feed-forward"),
    "norms": FreezePlan(FOUR, trained="norms"),
    # Of single matrices, and of a last layer whose keys alone train.
    "names": FreezePlan(
        FOUR, frozenset({2}), embeddings=True, trained="names",
        names=("*.0.attention.self.value.weight", "*.1.attention.self.[qk]*.weight", "*.3.attention.self.key.bias"),
    ),
}  # fmt: skip


def load(folder: Path) -> EncoderStack:
    return view_as_stack(
        load_model(locate_checkpoint(Model(name="t", title="t", checkpoint=folder)), LABELS, init_seed=0)
    )


def batch_of(architecture: str, lengths: tuple[int, ...] = (9, 5, 7, 9)) -> Batch:
    generator = torch.Generator().manual_seed(1)
    longest, pad = max(lengths), 1 if "roberta" in architecture else 0
    mask = (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.where(mask == 1, torch.randint(5, 60, mask.shape, generator=generator), pad)
    types = (torch.arange(longest)[None] > 3).long() * mask if architecture in ("bert", "electra") else None
    targets = torch.arange(len(lengths)) % 2
    return Batch(ids, mask, types, targets, torch.arange(len(lengths)), sum(lengths))


def without_dropout(stack: EncoderStack) -> EncoderStack:
    for module in stack.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return stack


def gradients(stack: EncoderStack) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in stack.model.named_parameters() if p.grad is not None}


@pytest.fixture(params=FAMILY)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestEqualsTheLibrary:
    @pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
    @pytest.mark.parametrize("lengths", [(9, 5, 7, 9), (9, 9, 9), (6,)], ids=["padded", "even", "alone"])
    def test_in_logits_and_in_every_gradient(
        self, architecture: str, plan: FreezePlan, lengths: tuple[int, ...], tiny: Callable[[str], Path]
    ) -> None:
        batch, outcomes = batch_of(architecture, lengths), []
        for way in (LibraryForward, lambda stack: choose_forward(stack, torch.float32)):
            stack = without_dropout(load(tiny(architecture)))
            apply_plan(stack, plan)
            forward = way(stack)
            training_mode(stack, plan)
            logits = forward.logits(batch)
            functional.cross_entropy(logits, batch.targets).backward()
            outcomes.append((forward.name, logits.detach(), gradients(stack)))
        (_, logits, expected), (name, lean_logits, lean) = outcomes
        assert name == "lean"
        torch.testing.assert_close(lean_logits, logits, atol=1e-6, rtol=1e-5)
        assert lean.keys() == expected.keys()
        for parameter, gradient in expected.items():
            torch.testing.assert_close(lean[parameter], gradient, atol=1e-6, rtol=1e-3, msg=parameter)

    def test_when_predicting_short_texts_and_long_ones(self, architecture: str, tmp_path: Path) -> None:
        from tiny_models import save_tiny_model

        options = {"max_position_embeddings": FLASH_FROM + 40}
        save_tiny_model(architecture, tmp_path, **options)
        stack = load(tmp_path)
        stack.model.eval()
        forward = choose_forward(stack, torch.float32)
        for lengths in ((3, 8), (FLASH_FROM + 5, 20)):
            batch = batch_of(architecture, lengths)
            with torch.no_grad():
                torch.testing.assert_close(
                    forward.logits(batch), LibraryForward(stack).logits(batch), atol=1e-5, rtol=1e-4
                )

    def test_in_bf16_as_closely_as_autocast_does(self, architecture: str, tiny: Callable[[str], Path]) -> None:
        batch = batch_of(architecture)
        values = {}
        for way in ("fp32", "autocast", "lean"):
            stack = without_dropout(load(tiny(architecture)))
            forward = choose_forward(stack, torch.bfloat16) if way == "lean" else LibraryForward(stack)
            with torch.autocast("cpu", torch.bfloat16, enabled=way != "fp32"):
                logits = forward.logits(batch).float()
            functional.cross_entropy(logits, batch.targets).backward()
            values[way] = torch.cat([g.flatten() for g in (logits.detach(), *gradients(stack).values())])

        def error(way: str) -> float:
            return float((values[way] - values["fp32"]).norm() / values["fp32"].norm())

        assert 0 < error("lean") < 1.5 * error("autocast")

    @pytest.mark.parametrize("depth", [0, 1, 3, 4])
    def test_from_stored_states_as_from_the_texts(
        self, architecture: str, depth: int, tiny: Callable[[str], Path]
    ) -> None:
        stack = load(tiny(architecture))
        stack.model.eval()
        forward, batch = choose_forward(stack, torch.float32), batch_of(architecture)
        with torch.no_grad():
            states = forward.prefix(batch, depth)
            assert states.shape == (4, 1 if depth == 4 else 9, 32)
            assert torch.equal(forward.logits(batch, depth, states), forward.logits(batch))
            if depth == 3:
                assert torch.equal(forward.prefix(batch, 3, forward.prefix(batch, 1), 1), states)


class TestTheLibrarysWaySplit:
    @pytest.mark.parametrize("depth", range(5))
    @pytest.mark.parametrize("architecture", [*FAMILY, *OTHERS])
    def test_from_stored_states_as_from_the_texts(
        self, architecture: str, depth: int, tiny: Callable[[str], Path]
    ) -> None:
        stack = load(tiny(architecture))
        stack.model.eval()
        forward, batch = LibraryForward(stack), batch_of(architecture)
        with torch.no_grad():
            whole, states = forward.logits(batch), forward.prefix(batch, depth)
            assert torch.equal(forward.logits(batch, depth, states), whole)
            assert torch.equal(forward.logits(batch), whole), "the model is as it was"

    def test_a_convolution_beside_the_first_layer_belongs_to_the_prefix(self, tmp_path: Path) -> None:
        from tiny_models import save_tiny_model

        save_tiny_model("deberta-v2", tmp_path, conv_kernel_size=3, conv_act="gelu")
        stack = load(tmp_path)
        stack.model.eval()
        forward, batch = LibraryForward(stack), batch_of("deberta-v2", (9, 9))
        with torch.no_grad():
            for depth in range(5):
                logits = forward.logits(batch, depth, forward.prefix(batch, depth))
                assert torch.equal(logits, forward.logits(batch))


class TestWhichWay:
    def test_other_architectures_take_the_librarys(self, tiny: Callable[[str], Path]) -> None:
        for architecture in OTHERS:
            assert choose_forward(load(tiny(architecture)), torch.float32).name == "library"

    def test_a_module_that_was_exchanged_is_not_passed_over(self, tiny: Callable[[str], Path]) -> None:
        class Adapted(torch.nn.Linear):
            """The module that an adapter inserts instead of a linear module."""

        stack = load(tiny("bert"))
        layer: Any = stack.layers[2]
        layer.attention.self.value = Adapted(32, 32)
        assert not LeanForward.fits(stack)

    def test_nor_one_that_behaves_otherwise_or_is_looked_at(self, tiny: Callable[[str], Path]) -> None:
        hooked, other = load(tiny("bert")), load(tiny("bert"))
        hooked.layers[1].register_forward_hook(lambda module, args, output: output)
        assert not LeanForward.fits(hooked)
        layer: Any = other.layers[1]
        layer.attention.self.__class__ = type("Otherwise", (type(layer.attention.self),), {})
        assert not LeanForward.fits(other)

    @pytest.mark.parametrize("activation", ["gelu_new", "gelu_10", "relu"])
    def test_another_activation_takes_the_librarys(self, activation: str, tmp_path: Path) -> None:
        from tiny_models import save_tiny_model

        save_tiny_model("bert", tmp_path, hidden_act=activation)
        assert not LeanForward.fits(load(tmp_path))


class TestParameters:
    def test_names_values_and_shapes_stay_and_an_optimiser_reaches_them(self, tiny: Callable[[str], Path]) -> None:
        stack, twin = load(tiny("bert")), load(tiny("bert"))
        forward, batch = choose_forward(stack, torch.float32), batch_of("bert")
        for (name, one), (other_name, other) in zip(
            stack.model.named_parameters(), twin.model.named_parameters(), strict=True
        ):
            assert name == other_name
            assert torch.equal(one, other)
        stack.model.eval()
        before = forward.logits(batch).detach()
        query: Any = stack.layers[0].attention.self.query  # type: ignore[union-attr]
        torch.optim.SGD([query.weight], lr=0.0)
        with torch.no_grad():
            query.weight.mul_(1.5)
        assert not torch.equal(forward.logits(batch), before)
        assert torch.allclose(forward.logits(batch), LibraryForward(stack).logits(batch), atol=1e-6)

    def test_a_frozen_layer_keeps_nothing_that_only_gradients_of_weights_read(
        self, tiny: Callable[[str], Path]
    ) -> None:
        def kept(plan: FreezePlan) -> int:
            stack = load(tiny("bert"))
            apply_plan(stack, plan)
            forward = choose_forward(stack, torch.float32)
            training_mode(stack, plan)
            sizes = []

            def pack(tensor: torch.Tensor) -> torch.Tensor:
                sizes.append(tensor.numel())
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                forward.logits(batch_of("bert"))
            return sum(sizes)

        bottom1 = FreezePlan(FOUR, frozenset({0}), embeddings=True)
        assert kept(PLANS["bottom1top2"]) < 0.8 * kept(bottom1)
        assert kept(PLANS["bottom2"]) < 0.8 * kept(bottom1) < kept(PLANS["full"])


class TestDropout:
    @given(p=st.floats(0.01, 0.9), seed=st.integers(0, 100))
    def test_masks_drop_the_share_asked_for_and_keep_the_mean(self, p: float, seed: int) -> None:
        mask = DropoutMasks(seed).draw((200, 500), p)
        kept = mask[mask > 0]
        assert 1 - len(kept) / mask.numel() == pytest.approx(p, abs=0.01)
        assert float(kept[0]) == pytest.approx(1 / (1 - round(p * LEVELS) / LEVELS))
        assert len(kept.unique()) == 1

    def test_values_are_independent_of_their_neighbours_in_all_lanes(self) -> None:
        mask = DropoutMasks(3).draw((400_000,), 0.5) > 0
        for shift in (1, 2, 3, 4, 8):
            assert float((mask[shift:] == mask[:-shift]).float().mean()) == pytest.approx(0.5, abs=0.01)

    def test_the_sequence_depends_on_the_seed_and_the_calls_alone(self) -> None:
        one, other, third = DropoutMasks(1), DropoutMasks(1), DropoutMasks(2)
        shapes = [(3, 5), (1 << 20, 2), (7,)]
        torch.manual_seed(5)
        drawn = [one.draw(shape, 0.3) for shape in shapes]
        torch.manual_seed(6)
        assert all(torch.equal(a, other.draw(shape, 0.3)) for a, shape in zip(drawn, shapes, strict=True))
        assert not torch.equal(drawn[1], third.draw((1 << 20, 2), 0.3))

    def test_the_sequence_goes_on_from_where_it_was(self) -> None:
        masks, resumed = DropoutMasks(1), DropoutMasks(2)
        masks.draw((CHUNK // 2 + 3,), 0.3)
        resumed.set_state({name: value.clone() for name, value in masks.state().items()})
        for shape, p in (((CHUNK // 4,), 0.3), ((5,), 0.1), ((CHUNK, 2), 0.3)):
            assert torch.equal(masks.draw(shape, p), resumed.draw(shape, p))

    def test_is_on_in_trained_layers_and_off_in_frozen_ones(self, tiny: Callable[[str], Path]) -> None:
        stack = load(tiny("bert"))
        plan = PLANS["bottom2"]
        apply_plan(stack, plan)
        training_mode(stack, plan)
        forward, batch = choose_forward(stack, torch.float32), batch_of("bert")
        assert torch.equal(forward.prefix(batch, 2), forward.prefix(batch, 2))
        assert not torch.equal(forward.prefix(batch, 3), forward.prefix(batch, 3))

    def test_gradients_are_those_of_the_masks_that_were_used(self, tiny: Callable[[str], Path]) -> None:
        """Against finite differences, the masks drawn again from the same seed."""
        stack = load(tiny("bert"))
        stack.model.train()
        forward, batch = LeanForward(stack, torch.float32), batch_of("bert", (5, 5))
        weight: Any = stack.layers[1].output.dense.weight  # type: ignore[union-attr]
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))

        def loss() -> torch.Tensor:
            forward.seed(4)
            return functional.cross_entropy(forward.logits(batch).double(), batch.targets)

        loss().backward()
        slope = float((weight.grad * direction).sum())
        ends = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                weight.add_(step * direction)
            ends.append(float(loss().detach()))
            with torch.no_grad():
                weight.sub_(step * direction)
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(slope, rel=0.05)
