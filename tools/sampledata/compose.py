"""The composition of distinct sentences from frames, that is, sentences with ``[slot]`` placeholders."""

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
    """Replace every ``[slot]`` in a sentence frame by a random filler, drawn separately for each occurrence."""
    return join_article(_SLOT.sub(lambda match: rng.choice(slots[match[1]]), frame))


def join_article(text: str) -> str:
    """Merge the preposition li- with a following article, as Arabic spelling requires (``لالسوق`` to ``للسوق``)."""
    return re.sub(r"\bلال", "لل", text)


def choose_fillers(frames: Sequence[str], slots: Slots, rng: random.Random) -> dict[str, tuple[str]]:
    """Draw one filler for each slot name, so that sentences made from all these frames are about the same things."""
    names = sorted({name for frame in frames for name in _SLOT.findall(frame)})
    return {name: (rng.choice(slots[name]),) for name in names}


def distinct(draw: Callable[[], T], key: Callable[[T], str], count: int, seen: set[str]) -> list[T]:
    """Draw random results until there are ``count`` results with distinct keys.

    Args:
        draw: A function that draws a result.
        key: A function that returns the key of a result.
        count: The number of results.
        seen: The keys used so far, to which new keys are added. The splits of a task share this set, because test texts
            that also occur in train would inflate the score.

    Raises:
        RuntimeError: Too few distinct results were drawn in many attempts.
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
    """Return the first items of a list of wordings, without the share `held_out` at its end.

    Only dev and test use the items at the end, as wording that was not seen in training.
    """
    return items[: max(1, round(len(items) * (1 - held_out)))]
