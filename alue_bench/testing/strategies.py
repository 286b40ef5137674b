"""The conformance checks of a family of strategies, made with the names in `StrategyFamily.examples`.

The checks of strategies that change the frozen layers during training are in the module `revising`, and the checks of
strategies that choose their layers are in `choosing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from alue_bench.contract.errors import DoesNotFit, UnavailableError, UsageError
from alue_bench.contract.strategy import (
    STRATEGY_NAME,
    Adapter,
    EncoderShape,
    FreezePlan,
    Outline,
    Strategy,
    StrategyFamily,
)
from alue_bench.testing.choosing import check_choosing
from alue_bench.testing.revising import check_revising
from alue_bench.testing.violations import Remark, cause, incomplete, outcome_phrase, raise_if_any

LAYERS = range(1, 25)
"""The numbers of layers of the encoders for which a strategy is checked."""

FOREIGN_NAMES = ("", " ", "no-such-strategy", "no-such-strategy7", "7", "غير-معروف", "x" * 300)
"""Names that belong to no family, so that every family's `parse` must return None for them."""

_EVERYTHING_TRAINS = re.compile(
    r"""(?ix) \s* (?:everything \s (?:is \s)? train
    | (?:all|every) \s (?:layer|weight|parameter)s? \s (?:is \s|are \s)? train
    | nothing \s is \s frozen | freezes \s nothing | no \s layers? \s (?:is|are) \s frozen | full \s fine-?tuning)
    (?!.*\b(?:but|except|besides|save|apart|unless)\b)"""
)
"""A pattern for the beginning of the title of a family whose strategies freeze nothing, such as "Everything trains"."""


def check_strategy(family: StrategyFamily) -> None:
    """Check a family of strategies with the names in its field `examples`, for encoders of 1 to 24 layers.

        def test_my_strategy() -> None:
            check_strategy(my_plugin.FAMILY)

    A conforming family has these properties:

    - `parse` returns a strategy for each example, and an equal strategy for `strategy.name`.
    - Strategies with equal names are equal and hashable values. Strategies with different names have different effects.
    - `kept_layers` returns layers of the encoder in ascending order.
    - `freeze_plan` is deterministic. It returns a plan for the kept layers, or raises DoesNotFit with a reason.
    - If a freeze plan trains only certain parameters of the layers (`FreezePlan.trained`), a BERT has such parameters.
    - A strategy with an adapter has a plan with `trained="adapters"`, and the adapter can be inserted into a BERT.
    - In simulated training runs, `revise` returns plans with the same shape as the first plan, complies with the result
      of `revisions`, and depends only on its arguments.
    - With a small BERT, `choose` returns valid choices, and equal choices for equal probes.
    - At least one example strategy differs from full fine-tuning, unless the family's title begins with "Everything
      trains". If some do not differ from it, there is a ConformanceWarning for each of them.
    - `parse` returns None for names that belong to no family, and for the examples of other installed families.

    Args:
        family: The declaration of the family.

    Raises:
        ConformanceError: The family breaks the contract; the message has one sentence for each violation.
    """
    raise_if_any(family, StrategyFamily, [_metadata, _examples, _foreign_names, _names_of_others])


@dataclass(frozen=True)
class _Example:
    """A name from a family's examples, with the strategy that `parse` returns for the name."""

    family: StrategyFamily
    name: str
    strategy: Strategy

    @property
    def subject(self) -> str:
        """The beginning of a message about the strategy."""
        return f"strategy {self.name!r}"

    def on(self, layers: int) -> str:
        """Return the beginning of a message about the strategy for an encoder with `layers` layers."""
        return f"{self.subject} on {layers} layer{'s' if layers > 1 else ''}"

    def outlines(self) -> dict[int, Outline]:
        """Return the strategy's kept and frozen layers in each encoder, by the encoder's number of layers.

        Encoders to which the strategy cannot be applied are left out. The field `adapter` is not set.
        """
        by_layers: dict[int, Outline] = {}
        for layers in LAYERS:
            with suppress(DoesNotFit):
                kept = self.strategy.kept_layers(EncoderShape(layers, hidden_size=64))
                plan = self.strategy.freeze_plan(EncoderShape(len(kept), hidden_size=64))
                by_layers[layers] = Outline(plan, kept if len(kept) < layers else None, None)
        return by_layers


