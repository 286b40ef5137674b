"""The sample of irony detection (IDAT@FIRE2019): praise of failures versus sincere praise and sincere complaints.

Words of praise and failures occur in both classes; only their combination is ironic.
"""

from __future__ import annotations

import random

from tools.sampledata.compose import distinct, fill, known_part
from tools.sampledata.lexicon import PLEASURES, TOWNS
from tools.sampledata.orthography import skeleton, vary
from tools.sampledata.tweets import surround
from tools.sampledata.write import comma_separated

SIZES = {"training": 176, "test": 80}
_LABEL_NOISE = 0.03
HELD_OUT = 0.2

_SLOTS = {
    "failure": (
        "النت مقطوع من أسبوع", "الطيارة تأخرت خمس ساعات", "الموظف نايم على المكتب",
        "الشارع غرق من أول قطرة مطر",
        "الفاتورة زادت ثلاثة أضعاف", "التطبيق يعلق كل دقيقة", "المصعد خربان من 2019",
        "الأكل وصل بارد وناقص",
        "خسرنا بالستة في ملعبنا", "المعاملة ضاعت للمرة العاشرة", "الكهرباء قطعت وقت الامتحان",
        "الطبيب ما جاء للموعد",
        "الحفرة قدام بيتنا صار عمرها سنتين", "المكيف مات في عز الصيف", "الجسر الجديد تكسر قبل الافتتاح",
    ),
    "success": (
        "النت رجع بسرعة", "الطيارة وصلت قبل موعدها", "الموظف خلص معاملتي في دقيقة",
        "الشارع صار نظيف ومرتب",
        "الفاتورة نزلت للنصف", "التطبيق صار أسرع", "المصعد تصلح اليوم", "الأكل وصل حار ولذيذ",
        "فزنا بالستة في ملعبنا",
        "المعاملة جاهزة من أول يوم", "الكهرباء ما قطعت أبدا", "الطبيب اهتم وشرح كل شي",
        "الجسر الجديد وفر علينا ساعة",
    ),
    "praise": (
        "ما شاء الله", "يا سلام", "شكرا من القلب", "إنجاز عظيم", "خدمة خمس نجوم", "برافو عليكم",
        "تستاهلون جائزة",
        "قمة الاحتراف", "الله يعطيكم العافية", "نظام عالمي",
    ),
    "complaint": (
        "للأسف", "تعبنا والله", "مشكلة كبيرة", "نرجو الحل", "يا جماعة ساعدونا", "أقدم شكوى رسمية",
        "خبر مزعج", "وضع صعب",
    ),
    "wink": ("طبعا", "أكيد", "كالعادة", "عادي جدا", "وين المشكلة يعني", "لا تحسدونا", "عقبال عندكم"),
    "pleasure": PLEASURES,
    "town": TOWNS,
}  # fmt: skip
_IRONIC = (
    "[praise] [failure] [wink]", "[failure]، [praise]", "[praise]، [failure] في [town]",
    "[wink] [failure] و[pleasure] بعد يا سلام",
    "[praise] يا بلدية [town]، [failure]", "عشان كذا نحبكم: [failure]",
    "[failure] بس المدير يقول كل شي ممتاز",
    "يا حظنا [failure]، [praise]",
)  # fmt: skip
_SINCERE = (
    "[praise] [success]", "[success]، [praise]", "[complaint] [failure]", "[failure] [complaint]",
    "[complaint]، [failure] في [town]",
    "[praise] يا بلدية [town]، [success]", "[pleasure] و[success] الحمد لله",
    "[success] [wink] هذا المتوقع منكم",
    "يا حظنا [success]، [pleasure] بعد", "[failure] بس المدير وعد بالحل اليوم",
)  # fmt: skip
_IRONIC_EMOJI = ("😂", "🙄", "👏", "😏", "🤣")
_SINCERE_EMOJI = ("❤️", "👏", "😢", "🙏", "😂")


def labelled(rng: random.Random, held_out: float) -> tuple[str, int]:
    """Return a random tweet, and 1 if it is ironic, otherwise 0.

    Args:
        rng: The random number generator.
        held_out: The share of sentence frames and words that are not used; see `known_part`.
    """
    ironic = rng.random() < 0.5
    frames, emoji = (_IRONIC, _IRONIC_EMOJI) if ironic else (_SINCERE, _SINCERE_EMOJI)
    slots = {name: known_part(words, held_out) for name, words in _SLOTS.items()}
    text = surround(fill(rng.choice(known_part(frames, held_out)), slots, rng), emoji, rng)
    label = ironic if rng.random() >= _LABEL_NOISE else not ironic
    return vary(text, rng, rate=0.08), int(label)


def files() -> dict[str, bytes]:
    """Return the contents of the train and test files, by path."""
    seen: set[str] = set()
    written = {}
    for split, size in SIZES.items():
        rng = random.Random(f"idat {split}")
        held_out = HELD_OUT if split == "training" else 0.0
        tweets = distinct(lambda: labelled(rng, held_out), lambda row: skeleton(row[0]), size, seen)  # noqa: B023
        rows = [(str(at), text, str(label)) for at, (text, label) in enumerate(tweets)]
        written[f"idat/IDAT_{split}_text.csv"] = comma_separated([("id", "text", "label"), *rows])
    return written
