"""The random addition of mentions, links, line breaks, hashtags and emoji to the words of a tweet."""

from __future__ import annotations

import random

from tools.sampledata.lexicon import HASHTAGS


def surround(text: str, emoji: tuple[str, ...], rng: random.Random, *, emoji_share: float = 0.45) -> str:
    """Add random emoji and a random hashtag to a tweet, both only sometimes.

    Args:
        text: The tweet.
        emoji: The emoji, one of which is added up to three times; empty to add none.
        rng: The random generator.
        emoji_share: The probability that an emoji is added.
    """
    if emoji and rng.random() < emoji_share:
        text += " " + rng.choice(emoji) * rng.choice((1, 1, 1, 2, 3))
    if rng.random() < 0.18:
        text += " " + rng.choice(HASHTAGS)
    return text


def anonymise(text: str, rng: random.Random) -> str:
    """Add mentions, links and line breaks at random, as the placeholders @USER, URL and <LF> of the OSACT4 files."""
    if rng.random() < 0.25:
        text = text.replace("، ", "<LF>").replace(" #", "<LF>#")
    start = rng.random()
    if start < 0.22:
        text = "RT @USER: " + text
    elif start < 0.55:
        text = "@USER " * rng.choice((1, 1, 1, 2, 3)) + text
    if rng.random() < 0.1:
        text += " URL"
    return text