def _metadata(family: StrategyFamily) -> Iterator[str]:
    subject = f"strategy family {family.grammar!r}"
    yield from incomplete(subject, family, ("grammar", "title", "source"))
    if not isinstance(family.examples, tuple):
        yield f"{subject}: examples is a {type(family.examples).__name__}; give a tuple of names"


def _examples(family: StrategyFamily) -> Iterator[str]:
    """Yield the violations of each example strategy, and then those that only a comparison of strategies can show.

    A comparison may show, for instance, that two strategies have the same effect.
    """
    sound: list[_Example] = []
    for name in family.examples:
        strategy = _parsed(family, name)
        if not isinstance(strategy, Strategy):
            yield (
                f"strategy {name!r} is an example of {family.grammar!r}, but parse {outcome_phrase(strategy)}; correct "
                "parse or examples"
            )
            continue
        example = _Example(family, name, strategy)
        violations = [*_name(example, sound), *_freezing(example)]
        yield from violations
        if not violations:
            violations = [*_parts(example), *_adapting(example)]
            violations += check_revising(family, name, strategy, example.outlines())
            violations += check_choosing(example.subject, strategy, example.outlines())
            yield from violations
        if not violations:
            sound.append(example)
    yield from _without_effect(family, sound)
    yield from _repeated(sound)


def _parsed(family: StrategyFamily, name: str) -> object:
    """Return the result of the family's `parse` for a name, or the exception that `parse` raises."""
    try:
        return family.parse(name)
    except Exception as error:  # a plugin's function may raise anything
        return error


def _name(example: _Example, earlier: list[_Example]) -> Iterator[str]:
    """Yield a violation if a strategy's name is invalid, or if equal names do not give equal strategies.

    Args:
        example: The example.
        earlier: The examples before it that have no violations.
    """
    family, strategy, subject = example.family, example.strategy, example.subject
    try:
        name = strategy.name
    except Exception as error:  # a plugin's property may raise anything
        yield f"{subject}: name raises {cause(error)}; return the name that parse takes"
        return
    if not isinstance(name, str) or not STRATEGY_NAME.fullmatch(name):
        yield f"{subject}: its name {name!r} must match {STRATEGY_NAME.pattern}; correct the property name"
        return
    back = _parsed(family, name)
    if not isinstance(back, Strategy) or back.name != name:
        yield (
            f"{subject} is named {name!r}, but parse({name!r}) {outcome_phrase(back)}; parse must return the same "
            "strategy for this name"
        )
        return
    if back != strategy or _parsed(family, example.name) != strategy:
        yield f"{subject}: parsing its name twice gives unequal values; make its class a frozen dataclass"
        return
    try:
        equal = hash(back) == hash(strategy)
    except TypeError:
        equal = False
    if not equal:
        yield f"{subject}: equal strategies have no equal hash; make its class a frozen dataclass"
    elif any(other.strategy.name == name and other.strategy != strategy for other in earlier):
        yield (
            f"{subject} has the name of an earlier example, but is not equal to it; strategies of the same name must "
            "be equal"
        )


def _freezing(example: _Example) -> Iterator[str]:
    """Yield a violation if `kept_layers` or `freeze_plan` breaks its contract for one of the encoders."""
    fits = False
    for layers in LAYERS:
        whole = EncoderShape(layers, hidden_size=64)
        kept = _attempt(example.strategy, "kept_layers", whole)
        if isinstance(kept, DoesNotFit) and str(kept).strip():
            continue
        if not _are_layers(kept, whole):
            yield (
                f"{example.on(layers)}: kept_layers {outcome_phrase(kept)}; return a tuple of layers from low to high, "
                "or raise DoesNotFit with a reason"
            )
            return
        shape = EncoderShape(len(kept), hidden_size=64)  # type: ignore[arg-type]
        plan = _attempt(example.strategy, "freeze_plan", shape)
        if (wrong := _wrong_plan(plan, shape)) is not None:
            yield f"{example.on(layers)}{wrong}"
            return
        again = _attempt(example.strategy, "freeze_plan", shape)
        plan_of_equal = _attempt(_parsed(example.family, example.name), "freeze_plan", shape)
        if not _equal_results(plan, again) or not _equal_results(plan, plan_of_equal):
            yield (
                f"{example.on(layers)}: freeze_plan gives different plans; it may depend only on the name and the shape"
            )
            return
        fits = fits or isinstance(plan, FreezePlan)
    if not fits:
        yield (f"{example.subject} fits no encoder of {LAYERS[0]} to {LAYERS[-1]} layers; give a smaller example")


