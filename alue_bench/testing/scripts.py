"""Test sentences in several scripts (writing systems), and the usual script of each language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SENTENCES: Mapping[str, tuple[str, ...]] = {
    "Arabic": ("الغرفة نظيفة والخدمة ممتازة", "سافر أخي إلى المدينة صباح اليوم", "لا أحب الشاي بلا سكر"),
    "Latin": ("The room is clean and quiet", "My brother left the town this morning", "I drink tea without sugar"),
    "Cyrillic": ("Комната чистая и тихая", "Мой брат уехал сегодня утром", "Я пью чай без сахара"),
    "Greek": ("Το δωμάτιο είναι καθαρό", "Ο αδελφός μου έφυγε το πρωί", "Πίνω τσάι χωρίς ζάχαρη"),
    "Hebrew": ("החדר נקי ושקט", "אחי נסע לעיר הבוקר", "אני שותה תה בלי סוכר"),
    "Devanagari": ("कमरा साफ और शांत है", "मेरा भाई आज सुबह शहर गया", "मैं बिना चीनी की चाय पीता हूँ"),
    "Bengali": ("ঘরটি পরিষ্কার এবং শান্ত", "আমার ভাই আজ সকালে শহরে গেছে", "আমি চিনি ছাড়া চা খাই"),
    "Thai": ("ห้องสะอาดและเงียบ", "พี่ชายไปในเมืองเมื่อเช้านี้", "ฉันดื่มชาไม่ใส่น้ำตาล"),
    "Hangul": ("방이 깨끗하고 조용합니다", "형은 오늘 아침에 떠났습니다", "나는 설탕 없이 차를 마신다"),
    "Japanese": ("部屋はきれいで静かです", "兄は今朝町へ行きました", "砂糖なしでお茶を飲みます"),
    "Chinese": ("房间干净又安静", "我哥哥今天早上进城了", "我喝茶不加糖"),
}
"""Three test sentences for each script (writing system). Sentences in the same script have few words in common."""

# The codes of the languages that are usually written in each script.
_LANGUAGES: Mapping[str, str] = {
    "Arabic": "ar arb acm aeb afb ajp apc apd arq ars ary arz ayl fa pes ps ckb sd ug ur",
    "Latin": "af az bs ca cs cy da de en es et eu fi fil fr ga gl ha hr hu id ig is it lt lv ms mt nb nl nn no pl pt "
    "ro sk sl so sq sv sw tl tr vi xh yo zu",
    "Cyrillic": "be bg kk ky mk mn ru tg tt uk",
    "Greek": "el",
    "Hebrew": "he yi",
    "Devanagari": "hi mai mr ne sa",
    "Bengali": "as bn",
    "Thai": "th",
    "Hangul": "ko",
    "Japanese": "ja",
    "Chinese": "wuu yue zh",
}
_SCRIPT_OF = {code: script for script, codes in _LANGUAGES.items() for code in codes.split()}
# The script for each script subtag of a BCP 47 code, in lower case.
_SUBTAGS = {
    "arab": "Arabic", "latn": "Latin", "cyrl": "Cyrillic", "grek": "Greek", "hebr": "Hebrew", "deva": "Devanagari",
    "beng": "Bengali", "thai": "Thai", "hang": "Hangul", "kore": "Hangul", "jpan": "Japanese", "hani": "Chinese",
    "hans": "Chinese", "hant": "Chinese",
}  # fmt: skip


def scripts_of(languages: Iterable[str]) -> tuple[str, ...]:
    """Return the scripts (writing systems) of the given languages, as keys of `SENTENCES`, without duplicates.

    If a code names its script, as in "ar-Latn", this script replaces the usual script of the language.

    Args:
        languages: BCP 47 codes. Codes whose script is unknown or not in `SENTENCES` are ignored.
    """
    scripts: dict[str, None] = {}
    for code in languages:
        language, *subtags = code.lower().split("-")
        named = [subtag for subtag in subtags if len(subtag) == 4 and subtag.isalpha()]
        script = _SUBTAGS.get(named[0]) if named else _SCRIPT_OF.get(language)
        if script is not None:
            scripts[script] = None
    return tuple(scripts)
