"""The removal of Arabic diacritics, as the authors of CAMeLBERT and MARBERT applied it to their training texts."""

SUPERSCRIPT_ALEF = "\u0670"
"""A vowel sign that CAMeL Tools removes; PyArabic does not, so that `without_diacritics` removes it separately."""


def without_diacritics(text: str) -> str:
    """Return the text without vowel signs, shadda and superscript alef."""
    from pyarabic.araby import strip_tashkeel

    stripped: str = strip_tashkeel(text)
    return stripped.replace(SUPERSCRIPT_ALEF, "")
