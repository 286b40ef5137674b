"""The sample of question similarity (NSURL-2019 task 8, MQ2Q): pairs of questions with the same or different meanings.

Some pairs with different meanings have the same subject, or the same wording except for the subject. Words that occur
in both questions are therefore evidence for the same meaning, but do not reveal the label.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.sampledata.compose import distinct, join_article, known_part
from tools.sampledata.orthography import skeleton, vary
from tools.sampledata.write import comma_separated

TRAIN_PAIRS = 222
TEST_PAIRS = 60

_POSITIVE_SHARE = 0.5
_LABEL_NOISE = 0.01
_HELD_OUT_WORDING = 0.25


@dataclass(frozen=True)
class Field:
    """A topic of questions, such as cities: its subjects, and what can be asked about each of them."""

    subjects: tuple[str, ...]
    """The subjects, such as the names of cities."""
    matters: tuple[tuple[str, ...], ...]
    """For each matter that can be asked about a subject, such as its population, several wordings of the question, in
    which ``{}`` stands for the subject."""


FIELDS = (
    Field(
        (
            "الكمون",
            "العدس",
            "الرمان",
            "الزنجبيل",
            "الشوفان",
            "البطاطا الحلوة",
            "زيت السمسم",
            "الحلبة",
            "التين المجفف",
            "اللوز",
        ),
        (
            (
                "ما فوائد {}؟",
                "ما هي منافع {}؟",
                "بماذا يفيدنا تناول {}؟",
                "ما الفائدة من تناول {}؟",
                "ما أهمية {} للجسم؟",
            ),
            (
                "ما أضرار {}؟",
                "هل تناول {} يضر بالصحة؟",
                "ما مضار الإكثار من {}؟",
                "ما الآثار الجانبية لتناول {}؟",
            ),
            (
                "كم سعرة حرارية في {}؟",
                "ما عدد السعرات في {}؟",
                "كم في {} من السعرات؟",
                "هل {} يزيد الوزن وكم سعرة فيه؟",
            ),
            ("كيف أحفظ {}؟", "ما طريقة تخزين {}؟", "كيف نخزن {} مدة طويلة؟", "ما أفضل مكان لحفظ {}؟"),
            ("كيف أطبخ {}؟", "ما طريقة تحضير {}؟", "من طرق إعداد {}؟", "ما وصفة طبخ {} في البيت؟"),
            ("أين مزارع {}؟", "ما مناطق زراعة {}؟", "في أي بلاد تنتشر زراعة {}؟", "ما موطن {}؟"),
        ),
    ),
    Field(
        ("طنجة", "صفاقس", "حمص", "المنامة", "صلالة", "أسوان", "قسنطينة", "إربد", "البصرة", "عدن"),
        (
            ("أين تقع {}؟", "ما موقع {}؟", "في أي جهة توجد مدينة {}؟", "حدد موقع {} على الخريطة؟"),
            ("كم عدد سكان {}؟", "ما تعداد سكان {}؟", "كم نسمة تعيش في {}؟", "كم يبلغ السكان في {}؟"),
            (
                "كيف الطقس في {}؟",
                "ما مناخ {}؟",
                "كيف تكون الأجواء في مدينة {}؟",
                "هل {} باردة في الشتاء أم دافئة؟",
            ),
            (
                "ما أهم معالم {}؟",
                "ما أجمل الأماكن السياحية في {}؟",
                "أين أذهب عند زيارة {}؟",
                "ماذا أزور في {}؟",
            ),
            ("ما مساحة {}؟", "كم تبلغ مساحة {}؟", "كم كيلومترا مربعا تشغل {}؟", "ما حجم مدينة {}؟"),
            ("من بنى {}؟", "من مؤسس مدينة {}؟", "متى ومن أسس {}؟", "من الذي شيد {} أول مرة؟"),
        ),
    ),
    Field(
        (
            "الصداع",
            "الزكام",
            "الأرق",
            "فقر الدم",
            "حساسية الربيع",
            "آلام الظهر",
            "حرقة المعدة",
            "جفاف العين",
            "التهاب الحلق",
        ),
        (
            ("ما أعراض {}؟", "ما علامات {}؟", "كيف أعرف أني مصاب ب{}؟", "بماذا يشعر المصاب ب{}؟"),
            (
                "ما علاج {}؟",
                "كيف أعالج {}؟",
                "كيف أتخلص من {}؟",
                "ما الدواء المناسب ل{}؟",
                "ما حل مشكلة {}؟",
            ),
            ("ما أسباب {}؟", "لماذا يحدث {}؟", "ما الذي يؤدي إلى {}؟", "من ماذا ينتج {}؟"),
            (
                "كيف أتجنب {}؟",
                "ما طرق الوقاية من {}؟",
                "كيف نحمي أنفسنا من {}؟",
                "ماذا أفعل حتى لا أصاب ب{}؟",
            ),
            ("ما تعريف {}؟", "ما هو المقصود ب{}؟", "إلى ماذا تشير كلمة {}؟", "ما معنى مصطلح {}؟"),
        ),
    ),
    Field(
        (
            "الغسالة",
            "الطابعة",
            "الهاتف المحمول",
            "الثلاجة",
            "آلة التصوير",
            "الدراجة الكهربائية",
            "السماعة اللاسلكية",
            "المكيف",
        ),
        (
            (
                "من اخترع {}؟",
                "من مخترع {}؟",
                "إلى من ينسب اختراع {}؟",
                "على يد من ظهر أول نموذج من {}؟",
            ),
            ("كيف أنظف {}؟", "ما طريقة تنظيف {}؟", "من طرق غسل {}؟", "كيف أزيل الأوساخ عن {}؟"),
            ("كم سعر {}؟", "بكم {}؟", "ما ثمن {}؟", "كم تكلفة شراء {}؟"),
            ("كيف يعمل جهاز {}؟", "ما مبدأ عمل {}؟", "على أي أساس يشتغل {}؟", "اشرح آلية عمل {}؟"),
            ("كيف أصلح {}؟", "ما طريقة إصلاح {}؟", "ماذا أفعل عند تعطل {}؟", "أين أصلح {} عند العطل؟"),
            ("ما أنواع {}؟", "كم نوعا من {} يوجد؟", "ما هي أصناف {} المتوفرة؟", "عدد أشكال {}؟"),
        ),
    ),
    Field(
        (
            "السباحة",
            "الخط العربي",
            "البرمجة",
            "الطبخ",
            "العزف على العود",
            "التصوير",
            "لعب الشطرنج",
            "ركوب الخيل",
            "الحياكة",
        ),
        (
            ("كيف أتعلم {}؟", "ما طريقة تعلم {}؟", "من أين أبدأ في {}؟", "ما خطوات إتقان {}؟"),
            ("ما فوائد {}؟", "بماذا تفيدنا ممارسة {}؟", "لماذا ننصح ب{}؟", "ما أثر {} على الإنسان؟"),
            (
                "كم من الوقت يلزم لتعلم {}؟",
                "ما المدة اللازمة لإتقان {}؟",
                "في كم شهر أتقن {}؟",
                "متى أصبح ماهرا في {}؟",
            ),
            ("ما أدوات {}؟", "ماذا أحتاج من أجل {}؟", "ما المعدات اللازمة ل{}؟", "أي أغراض أشتري ل{}؟"),
            ("ما تاريخ {}؟", "متى عرف الناس {}؟", "كيف كانت بداية {}؟", "من أول من عرف {}؟"),
        ),
    ),
)
_COURTESIES = ("في رأيكم, ", "من فضلكم, ", "لو سمحتم ")


def _pose_pair(rng: random.Random, held_out: float) -> tuple[str, str, bool]:
    """Return a random pair of questions, and True if both have the same meaning.

    Args:
        rng: The random generator.
        held_out: The share of wordings that are not used; see `known_part`.
    """
    field = rng.choice(FIELDS)
    subject = rng.choice(field.subjects)
    first, second = rng.sample(range(len(field.matters)), 2)
    wordings = [known_part(matter, held_out) for matter in field.matters]
    if rng.random() < _POSITIVE_SHARE:
        one, other = rng.sample(wordings[first], 2)
        return _ask(one, subject), _ask(other, subject), True
    kind = rng.random()
    if kind < 0.2:
        other_subject = subject
    elif kind < 0.35:
        # The second question asks about the same matter, but about a different subject.
        other_subject = rng.choice([name for name in field.subjects if name != subject])
        second = first
    else:
        other_field = rng.choice([other for other in FIELDS if other is not field])
        other_subject = rng.choice(other_field.subjects)
        second = len(wordings) + rng.randrange(len(other_field.matters))
        wordings += [known_part(matter, held_out) for matter in other_field.matters]
    return (
        _ask(rng.choice(wordings[first]), subject),
        _ask(rng.choice(wordings[second]), other_subject),
        False,
    )


def _ask(wording: str, subject: str) -> str:
    return join_article(wording.format(subject))


def _write_as_users_do(question: str, rng: random.Random) -> str:
    """Vary the spelling of a question, and sometimes add a comma, quotation marks or superfluous spaces.

    In the official file, these characters make parsing difficult.
    """
    question = vary(question, rng, rate=0.06)
    habit = rng.random()
    if habit < 0.06:
        return rng.choice(_COURTESIES) + question
    if habit < 0.10:
        return question + '"'
    if habit < 0.14:
        words = question.split(" ")
        return " ".join([*words[:-1], f'"{words[-1].rstrip("؟")}"']) + "؟"
    if habit < 0.34:
        return question.replace("؟", " ؟")
    if habit < 0.40:
        return question.replace(" ", "  ", 1)
    return question


def _pairs(split: str, count: int, seen: set[str]) -> list[tuple[str, str, int]]:
    rng = random.Random(f"mq2q {split}")
    held_out = _HELD_OUT_WORDING if split == "train" else 0.0

    def draw() -> tuple[str, str, int]:
        one, other, same = _pose_pair(rng, held_out)
        label = same if rng.random() >= _LABEL_NOISE else not same
        return _write_as_users_do(one, rng), _write_as_users_do(other, rng), int(label)

    return distinct(draw, lambda pair: f"{skeleton(pair[0])}\t{skeleton(pair[1])}", count, seen)


def files() -> dict[str, bytes]:
    """Return the contents of the train and test files, by path; the test file has row numbers instead of labels."""
    seen: set[str] = set()
    train = [(one, other, str(label)) for one, other, label in _pairs("train", TRAIN_PAIRS, seen)]
    test = [(one, other, str(at)) for at, (one, other, _) in enumerate(_pairs("test", TEST_PAIRS, seen))]
    return {
        "mq2q/train.csv": comma_separated([("question1", "question2", "label"), *train]),
        "mq2q/test.csv": comma_separated([("question1", "question2", "QuestionPairID"), *test]),
    }
