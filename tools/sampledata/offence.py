"""The sample of offensive language and hate speech (OSACT4; the tasks OOLD and OHSD).

Insults are mild, and hate is aimed at supporters of clubs and people of towns that do not exist. The same clubs, towns
and vocatives occur in friendly tweets, and insulting words occur in harmless tweets, so that no single word reveals the
label. Hate speech is far more frequent than in the real corpus, in which it is one tweet in twenty. If it were as rare
here, a few training steps on a few hundred rows would only teach a model that it is rare.
"""

from __future__ import annotations

import random

from tools.sampledata.compose import distinct, fill, known_part
from tools.sampledata.lexicon import CLUBS, MEN, NUISANCES, PLEASURES, TOWNS, WOMEN
from tools.sampledata.orthography import skeleton, vary
from tools.sampledata.tweets import anonymise, surround
from tools.sampledata.write import tsv

SIZES = {"train": 176, "dev": 80, "test-tweets": 40}

_HATE_SHARE = 0.3
_OFFENSIVE_SHARE = 0.55
# The share of hate speech that is labelled only as offensive, as some annotators do.
_MISSED_HATE_SHARE = 0.05
_LABEL_NOISE = 0.02
_HELD_OUT = 0.25

_SLOTS = {
    "insult": (
        "غبي", "كذاب", "وقح", "تافه", "جاهل", "سخيف", "فاشل", "قليل الأدب", "ثقيل الدم", "جبان",
        "منافق", "مغرور",
    ),
    "insults": (
        "أغبياء", "كذابين", "وقحين", "تافهين", "جهلة", "فاشلين", "سطحيين", "مملين", "جبناء",
        "منافقين",
    ),
    "name": MEN + WOMEN,
    "club": CLUBS,
    "town": TOWNS,
    "nuisance": NUISANCES,
    "pleasure": PLEASURES,
    "praise": ("بطل", "غالي", "أمير", "فنان", "نجم", "محترم", "كبير", "ورد", "حلو", "طيب"),
    "wish": (
        "الله يوفقك", "يا رب تفرح دايما", "كل عام وانت بخير", "ألف مبروك", "سلامتك", "يومك سعيد",
        "تصبح على خير",
    ),
    "work": ("البرنامج", "المسلسل", "المقال", "الفيديو", "التقرير", "اللقاء", "المطعم", "التطبيق"),
}  # fmt: skip
_HATE = (
    "جمهور [club] كلهم [insults] ولا واحد فيهم يستاهل الاحترام",
    "أهل [town] طول عمرهم [insults]، لا تصدقوهم",
    "يا جماهير [club] يا [insults] ارجعوا لبيوتكم",
    "ما في أسوأ من مشجعين [club]، [insults] و[insults]",
    "كل مصيبة وراها ناس [town] ال[insults]",
    "لا تستقبلوا أهل [town] عندكم، [insults] بالوراثة",
    "أكره كل واحد يشجع [club]، كلهم [insults]",
    "مشجع [club] يعني [insult] بدون نقاش",
    "لا تعاشر أحد من [town] ترى كلهم [insults]",
    "كل ما شفت مشجع [club] عرفت إن النقاش ضايع",
    "سكان [town] ما ينعطون وجه، ناس [insults]",
    "ما نبي أحد من [town] بيننا، خلوهم في ديرتهم",
    "ناس [town] أقل من إنهم يتكلمون معنا",
    "ما ينفع مع جمهور [club] إلا التجاهل، عقولهم صغيرة",
)
_OFFENSIVE = (
    "انت [insult] و[insult] ولا تفهم شي",
    "اسكت يا [insult] محد طلب رأيك",
    "والله انك [insult]، روح نام أحسن لك",
    "يا [insult] يا [insult] كفاية كذب",
    "[name] هذا [insult] وكل كلامه فاضي",
    "[work] تافه واللي سواه [insult]",
    "روح تعلم القراءة قبل ما تكتب يا [insult]",
    "وجهك يسد النفس يا [insult] بلا [nuisance] بلا كلام فاضي",
    "اللي يصدق [name] يكون [insult] مثله",
    "يا أخي بطل سخافة، انت واحد [insult]",
    "لاعب [club] [insult] ضيع الهدف بكل سخافة",
    "رئيس نادي [club] [insult] وكل وعوده كلام فاضي",
    "شفت [name] في [town]، نفس ال[insult] ما تغير",
    "عقلك صغير مثل حجم تغريدتك يا [name]",
    "لا ترد علي، مستواك تحت الأرض",
    "حتى الكرسي يفهم أكثر منك يا [name]",
    "يا [insult] خلي عندك شوية دم",
)
_HARMLESS = (
    "يا [name] يا [praise] [wish]",
    "[wish] يا [praise]، [pleasure] أحلى شي اليوم",
    "يا رب [pleasure] تتكرر كل يوم",
    "مبروك ل[club] الفوز، مباراة ممتعة يا [praise]",
    "زرت [town] مع [name] وأهلها ناس [praise] والله",
    "تعبت من [nuisance]، يا رب الصبر",
    "[nuisance] مشكلة كل يوم، متى الحل يا جماعة؟",
    "شفت [work] الجديد؟ يا سلام على الإخراج",
    "يا [name] كلمني إذا فضيت، عندي سؤال",
    "انا [insult] اليوم، نسيت المفتاح في البيت",
    "لا تقول عن نفسك [insult] يا [name]، انت [praise]",
    "يا صباح [pleasure] يا [praise]",
    "جمهور [club] كلهم ذوق، شكرا على الاستقبال",
    "أهل [town] طول عمرهم كرام، [wish]",
    "قرأت [work] وفيه شخصية اسمها ال[insult]، قصة لطيفة",
    "مين رايح [town] بكرة؟ خذوني معاكم يا شباب",
    "مو كل مشجعين [club] [insults]، فيهم ناس [praise]",
    "والله انك [praise] يا [name]، ما قصرت",
    "عيب تقولون عن أهل [town] [insults]، جيراننا من سنين",
    "لاعب [club] ضيع الهدف، حظ أوفر يا [praise]",
    "[pleasure] يا ناس، الحمد لله",
    "اسكت يا قلبي كفاية حنين",
    "الفيلم عن ناس [insults] في مدينة خيالية، قصة حلوة",
    "مين قال إن [name] [insult]؟ ظلمتوه والله",
    "إذا [club] فاز اليوم العشا علي يا [name]",
)
_ANGRY_EMOJI = ("😡", "🤮", "😂", "🙄", "👎", "🤡")
_KIND_EMOJI = ("❤️", "😍", "🌹", "😂", "🙏", "💔", "👏")


