"""The sample of named entity recognition: sentences from hand-written frames, with IOB2 tags for each word.

The tag of a word depends on its context: names of towns are also parts of names of organisations, first names are also
parts of names of streets, and numbers occur in counts, dates and measures. As in the official files, a word inside two
nested entities has two tags, that of the outer entity first. People, organisations and products are invented.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tools.sampledata.compose import distinct, known_part

SIZES = {"train": 150, "val": 40, "test": 80}
_HELD_OUT = 0.2

_TOWNS = ("المرسى", "القاهرة", "نابلس", "طرابلس", "مراكش", "بيروت", "عدن", "الموصل")
_COUNTRIES = ("الأردن", "تونس", "العراق", "المغرب", "مصر", "ليبيا")
_NAMES = ("سمير", "ليلى", "هدى", "يوسف", "نوال", "كريم", "ريم", "طارق", "سلمى", "جمال")
_FAMILIES = ("الخطيب", "منصور", "الحداد", "زيدان", "الصالح", "بركات")
_DAYS = ("الأحد", "الاثنين", "الخميس", "السبت")
_MONTHS = ("آذار", "نيسان", "تموز", "أيلول")
_NUMBERS = ("ثلاثة", "خمسة", "سبعة", "عشرة", "12", "40", "250")

_SLOTS: dict[str, tuple[str, ...]] = {
    "PERS": ("{name} {family}", "{name}", "أبو {name}"),
    "GPE": ("{town}", "{country}", "مدينة {town}"),
    "ORG": (
        "جامعة <GPE {town}>", "بلدية <GPE {town}>", "شركة {family} للنقل", "وزارة الصحة",
        "نادي <GPE {town}> الرياضي",
    ),
    "OCC": ("مدير <ORG شركة {family}>", "رئيس <ORG بلدية {town}>", "الوزير", "المهندسة", "طبيب الأسنان"),
    "DATE": ("يوم {day}", "في {month} 2019", "عام 1987", "{day} الماضي", "الأول من {month}"),
    "TIME": ("الساعة الثامنة مساء", "صباحا", "الساعة السادسة"),
    "EVENT": ("مهرجان <GPE {town}> للكتاب", "معركة {family}", "كأس العرب"),
    "FAC": ("شارع <PERS {name}>", "مطار <GPE {town}>", "مستشفى {family}"),
    "LOC": ("البحر الأحمر", "جبال الأطلس", "الخليج"),
    "NORP": ("العرب", "الشعب المغربي", "الطلبة", "المزارعون"),
    "LANGUAGE": ("اللغة العربية", "الفرنسية", "الأمازيغية"),
    "LAW": ("قانون العمل", "المادة السابعة من الدستور", "اتفاقية <GPE {town}>"),
    "PRODUCT": ("هاتف برق 3", "سيارة نسيم"),
    "CARDINAL": ("{number}", "{number} آلاف"),
    "ORDINAL": ("الأولى", "الثالثة", "الثانية عشرة"),
    "PERCENT": ("{number} بالمئة", "% {number}"),
    "MONEY": ("{number} <CURR دينارا>", "{number} ملايين <CURR درهم>"),
    "QUANTITY": ("{number} <UNIT كيلومترا>", "{number} <UNIT طنا>"),
    "CURR": ("الدينار", "الدرهم المغربي"),
    "UNIT": ("الكيلومتر", "المتر المربع"),
    "WEBSITE": ("موقع {name} نت", "www.{number}.example"),
}  # fmt: skip
_FRAMES = (
    "زار [PERS] [GPE] [DATE] .",
    "قال [OCC] [PERS] إن [ORG] ستفتح فرعا في [GPE] .",
    "وصل [CARDINAL] من [NORP] إلى [FAC] [TIME] .",
    "فاز [ORG] بالمرتبة [ORDINAL] في [EVENT] .",
    "ينص [LAW] على أن تدفع [ORG] [MONEY] لكل عامل .",
    "ارتفع سعر [PRODUCT] بنسبة [PERCENT] ، حسب [WEBSITE] .",
    "تبعد [GPE] عن [LOC] [QUANTITY] .",
    "يتكلم [NORP] في [GPE] [LANGUAGE] أيضا .",
    "انخفض [CURR] أمام اليورو [DATE] .",
    "تقاس الطريق من [GPE] إلى [FAC] بوحدة [UNIT] .",
    "لم يحضر أحد إلى الحفل .",
    "كتبت [PERS] رواية عن [EVENT] ، ونشرتها [ORG] [DATE] .",
    "هل تعرف أين يقع [FAC] ؟",
    "اشترى [PERS] [PRODUCT] من [FAC] بمبلغ [MONEY] .",
    "عين [PERS] في وظيفة [OCC] [DATE] .",
    "هذه هي المرة [ORDINAL] التي تمطر فيها على [LOC] .",
)
_LISTS = {
    "town": _TOWNS, "country": _COUNTRIES, "name": _NAMES, "family": _FAMILIES, "day": _DAYS, "month": _MONTHS,
    "number": _NUMBERS,
}  # fmt: skip
_Word = tuple[str, list[str]]
"""A word with its tags, that of the outermost entity first; the list is empty for a word outside entities."""


def _entity(kind: str, held_out: float, rng: random.Random) -> list[_Word]:
    """Return the words of a random entity, with their tags.

    Args:
        kind: The type of the entity, a key of `_SLOTS`.
        held_out: The share of names and numbers that are not used; see `known_part`.
        rng: The random generator.
    """
    lists = {name: rng.choice(known_part(words, held_out)) for name, words in _LISTS.items()}
    text = rng.choice(_SLOTS[kind]).format(**lists)
    words: list[_Word] = []
    inner, prefix = "", ""  # the type of the inner entity, and "B" at its first word, "I" at the others
    for piece in text.split():
        if piece.startswith("<"):
            inner, prefix = piece[1:], "B"
            continue
        word = piece.removesuffix(">")
        tags = [f"{'I' if words else 'B'}-{kind}"]
        if inner:
            tags.append(f"{prefix}-{inner}")
            inner, prefix = ("", "") if piece.endswith(">") else (inner, "I")
        words.append((word, tags))
    return words


def _sentence(held_out: float, rng: random.Random) -> list[_Word]:
    words: list[_Word] = []
    for piece in rng.choice(_FRAMES).split():
        words += _entity(piece.strip("[]"), held_out, rng) if piece.startswith("[") else [(piece, [])]
    return words


def _text(sentence: Sequence[_Word]) -> str:
    return " ".join(word for word, _ in sentence)


def files() -> dict[str, bytes]:
    """Return the contents of the train, dev and test files, by path."""
    seen: set[str] = set()
    written = {}
    for split, size in SIZES.items():
        rng = random.Random(f"arabicner {split}")
        held_out = _HELD_OUT if split == "train" else 0.0
        sentences = distinct(lambda: _sentence(held_out, rng), _text, size, seen)  # noqa: B023
        blocks = ["\n".join(" ".join([word, *(tags or ["O"])]) for word, tags in words) for words in sentences]
        written[f"arabicner/{split}.txt"] = ("\n\n".join(blocks) + "\n").encode("utf-8")
    return written
