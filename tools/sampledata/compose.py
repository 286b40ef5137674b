"""Turns sentence frames into distinct sentences."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Slots = Mapping[str, Sequence[str]]
T = TypeVar("T")

_SLOT = re.compile(r"\[(\w+)\]")
_ATTEMPTS = 400


def fill(frame: str, slots: Slots, rng: random.Random) -> str:
    """Replaces every ``[slot]`` by a draw of its own."""
    return join_article(_SLOT.sub(lambda match: rng.choice(slots[match[1]]), frame))


def join_article(text: str) -> str:
    """Spells the preposition li- and the article as one, as Arabic does (``لالسوق`` to ``للسوق``)."""
    return re.sub(r"\bلال", "لل", text)


def choose_fillers(frames: Sequence[str], slots: Slots, rng: random.Random) -> dict[str, tuple[str]]:
    """Draws one filler for each slot in ``frames``, so that several sentences speak of the same things."""
    names = sorted({name for frame in frames for name in _SLOT.findall(frame)})
    return {name: (rng.choice(slots[name]),) for name in names}


def distinct(draw: Callable[[], T], key: Callable[[T], str], count: int, seen: set[str]) -> list[T]:
    """Draws until ``count`` results have keys that are not in ``seen``, and adds those keys to it.

    ``seen`` is shared by the splits of a task, because a text of train that comes back in
    test flatters a model.
    """
    results: list[T] = []
    attempts = 0
    while len(results) < count:
        attempts += 1
        if attempts > count * _ATTEMPTS:
            raise RuntimeError(f"only {len(results)} of {count} distinct texts in {attempts} draws; add words")
        result = draw()
        if key(result) not in seen:
            seen.add(key(result))
            results.append(result)
    return results


def known_part(items: Sequence[T], held_out: float) -> Sequence[T]:
    """The items that train may use: the tail is kept for dev and test, to hold unseen wording."""
    return items[: max(1, round(len(items) * (1 - held_out)))]