def _wrong_plan(plan: object, shape: EncoderShape) -> str | None:
    """Return the end of a message about an invalid result of `freeze_plan`; None if the result is valid.

    Args:
        plan: The result, or the exception that `freeze_plan` raised.
        shape: The size of the encoder, with which `freeze_plan` was called.
    """
    if isinstance(plan, DoesNotFit):
        return None if str(plan).strip() else " raises DoesNotFit without a reason; say which numbers clash"
    if isinstance(plan, Exception):
        return f": freeze_plan raises {cause(plan)}; raise DoesNotFit with a reason where it does not fit"
    if not isinstance(plan, FreezePlan) or plan.shape != shape:
        return f": freeze_plan returns {plan!r:.80}; return a FreezePlan of the shape it is given"
    return None


def _attempt(strategy: object, method: str, shape: EncoderShape) -> object:
    """Call a method of a strategy with the size of an encoder, and return the result or the exception."""
    try:
        outcome: object = getattr(strategy, method)(shape)
    except Exception as error:  # a plugin's method may raise anything
        return error
    return outcome


def _are_layers(kept: object, shape: EncoderShape) -> bool:
    """Return whether a value is a non-empty tuple of layer indices of an encoder in ascending order, each once."""
    if not isinstance(kept, tuple) or not kept or not all(isinstance(layer, int) for layer in kept):
        return False
    return list(kept) == sorted(set(kept)) and kept[0] >= 0 and kept[-1] < shape.layers


def _equal_results(one: object, other: object) -> bool:
    """Return whether two results are equal; exceptions are equal if their types and messages are."""
    if isinstance(one, Exception) or isinstance(other, Exception):
        return type(one) is type(other) and str(one) == str(other)
    return one == other


def _parts(example: _Example) -> Iterator[str]:
    """Yield a violation if a freeze plan trains only certain parameters, but a BERT has none of them."""
    outlined = next(reversed(example.outlines().values()))
    if outlined.freeze_plan.trained in ("weights", "adapters"):
        return
    from alue_bench.training.surgery import model_in_outline

    try:
        model_in_outline(_small_bert(outlined), outlined)
    except DoesNotFit as error:
        yield (
            f"{example.subject}: on a BERT, its freeze plan {error}; correct `trained`, `names` or `frozen_parameters`"
        )


def _small_bert(outline: Outline) -> Any:
    """Return the configuration of a small BERT with as many layers as the encoder to which the outline belongs."""
    from transformers import BertConfig

    whole = outline.freeze_plan.shape.layers if outline.kept_layers is None else LAYERS[-1]
    return BertConfig(hidden_size=64, num_hidden_layers=whole, num_attention_heads=2, intermediate_size=128)


def _adapting(example: _Example) -> Iterator[str]:
    """Yield a violation if `adapter` breaks its contract, or if its result contradicts the freeze plan."""
    subject = example.subject
    try:
        adapter, again = example.strategy.adapter(), example.strategy.adapter()
    except Exception as error:  # a plugin's method may raise anything
        yield f"{subject}: adapter raises {cause(error)}; return an Adapter or None"
        return
    if adapter is not None and not isinstance(adapter, Adapter):
        yield f"{subject}: adapter returns {adapter!r:.60}; return an Adapter or None"
        return
    if adapter != again:
        yield f"{subject}: adapter gives different adapters; it may depend only on the name"
        return
    fitting = list(example.outlines().values())
    wrong = next((o.freeze_plan for o in fitting if (adapter is None) == (o.freeze_plan.trained == "adapters")), None)
    if wrong is not None:
        yield (
            f"{subject}: freeze_plan says trained={wrong.trained!r}, but adapter returns {adapter!r:.60}; both must "
            "name an adapter, or neither"
        )
    elif adapter is not None:
        yield from _injection(subject, replace(fitting[-1], adapter=adapter))


def _injection(subject: str, outline: Outline) -> Iterator[str]:
    """Yield a violation if the adapter of an outline cannot be inserted into a BERT."""
    from alue_bench.training.surgery import model_in_outline

    try:
        model_in_outline(_small_bert(outline), outline)
    except UnavailableError as error:
        yield Remark(f"{subject}: its adapter was not checked: {error}")
    except DoesNotFit as error:
        yield f"{subject}: on a BERT, {error}; correct the kind or the options of its Adapter"


