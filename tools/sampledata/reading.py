"""The sample of reading comprehension: short passages of hand-written sentences, with three questions about each.

A passage describes an invented person, town or company in four sentences. Three of these sentences answer one question
each; the answer is a part of the sentence. As in the official files, some answers are not at the position that the file
states.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from tools.sampledata.compose import choose_fillers, distinct, fill, known_part

SIZES = {"train": 40, "test": 24}
"""The number of passages in each file, with three questions each."""
QUESTIONS = 3
MISPLACED = 2
"""The largest number of answers in each file whose stated position is wrong."""
_HELD_OUT = 0.2
_SLOTS: dict[str, tuple[str, ...]] = {
    "person": (
        "سمير الخطيب", "عادل منصور", "هادي زيدان", "يوسف بركات", "نبيل الحداد", "كريم الصالح", "رامي العطار",
        "طارق النجار", "سليم الأيوبي", "جمال السقا",
    ),
    "town": ("المرجانة", "عين السلام", "وادي الزهر", "النخيل", "بئر الحجر", "رأس الجبل", "تل القمح", "الميناء الجديد"),
    "country": ("تونس", "الأردن", "المغرب", "العراق", "مصر", "ليبيا", "عُمان"),
    "year": ("1921", "1948", "1956", "1963", "1974", "1987", "1999", "2008"),
    "month": ("كانون الثاني", "آذار", "نيسان", "حزيران", "أيلول", "تشرين الأول"),
    "job": ("طبيب أسنان", "معلم رياضيات", "مهندس جسور", "خطاط", "عالم فلك", "صانع أعواد", "مترجم"),
    "book": ("«نافذة على البحر»", "«حكايات القطار»", "«طيور الشتاء»", "«دفتر الحارة»", "«مفاتيح المدينة»"),
    "prize": ("جائزة الكتاب الذهبي", "وسام المدينة", "جائزة الريشة", "درع التعليم"),
    "crop": ("الزيتون", "القمح", "البرتقال", "التمور", "الرمان", "العنب"),
    "river": ("نهر الفيروز", "وادي السدر", "بحيرة الغزال", "نبع الحمام"),
    "number": ("ثلاثة آلاف", "سبعة آلاف", "عشرين ألف", "خمسين ألف", "مئة ألف"),
    "festival": ("مهرجان الفخار", "مهرجان الطائرات الورقية", "موسم القطاف", "سوق الخريف"),
    "product": ("الأقلام الخشبية", "المراوح الكهربائية", "السجاد اليدوي", "الدراجات", "عصير الرمان"),
    "company": ("شركة النسيم", "مصنع الأمل", "دار المرايا", "شركة الجسر", "مؤسسة الغد"),
    "reason": ("نقص المياه", "ارتفاع الأسعار", "حريق كبير", "كثرة الطلبات"),
}  # fmt: skip
_Fact = tuple[str, str, str]
"""A sentence, a question that it answers, and the answer. All three are frames with the same slots."""
_SUBJECTS: tuple[tuple[_Fact, ...], ...] = (
    (
        ("[person] كاتب وباحث من [country]، ولد عام [year] في بلدة [town].", "أين ولد [person]؟", "بلدة [town]"),
        ("عمل [person] في شبابه [job]، ثم تفرغ للكتابة.", "ماذا عمل [person] في شبابه؟", "[job]"),
        ("نشر كتابه الأول [book] في [month]، ولقي إقبالا كبيرا.", "ما عنوان الكتاب الأول؟", "[book]"),
        ("ونال بعد سنوات [prize] عن مجمل أعماله.", "ما الجائزة التي نالها الكاتب؟", "[prize]"),
        ("انتقل إلى [country] بسبب [reason] وبقي فيها حتى وفاته.", "لماذا انتقل من بلدته؟", "[reason]"),
    ),
    (
        ("تقع بلدة [town] في [country] على ضفة [river].", "على ضفة ماذا تقع [town]؟", "[river]"),
        ("يسكنها نحو [number] نسمة (إحصاء عام [year]).", "كم عدد سكان البلدة؟", "[number] نسمة"),
        ("يعيش معظم أهل [town] من زراعة [crop].", "ماذا يزرع أهل [town]؟", "[crop]"),
        ("يقام فيها في [month] من كل عام [festival]، ويحضره الزوار.", "متى يقام المهرجان؟", "[month] من كل عام"),
        ("بنى جسرها القديم [person]، وهو [job] معروف.", "من بنى الجسر القديم؟", "[person]"),
    ),
    (
        ("تأسست [company] عام [year] في [country].", "متى تأسست [company]؟", "عام [year]"),
        ("تنتج [company] [product] وتبيعها في الخارج.", "ماذا تنتج [company]؟", "[product]"),
        ("يعمل فيها [number] عامل، معظمهم من [town].", "من أين جاء معظم العمال؟", "[town]"),
        ("توقفت عن الإنتاج مدة شهر بسبب [reason].", "ما سبب توقف الإنتاج؟", "[reason]"),
        ("يديرها منذ [month] الماضي [person].", "من يدير [company] الآن؟", "[person]"),
    ),
)
_Passage = tuple[str, list[tuple[str, str, int]]]
"""The text of a passage, and for each question a tuple: the question, its answer, and the answer's position.

The position is the index of the answer's first character in the text."""


def _passage(held_out: float, rng: random.Random) -> _Passage:
    subject = rng.choice(_SUBJECTS)
    # The first sentence, which introduces the subject, and three others in their order.
    facts = [subject[index] for index in (0, *sorted(rng.sample(range(1, len(subject)), QUESTIONS)))]
    answered = rng.sample(range(len(facts)), QUESTIONS)
    slots = {name: known_part(words, held_out) for name, words in _SLOTS.items()}
    chosen = choose_fillers([sentence for sentence, _, _ in facts], slots, rng)
    context, asked = "", []
    for index, fact in enumerate(facts):
        sentence, question, answer = (fill(frame, {**slots, **chosen}, rng) for frame in fact)
        context += " " if context else ""
        if index in answered:
            asked.append((question, answer, len(context) + sentence.index(answer)))
        context += sentence
    return context, asked


def _articles(split: str, passages: Sequence[_Passage], rng: random.Random) -> bytes:
    """Return the content of a file in SQuAD's format, with two passages in each article."""
    number, paragraphs = 0, []
    misplaced = set(rng.sample(range(len(passages) * QUESTIONS), MISPLACED))
    for context, asked in passages:
        questions = []
        for question, answer, start in asked:
            # A position is made wrong only if the answer occurs once in the text, so that the right one can be found.
            wrong = number in misplaced and context.count(answer) == 1
            stated = {"text": answer, "answer_start": start + 1 if wrong else start}
            questions.append({"question": question, "id": f"{split}-{number}", "answers": [stated]})
            number += 1
        paragraphs.append({"context": context, "qas": questions})
    articles = [
        {"title": f"{split} {first // 2}", "paragraphs": paragraphs[first : first + 2]}
        for first in range(0, len(paragraphs), 2)
    ]
    return (json.dumps({"data": articles, "version": "1.1"}) + "\n").encode("ascii")


def files() -> dict[str, bytes]:
    """Return the contents of the train and test files, by path."""
    seen: set[str] = set()
    written = {}
    for split, size in SIZES.items():
        rng = random.Random(f"arcd {split}")
        held_out = _HELD_OUT if split == "train" else 0.0
        passages = distinct(lambda: _passage(held_out, rng), lambda passage: passage[0], size, seen)  # noqa: B023
        written[f"arcd/arcd-{split}.json"] = _articles(split, passages, rng)
    return written
