"""The sample of dialect identification (MADAR Corpus-26): travel phrases in the dialects of 25 cities and in MSA.

MSA is Modern Standard Arabic. It is treated as the dialect of one more city.

The same phrases are written in the dialect of every city, as in the real corpus, so that the topic does not reveal the
label. A phrase is made from frames such as ``{where} [place] {please}``: ``{…}`` stands for a concept, for which there
is a word in each dialect, and ``[…]`` for one of several nouns, which are the same in all dialects. If a concept has a
word that is specific to the city, the text uses either this word or the common word of the city's area. It is therefore
easy to identify the area and difficult to identify the city.
"""

from __future__ import annotations

import random
import re
from functools import partial

from tools.sampledata.compose import choose_fillers, distinct, fill
from tools.sampledata.write import tsv

AREAS = {
    "MOROCCO": ("RAB", "FES"),
    "ALGERIA": ("ALG",),
    "TUNISIA": ("TUN", "SFX"),
    "LIBYA": ("TRI", "BEN"),
    "EGYPT": ("CAI", "ALX", "ASW"),
    "SUDAN": ("KHA",),
    "LEVANT": ("BEI", "DAM", "ALE", "AMM", "JER", "SAL"),
    "IRAQ": ("BAG", "MOS", "BAS"),
    "GULF": ("DOH", "MUS", "RIY", "JED"),
    "YEMEN": ("SAN",),
    "STANDARD": ("MSA",),
}
AREA_OF = {city: area for area, cities in AREAS.items() for city in cities}
SCENES_PER_SPLIT = {"train": 10, "dev": 2, "test": 4}
# A text consists of two frames, so that most texts contain a word that identifies the city.
_FRAMES_PER_TEXT = 2

_CITY_WORD_SHARE = 0.5

