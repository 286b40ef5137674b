"""Grids of settings for sweeps, and the notation of `--grid`.

A cell is a freezing setting (bottom, top): the numbers of frozen lowest and of frozen highest encoder layers.

    bottom-top                          every combination of bottom and top: 91 cells for 12 layers
    bottom=0..12/3,top=0..4             ranges, both ends included, with a step
    bottom=6..,top=0,2,4                a range up to the number of layers; a list of values
    strategy=full,last-quarter          strategies by name, in addition to the cells
    lr=2e-5,5e-5 seed=42..44            each cell with each learning rate and each seed

Axes are separated by commas or spaces. A value belongs to the axis named before it. If only one of the axes bottom and
top is given, no layers are frozen at the other end. Cells that freeze more layers than a model has are left out.
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

BOTTOM_TOP_AXIS = "bottom-top"
LAYER_AXES = ("bottom", "top")
_DECLARED_AXES = {name: declared.kind for name, declared in options_of(HyperParameters).items() if declared.is_axis}
SETTING_AXES: Mapping[str, type[int] | type[float]] = {"lr": float} | _DECLARED_AXES
"""The hyper-parameters that may be an axis of a grid, with their types. In `Grid.variants`, the first one, the learning
rate, varies slowest."""
AXES = (*LAYER_AXES, "strategy", *SETTING_AXES, "seed")
MAX_SEED_RANGE = 1_000_000
"""The largest number of values in a range of seeds; a longer range is rejected as a typing error."""
DEFAULT_TOLERANCE = 0.01
"""The default tolerance: a score counts as equal to that of full fine-tuning if it is lower by at most this fraction of
the score of full fine-tuning."""


@dataclass(frozen=True)
class Span:
    """A range of whole numbers on an axis, from `first` to `last`, both included."""

    first: int
    last: int | None = None
    """The last number; None for the number of the model's layers."""
    step: int = 1

    def values(self, limit: int) -> range:
        """Return the numbers of the range that are not above `limit`, the number of layers of a model."""
        return range(self.first, min(limit, self.last if self.last is not None else limit) + 1, self.step)


@dataclass(frozen=True)
class Grid:
    """The axes of a sweep; a run is planned for each combination of their values."""

    bottom: tuple[Span, ...] = ()
    top: tuple[Span, ...] = ()
    strategies: tuple[str, ...] = ()
    settings: Mapping[str, tuple[int | float, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()

    def cells(self, layers: int) -> list[Cell]:
        """Return the grid's cells (number of frozen bottom layers, number of frozen top layers) for a model.

        Args:
            layers: The number of the model's layers. Cells that freeze more layers are left out.

        Returns:
            The cells, sorted by bottom and then by top; empty if the grid has neither a bottom nor a top axis.
        """
        if not self.bottom and not self.top:
            return []
        bottoms, tops = (
            sorted({n for span in spans or (Span(0, 0),) for n in span.values(layers)})
            for spans in (self.bottom, self.top)
        )
        return [(bottom, top) for bottom, top in product(bottoms, tops) if bottom + top <= layers]

    def strategy_names(self, layers: int) -> list[str]:
        """Return the names of the strategies in the grid, for a model with this number of layers.

        The strategies of the cells come first, such as "bottom3top4", then the strategies on the strategy axis.
        """
        return list(dict.fromkeys([*(cell_name(cell) for cell in self.cells(layers)), *self.strategies]))

    def variants(self) -> list[dict[str, object]]:
        """Return each combination of values of the hyper-parameter axes, as values by name; [{}] without such axes."""
        names = list(self.settings)
        return [dict(zip(names, values, strict=True)) for values in product(*self.settings.values())]


def parse_grid(texts: Iterable[str]) -> Grid:
    """Return the grid that the values of all `--grid` options describe together.

    Raises:
        UsageError: An axis is unknown, or a value is malformed or missing. The message names the axis and the value.
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
            for name in SETTING_AXES
            if name in values
        },
        seeds=tuple(dict.fromkeys(seed for value in values.get("seed", ()) for seed in _finite_range("seed", value))),
    )


def _collect(text: str, values: dict[str, list[str]]) -> None:
    """Split the text of one `--grid` option, and add the unparsed values of each axis to `values`."""
    axis: str | None = None
    pieces = [piece for piece in re.split(r"[,\s]+", text.strip()) if piece]
    if not pieces:
        raise UsageError(f"--grid is empty; write {BOTTOM_TOP_AXIS}, or axes such as bottom=0..12/3,top=0..4")
    for piece in pieces:
        name, equals, value = piece.partition("=")
        if not equals and piece == BOTTOM_TOP_AXIS:
            axis = None
            for layers in LAYER_AXES:
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
                f"--grid {text!r}: {piece!r} belongs to no axis; write {BOTTOM_TOP_AXIS}, or axes such as "
                "bottom=0..12/3,top=0..4"
            )
        values[axis].append(value if equals else piece)


def _span(axis: str, value: str) -> Span:
    match = re.fullmatch(r"(\d{1,9})(?:(\.\.)(\d{1,9})?(?:/(\d{1,9}))?)?", value, re.ASCII)
    if match is None:
        raise UsageError(f"--grid: {axis}={value} is neither a number nor a range such as 0..12, 6.. or 0..12/3")
    first, step = int(match[1]), int(match[4] or 1)
    last = int(match[3]) if match[3] else None if match[2] else first
    if step < 1:
        raise UsageError(f"--grid: {axis}={value} has a step of 0; use 1 or more")
    if last is not None and last < first:
        raise UsageError(f"--grid: {axis}={value} ends before it begins")
    return Span(first, last, step)


def _finite_range(axis: str, value: str) -> range:
    span = _span(axis, value)
    if span.last is None:
        closed = f"{span.first}..{span.first + 4 * span.step}" + (f"/{span.step}" if span.step > 1 else "")
        raise UsageError(f"--grid: {axis}={value} has no end; add one, such as {axis}={closed}")
    if (span.last - span.first) // span.step >= MAX_SEED_RANGE:
        raise UsageError(f"--grid: {axis}={value} has more than {MAX_SEED_RANGE} values")
    return span.values(span.last)


def _number(axis: str, value: str) -> int | float:
    try:
        return SETTING_AXES[axis](value)
    except ValueError:
        kind = "a whole number" if SETTING_AXES[axis] is int else "a number"
        raise UsageError(f"--grid: {axis}={value} is not {kind}") from None
