"""Names of strategies, what each one freezes, and what a freeze plan says of itself."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alue_bench import DoesNotFit, EncoderShape, FreezePlan, Strategy, UsageError
from alue_bench.contract.registry import load_registry
from alue_bench.contract.strategy import outline

TWELVE = EncoderShape(layers=12)
REGISTRY = load_registry()

numbers = st.integers(0, 24)


def parse(name: str) -> Strategy:
    return REGISTRY.strategy(name)[0]


def plan_of(name: str, layers: int = 12) -> FreezePlan:
    return parse(name).freeze_plan(EncoderShape(layers))


def written(bottom: int, top: int) -> str:
    return (f"bottom{bottom}" if bottom else "") + (f"top{top}" if top else "")


class TestGrammar:
    @given(bottom=numbers, top=numbers, train_embeddings=st.booleans())
    def test_every_name_is_the_name_of_the_strategy_it_gives(
        self, bottom: int, top: int, train_embeddings: bool
    ) -> None:
        assume(bottom or top)
        name = written(bottom, top) + ("-trainemb" if train_embeddings and bottom else "")
        assert parse(name).name == name

    @pytest.mark.parametrize("name", ["full", "head-only", "head-only-trainemb", "bottom1000top1000"])
    def test_other_names_are_their_own_too(self, name: str) -> None:
        assert parse(name).name == name

    def test_none_is_another_word_for_full(self) -> None:
        assert parse("none") == parse("full")
        assert parse("none").name == "full"

    @pytest.mark.parametrize("name", ["bottom3top4", "head-only", "bottom3-trainemb"])
    def test_equal_names_give_equal_strategies(self, name: str) -> None:
        assert parse(name) == parse(name)

    @pytest.mark.parametrize("name", ["botom3top4", "top4bottom3", "bottom", "top", "bottom-3", "bottom3top", "3", ""])
    def test_a_name_of_no_family_is_answered_with_all_grammars(self, name: str) -> None:
        with pytest.raises(UsageError, match=re.escape("bottom<N>top<M>")) as error:
            parse(name)
        assert "head-only" in str(error.value)
        assert repr(name) in str(error.value)

    def test_a_misspelt_name_is_answered_with_the_nearest_one(self) -> None:
        with pytest.raises(UsageError, match=re.escape("did you mean 'bottom3top4'?")):
            parse("botom3top4")

    @pytest.mark.parametrize("name", ["bottom0", "top0", "bottom0top4", "bottom3top0", "bottom0top0"])
    def test_a_zero_is_answered_with_what_to_say_instead(self, name: str) -> None:
        with pytest.raises(UsageError, match="leave that part out, or use full"):
            parse(name)

    @pytest.mark.parametrize(("name", "canonical"), [("bottom03", "bottom3"), ("bottom3top04", "bottom3top4")])
    def test_a_number_has_one_way_to_be_written(self, name: str, canonical: str) -> None:
        with pytest.raises(UsageError, match=f"must be written '{canonical}'"):
            parse(name)

    def test_trainable_embeddings_are_the_rule_without_frozen_bottom_layers(self) -> None:
        with pytest.raises(UsageError, match="the embeddings train anyway; use 'top4'"):
            parse("top4-trainemb")

    @given(st.text(max_size=30))
    def test_any_text_is_a_strategy_or_a_sentence(self, name: str) -> None:
        with contextlib.suppress(UsageError):
            assert parse(name).name in (name, "full")


class TestWhatIsFrozen:
    @given(bottom=numbers, top=numbers, train_embeddings=st.booleans(), layers=st.integers(1, 48))
    def test_exactly_the_layers_named(self, bottom: int, top: int, train_embeddings: bool, layers: int) -> None:
        assume(0 < bottom + top <= layers)
        train_embeddings = train_embeddings and bottom > 0
        plan = plan_of(written(bottom, top) + ("-trainemb" if train_embeddings else ""), layers)
        assert plan.frozen_layers == {layer for layer in range(layers) if layer < bottom or layer >= layers - top}
        assert plan.embeddings == (bottom > 0 and not train_embeddings)
        assert not plan.pooler

    @given(bottom=numbers, top=numbers, layers=st.integers(1, 48))
    def test_more_layers_than_there_are_is_said_with_both_numbers(self, bottom: int, top: int, layers: int) -> None:
        assume(bottom + top > layers)
        name = written(bottom, top)
        with pytest.raises(DoesNotFit, match=rf"^{name} freezes {bottom + top} layers, .* only {layers}(;|$)"):
            plan_of(name, layers)

    @pytest.mark.parametrize(
        ("name", "layers", "proposal"),
        [
            ("bottom3top4", 6, "bottom25%top33%"),
            ("bottom7-trainemb", 6, "bottom58%-trainemb"),
            ("bottom12top8", 12, "bottom50%top33%"),
            ("bottom25", 24, None),
            ("bottom1top1", 1, None),
        ],
    )
    def test_the_answer_to_too_many_layers_names_a_strategy_that_fits(
        self, name: str, layers: int, proposal: str | None
    ) -> None:
        with pytest.raises(DoesNotFit) as error:
            plan_of(name, layers)
        assert (f"{layers}; {proposal} freezes the same share of any model as {name} of" in str(error.value)) == (
            proposal is not None
        )
        if proposal:
            plan_of(proposal, layers)

    def test_full_freezes_nothing(self) -> None:
        assert plan_of("full") == FreezePlan(TWELVE)

    def test_head_only_freezes_the_encoder_but_not_the_pooler(self) -> None:
        assert plan_of("head-only") == FreezePlan(TWELVE, frozenset(range(12)), embeddings=True)
        assert plan_of("head-only-trainemb") == FreezePlan(TWELVE, frozenset(range(12)))

    def test_freezing_every_layer_from_below_is_head_only_by_another_name(self) -> None:
        assert plan_of("bottom12") == plan_of("head-only")


class TestFreezePlan:
    @pytest.mark.parametrize(
        ("name", "bottom", "top", "prefix"),
        [
            ("full", 0, 0, None),
            ("bottom3", 3, 0, 3),
            ("top4", 0, 4, None),
            ("bottom3top4", 3, 4, 3),
            ("bottom3top4-trainemb", 3, 4, None),
            ("bottom5top7", 12, 0, 12),
            ("head-only", 12, 0, 12),
            ("head-only-trainemb", 12, 0, None),
        ],
    )
    def test_counts(self, name: str, bottom: int, top: int, prefix: int | None) -> None:
        plan = plan_of(name)
        assert (plan.bottom, plan.top, plan.prefix_layers) == (bottom, top, prefix)

    def test_frozen_layers_in_the_middle_count_as_neither(self) -> None:
        plan = FreezePlan(TWELVE, frozenset({0, 5, 6, 11}), embeddings=True)
        assert (plan.bottom, plan.top, plan.prefix_layers) == (1, 1, 1)

    def test_frozen_embeddings_alone_are_a_prefix_of_no_layers(self) -> None:
        assert FreezePlan(TWELVE, embeddings=True).prefix_layers == 0

    @given(st.sets(st.integers(0, 11)), st.booleans())
    def test_bottom_and_top_never_count_a_layer_twice_or_one_that_trains(self, frozen: set[int], emb: bool) -> None:
        plan = FreezePlan(TWELVE, frozenset(frozen), embeddings=emb)
        assert {*range(plan.bottom), *range(12 - plan.top, 12)} <= frozen
        assert plan.bottom + plan.top <= len(frozen)

    @pytest.mark.parametrize("outside", [-1, 12])
    def test_a_layer_that_is_not_there_does_not_fit(self, outside: int) -> None:
        with pytest.raises(DoesNotFit, match=f"freezes layer {outside}, but the model has layers 0 to 11"):
            FreezePlan(TWELVE, frozenset({outside}))

    @pytest.mark.parametrize(
        ("plan", "description"),
        [
            (FreezePlan(TWELVE), "nothing"),
            (FreezePlan(TWELVE, frozenset({0})), "layer 0"),
            (FreezePlan(TWELVE, frozenset({0, 1, 2, 8, 9, 10, 11}), embeddings=True), "embeddings, layers 0-2, 8-11"),
            (FreezePlan(TWELVE, frozenset({1, 5}), pooler=True), "layers 1, 5, pooler"),
        ],
    )
    def test_description(self, plan: FreezePlan, description: str) -> None:
        assert plan.describe() == description

    def test_it_is_a_value(self) -> None:
        assert len({FreezePlan(TWELVE, frozenset({1})), FreezePlan(TWELVE, frozenset({1}))}) == 1


def test_every_family_parses_its_examples_to_their_own_names() -> None:
    families: list[Any] = [declared.value for declared in REGISTRY.families]
    for family in families:
        assert [family.parse(example).name for example in family.examples] == list(family.examples)


class TestShares:
    @pytest.mark.parametrize(
        ("name", "layers", "bottom", "top"),
        [
            ("bottom25%top33%", 12, 3, 4),
            ("bottom25%top33%", 24, 6, 8),
            ("bottom25%top33%", 6, 2, 2),
            ("bottom50%", 5, 3, 0),
            ("top33%", 12, 0, 4),
            ("bottom50%top50%", 5, 3, 2),
            ("bottom100%", 4, 4, 0),
        ],
    )
    def test_each_is_rounded_to_the_nearest_number_and_said(
        self, name: str, layers: int, bottom: int, top: int
    ) -> None:
        shape = EncoderShape(layers)
        assert plan_of(name, layers) == plan_of(written(bottom, top), layers)
        ends = " and ".join(f"{end} {count}" for end, count in (("bottom", bottom), ("top", top)) if count)
        assert outline(parse(name), shape).meaning == f"{name} freezes {ends} of {layers} layers"

    @given(bottom=st.integers(0, 12), top=st.integers(0, 12))
    def test_shares_of_twelve_layers_give_the_layers_back(self, bottom: int, top: int) -> None:
        assume(0 < bottom + top <= 12)
        shares = "".join(f"{end}{round(100 * n / 12)}%" for end, n in (("bottom", bottom), ("top", top)) if n)
        assert plan_of(shares) == plan_of(written(bottom, top))

    def test_the_embeddings_train_where_the_name_says_so(self) -> None:
        assert plan_of("bottom25%-trainemb") == plan_of("bottom3-trainemb")

    @pytest.mark.parametrize("name", ["bottom4%", "bottom50%top4%"])
    def test_a_share_of_no_layer_does_not_fit(self, name: str) -> None:
        with pytest.raises(DoesNotFit, match="4% is no whole layer of the model's 12"):
            plan_of(name)

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("bottom101%", "freezes 101 % of the layers"),
            ("bottom60%top60%", "freezes 120 % of the layers"),
            ("bottom0%", "freezes 0 % somewhere; leave that part out, or say full"),
            ("bottom3top33%", "write % after both, or after none"),
            ("bottom025%", "is written 'bottom25%'"),
            ("top33%-trainemb", "the embeddings train anyway; say 'top33%'"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, name: str, told: str) -> None:
        with pytest.raises(UsageError, match=re.escape(told)):
            parse(name)


class TestLayerSets:
    @given(st.sets(st.integers(0, 23), min_size=1), st.booleans())
    def test_exactly_the_named_layers_are_frozen(self, layers: set[int], train_embeddings: bool) -> None:
        train_embeddings = train_embeddings and 0 in layers
        spans: list[list[int]] = []
        for layer in sorted(layers):
            if spans and spans[-1][-1] == layer - 1:
                spans[-1].append(layer)
            else:
                spans.append([layer])
        named = "+".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)
        name = f"layers-{named}" + ("-trainemb" if train_embeddings else "")
        assert parse(name).name == name
        plan = plan_of(name, 24)
        assert plan.frozen_layers == layers
        assert plan.embeddings == (0 in layers and not train_embeddings)

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("layers-5-2", "5-2 runs backwards; write 2-5"),
            ("layers-3+3", "names layer 3 twice"),
            ("layers-0-5+3", "names layer 3 twice"),
            ("layers-0,5", "write numbers and ranges with + between them"),
            ("layers-3+", "'' is neither a layer nor a range"),
            ("layers-1-2-3", "'1-2-3' is neither a layer nor a range"),
            ("layers-5+0", "is written 'layers-0+5'"),
            ("layers-0+1", "is written 'layers-0-1'"),
            ("layers-04", "is written 'layers-4'"),
            ("layers-3-trainemb", "the embeddings train anyway; say 'layers-3'"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, name: str, told: str) -> None:
        with pytest.raises(UsageError, match=re.escape(told)):
            parse(name)

    def test_a_layer_that_the_model_lacks_does_not_fit(self) -> None:
        with pytest.raises(DoesNotFit, match="layers-99 freezes layer 99, but the model has 12 layers, 0 to 11"):
            plan_of("layers-99")


class TestPartialTraining:
    @pytest.mark.parametrize(("layers", "trained"), [(12, {9, 10, 11}), (6, {4, 5}), (4, {3}), (1, {0})])
    def test_last_quarter_trains_the_top_quarter_rounded_up(self, layers: int, trained: set[int]) -> None:
        plan = plan_of("last-quarter", layers)
        assert set(range(layers)) - plan.frozen_layers == trained
        assert plan.embeddings == (layers > 1)
        assert plan.prefix_layers == (layers - len(trained) if layers > 1 else None)

    @given(count=st.integers(1, 12), seed=st.integers(0, 10**9 - 1))
    def test_random_freezes_as_many_as_asked_the_same_ones_each_time(self, count: int, seed: int) -> None:
        name = f"random-{count}-seed{seed}"
        plan = plan_of(name)
        assert len(plan.frozen_layers) == count
        assert plan == plan_of(name)
        assert plan.embeddings == (0 in plan.frozen_layers)

    def test_random_draws_every_layer_equally_often(self) -> None:
        drawn = [layer for seed in range(600) for layer in plan_of(f"random-4-seed{seed}").frozen_layers]
        counts = [drawn.count(layer) for layer in range(12)]
        assert min(counts) > 150
        assert max(counts) < 250

    def test_what_cannot_be_meant_is_refused(self) -> None:
        with pytest.raises(UsageError, match="freezes no layer"):
            parse("random-0-seed1")
        with pytest.raises(UsageError, match="must be written 'random-3-seed1'"):
            parse("random-03-seed1")
        with pytest.raises(DoesNotFit, match="13 layers, but the model has only 12"):
            plan_of("random-13-seed1")
