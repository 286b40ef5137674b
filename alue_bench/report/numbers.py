"""Numbers as the report writes them: real minus signs, no digits that mean nothing, nothing for what is not there."""

from __future__ import annotations

import math

NONE = "–"
"""Stands where there is no number."""


def there(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def plain(value: float | None, digits: int = 3) -> str:
    """0.745"""
    return NONE if value is None or not math.isfinite(value) else _minus(f"{value:.{digits}f}")


def signed(value: float | None, digits: int = 3) -> str:
    """+0.012, −0.004, 0.000"""
    if value is None or not math.isfinite(value):
        return NONE
    shown = f"{value:+.{digits}f}"
    return _minus(shown if float(shown) else shown[1:])


def percent(value: float | None, digits: int = 0) -> str:
    """Of a part: 0.68 is 68 %. Below one percent two digits that mean something: 0.46 %."""
    if value is None or not math.isfinite(value):
        return NONE
    shown = 100 * value
    if 0 < abs(shown) < 1:
        digits = 1 - math.floor(math.log10(abs(shown)))
    return _minus(f"{shown:.{digits}f} %")


def signed_percent(value: float | None, digits: int = 0) -> str:
    """Of a change: −0.44 is −44 %."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{signed(100 * value, digits)} %"


def seconds(value: float | None) -> str:
    """8.1 s, 128 s, 2 h 05 min."""
    if value is None or not math.isfinite(value):
        return NONE
    if value < 99.95:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: float | None) -> str:
    """Large counts in three digits: 8.11 M, 706 G."""
    if value is None or not math.isfinite(value):
        return NONE
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            shown = value / size
            return _minus(f"{shown:.{max(0, 2 - int(math.log10(abs(shown))))}f} {unit}")
    return _minus(f"{value:.0f}")


def several(number: int, one: str, more: str = "") -> str:
    """1 run, 3 runs."""
    return f"{number:,} {one if number == 1 else more or one + 's'}".replace(",", " ")


def _minus(text: str) -> str:
    return text.replace("-", "−")
