"""Random spelling variation as in informal Arabic. Some tokenizers normalise it."""

from __future__ import annotations

import random
import re

_NO_WORDS = re.compile(r"@USER|RT|URL|#\w+|<LF>|\\n")
_FOLDED = str.maketrans("أإآىة", "ااايه", "\u0640" + "".join(map(chr, range(0x64B, 0x671))))
_ARABIC_WORD = re.compile("[\u0621-\u064a]{3,}")
_TO_ARABIC_INDIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
_BARE_ALEF = str.maketrans("أإآ", "ااا")
_LONG_VOWELS = "اوي"
# These letters do not join the next letter, so no tatweel can follow them.
_NON_JOINING = "اأإآدذرزوؤةىء"

# Diacritics depend on the word, so only the words listed here get them.
_VOCALISED = {
    "جدا": "جِدّاً", "كتاب": "كِتاب", "الكتاب": "الكِتابُ", "كل": "كُلّ", "شكرا": "شُكراً",
    "الحمد": "الحَمدُ", "رب": "رَبّ",
    "حب": "حُبّ", "قلبي": "قَلبي", "اليوم": "اليَوم", "هذا": "هَذا", "هل": "هَل", "ما": "مَا",
    "من": "مِن", "غدا": "غَداً",
    "الصبر": "الصَّبر", "الأمل": "الأمَل", "مدينة": "مَدينة", "فوائد": "فَوائِد", "طريقة": "طَريقَة",
    "كيف": "كَيفَ", "لم": "لَم",
    "كان": "كانَ", "أمس": "أمسِ", "والله": "واللّٰه", "شعور": "شُعور", "محطة": "مَحَطّة",
    "السوق": "السُّوق", "الجو": "الجَوّ",
}  # fmt: skip


def arabic_digits(text: str) -> str:
    """Replace the digits 0 to 9 by Arabic-Indic digits."""
    return text.translate(_TO_ARABIC_INDIC)


def elongate(word: str, rng: random.Random) -> str:
    """Repeat the last long vowel of a word (``جدا`` becomes ``جداااا``)."""
    for at in range(len(word) - 1, 0, -1):
        if word[at] in _LONG_VOWELS:
            return word[:at] + word[at] * rng.randint(3, 6) + word[at + 1 :]
    return word


def stretch(word: str, rng: random.Random) -> str:
    """Insert one to three tatweels (a character that stretches a word) between two joined letters of a word."""
    positions = [at for at in range(1, len(word)) if word[at - 1] not in _NON_JOINING]
    if not positions:
        return word
    at = rng.choice(positions)
    return word[:at] + "ـ" * rng.randint(1, 3) + word[at:]


def vocalise(text: str) -> str:
    """Add diacritics to the words that `_VOCALISED` lists."""
    return " ".join(_VOCALISED.get(word, word) for word in text.split(" "))


def respell(text: str, rng: random.Random) -> str:
    """Apply one of the common informal spellings to the whole text: bare alef, final ya, or final ha."""
    spelling = rng.randrange(3)
    if spelling == 0:
        return text.translate(_BARE_ALEF)
    if spelling == 1:
        return re.sub(r"ى\b", "ي", text)
    return re.sub(r"ة\b", "ه", text)


def skeleton(text: str) -> str:
    """Return the words of a text in a normal form, so that texts that differ only in spelling give equal results.

    Mentions, links, hashtags, emoji, punctuation, digits, diacritics and repeated letters are removed.
    """
    letters = re.sub(r"(.)\1+", r"\1", _NO_WORDS.sub(" ", text).translate(_FOLDED))
    return " ".join(re.findall("[\u0621-\u064a]+", letters))


def vary(text: str, rng: random.Random, *, rate: float) -> str:
    """Apply random spelling variation to a text.

    Args:
        text: The text.
        rng: The random generator.
        rate: The probability that an informal spelling is applied (`respell`). Diacritics, a repeated vowel and
            tatweels are each added with half this probability. Independently of the rate, digits become Arabic-Indic in
            half of the texts.
    """
    if rng.random() < rate:
        text = respell(text, rng)
    if rng.random() < rate / 2:
        text = vocalise(text)
    for lengthen in (elongate, stretch):
        words = [match.span() for match in _ARABIC_WORD.finditer(text)]
        if words and rng.random() < rate / 2:
            start, end = rng.choice(words)
            text = text[:start] + lengthen(text[start:end], rng) + text[end:]
    if rng.random() < 0.5:
        text = arabic_digits(text)
    return text