def _tweet(frames: tuple[str, ...], emoji: tuple[str, ...], rng: random.Random, held_out: float) -> str:
    slots = {
        name: known_part(words, held_out) if name.startswith("insult") else words for name, words in _SLOTS.items()
    }
    text = fill(rng.choice(known_part(frames, held_out)), slots, rng)
    return anonymise(vary(surround(text, emoji, rng), rng, rate=0.08), rng)


def labelled(rng: random.Random, held_out: float) -> tuple[str, str, str]:
    """Return a random tweet with its two labels: offensive language (OFF or NOT_OFF) and hate speech (HS or NOT_HS).

    Args:
        rng: The random number generator.
        held_out: The share of sentence frames and insults that are not used; see `known_part`.
    """
    kind = rng.random()
    if kind < _HATE_SHARE:
        text, offensive, hateful = _tweet(_HATE, _ANGRY_EMOJI, rng, held_out), True, True
    elif kind < _OFFENSIVE_SHARE:
        text, offensive, hateful = _tweet(_OFFENSIVE, _ANGRY_EMOJI, rng, held_out), True, False
    else:
        text, offensive, hateful = _tweet(_HARMLESS, _KIND_EMOJI, rng, held_out), False, False
    if hateful and rng.random() < _MISSED_HATE_SHARE:
        hateful = False
    if rng.random() < _LABEL_NOISE:
        offensive, hateful = not offensive, False
    return text, "OFF" if offensive else "NOT_OFF", "HS" if hateful else "NOT_HS"


def files() -> dict[str, bytes]:
    """Return the contents of the files, by path: train and dev with both labels, and test tweets without labels."""
    seen: set[str] = set()
    written = {}
    for split, size in SIZES.items():
        rng = random.Random(f"osact4 {split}")
        held_out = _HELD_OUT if split == "train" else 0.0
        rows = distinct(lambda: labelled(rng, held_out), lambda row: skeleton(row[0]), size, seen)  # noqa: B023
        shown = [row[:1] for row in rows] if split == "test-tweets" else rows
        written[f"osact4/OSACT2020-sharedTask-{split}.txt"] = tsv(shown)
    return written
