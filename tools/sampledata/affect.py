"""The sample of emotions and valence (SemEval-2018 task 1, E-c and V-reg): one set of tweets with both annotations.

Emotions occur in realistic combinations. Not every emotion in the labels of a tweet is expressed in its words, because
human annotators also label emotions that a text only implies. A small model needs about forty training steps to
distinguish eleven labels. For this reason most emotions occur in pairs, most tweets have an emoji, and there are more
train rows than for the other tasks on tweets. An emotion is predicted if its probability is above 0.25. Every emotion
is in less than a quarter of the tweets, so that a model that has learnt only these frequencies predicts no emotion.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.sampledata.compose import distinct, fill, known_part
from tools.sampledata.lexicon import NUISANCES, PLEASURES, TOWNS
from tools.sampledata.orthography import skeleton, vary
from tools.sampledata.tweets import surround
from tools.sampledata.write import tsv

SIZES = {"train": 224, "dev": 50, "test-gold": 100}
_MOST_WITH_VALENCE = 160
"""The largest number of tweets per split in the valence files, which need fewer rows than the emotion files."""
EMOTIONS = (
    "anger", "anticipation", "disgust", "fear", "joy", "love", "optimism", "pessimism", "sadness",
    "surprise", "trust",
)  # fmt: skip
# These ids are above every id of the official files, so that nobody mistakes these tweets for official ones.
_FIRST_ID = {"train": 90001, "dev": 91001, "test-gold": 92001}

_SECOND_CLAUSE_SHARE = 0.3
_EMOJI_SHARE = 0.95
_HELD_OUT = 0.2
_VALENCE_NOISE = 0.11
_MISSED_SHARE = 0.02
_IMAGINED_SHARE = 0.03

_COMBINATIONS: dict[tuple[str, ...], int] = {
    ("anger",): 4, ("anger", "disgust"): 17, ("anger", "sadness"): 1, ("disgust",): 1,
    ("joy",): 2, ("joy", "love"): 16, ("joy", "surprise"): 2, ("love",): 1,
    ("sadness",): 3, ("sadness", "pessimism"): 17, ("pessimism",): 1,
    ("optimism",): 2, ("optimism", "trust"): 15, ("trust",): 1,
    ("fear",): 2, ("fear", "anticipation"): 8, ("fear", "surprise"): 6,
}  # fmt: skip
_VALENCE = {
    "anger": -0.22, "anticipation": 0.04, "disgust": -0.20, "fear": -0.14, "joy": 0.25, "love": 0.22,
    "optimism": 0.16,
    "pessimism": -0.18, "sadness": -0.24, "surprise": 0.02, "trust": 0.15,
}  # fmt: skip
_CLAUSES: dict[str, tuple[str, ...]] = {
    "anger": (
        "عصبت من [nuisance]", "مقهور من [nuisance]", "أغلي من الداخل بسبب [nuisance]",
        "أعصابي تلفت بسبب [nuisance]",
        "أنا غاضب من [nuisance]", "[nuisance] شي يقهر", "مستفز من [nuisance] اليوم",
        "مين المسؤول عن [nuisance] ؟ مهزلة",
        "لا تختبر صبري مرة ثانية", "متنرفز من [nuisance] من الصبح", "دمي فاير من [nuisance]",
        "طفح الكيل من [nuisance]",
    ),
    "disgust": (
        "شي مقرف", "قرفت من [nuisance]", "تصرفات تثير الاشمئزاز", "قلة ذوق تلوع الكبد",
        "ريحة المكان مقززة",
        "أسلوب رخيص ومقرف", "اشمأزيت من كلامهم", "منظر يسد النفس",
    ),
    "sadness": (
        "حزين والدموع ما وقفت", "قلبي مكسور بعد فراقهم", "اشتقت لأيام [pleasure]", "ضاق صدري اليوم",
        "بكيت لما تذكرت [pleasure]",
        "الوحدة تعبتني", "وجع بالقلب ما يروح", "يوم كئيب من أوله", "فقدت أعز ناسي",
        "نفسيتي تعبانة وخاطري مكسور",
    ),
    "pessimism": (
        "ما في أمل يتغير شي", "كل شي رايح للأسوأ", "عارف إنها خربانة من البداية", "تعودت على الخيبة",
        "لا فائدة من المحاولة",
        "المستقبل أسود", "حظي سيء دايما", "مستحيل تتصلح الأمور",
    ),
    "fear": (
        "خايف من نتيجة الفحص", "قلبي يدق من الخوف", "مرعوب من [nuisance]", "قلق وما نمت الليل",
        "أخاف أخسر كل شي",
        "متوتر من مقابلة بكرة", "كابوس صحاني مفزوع", "أرتجف من صوت الرعد", "الظلام في [town] يخوف",
    ),
    "joy": (
        "فرحان ب[pleasure]", "سعيد ب[pleasure]", "يا سلام على [pleasure]", "أسعد لحظة [pleasure]",
        "ضحكت من قلبي اليوم",
        "الفرحة مو سايعتني", "مبسوط بسبب [pleasure]", "أحلى يوم في حياتي", "الدنيا عيد مع [pleasure]",
        "سعادتي اليوم [pleasure]",
    ),
    "love": (
        "أحبكم يا أغلى ناس", "أعشق [pleasure]", "قلبي معاك يا روحي", "أمي حبيبتي نور عيوني",
        "بحبك أكثر من الدنيا",
        "غرامي [pleasure]", "حب عمري وأجمل نصيب", "حضنك دنيتي",
    ),
    "optimism": (
        "بكرة أحلى بإذن الله", "متفائل بالأيام الجاية", "بعد التعب راحة أكيد", "الأمل موجود دايما",
        "الخير قادم يا أصدقائي",
        "كل شي راح يصير تمام", "ابتسم فالقادم أجمل", "سننجح إن شاء الله",
    ),
    "anticipation": (
        "أنتظر [pleasure] على نار", "باقي يومين على [pleasure]", "متى يجي الموعد؟",
        "أترقب إعلان النتائج", "العد التنازلي بدأ",
        "جهزت نفسي ل[pleasure]",
    ),
    "surprise": (
        "مو مصدق اللي صار", "مفاجأة ما توقعتها أبدا", "انصدمت من [nuisance]", "يا ربي كيف صار هذا؟",
        "فجأة وبدون مقدمات",
        "معقول؟ ما استوعبت",
    ),
    "trust": (
        "توكلت على الله", "واثق فيكم يا أهلي", "سلمت أمري لربي", "صاحبي سند ما يخون",
        "أثق بقدرتنا على النجاح", "عندي ثقة بالفريق",
    ),
}  # fmt: skip
_SLOTS = {"nuisance": NUISANCES, "pleasure": PLEASURES, "town": TOWNS}
_STRENGTH = {
    "": 1.0,
    " جدا": 1.35,
    " والله": 1.15,
    " مرة": 1.25,
    " كتير": 1.3,
    " أوي أوي": 1.45,
    " شوي": 0.6,
    " نوعا ما": 0.55,
}
_EMOJI: dict[str, tuple[str, ...]] = {
    "anger": ("😡", "😤", "🤬"), "disgust": ("🤢", "🤮"), "sadness": ("😢", "💔", "😭"),
    "pessimism": ("😔", "💔"),
    "fear": ("😨", "😱"), "joy": ("😂", "😍", "🎉", "😄"), "love": ("❤️", "😍", "💕"),
    "optimism": ("🌸", "🙏", "💪"),
    "anticipation": ("⏳", "👀"), "surprise": ("😳", "😱"), "trust": ("🙏", "🤝"),
}  # fmt: skip
# The last item stands for a line break inside a tweet, as in the official files.
_LINKS = (" ", "، ", " و", " .. ", "\\n")


@dataclass(frozen=True)
class Tweet:
    """A tweet with its set of emotions and its valence (from 0, negative, to 1, positive)."""

    text: str
    emotions: frozenset[str]
    valence: float


def _tweet(rng: random.Random, held_out: float) -> Tweet:
    emotions = rng.choices(list(_COMBINATIONS), list(_COMBINATIONS.values()))[0]
    first, *others = rng.sample(emotions, len(emotions))
    voiced = [first, *(other for other in others if rng.random() < _SECOND_CLAUSE_SHARE)]
    text, valence = "", 0.5
    for at, emotion in enumerate(voiced):
        clause = fill(rng.choice(known_part(_CLAUSES[emotion], held_out)), _SLOTS, rng)
        adverb = rng.choice(list(_STRENGTH)) if clause[-1] != "؟" and rng.random() < 0.3 else ""
        text += (rng.choice(_LINKS) if at else "") + clause + adverb
        valence += _VALENCE[emotion] * _STRENGTH[adverb] * (1.0 if at == 0 else 0.5)
    emoji = _EMOJI[rng.choice(emotions)]
    text = surround(text, emoji, rng, emoji_share=_EMOJI_SHARE)
    if any(mark in text for mark in emoji):
        valence += 0.04 if valence > 0.5 else -0.04
    # The error has a triangular distribution, whose values are the same on every platform; normally distributed values
    # might differ in their last digits.
    valence += (rng.random() + rng.random() - 1) * 2 * _VALENCE_NOISE
    return Tweet(vary(text, rng, rate=0.08), _as_annotated(emotions, rng), min(max(valence, 0.02), 0.98))


def _as_annotated(emotions: tuple[str, ...], rng: random.Random) -> frozenset[str]:
    """Return the emotions with random annotation errors: some are missing, and sometimes one is added."""
    kept = {emotion for emotion in emotions if rng.random() >= _MISSED_SHARE} or set(emotions[:1])
    if rng.random() < _IMAGINED_SHARE:
        kept.add(rng.choice(EMOTIONS))
    return frozenset(kept)


def files() -> dict[str, bytes]:
    """Return the contents of the files of both subtasks (emotions and valence) for every split, by path."""
    seen: set[str] = set()
    written = {}
    for split, size in SIZES.items():
        rng = random.Random(f"semeval2018 {split}")
        held_out = _HELD_OUT if split == "train" else 0.0
        tweets = distinct(lambda: _tweet(rng, held_out), lambda tweet: skeleton(tweet.text), size, seen)  # noqa: B023
        emotion_rows: list[tuple[str, ...]] = [("ID", "Tweet", *EMOTIONS)]
        valence_rows = [("ID", "Tweet", "Affect Dimension", "Intensity Score")]
        for number, tweet in enumerate(tweets, start=_FIRST_ID[split]):
            identifier = f"2018-Ar-{number}"
            flags = ("1" if emotion in tweet.emotions else "0" for emotion in EMOTIONS)
            emotion_rows.append((identifier, tweet.text, *flags))
            valence_rows.append((identifier, tweet.text, "valence", f"{tweet.valence:.3f}"))
        rng.shuffle(rows := valence_rows[1 : _MOST_WITH_VALENCE + 1])
        written[f"semeval2018/2018-E-c-Ar-{split}.txt"] = tsv(emotion_rows, newline="\r\n")
        written[f"semeval2018/2018-Valence-reg-Ar-{split}.txt"] = tsv([valence_rows[0], *rows], newline="\r\n")
    return written
