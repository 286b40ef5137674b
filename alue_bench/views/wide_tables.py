"""Tables that lose no content on a narrow terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

LONG_WORD = 40
"""The largest number of characters of a word that is never broken over two lines. Longer words, such as paths, may be
broken. In the first column they are broken only if they take more than half of the terminal's width."""

UNLIMITED_WIDTH = 10_000
"""A practically unlimited width, for measuring texts."""


@dataclass(frozen=True)
class Fitted:
    """A table that is fitted to the terminal by wrapping lines and, if necessary, by splitting the table into parts.

    The parts are shown one below the other, and each repeats the first column. rich itself would crop the entries of
    columns with `no_wrap` if a table is too wide, and a number that has lost a digit looks like a different number.
    Here, these columns keep their full width.
    """

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts of the table. The package rich calls this method to print the object."""
        columns = [
            _ColumnWidths.of(column, console, options, first=not n) for n, column in enumerate(self.table.columns)
        ]
        for number, places in enumerate(self._groups(columns, console, options)):
            width = options.max_width - self._frame(places, console, options)
            part = self._empty(
                places, _distribute_width(width, [columns[place] for place in places]), titled=not number
            )
            cells = zip(*(self.table.columns[place].cells for place in places), strict=True)
            for row, shown in zip(self.table.rows, cells, strict=True):
                part.add_row(*shown, style=row.style, end_section=row.end_section)
            yield part

    def _groups(self, columns: Sequence[_ColumnWidths], console: Console, options: ConsoleOptions) -> list[list[int]]:
        """Divide the columns into the parts of the table, and return the columns' positions for each part.

        Every part begins with the first column.
        """
        groups = [[0]] if columns else []
        for place in range(1, len(columns)):
            wider = [*groups[-1], place]
            needed = sum(columns[at].minimum for at in wider) + self._frame(wider, console, options)
            if needed > options.max_width and len(wider) > 2:
                groups.append([0, place])
            else:
                groups[-1] = wider
        return groups

    def _frame(self, places: Sequence[int], console: Console, options: ConsoleOptions) -> int:
        """Return the width of borders and padding in a table that has only the columns at the positions `places`."""
        bare = self._empty(places, [1] * len(places), titled=False)
        return Measurement.get(console, options.update(width=UNLIMITED_WIDTH), bare).maximum - len(places)

    def _empty(self, places: Sequence[int], widths: Sequence[int], *, titled: bool) -> Table:
        whole = self.table
        columns = []
        for place, width in zip(places, widths, strict=True):
            column = whole.columns[place].copy()
            column.width, column.min_width, column.no_wrap, column.overflow = width, None, False, "fold"
            columns.append(column)
        return Table(
            *columns,
            title=whole.title if titled else None,
            title_justify=whole.title_justify,
            title_style=whole.title_style,
            box=whole.box,
            padding=whole.padding,
            show_edge=whole.show_edge,
        )


@dataclass(frozen=True)
class _ColumnWidths:
    """The width that a column needs, without padding."""

    minimum: int
    """The smallest width in which no word is broken over two lines, unless it is longer than `LONG_WORD`. In a column
    with `no_wrap`, it is the smallest width in which no entry is broken."""
    natural: int
    """The smallest width in which no entry needs a further line."""

    @classmethod
    def of(cls, column: Column, console: Console, options: ConsoleOptions, *, first: bool) -> _ColumnWidths:
        def measure(text: RenderableType) -> Measurement:
            return Measurement.get(console, options.update(width=UNLIMITED_WIDTH), text)

        header, cells = measure(column.header), [measure(cell) for cell in column.cells]
        natural = max([header.maximum, *(cell.maximum for cell in cells)])
        if column.no_wrap:
            least = max([header.minimum, *(cell.maximum for cell in cells)])
        else:
            longest = max([header.minimum, *(cell.minimum for cell in cells)])
            least = longest if first else min(longest, LONG_WORD)
        if first:  # repeated in each part: a name of hundreds of characters must leave space for other columns
            least = min(least, max(LONG_WORD, options.max_width // 2))
        return cls(max(least, 1), max(natural, 1))


def _distribute_width(width: int, columns: Sequence[_ColumnWidths]) -> list[int]:
    """Distribute the available width over the columns, and return the columns' widths.

    First, each column gets the smallest width in which no word is broken. The remaining width goes to the narrowest
    columns among those whose entries need more than one line. If `width` is too small even for the smallest widths, the
    widest columns are narrowed, and their words are broken.
    """
    widths = [column.minimum for column in columns]
    while sum(widths) > width and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < width:
        wrapping = [n for n, column in enumerate(columns) if widths[n] < column.natural]
        if not wrapping:
            break
        widths[min(wrapping, key=widths.__getitem__)] += 1
    return widths