# For each concept, the word of each area, then the words of the cities that differ from their area. Alternatives are
# separated by "|".
_WORDS: dict[str, dict[str, str]] = {
    "what": {
        "MOROCCO": "شنو", "ALGERIA": "واش|شنو", "TUNISIA": "شنوة", "LIBYA": "شنو", "EGYPT": "إيه",
        "SUDAN": "شنو", "LEVANT": "شو", "IRAQ": "شنو", "GULF": "ايش", "YEMEN": "أيش|ماهو",
        "STANDARD": "ماذا|ما",
        "FES": "أشنو", "SFX": "شنية", "BEN": "شنهو", "ALE": "أشو", "JER": "إيش", "SAL": "إيش",
        "MOS": "أشنو", "BAS": "شنهي", "DOH": "شنو", "MUS": "مو", "RIY": "وش",
    },
    "howmuch": {
        "MOROCCO": "بشحال", "ALGERIA": "شحال", "TUNISIA": "بقداش", "LIBYA": "قداش", "EGYPT": "بكام",
        "SUDAN": "بي كم", "LEVANT": "قديش", "IRAQ": "بيش", "GULF": "بكم", "YEMEN": "بكم|كم سعر",
        "STANDARD": "بكم",
        "FES": "شحال كيدير", "SFX": "قداش", "BEN": "بكم", "BEI": "أديش", "DAM": "بقديش", "ALE": "بقدي",
        "MOS": "أشقد", "BAS": "شكد", "DOH": "جم", "MUS": "كم قيمة",
    },
    "now": {
        "MOROCCO": "دابا", "ALGERIA": "دروك|ضرك", "TUNISIA": "توة", "LIBYA": "توا", "EGYPT": "دلوقتي",
        "SUDAN": "هسع", "LEVANT": "هلأ", "IRAQ": "هسه", "GULF": "الحين", "YEMEN": "ذلحين",
        "STANDARD": "الآن",
        "FES": "دبا", "SFX": "توا", "BEN": "توي", "ALX": "دلوقت", "ASW": "دلوك", "BEI": "هلق",
        "ALE": "هلق", "AMM": "هسا", "JER": "هلقيت", "SAL": "هسع", "MOS": "هسع", "BAS": "هسا",
        "DOH": "ألحين", "MUS": "ذالحين", "JED": "دحين",
    },
    "iwant": {
        "MOROCCO": "بغيت", "ALGERIA": "حاب|راني حاب", "TUNISIA": "نحب", "LIBYA": "نبي", "EGYPT": "عايز",
        "SUDAN": "داير", "LEVANT": "بدي", "IRAQ": "أريد", "GULF": "أبغى", "YEMEN": "أشتي",
        "STANDARD": "أريد|أود",
        "FES": "كنبغي", "SFX": "حاجتي", "BEN": "نبغي", "ALX": "عاوز", "MOS": "أغيد", "BAS": "أرد",
        "DOH": "أبي", "MUS": "باغي", "JED": "أبا",
    },
    "where": {
        "MOROCCO": "فين", "ALGERIA": "وين", "TUNISIA": "وين", "LIBYA": "وين", "EGYPT": "فين",
        "SUDAN": "وين", "LEVANT": "وين", "IRAQ": "وين", "GULF": "وين", "YEMEN": "أين|وين",
        "STANDARD": "أين",
        "FES": "فاين", "SFX": "فينهو", "BEN": "وينه", "ASW": "وين", "BEI": "وينو", "ALE": "وينو",
        "SAL": "وينه", "BAS": "وينه", "MUS": "هين", "JED": "فين",
    },
    "very": {
        "MOROCCO": "بزاف", "ALGERIA": "بزاف|ياسر", "TUNISIA": "برشا", "LIBYA": "هلبا", "EGYPT": "أوي",
        "SUDAN": "شديد|خلاص", "LEVANT": "كتير", "IRAQ": "كلش", "GULF": "مرة", "YEMEN": "قوي|خيرات",
        "STANDARD": "جداً|للغاية",
        "FES": "بالزاف", "SFX": "برشة", "BEN": "واجد", "ALX": "قوي", "ASW": "خالص", "ALE": "كتير كتير",
        "AMM": "كثير", "SAL": "كثير", "MOS": "كثيغ", "BAS": "وايد", "DOH": "وايد", "MUS": "واجد",
        "RIY": "حيل",
    },
    "tomorrow": {
        "MOROCCO": "غدا", "ALGERIA": "غدوة", "TUNISIA": "غدوة", "LIBYA": "بكرة", "EGYPT": "بكرة",
        "SUDAN": "بكرة|باكر", "LEVANT": "بكرا", "IRAQ": "باچر", "GULF": "بكرة", "YEMEN": "بكرة|غدوة",
        "STANDARD": "غداً",
        "FES": "غدا إن شاء الله", "SFX": "غدوا", "TRI": "غدوة", "ALX": "بكره", "BEI": "بكرا الصبح",
        "AMM": "بكرة", "MOS": "غدا", "BAS": "باجر", "DOH": "باجر", "MUS": "باكر",
    },
    "good": {
        "MOROCCO": "مزيان", "ALGERIA": "مليح", "TUNISIA": "باهي", "LIBYA": "باهي", "EGYPT": "كويس",
        "SUDAN": "كويس|تمام", "LEVANT": "منيح", "IRAQ": "زين", "GULF": "زين", "YEMEN": "تمام|مليح",
        "STANDARD": "جيد|ممتاز",
        "FES": "مخير", "SFX": "مليح", "BEN": "كويس", "ALX": "حلو", "ALE": "عال", "AMM": "مليح",
        "SAL": "مليح", "MOS": "طيب", "BAS": "خوش", "MUS": "غاوي", "RIY": "طيب", "JED": "كويس",
    },
    "this": {
        "MOROCCO": "هاد", "ALGERIA": "هاد", "TUNISIA": "هاذا", "LIBYA": "هدا", "EGYPT": "ده",
        "SUDAN": "ده", "LEVANT": "هاد", "IRAQ": "هذا", "GULF": "هذا", "YEMEN": "هذا|هاذا",
        "STANDARD": "هذا",
        "FES": "هاذ", "BEN": "هضا", "ASW": "دا", "BEI": "هيدا", "ALE": "هادا", "AMM": "هاظ",
        "SAL": "هاظا", "MOS": "هاذا", "BAS": "هاذ", "DOH": "هاي", "RIY": "ذا", "JED": "هادا",
    },
    "why": {
        "MOROCCO": "علاش", "ALGERIA": "علاه|علاش", "TUNISIA": "علاش", "LIBYA": "علاش", "EGYPT": "ليه",
        "SUDAN": "ليه|لشنو", "LEVANT": "ليش", "IRAQ": "ليش", "GULF": "ليش", "YEMEN": "ليش|لمه",
        "STANDARD": "لماذا",
        "FES": "لاش", "SFX": "علاه", "BEN": "ليش", "ASW": "لييه", "BEI": "ليه", "MOS": "لويش",
        "MUS": "علامه", "JED": "ليه",
    },
    "how": {
        "MOROCCO": "كيفاش", "ALGERIA": "كيفاه", "TUNISIA": "كيفاش", "LIBYA": "كيف", "EGYPT": "إزاي",
        "SUDAN": "كيف", "LEVANT": "كيف", "IRAQ": "شلون", "GULF": "كيف", "YEMEN": "كيف|كيفه",
        "STANDARD": "كيف",
        "SFX": "كيفاه", "BEN": "كيفن", "ASW": "كيف", "DAM": "شلون", "ALE": "أشلون", "MOS": "أشلون",
        "DOH": "شلون", "RIY": "شلون",
    },
    "when": {
        "MOROCCO": "فوقاش", "ALGERIA": "وقتاش", "TUNISIA": "وقتاش", "LIBYA": "امتا", "EGYPT": "إمتى",
        "SUDAN": "متين", "LEVANT": "إيمتى", "IRAQ": "شوكت", "GULF": "متى", "YEMEN": "متى|أيحين",
        "STANDARD": "متى",
        "FES": "إيمتا", "SFX": "قداه الوقت", "BEN": "إمتى", "ASW": "ميتى", "BEI": "أيمتا", "AMM": "متى",
        "SAL": "متى", "MOS": "أيمتى", "BAS": "يمتى", "DOH": "متا", "JED": "متين",
    },
    "exist": {
        "MOROCCO": "كاين", "ALGERIA": "كاين|واش كاين", "TUNISIA": "فما", "LIBYA": "فيه", "EGYPT": "فيه",
        "SUDAN": "في", "LEVANT": "في", "IRAQ": "أكو", "GULF": "فيه", "YEMEN": "به|معاكم",
        "STANDARD": "يوجد|هل يوجد",
        "FES": "واش كاين", "SFX": "ثمة", "BEN": "في", "ASW": "فى", "ALE": "فيه شي", "AMM": "فيه",
        "DOH": "في", "MUS": "شي",
    },
    "notexist": {
        "MOROCCO": "ماكاينش", "ALGERIA": "ماكاش|مكانش", "TUNISIA": "مافماش", "LIBYA": "مافيش",
        "EGYPT": "مفيش", "SUDAN": "مافي", "LEVANT": "ما في", "IRAQ": "ماكو", "GULF": "ما فيه",
        "YEMEN": "مابش", "STANDARD": "لا يوجد|ليس هناك",
        "FES": "مكاينش", "SFX": "ماثماش", "BEN": "ما فيه", "ASW": "مافيش", "AMM": "ما فيه", "JER": "فش",
        "SAL": "فش", "DOH": "ماكو", "MUS": "ماشي", "JED": "مافي",
    },
    "give": {
        "MOROCCO": "عطيني", "ALGERIA": "مدلي|أعطيني", "TUNISIA": "أعطيني", "LIBYA": "أعطيني",
        "EGYPT": "إديني", "SUDAN": "أديني", "LEVANT": "عطيني", "IRAQ": "انطيني", "GULF": "عطني",
        "YEMEN": "ادي لي|هبلي", "STANDARD": "أعطني|من فضلك أعطني",
        "FES": "أرا ليا", "TUN": "جيبلي", "SFX": "مدلي", "BEN": "عطيني", "ALX": "هات لي",
        "AMM": "أعطيني", "JER": "أعطيني", "MOS": "اعطيني", "BAS": "نطني", "MUS": "عطيني",
        "JED": "أديني",
    },
    "mine": {
        "MOROCCO": "ديالي", "ALGERIA": "تاعي|نتاعي", "TUNISIA": "متاعي", "LIBYA": "متاعي",
        "EGYPT": "بتاعتي", "SUDAN": "حقتي|بتاعتي", "LEVANT": "تبعي", "IRAQ": "مالتي", "GULF": "حقتي",
        "YEMEN": "حقي", "STANDARD": "الخاصة بي",
        "FES": "ديالتي", "BEN": "امتاعي", "BEI": "تبعيتي", "AMM": "تبعتي", "JER": "تاعتي",
        "SAL": "تاعتي", "MOS": "مالي", "DOH": "مالي", "MUS": "مالي",
    },
    "look": {
        "MOROCCO": "شوف", "ALGERIA": "شوف|أشوف", "TUNISIA": "شوف", "LIBYA": "شوف", "EGYPT": "بص على",
        "SUDAN": "عاين|شوف", "LEVANT": "شوف", "IRAQ": "باوع", "GULF": "شوف", "YEMEN": "ابسر|شوف",
        "STANDARD": "انظر إلى",
        "FES": "شف", "SFX": "أغزر", "TRI": "اخزر", "ALX": "شوف", "BEI": "شوفو", "BAS": "شوف",
        "JED": "طالع",
    },
    "go": {
        "MOROCCO": "نمشي", "ALGERIA": "نروح", "TUNISIA": "نمشي", "LIBYA": "نمشي", "EGYPT": "أروح",
        "SUDAN": "أمشي", "LEVANT": "روح", "IRAQ": "أروح", "GULF": "أروح", "YEMEN": "أسير",
        "STANDARD": "أن أذهب|الذهاب",
        "SFX": "نقصد", "BEN": "نمشوا", "ALX": "نروح", "AMM": "أروح", "JER": "أروح", "SAL": "أروح",
        "MOS": "أغوح", "MUS": "أسير",
    },
    "arrive": {
        "MOROCCO": "نوصل", "ALGERIA": "نلحق|نوصل", "TUNISIA": "نوصل", "LIBYA": "نوصل", "EGYPT": "أوصل",
        "SUDAN": "أصل", "LEVANT": "بوصل", "IRAQ": "أوصل", "GULF": "أوصل", "YEMEN": "أوصل|أبلغ",
        "STANDARD": "أصل|يمكن الوصول",
        "SFX": "نلحق", "ALX": "نوصل", "MOS": "أصل",
    },
    "notknow": {
        "MOROCCO": "ماعرفتش", "ALGERIA": "ما علاباليش|مانعرفش", "TUNISIA": "ما نعرفش",
        "LIBYA": "مانعرفش", "EGYPT": "مش عارف", "SUDAN": "ما عارف", "LEVANT": "ما بعرف",
        "IRAQ": "ما أعرف", "GULF": "ما أدري", "YEMEN": "ما دريت|مدريش", "STANDARD": "لا أعرف|لا أدري",
        "FES": "ما كنعرفش", "BEN": "ما نعرفاش", "ASW": "معرفش", "AMM": "مش عارف", "JER": "بعرفش",
        "SAL": "بعرفش", "MOS": "ما أعغف", "BAS": "ما أندل", "DOH": "مادري", "MUS": "ما أعرف",
        "RIY": "مدري", "JED": "ما أعرف",
    },
    "notwant": {
        "MOROCCO": "ما بغيتش", "ALGERIA": "ماحبيتش|ما نحبش", "TUNISIA": "ما نحبش", "LIBYA": "مانبيش",
        "EGYPT": "مش عايز", "SUDAN": "ما داير", "LEVANT": "ما بدي", "IRAQ": "ما أريد",
        "GULF": "ما أبغى", "YEMEN": "ما أشتيش", "STANDARD": "لا أريد|لا أرغب في",
        "FES": "ما كنبغيش", "BEN": "مانبغيش", "ALX": "مش عاوز", "AMM": "ما بدي", "JER": "بديش",
        "SAL": "بديش", "MOS": "ما أغيد", "BAS": "ما أرد", "DOH": "مابي", "MUS": "ما باغي",
        "JED": "ما أبا",
    },
    "please": {
        "MOROCCO": "عافاك", "ALGERIA": "الله يخليك|صح من فضلك", "TUNISIA": "يعيشك", "LIBYA": "بالله",
        "EGYPT": "لو سمحت", "SUDAN": "عليك الله|لو سمحت", "LEVANT": "لو سمحت", "IRAQ": "بلا زحمة",
        "GULF": "لو سمحت", "YEMEN": "الله يحفظك|لو سمحت", "STANDARD": "من فضلك|لو تكرمت",
        "FES": "الله يخليك", "SFX": "بربي", "BEN": "بالله عليك", "ALX": "من فضلك", "BEI": "عمول معروف",
        "ALE": "دخيلك", "JER": "الله يخليك", "BAS": "فدوة", "DOH": "ماعليك أمر", "MUS": "لاهنت",
        "RIY": "الله يعافيك",
    },
    "bit": {
        "MOROCCO": "شوية", "ALGERIA": "شوي|شويا", "TUNISIA": "شوية", "LIBYA": "شوية", "EGYPT": "شوية",
        "SUDAN": "شوية", "LEVANT": "شوي", "IRAQ": "شوية", "GULF": "شوي", "YEMEN": "قليل|شوية",
        "STANDARD": "قليلاً|بعض الشيء",
        "FES": "واحد الشوية", "SFX": "شوايا", "BEN": "شوي", "ALE": "شوي صغيرة", "AMM": "شوية",
        "MOS": "شويي", "JED": "شوية",
    },
    "also": {
        "MOROCCO": "حتى", "ALGERIA": "تاني|ثاني", "TUNISIA": "زادة", "LIBYA": "حتى", "EGYPT": "كمان",
        "SUDAN": "برضو", "LEVANT": "كمان", "IRAQ": "هم", "GULF": "بعد", "YEMEN": "عاد|عادوه",
        "STANDARD": "أيضاً|كذلك",
        "FES": "عاوتاني", "SFX": "زادا", "ASW": "برضك", "MOS": "هم كان", "RIY": "برضو", "JED": "كمان",
    },
    "here": {
        "MOROCCO": "هنا", "ALGERIA": "هنايا|هنا", "TUNISIA": "هنا", "LIBYA": "هني", "EGYPT": "هنا",
        "SUDAN": "هنا|هني", "LEVANT": "هون", "IRAQ": "هنا", "GULF": "هنا", "YEMEN": "هانا",
        "STANDARD": "هنا|في هذا المكان",
        "FES": "هنايا", "SFX": "هوني", "TRI": "هنا", "ASW": "هنيه", "AMM": "هان", "SAL": "هان",
        "MOS": "هوني", "BAS": "هنانه", "DOH": "هني", "MUS": "هنه",
    },
    "today": {
        "MOROCCO": "اليوم", "ALGERIA": "ليوم|اليوم", "TUNISIA": "اليوم", "LIBYA": "اليوم",
        "EGYPT": "النهارده", "SUDAN": "الليلة", "LEVANT": "اليوم", "IRAQ": "اليوم", "GULF": "اليوم",
        "YEMEN": "اليوم|ذا اليوم", "STANDARD": "اليوم|هذا اليوم",
        "FES": "هاد النهار", "SFX": "ليوم", "ALX": "إنهارده", "ASW": "النهاردا", "BEI": "الليوم",
        "BAS": "هاليوم", "JED": "اليوم دا",
    },
    "beautiful": {
        "MOROCCO": "زوين", "ALGERIA": "شباب|يهبل", "TUNISIA": "مزيان", "LIBYA": "سمح", "EGYPT": "جميل",
        "SUDAN": "سمح", "LEVANT": "حلو", "IRAQ": "حلو", "GULF": "حلو", "YEMEN": "حالي",
        "STANDARD": "جميل|رائع",
        "FES": "غزال", "SFX": "مزيون", "TRI": "مليح", "ALX": "تحفة", "ASW": "زين", "BEI": "مهضوم",
        "ALE": "كويس", "AMM": "روعة", "MOS": "كلش طيب", "DOH": "زين", "MUS": "غاوي", "RIY": "زين",
        "JED": "يجنن",
    },
    "car": {
        "MOROCCO": "الطوموبيل", "ALGERIA": "اللوطو|الطونوبيل", "TUNISIA": "الكرهبة", "LIBYA": "السيارة",
        "EGYPT": "العربية", "SUDAN": "العربية", "LEVANT": "السيارة", "IRAQ": "السيارة",
        "GULF": "السيارة", "YEMEN": "السيارة", "STANDARD": "السيارة",
        "FES": "الطونوبيل", "BEN": "السيّارة", "ALE": "السيارا", "DOH": "الموتر", "MUS": "الموتر",
    },
    "phone": {
        "MOROCCO": "التيليفون", "ALGERIA": "البورطابل|التيليفون", "TUNISIA": "التاليفون",
        "LIBYA": "النقال", "EGYPT": "الموبايل", "SUDAN": "الموبايل", "LEVANT": "التلفون",
        "IRAQ": "الموبايل", "GULF": "الجوال", "YEMEN": "السيار|التلفون", "STANDARD": "الهاتف",
        "FES": "البورطابل", "SFX": "البورتابل", "TRI": "التلفون", "ALX": "التليفون", "BEI": "الخليوي",
        "DAM": "الموبايل", "AMM": "الخلوي", "DOH": "التلفون", "MUS": "النقال",
    },
    "money": {
        "MOROCCO": "الفلوس", "ALGERIA": "الدراهم", "TUNISIA": "الفلوس", "LIBYA": "الفلوس",
        "EGYPT": "الفلوس", "SUDAN": "القروش", "LEVANT": "المصاري", "IRAQ": "الفلوس", "GULF": "الفلوس",
        "YEMEN": "الزلط|البيس", "STANDARD": "النقود|المال",
        "FES": "الفليسات", "SFX": "الدراهم", "AMM": "المصاري", "MOS": "المصاغي", "DOH": "البيزات",
        "MUS": "البيسات", "JED": "القروش",
    },
    "bread": {
        "MOROCCO": "الخبز", "ALGERIA": "الكسرة|الخبز", "TUNISIA": "الخبز", "LIBYA": "الخبزة",
        "EGYPT": "العيش", "SUDAN": "الرغيف|العيش", "LEVANT": "الخبز", "IRAQ": "الصمون", "GULF": "الخبز",
        "YEMEN": "الروتي|الملوج", "STANDARD": "الخبز",
        "FES": "الخبيزات", "SFX": "خبز الدار", "BEI": "ربطة الخبز", "ALE": "الخبزات", "MOS": "الخبغ",
        "JED": "العيش",
    },
    "boy": {
        "MOROCCO": "الدري", "ALGERIA": "الطفل|الدراري", "TUNISIA": "الطفل", "LIBYA": "الولد",
        "EGYPT": "الواد", "SUDAN": "الشافع", "LEVANT": "الصبي", "IRAQ": "الولد", "GULF": "الولد",
        "YEMEN": "الجاهل", "STANDARD": "الولد|الطفل",
        "FES": "الولد", "SFX": "الوليد", "BEN": "العويل", "AMM": "الولد", "SAL": "الولد",
        "MOS": "الوليد", "BAS": "الجاهل", "DOH": "الياهل", "RIY": "البزر", "JED": "البزورة",
    },
    "help": {
        "MOROCCO": "واش تقدر تعاوني", "ALGERIA": "تقدر تعاوني|عاوني", "TUNISIA": "تنجم تعاوني",
        "LIBYA": "تقدر تعاوني", "EGYPT": "ممكن تساعدني", "SUDAN": "ممكن تساعدني",
        "LEVANT": "فيك تساعدني", "IRAQ": "تگدر تساعدني", "GULF": "تقدر تساعدني",
        "YEMEN": "ممكن تعاونني", "STANDARD": "هل يمكنك مساعدتي|أرجو المساعدة",
        "FES": "واخا تعاوني", "SFX": "تنجمش تعاونّي", "BEN": "تقدر تساعدني", "AMM": "بتقدر تساعدني",
        "JER": "بتقدر تساعدني", "MOS": "تقدغ تساعدني", "DOH": "تروم تساعدني", "JED": "ممكن تساعدني",
    },
    "friend": {
        "MOROCCO": "خويا", "ALGERIA": "خو|يا خو", "TUNISIA": "خويا", "LIBYA": "خوي", "EGYPT": "يا باشا",
        "SUDAN": "يا زول", "LEVANT": "خيو", "IRAQ": "عيني", "GULF": "يا خوي",
        "YEMEN": "يا خبير|يا صاحبي", "STANDARD": "يا سيدي|يا أخي",
        "FES": "أسيدي", "SFX": "يا ولدي", "BEN": "يا راجل", "ALX": "يا صاحبي", "ASW": "يا عم",
        "BEI": "معلم", "ALE": "خاي", "AMM": "يا زلمة", "JER": "يا زلمة", "SAL": "يا خال",
        "MOS": "أبويي", "BAS": "خوية", "MUS": "الشيخ", "RIY": "يا رجال", "JED": "يا عمي",
    },
}  # fmt: skip

