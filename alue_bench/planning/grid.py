"""Grids of settings: which cells a sweep has, and how they are written.

    bottom-top                          every pair of frozen bottom and top layers: 91 cells for 12 layers
    bottom=0..12/3,top=0..4             ranges, both ends included, with a step
    bottom=6..,top=0,2,4                to the last layer; a list of values
    strategy=full,last-quarter          strategies by name, beside the cells
    lr=2e-5,5e-5 seed=42..44            each cell with each rate and each seed

Axes are parted by commas or blanks; what stands between two of them belongs to the first. A bottom axis alone leaves
the top layers training, and the other way round. Pairs that freeze more layers than a model has are no cells of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product

from alue_bench.contract.cells import Cell, cell_name
from alue_bench.contract.errors import UsageError
from alue_bench.contract.options import options_of
from alue_bench.contract.spec import HyperParameters

WHOLE = "bottom-top"
LAYERS = ("bottom", "top")
_DECLARED_AXES = {name: declared.kind for name, declared in options_of(HyperParameters).items() if declared.is_axis}
SETTINGS: Mapping[str, type[int] | type[float]] = {"lr": float} | _DECLARED_AXES
"""The hyper-parameters that may be an axis, with their types. The rate is the slowest to change from run to run."""
AXES = (*LAYERS, "strategy", *SETTINGS, "seed")
MOST = 1_000_000
"""No axis has so many values: a slip of the pen, not a wish."""


@dataclass(frozen=True)
class Span:
    """Whole numbers from `first` to `last`, both included, in steps."""

    first: int
    last: int | None = None
    """None: as far as the model has layers."""
    step: int = 1

    def values(self, limit: int) -> range:
        """Those of them up to `limit`."""
        return range(self.first, min(limit, self.last if self.last is not None else limit) + 1, self.step)


@dataclass(frozen=True)
class Grid:
    """What a sweep crosses with each other."""

    bottom: tuple[Span, ...] = ()
    top: tuple[Span, ...] = ()
    strategies: tuple[str, ...] = ()
    settings: Mapping[str, tuple[int | float, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()

    def cells(self, layers: int) -> list[Cell]:
        """The pairs that a model with so many layers has room for, by bottom, then by top; none without an axis of
        layers."""
        if not self.bottom and not self.top:
            return []
        bottoms, tops = (
            sorted({n for span in spans or (Span(0, 0),) for n in span.values(layers)})
            for spans in (self.bottom, self.top)
        )
        return [(bottom, top) for bottom, top in product(bottoms, tops) if bottom + top <= layers]

    def strategy_names(self, layers: int) -> list[str]:
        """The cells by name, and the strategies beside them."""
        return list(dict.fromkeys([*(cell_name(cell) for cell in self.cells(layers)), *self.strategies]))

    def variants(self) -> list[dict[str, object]]:
        """Each combination of the axes of hyper-parameters; one empty one where there is none."""
        names = list(self.settings)
        return [dict(zip(names, values, strict=True)) for values in product(*self.settings.values())]


def parse_grid(texts: Iterable[str]) -> Grid:
    """One grid of all that is given.

    Raises UsageError naming the axis and the value that make no sense.
    """
    values: dict[str, list[str]] = {}
    for text in texts:
        _collect(text, values)
    for name, given in values.items():
        if not given:
            raise UsageError(f"--grid {name}= has no values")
    return Grid(
        bottom=tuple(_span("bottom", value) for value in values.get("bottom", ())),
        top=tuple(_span("top", value) for value in values.get("top", ())),
        strategies=tuple(dict.fromkeys(values.get("strategy", ()))),
        settings={
            name: tuple(dict.fromkeys(_number(name, value) for value in values[name]))
            for name in SETTINGS
            if name in values
        },
        seeds=tuple(dict.fromkeys(seed for value in values.get("seed", ()) for seed in _closed("seed", value))),
    )


def _collect(text: str, values: dict[str, list[str]]) -> None:
    """The values of each axis, as they are written."""
    axis: str | None = None
    pieces = [piece for piece in re.split(r"[,\s]+", text.strip()) if piece]
    if not pieces:
        raise UsageError(f"--grid is empty; say {WHOLE}, or axes such as bottom=0..12/3,top=0..4")
    for piece in pieces:
        name, equals, value = piece.partition("=")
        if not equals and piece == WHOLE:
            axis = None
            for layers in LAYERS:
                values.setdefault(layers, []).append("0..")
            continue
        if equals:
            axis = name.replace("-", "_")
            if axis not in AXES:
                raise UsageError(f"--grid {text!r}: unknown axis {name!r}; known are {', '.join(AXES)}")
            values.setdefault(axis, [])
            if not value:
                continue
        elif axis is None:
            raise UsageError(
                f"--grid {text!r}: {piece!r} belongs to no axis; say {WHOLE}, or axes such as bottom=0..12/3,top=0..4"
            )
        values[axis].append(value if equals else piece)


def _span(axis: str, value: str) -> Span:
    match = re.fullmatch(r"(\d{1,9})(?:(\.\.)(\d{1,9})?(?:/(\d{1,9}))?)?", value, re.ASCII)
    if match is None:
        raise UsageError(f"--grid: {axis}={value} is no number, and no range such as 0..12, 6.. or 0..12/3")
    first, step = int(match[1]), int(match[4] or 1)
    last = int(match[3]) if match[3] else None if match[2] else first
    if step < 1:
        raise UsageError(f"--grid: {axis}={value} goes in steps of 0; take 1 or more")
    if last is not None and last < first:
        raise UsageError(f"--grid: {axis}={value} ends before it begins")
    return Span(first, last, step)


def _closed(axis: str, value: str) -> range:
    span = _span(axis, value)
    if span.last is None:
        closed = f"{span.first}..{span.first + 4 * span.step}" + (f"/{span.step}" if span.step > 1 else "")
        raise UsageError(f"--grid: {axis}={value} has no end; say where it stops, such as {axis}={closed}")
    if (span.last - span.first) // span.step >= MOST:
        raise UsageError(f"--grid: {axis}={value} has more than {MOST} values")
    return span.values(span.last)


def _number(axis: str, value: str) -> int | float:
    try:
        return SETTINGS[axis](value)
    except ValueError:
        kind = "a whole number" if SETTINGS[axis] is int else "a number"
        raise UsageError(f"--grid: {axis}={value} is not {kind}") from None
