"""The style of the report's figures, and their conversion to SVG that takes its colours from the page.

Matplotlib draws the figures. Each colour has one role, such as text, grid lines or a data series. `Picture.inline`
replaces each colour by a CSS variable of the page, so that the same drawing is used in light mode, dark mode and print.
Text in figures is not converted to shapes, so that the browser joins Arabic letters, and screen readers and text
searches find the words.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.messages.figure_text import literal_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b1f24"
MUTED = "#5b6470"
LINE = "#d5dae1"
PAPER = "#ffffff"
SERIES = ("#0072b2", "#c8500a", "#00805c", "#a4457f", "#8f6400", "#4a5fc1", "#5f6a76")
"""The colours of data series: the palette of Okabe & Ito, darkened until each colour has a contrast of 3 to 1 with
white. Series also differ in their markers and dashes."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)), (0, (8, 2)), (0, (3, 1)), "-")

VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", PAPER: "--paper"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)
}
"""The CSS variable of the page for each colour that a drawing may use."""
SVG_TAG = re.compile(r"<[^>]*>")
"""A pattern that matches a tag in an SVG text from matplotlib, which escapes `<` and `>` in texts and attributes."""

SETTINGS = {
    "svg.fonttype": "none",
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": PAPER,
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure with its texts, ready to be placed on a report page."""

    name: str
    """The name for files and ids, without a file ending; it is unique on the page."""
    svg: str
    alt: str
    """The alternative text, which describes the figure to readers who do not see it."""
    caption: str = ""
    wide: bool = False
    """True if the figure has the page's whole width; otherwise it may be placed next to another figure."""
    themed: bool = True
    """True if the figure uses the colours of the page, such as those of dark mode; otherwise it keeps its own colours
    on a white background."""

    @property
    def standalone(self) -> str:
        """The figure as the content of an SVG file, on a white background."""
        return self.svg.replace("<svg ", '<svg role="img" ', 1) + "\n"

    @property
    def inline(self) -> str:
        """The figure as an SVG element for an HTML page, with the colours of the page if `themed` is True."""
        return _in_tags(self.svg, _with_variables) if self.themed else self.svg


@contextmanager
def style(*, grid: bool = True) -> Iterator[None]:
    """Apply the report's matplotlib settings to figures that are drawn within the context.

    Args:
        grid: Whether the axes have grid lines.
    """
    with literal_text({**SETTINGS, "axes.grid": grid}):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return a new figure of this width and height in inches, made without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_svg(figure: Figure, name: str) -> str:
    """Return the SVG code of a figure; the same drawing always gives the same code.

    Args:
        figure: The figure.
        name: The picture's name. The ids inside the SVG begin with it, so that two figures on one page do not have the
            same ids.
    """
    with literal_text({**SETTINGS, "svg.hashsalt": name}):
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # A style element inside an inline SVG would apply to the whole page.
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    referenced = {name for tag in SVG_TAG.findall(svg) for name in re.findall(r'(?:url\(#|href="#)([^")]+)', tag)}

    def cleaned(tag: str) -> str:
        tag = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referenced else "", tag)
        return tag.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")

    svg = _in_tags(svg, cleaned)
    svg = svg.replace("<svg ", '<svg style="stroke-linejoin: round; stroke-linecap: butt" ', 1)
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _with_variables(tag: str) -> str:
    for colour, variable in VARIABLES.items():
        tag = re.sub(re.escape(colour), f"var({variable})", tag, flags=re.IGNORECASE)
    return tag


def _in_tags(svg: str, change: Callable[[str], str]) -> str:
    """Apply a function to each tag of an SVG text, and return the changed SVG text.

    The texts between tags stay unchanged, since a label may look like a colour or an attribute.
    """
    return SVG_TAG.sub(lambda match: change(match[0]), svg)


def line_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return matplotlib's keyword arguments for colour, marker and line style, for each series in `names`.

    They depend on the position of the series in `names`.
    """
    return {
        name: {
            "color": SERIES[index % len(SERIES)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": DASHES[index % len(DASHES)],
        }
        for index, name in enumerate(names)
    }
