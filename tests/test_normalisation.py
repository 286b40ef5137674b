"""Each model's text normalisation does to a text what the model's authors prescribe."""

from __future__ import annotations

from importlib.util import find_spec

import alue_bench_models
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alue_bench import Model
from alue_bench.messages.extras import install_command

MODELS = {model.name: model for model in alue_bench_models.alue_bench_models()}
UNCHANGED = {"mini", "aramodernbert", "mmbert"}
"""The models whose authors describe no preprocessing before the tokenizer."""

CASES = {
    "arabertv02": [
        ("كِتَابٌ جَدِيدٌ", "كتاب جديد"),  # no diacritics
        ("مـــرحبا", "مرحبا"),  # no tatweel
        ("راااائع", "راائع"),  # repeats cut to two
        ("@USER أين أنت", "[مستخدم] أين أنت"),
        ("انظر https://example.org/a?b=1 الآن", "انظر [رابط] الآن"),
        ("كتبت إلى someone@localhost أمس", "كتبت إلى [بريد] أمس"),
        ("حضر ١٢ضيفا", "حضر 12 ضيفا"),  # digits 0-9, apart from letters
        ("نعم،لا", "نعم ، لا"),  # punctuation apart
        ("و/أو", "و - أو"),
        ("جميل 😍", "جميل"),  # no emoji
        ("&lt;b&gt;نص&lt;/b&gt;", "نص"),  # no markup
    ],
    "camelbert": [
        ("كِتَابٌ جَدِيدٌ", "كتاب جديد"),
        ("شَدَّ", "شد"),
        ("هٰذا", "هذا"),  # superscript alef
        ("مـــرحبا", "مرحبا"),
        ("إلى آخر أيامى", "إلى آخر أيامى"),  # letters stay as written
        ("ABC @USER #وسم ١٢ 😍!!!", "ABC @USER #وسم ١٢ 😍!!!"),  # and everything else too
    ],
    "marbert": [
        ("كِتَابٌ جَدِيدٌ", "كتاب جديد"),
        ("هٰذا", "هذا"),
        ("@someone_1 صباح الخير", "USER صباح الخير"),
        ("RT @USER: نعم", "RT USER : نعم"),  # a placeholder of the publishers
        ("اقرأ URL", "اقرأ URL"),
        ("اقرأ https://example.org/@x#y", "اقرأ URL"),
        ("اقرأ www.example.org", "اقرأ URL"),
        ("اقرأ https://example.org/a<LF>ثم عد", "اقرأ URL <LF>ثم عد"),
        ("#صباح_الخير يا ناس", "HASHTAG يا ناس"),
        ("#مُهِمّ جدا", "HASHTAG جدا"),  # diacritics do not cut a hashtag
        ("مـــرحبا Hello 😍!!!", "مـــرحبا Hello 😍!!!"),
    ],
    "qarib": [
        ("Hello يا عالم", "hello يا عالم"),
        ("جميل😍😍جدا", "جميل 😍 😍 جدا"),
        ("نار🚀 و☀", "نار 🚀 و ☀"),
        ("نعم!!! (لا)، ربما...", "نعم لا ربما"),
        ("#صباح_الخير", "صباح الخير"),
        ("@USER<LF>URL", "user lf url"),
        ("حضر ١٢ضيفا", "حضر ١٢ضيفا"),  # digits are word characters
        ("مـرحبا", "مـرحبا"),  # so is tatweel
        ("كِتاب", "ك تاب"),  # vowel signs are not
    ],
}
CASES["marbertv2"] = CASES["marbert"]


def normalise(name: str, text: str) -> str:
    """`text` as the model's normalisation leaves it; skips where a package it needs is missing."""
    model = MODELS[name]
    missing = [package for package in model.requires if find_spec(package) is None]
    if missing:
        pytest.skip(f"{model.name} needs the package {', '.join(missing)}; {install_command('arabic')}")
    assert model.normalise is not None
    return model.normalise(text)


@pytest.mark.parametrize(
    ("name", "text", "normalised"),
    [(name, text, normalised) for name, pairs in CASES.items() for text, normalised in pairs],
)
def test_what_it_makes_of_a_text(name: str, text: str, normalised: str) -> None:
    assert normalise(name, text) == normalised


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, pairs in CASES.items() for text, _ in pairs])
def test_twice_is_the_same_as_once(name: str, text: str) -> None:
    once = normalise(name, text)
    assert normalise(name, once) == once


# The preprocessor of AraBERT is not idempotent on every text (it unescapes HTML), so it is left out here.
@pytest.mark.parametrize("name", ["camelbert", "marbert", "marbertv2", "qarib"])
def test_twice_is_the_same_as_once_whatever_the_text(name: str) -> None:
    @given(st.text(st.sampled_from("اأىكمُّٰـ @#_/:<>&.!😍☀١2aAİς\n\u2028wthps")))
    def holds(text: str) -> None:
        once = normalise(name, text)
        assert normalise(name, once) == once

    holds()


def test_every_model_has_its_cases_but_those_whose_texts_are_left_unchanged() -> None:
    assert MODELS.keys() - UNCHANGED == CASES.keys()
    assert all(MODELS[name].normalise is None for name in UNCHANGED)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_model_says_what_its_authors_ask_for(model: Model) -> None:
    assert "ar" in model.languages
    assert model.licence
    assert model.citation
    assert (model.normalise is None) or model.normalisation != "none beyond the tokenizer's own"