_SCENES = (
    "{friend} {howmuch} {this [item]}؟",
    "{iwant} {go} [to_place] {tomorrow} الساعة [hour].",
    "{where} [place] {please}؟ {notknow} الطريق.",
    "{this [item]} {beautiful} {very}.",
    "{notwant} {this [item]}، {give} واحد أرخص.",
    "{when} يوصل [transport]؟ {iwant} {go} {now}.",
    "{please} {exist} [shop] قريب من {here}؟",
    "{notexist} [goods] {today}، ارجع {tomorrow}.",
    "{how} {arrive} [to_place] من {here}؟",
    "{friend} {help} {bit} في [shop]؟",
    "[food] {here} {good} {very}.",
    "{please} {give} [food] و[drink] {also}.",
    "نسيت {phone} {mine} في [vehicle] {today}.",
    "{what} اسم {this المطعم} {please}؟ {iwant} [food].",
    "الجو {today} {good} {very}، {iwant} {go} للبحر.",
    "{why} {this [item]} غالي {very}؟",
    "{boy} مريض {bit} من الساعة [hour]، {where} أقرب طبيب؟",
    "ضاع {phone} في [vehicle] {now}، {what} رقم الشرطة؟",
    "{look} {this المنظر}، {beautiful} {very}!",
    "{help}؟ {notknow} {where} [place].",
    "{howmuch} الليلة في {this الفندق}؟ {iwant} غرفة لشخصين.",
    "{why} [transport] متأخر {today}؟",
    "{friend} {where} أحسن [shop] {here}؟",
    "{exist} تخفيض على {this [item]} {now}؟",
    "تعطلت {car} {mine} في الطريق، {help}؟",
    "{when} يفتح [shop]؟ {notexist} أحد {here}.",
    "{where} {money}؟ {notknow}، كانت في [vehicle].",
    "{iwant} [food] و{bread} {please}.",
    "{notwant} {go} [to_place] {now}، الطريق زحمة {very}.",
    "{also} {iwant} [drink] بارد {bit}.",
    "{what} رأيك في {this [item]}؟ {good}؟",
    "{boy} جوعان {bit}، {exist} [food] {here}؟",
    "{tomorrow} عيد ميلاد أمي و{iwant} هدية، {this [item]} {howmuch}؟",
    "{car} {here} من الصبح، {why} {notexist} أحد؟",
    "{give} {money} {now} {please}.",
    "{how} الجو {tomorrow}؟ {notwant} {go} في المطر.",
)
_FILLERS = {
    "item": ("القميص", "الكتاب", "الخاتم", "الحذاء", "الكرسي", "المعطف", "الصحن", "العطر"),
    "to_place": ("للسوق", "للمطار", "للمتحف", "للمستشفى", "للبنك", "للمحطة"),
    "place": ("المتحف", "البنك", "المستشفى", "المحطة", "المطار", "الفندق", "السفارة"),
    "transport": ("القطار", "الباص", "التاكسي"),
    "vehicle": ("التاكسي", "القطار", "الباص"),
    "shop": ("صيدلية", "محل ملابس", "مطعم", "مكتب صرافة"),
    "goods": ("حليب", "سمك", "تفاح", "لحم"),
    "food": ("رز", "سمك مشوي", "دجاج", "سلطة", "شوربة عدس"),
    "drink": ("عصير", "شاي", "ماء", "حليب"),
    "hour": ("3", "5", "7", "تسعة", "8:30"),
}  # fmt: skip
_DEMONSTRATIVE = re.compile(r"\{this ([^}]+)\}")
_CONCEPT = re.compile(r"\{(\w+)\}")


