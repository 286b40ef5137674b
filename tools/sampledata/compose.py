"""The composition of sentences from frames: a frame is a sentence with ``[slot]`` placeholders for words."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Slots = Mapping[str, Sequence[str]]
"""The words (fillers) that may replace each placeholder, by the name of the slot."""
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
    """Draw one filler for each slot that occurs in any of the frames.

    Filled with the result, the frames give sentences about the same people, places and things.
    """
    names = sorted({name for frame in frames for name in _SLOT.findall(frame)})
    return {name: (rng.choice(slots[name]),) for name in names}


def distinct(draw: Callable[[], T], key: Callable[[T], str], count: int, seen: set[str]) -> list[T]:
    """Return ``count`` random results that differ from each other and from earlier ones.

    Args:
        draw: A function that returns a random result.
        key: A function that returns the key of a result. Results with equal keys count as equal.
        count: The number of results.
        seen: The keys of earlier results; those of the new results are added. The splits of a task use the same set,
            because test texts that also occur in train would inflate the score.

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
    """Return the items of a list without the last ones, which are held out from training.

    The train split uses only the returned items. Dev and test use the complete list, so that they contain words and
    sentences that do not occur in train.

    Args:
        items: The words or sentence frames.
        held_out: The share of the items to leave out, from 0 to 1.
    """
    return items[: max(1, round(len(items) * (1 - held_out)))]