# The effect of strategies, and their names ---------------------------------------------------------------------------


def _without_effect(family: StrategyFamily, examples: list[_Example]) -> Iterator[str]:
    """Yield a sentence for each example strategy that is the same as full fine-tuning for every encoder.

    If the whole family is the same as full fine-tuning, the sentences are violations, and otherwise they are remarks.
    Nothing is yielded if the family's title says that everything trains.
    Strategies that change the frozen layers during training are left out; `check_revising` checks their effect.
    """
    idle = [example for example in examples if _does_nothing(example)]
    if not idle or _EVERYTHING_TRAINS.match(family.title):
        return
    whole_family = len(idle) == len(examples)
    for example in idle:
        sentence = (
            f"{example.subject} freezes nothing, removes no layer and inserts no adapter on any encoder of "
            f"{LAYERS[0]} to {LAYERS[-1]} layers: it is full fine-tuning by another name"
        )
        if whole_family:
            yield f"{sentence}; correct freeze_plan or, if that is intended, begin the title with 'Everything trains'"
        else:  # for example, freeze0 in a family with freeze3
            yield Remark(f"{sentence}; correct freeze_plan, or refuse the name in parse with a UsageError")


def _does_nothing(example: _Example) -> bool:
    """Return whether a strategy is the same as full fine-tuning for every encoder."""
    strategy = example.strategy
    if any(effect is not None for effect in (strategy.adapter(), strategy.revisions(), strategy.compute_limit())):
        return False
    return all(
        outline.kept_layers is None and outline.freeze_plan == FreezePlan(outline.freeze_plan.shape)
        for outline in example.outlines().values()
    )


def _repeated(examples: list[_Example]) -> Iterator[str]:
    """Yield a violation for each example strategy that has the same effect on every encoder as an earlier example.

    This happens, for example, if a strategy ignores the number in its name.
    """
    earlier: list[tuple[_Example, tuple[object, ...]]] = []
    for example in examples:
        if example.strategy.revisions() is not None:  # the effect of `revise` is known only during training
            continue
        effect = (example.outlines(), example.strategy.adapter(), example.strategy.compute_limit())
        twin = next((other for other, its in earlier if its == effect), None)
        if twin is not None and twin.strategy != example.strategy:
            yield (
                f"{example.subject} and {twin.subject} have the same effect on every encoder of {LAYERS[0]} to "
                f"{LAYERS[-1]} layers; make the plan depend on the name, or parse both names to the same strategy"
            )
        earlier.append((example, effect))


def _foreign_names(family: StrategyFamily) -> Iterator[str]:
    """Yield a violation for each name that belongs to no family, but for which `parse` does not return None."""
    for name in FOREIGN_NAMES:
        outcome = _parsed(family, name)
        if outcome is not None:
            yield (
                f"strategy family {family.grammar!r}: parse({name[:20]!r}) {outcome_phrase(outcome)}; return None for "
                "a name that is not of this family"
            )
    for example in family.examples:  # for a similar name, a UsageError that explains the grammar is permitted too
        name = f"{example}-no-such-variant"
        outcome = _parsed(family, name)
        if outcome is not None and not isinstance(outcome, UsageError):
            yield (
                f"strategy family {family.grammar!r}: parse({name!r}) {outcome_phrase(outcome)}; return None, or raise "
                "UsageError with what was expected"
            )


def _names_of_others(family: StrategyFamily) -> Iterator[str]:
    """Yield a violation for each other installed family with an example that this family's `parse` accepts.

    A strategy whose name two families accept cannot be used in a run.
    """
    from alue_bench.contract.registry import load_registry

    for declared in load_registry().families:
        other = declared.value
        if other.grammar == family.grammar:  # this family itself
            continue
        claimed = [name for name in other.examples if name not in family.examples and _parsed(family, name) is not None]
        if claimed:
            yield (
                f"strategy family {family.grammar!r}: parse({claimed[0]!r}) "
                f"{outcome_phrase(_parsed(family, claimed[0]))}, but that name belongs to the family {other.grammar!r} "
                f"of {declared.origin}; return None, and give your names another prefix"
            )
