"""The notation of `--tune`: the hyper-parameters to tune, and the values to try.

lr=1e-5..1e-3/log5       five values from 1e-5 to 1e-3, at equal distances on a logarithmic scale
lr=1e-5,3e-5,1e-4        a list of values
epochs=2,3               another hyper-parameter; every combination of values is tried
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from alue_bench.contract.errors import UsageError
from alue_bench.contract.options import options_of
from alue_bench.contract.spec import HyperParameters

NUMERIC = {name: one for name, one in options_of(HyperParameters).items() if one.kind in (int, float)}
"""The declarations of the hyper-parameters that can be tuned, by name."""
EXAMPLE = "lr=1e-5..1e-3/log5"
_RANGE = re.compile(r"(.+)\.\.(.+)/log(\d{1,3})", re.ASCII)

Axes = Mapping[str, tuple[int | float, ...]]
"""The values to try, in ascending order, for each tuned hyper-parameter."""


def parse_tuning(texts: Iterable[str]) -> Axes:
    """Return the values that all `--tune` options describe together.

    Raises:
        UsageError: A hyper-parameter is unknown or given twice, a value is malformed or out of bounds, or only one
            value of a hyper-parameter is given. The message names the hyper-parameter.
    """
    axes: dict[str, tuple[int | float, ...]] = {}
    for text in texts:
        for part in text.split():
            name, equals, values = part.partition("=")
            name = name.replace("-", "_")
            if not equals or not values:
                raise UsageError(f"--tune {text!r}: write NAME=VALUES, such as {EXAMPLE}")
            if name not in NUMERIC:
                raise UsageError(f"--tune {part}: {name!r} cannot be tuned; these can: {', '.join(NUMERIC)}")
            if name in axes:
                raise UsageError(f"--tune gives values of {name} twice; write all of them after one {name}=")
            axes[name] = tuple(sorted(set(_values(part, name, values))))
    for name, values_of in axes.items():
        if len(values_of) < 2:
            raise UsageError(f"--tune {name}={values_of[0]:g} has one value; give at least two, or use --{name}")
    return axes


def _values(part: str, name: str, text: str) -> list[int | float]:
    spread = _RANGE.fullmatch(text)
    if spread is None:
        return [_number(part, name, one) for one in text.split(",")]
    first, last, count = float(_number(part, name, spread[1])), float(_number(part, name, spread[2])), int(spread[3])
    if not 0 < first < last or count < 2:
        raise UsageError(f"--tune {part}: a range needs two values above 0 in ascending order, and log2 or more")
    ratio = math.log(last / first)
    # Values are rounded to three digits, which suffice for a learning rate and hide differences between platforms.
    spaced = [float(f"{first * math.exp(ratio * place / (count - 1)):.3g}") for place in range(count)]
    return [_number(part, name, f"{value:.0f}" if NUMERIC[name].kind is int else repr(value)) for value in spaced]


def _number(part: str, name: str, text: str) -> int | float:
    declared = NUMERIC[name]
    try:
        value: int | float = declared.kind(text)
    except ValueError:
        kind = "a whole number" if declared.kind is int else "a number"
        raise UsageError(f"--tune {part}: {text!r} is neither {kind} nor a range such as {EXAMPLE}") from None
    if problem := declared.problem(value):
        raise UsageError(f"--tune {part}: {name} {problem}")
    return value
