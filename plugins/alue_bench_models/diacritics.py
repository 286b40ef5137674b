"""Arabic diacritics, which the authors of two checkpoints took out of their training text."""

SUPERSCRIPT_ALEF = "\u0670"
"""A vowel sign too; PyArabic's list of vowel signs does not have it, that of CAMeL Tools does."""


def without_diacritics(text: str) -> str:
    """`text` without vowel signs, shadda and superscript alef."""
    from pyarabic.araby import strip_tashkeel

    stripped: str = strip_tashkeel(text)
    return stripped.replace(SUPERSCRIPT_ALEF, "")
