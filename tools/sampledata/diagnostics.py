"""The sample of the diagnostic set: sentence pairs that each test one phenomenon of inference.

The set is scored with a model trained on XNLI. Three quarters of the pairs contain the cues that reveal the label in
the sample of XNLI, so that a model trained on this sample scores above chance. The labels of the other pairs can be
found only from both sentences and their order.

ALUE's file is not public. ALUE's code reads the columns ``pairID``, ``sentence1``, ``sentence2`` and ``gold_label`` in
this order, below a header line; the sample's file has this format.
"""

from __future__ import annotations

import random

from tools.sampledata.compose import choose_fillers, distinct, fill
from tools.sampledata.lexicon import MEN, WOMEN
from tools.sampledata.write import tsv

PAIRS = 120
_CUED_SHARE = 0.75

_SLOTS = {
    "m": MEN,
    "f": WOMEN,
    "city": ("طنجة", "حلب", "صلالة", "أسوان", "إربد", "صفاقس"),
    "dish": ("الحساء", "الأرز", "السمك", "الكعك"),
    "thing": ("الكتاب", "المفتاح", "الخاتم", "المعطف"),
    "num": ("5", "7", "9", "خمسة", "سبعة"),
}
# Premise, hypothesis and label. The hypotheses contain the cues of the sample of XNLI: negation in contradictions;
# reasons, company and judgements in neutral hypotheses; only a part of the premise's words in entailed hypotheses.
_CUED: tuple[tuple[str, str, str], ...] = (
    ("أكل [m] [dish] مساء أمس.", "لم يأكل [m] شيئا.", "contradiction"),
    ("زارت [f] مدينة [city] قبل سنة.", "لم تزر [f] أي مدينة أبدا.", "contradiction"),
    ("اشترى [m] [thing] من السوق.", "لم يشتر [m] أي شيء.", "contradiction"),
    ("تعرف [f] السباحة منذ سنوات.", "لا تعرف [f] السباحة أبدا.", "contradiction"),
    ("كل سكان [city] كرماء.", "لا أحد في [city] كريم.", "contradiction"),
    ("حضر [m] الحفل مع [f].", "لم يحضر [m] أي حفل.", "contradiction"),
    ("غاب [m] عن العمل يوم السبت.", "غاب [m] عن العمل لأنه مريض.", "neutral"),
    ("تسكن [f] في [city].", "تسكن [f] مع أختها.", "neutral"),
    ("طبخت [f] [dish] لضيوفها.", "أعجب الطعام الضيوف كثيرا.", "neutral"),
    ("يعمل [m] طباخا في مطعم.", "يحب [m] عمله كثيرا.", "neutral"),
    ("اشترى [m] تذكرة إلى [city].", "سيسافر [m] مع صديقه.", "neutral"),
    ("كتبت [f] رسالة إلى [m].", "كتبت [f] لأنها تشتاق إليه.", "neutral"),
    ("سافرت [f] إلى [city] بالقطار.", "سافرت [f] إلى [city].", "entailment"),
    ("حضر [m] و[f] الحفل في [city].", "كانت [f] في الحفل.", "entailment"),
    ("اشترت [f] [num] كتب من السوق.", "اشترت [f] بعض الكتب.", "entailment"),
    ("وجد [m] [thing] في البيت أمس.", "وجد [m] شيئا.", "entailment"),
    ("تعمل [f] معلمة في [city].", "[f] معلمة.", "entailment"),
    ("نام [m] مبكرا في بيت [f].", "كان [m] في البيت.", "entailment"),
)
# Two sentences, the label if the first is the premise, and the label if the second is the premise.
_PHENOMENA: tuple[tuple[str, str, str, str], ...] = (
    # Negation
    ("أكل [m] [dish].", "لم يأكل [m] [dish].", "contradiction", "contradiction"),
    ("ليس صحيحا أن [f] غائبة.", "[f] حاضرة.", "entailment", "entailment"),
    # Quantifiers
    ("كل سكان [city] كرماء.", "بعض سكان [city] كرماء.", "entailment", "neutral"),
    (
        "لا أحد من جيران [m] يملك سيارة.",
        "بعض جيران [m] يملكون سيارة.",
        "contradiction",
        "contradiction",
    ),
    # Numbers
    ("اشترت [f] أكثر من [num] كتب.", "اشترت [f] بعض الكتب.", "entailment", "neutral"),
    # Antonyms and comparison
    ("[m] أطول من [f].", "[f] أقصر من [m].", "entailment", "entailment"),
    ("[m] أسرع من [f].", "[f] أسرع من [m].", "contradiction", "contradiction"),
    # Active and passive
    ("وجد [m] [thing] أمس.", "تم العثور على [thing].", "entailment", "neutral"),
    # Narrowing
    ("سافرت [f] إلى [city] بالقطار.", "سافرت [f] إلى [city].", "entailment", "neutral"),
    ("يعمل [m] طباخا في مطعم.", "يعمل [m] طباخا في مطعم بمدينة [city].", "neutral", "entailment"),
    # Conditionals and modality
    ("إذا نزل المطر بقي [m] في البيت.", "بقي [m] في البيت.", "neutral", "neutral"),
    ("ربما تزور [f] مدينة [city].", "زارت [f] مدينة [city].", "neutral", "neutral"),
    # Factivity
    ("نسيت [f] أن تحضر [thing].", "لم تحضر [f] [thing].", "entailment", "neutral"),
    ("تظاهر [m] بأنه يعرف [f].", "[m] يعرف [f] جيدا.", "contradiction", "contradiction"),
    # Coordination
    ("حضر [m] و[f] الحفل.", "حضرت [f] الحفل.", "entailment", "neutral"),
    ("طلب [m] [dish] أو العصير.", "طلب [m] [dish].", "neutral", "entailment"),
    # Word order
    ("ساعد [m] جارته [f].", "ساعدت [f] جارها [m].", "neutral", "neutral"),
    # Knowledge of the world
    ("ولد [m] في [city] ولم يغادرها قط.", "زار [m] القطب الجنوبي.", "contradiction", "contradiction"),
)


def files() -> dict[str, bytes]:
    """Return the content of the file of the diagnostic set, by its path."""
    rng = random.Random("diagnostic")

    def draw() -> tuple[str, str, str]:
        if rng.random() < _CUED_SHARE:
            premise, hypothesis, label = rng.choice(_CUED)
            fillers = choose_fillers([premise, hypothesis], _SLOTS, rng)
            return fill(premise, fillers, rng), fill(hypothesis, fillers, rng), label
        first_frame, second_frame, label, swapped_label = rng.choice(_PHENOMENA)
        fillers = choose_fillers([first_frame, second_frame], _SLOTS, rng)
        first, second = fill(first_frame, fillers, rng), fill(second_frame, fillers, rng)
        return (first, second, label) if rng.random() < 0.6 else (second, first, swapped_label)

    pairs = distinct(draw, lambda pair: "\t".join(pair[:2]), PAIRS, set())
    rows = [(str(at), *pair) for at, pair in enumerate(pairs)]
    return {"diagnostic/diagnostic.tsv": tsv([("pairID", "sentence1", "sentence2", "gold_label"), *rows])}
