"""The formatting of numbers in the report: with a typographic minus sign, few digits, and a dash for missing values."""

from __future__ import annotations

import math

MISSING = "–"
"""The text that is shown for a missing number."""


def decimal(value: float | None, digits: int = 3) -> str:
    """Format a number with a fixed number of decimal places, such as 0.745."""
    return MISSING if value is None or not math.isfinite(value) else _minus(f"{value:.{digits}f}")


def signed(value: float | None, digits: int = 3) -> str:
    """Format a number with its sign, such as +0.012 or −0.004; zero has no sign."""
    if value is None or not math.isfinite(value):
        return MISSING
    shown = f"{value:+.{digits}f}"
    return _minus(shown if float(shown) else shown[1:])


def percent(value: float | None, digits: int = 0) -> str:
    """Format a share in per cent: 0.68 gives 68 %. A share below 1 % gets two significant digits, such as 0.46 %."""
    if value is None or not math.isfinite(value):
        return MISSING
    shown = 100 * value
    if 0 < abs(shown) < 1:
        digits = 1 - math.floor(math.log10(abs(shown)))
    return _minus(f"{shown:.{digits}f} %")


def signed_percent(value: float | None, digits: int = 0) -> str:
    """Format a relative change in per cent with its sign: −0.44 gives −44 %."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{signed(100 * value, digits)} %"


def seconds(value: float | None) -> str:
    """Format a duration that is given in seconds, such as 8.1 s, 128 s or 2 h 05 min."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 99.95:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: float | None) -> str:
    """Format a large count with three significant digits and an SI prefix, such as 8.11 M or 706 G."""
    if value is None or not math.isfinite(value):
        return MISSING
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            shown = value / size
            return _minus(f"{shown:.{max(0, 2 - int(math.log10(abs(shown))))}f} {unit}")
    return _minus(f"{value:.0f}")


def number_with_noun(number: int, one: str, more: str = "") -> str:
    """Format a number together with a noun in the singular or plural, such as 1 run or 3 runs.

    Args:
        number: The number of things that the noun names.
        one: The singular of the noun.
        more: The plural of the noun; empty if the plural is regular, with an s.
    """
    return f"{number:,} {one if number == 1 else more or one + 's'}".replace(",", " ")


def _minus(text: str) -> str:
    return text.replace("-", "−")