def say(concept: str, city: str, rng: random.Random) -> str:
    """Return a word for a concept: with some probability the city's own word, if there is one, else the area's."""
    words = _WORDS[concept]
    area_word = words[AREA_OF[city]]
    own = city in words and rng.random() < _CITY_WORD_SHARE
    return rng.choice((words[city] if own else area_word).split("|"))


def tell(scene: str, city: str, rng: random.Random) -> str:
    """Return a phrase in the dialect of a city.

    Args:
        scene: The phrase, with placeholders ``{…}`` for concepts, which are replaced by the city's words.
        city: The label of the city, or MSA.
        rng: The random generator.
    """

    def point_at(match: re.Match[str]) -> str:
        this = say("this", city, rng)
        # In Egyptian and Sudanese dialects the demonstrative follows its noun.
        return f"{match[1]} {this}" if AREA_OF[city] in ("EGYPT", "SUDAN") else f"{this} {match[1]}"

    return _CONCEPT.sub(lambda match: say(match[1], city, rng), _DEMONSTRATIVE.sub(point_at, scene))


def files() -> dict[str, bytes]:
    """Return the contents of the train, dev and test files, by path; each phrase is in all 26 varieties."""
    seen: set[str] = set()
    frames = list(_SCENES)
    random.Random("madar scenes").shuffle(frames)
    written = {}
    for split, scene_count in SCENES_PER_SPLIT.items():
        rng = random.Random(f"madar {split}")
        rows = []
        for _ in range(scene_count):
            # Each frame is used once, so that no frame of dev or test occurs in train.
            scene = " ".join(frames.pop() for _ in range(_FRAMES_PER_TEXT))
            for city in AREA_OF:
                [text] = distinct(partial(tell_anew, scene, city, rng), str, 1, seen)
                rows.append((text, city))
        written[f"madar/MADAR-Corpus-26-{split}.tsv"] = tsv(rows)
    return written


def scene(place: int) -> str:
    """Return a phrase with placeholders, made of two frames of `_SCENES`.

    Args:
        place: The number of the phrase: 0 for the last two frames of `_SCENES`, 1 for the two before them, and so on.
    """
    return " ".join(_SCENES[-1 - _FRAMES_PER_TEXT * place - i] for i in range(_FRAMES_PER_TEXT))


def tell_anew(scene: str, city: str, rng: random.Random) -> str:
    """Return a phrase in the dialect of a city, as `tell` does, with random nouns in place of ``[…]``.

    Args:
        scene: The phrase, with placeholders ``{…}`` for concepts and ``[…]`` for nouns.
        city: The label of the city, or MSA.
        rng: The random generator.
    """
    return tell(fill(scene, choose_fillers([scene], _FILLERS, rng), rng), city, rng)
