"""The conformance checks of a model's text normalisation (`Model.normalise`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from alue_bench.contract.model import Model
from alue_bench.testing.scripts import SENTENCES, scripts_of
from alue_bench.testing.violations import Remark, cause

TEXTS = (
    "",
    " ",
    "\n\t\r",
    "الغرفة نظيفة والخدمة ممتازة.",
    "كِتَابٌ جَمِيـــلٌ جدًّا",
    "😀 🇲🇦 👩‍👩‍👧‍👦 ❤️",
    "@USER شاهد #وسم_جديد https://example.org/a?b=c&d=1 <LF> URL",
    "البريد a.b@example.org والسعر ٣٥٠ ريالا (20%)",
    "ههههههههه!!!!!!؟؟؟؟",
    "\ufeff\u200fنص\u200e \u202bمقلوب\u202c \u00a0\u2028",
    "ﷺ ﻻ e\u0301 \x00 \x07 \ud7a3",
    "«قال» \"نعم\" 'لا' [رابط] \\n {x}",
    "Latin only, with numbers 0123456789",
    "كلمة " * 3000,
    "ا" * 20_000,
)
"""Texts of many kinds that occur in users' files. A model's `normalise` function must accept each of them."""

MIN_LETTER_SHARE = 0.25
"""The smallest share of a text's letters that may remain after `normalise`. Every published normalisation keeps far
more."""


def check_normalisation(model: Model, missing: list[str]) -> Iterator[str]:
    """Yield the violations found by applying a model's `normalise` function to texts of many kinds.

    Args:
        model: The model.
        missing: The modules that `normalise` needs but that are not installed. If there are any, nothing is checked.
    """
    if model.normalise is None:
        return
    subject = f"model {model.name!r}"
    if missing:
        yield Remark(f"{subject}: normalise was not checked, since the package {missing[0]!r} is not installed")
        return
    first: dict[str, str] = {}
    for text in (*TEXTS, *(text for script in SENTENCES for text in _texts_in(script))):
        normalised = attempt(model.normalise, text)
        if isinstance(normalised, ImportError):
            yield f"{subject}: normalise cannot import a package ({cause(normalised)}); name it in requires"
            return
        if (wrong := _misbehaviour(model.normalise, text, normalised)) is not None:
            yield f"{subject}: {wrong}"
        if isinstance(normalised, str):
            first[text] = normalised
    # The texts are normalised again in reverse order, to detect a function whose result depends on earlier texts.
    changed = next((text for text in reversed(first) if attempt(model.normalise, text) != first[text]), None)
    if changed is not None:
        yield (
            f"{subject}: normalise({changed[:30]!r}) gives another text the second time; it may depend only on its "
            "argument"
        )
    yield from _losses(model, first)


def _texts_in(script: str) -> tuple[str, ...]:
    """Return the test sentences of a script (writing system), followed by a text that joins all of them.

    The joined text reveals a function that cuts long texts.
    """
    return (*SENTENCES[script], " ".join(SENTENCES[script]))


def attempt(function: Callable[[str], str], text: str) -> Any:
    """Return the result of calling a normalisation function with a text, or the exception that it raises."""
    try:
        return function(text)
    except Exception as error:  # a plugin's function may raise anything
        return error


def _misbehaviour(normalise: Callable[[str], str], text: str, normalised: object) -> str | None:
    """Return what is wrong with the result of `normalise` for one text, with a remedy; None if nothing is wrong.

    Args:
        normalise: The model's text normalisation.
        text: The text.
        normalised: The result for the text, or the exception that `normalise` raised.
    """
    shown = f"{text[:30]!r}{'…' if len(text) > 30 else ''}"
    if isinstance(normalised, Exception):
        return f"normalise({shown}) raised {cause(normalised)}; it must accept any text"
    if not isinstance(normalised, str):
        return f"normalise({shown}) returned a {type(normalised).__name__}; it must return a str"
    try:
        normalised.encode()
    except UnicodeEncodeError:
        return (
            f"normalise({shown}) returned half of a surrogate pair, which no tokenizer accepts; it must return whole "
            "characters"
        )
    if (again := attempt(normalise, normalised)) != normalised:
        then = again[:30] if isinstance(again, str) else again
        return (
            f"normalise is not idempotent: {shown} becomes {normalised[:30]!r}, and that becomes {then!r}; it must "
            "leave its own output unchanged"
        )
    return None


def _losses(model: Model, normalised: dict[str, str]) -> Iterator[str]:
    """Yield a violation for each script (writing system) of the model's languages that `normalise` mostly removes.

    If `normalise` removes most letters of other scripts only, a remark is yielded instead.

    Args:
        model: The model.
        normalised: The normalised text for each test text.
    """
    subject, declared = f"model {model.name!r}", scripts_of(model.languages)
    lost = {script: problem for script in SENTENCES if (problem := _loss(script, normalised)) is not None}
    if len(lost) == len(SENTENCES):
        yield f"{subject}: {lost[next(iter(declared), 'Latin')]}; it must keep the content of a text"
        return
    for script in declared:
        if script in lost:
            yield f"{subject}: {lost[script]}; it must keep the scripts of languages={model.languages!r}"
    others = [script for script in lost if script not in declared]
    if others:
        yield Remark(
            f"{subject}: normalise leaves nothing of texts in {', '.join(others)} script; if that is not intended, it "
            "must keep them"
        )


def _loss(script: str, normalised: dict[str, str]) -> str | None:
    """Return a phrase that says how much of the texts in a script `normalise` removes; None if it keeps enough.

    Args:
        script: The name of the script (writing system), a key of `SENTENCES`.
        normalised: The normalised text for each test text.
    """
    before = [text for text in _texts_in(script) if text in normalised]
    after = [normalised[text] for text in before]
    if not before:  # normalise raised an error, which is reported elsewhere
        return None
    letters, left = (sum(character.isalpha() for character in texts[-1]) for texts in (before, after))
    example = f"in {script} script: {before[0]!r} becomes {after[0][:40]!r}"
    if left and len(before) > 1 and len(set(after)) == 1:
        return f"normalise turns all texts into one text {example}"
    if left < MIN_LETTER_SHARE * letters:
        return f"normalise leaves {left} of {letters} letters of a text {example}"
    return None
