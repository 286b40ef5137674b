"""HTML tables of results for notebooks, and progress bars that work there and on terminals."""

from __future__ import annotations

import io
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from rich.console import RenderableType
from rich.progress import Progress

from alue_bench.views.console import LOG_WIDTH, PlainConsole

PAGE = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:normal;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,'Courier New',monospace\">{code}</pre>"
)
"""The HTML of a notebook's output, in the form of the argument `code_format` of rich's `Console.export_html`."""


class Displayed(ABC):
    """A result that is shown as text when it is printed, and as HTML in the output of a notebook's cell."""

    @abstractmethod
    def view(self) -> RenderableType:
        """Return the result as an object that rich can print, such as a table."""

    def __repr__(self) -> str:
        """Return the result as plain text."""
        return as_text(self.view())

    def _repr_html_(self) -> str:
        """Return the result as HTML. Jupyter calls this method."""
        return as_html(self.view())


def as_text(view: RenderableType) -> str:
    """Return an object that rich can print, such as a table, as plain text."""
    written = io.StringIO()
    PlainConsole(file=written, width=LOG_WIDTH, force_terminal=False, force_jupyter=False).print(view)
    return written.getvalue().rstrip("\n")


def as_html(view: RenderableType) -> str:
    """Return an object that rich can print, such as a table, as HTML with colours; texts in it are escaped."""
    options = {"force_terminal": True, "color_system": "truecolor", "force_jupyter": False, "record": True}
    console = PlainConsole(file=io.StringIO(), width=LOG_WIDTH, **options)
    console.print(view)
    return console.export_html(inline_styles=True, code_format=PAGE)


def without_widget_warning() -> None:
    """Import tqdm, and suppress its warning that ipywidgets is missing.

    Other libraries that show downloads with tqdm then give no warning when they import it.
    """
    with suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tqdm.auto  # noqa: F401


class Bars(Progress):
    """Progress bars, optionally with a table or text above them, in a terminal or in a notebook cell's output.

    In a notebook, each update replaces the cell's output, in the thread that calls `update`. rich's own bars would need
    the package ipywidgets and a second thread.
    """

    above: Callable[[], RenderableType | None] = staticmethod(lambda: None)

    def __init__(self, *columns: Any, console: PlainConsole) -> None:
        """Create progress bars on a console; the arguments `columns` are the same as for `rich.progress.Progress`."""
        self._cell: Any = None
        """The output of the notebook cell that shows the bars; None before the bars are shown, and in a terminal."""
        super().__init__(*columns, console=console, auto_refresh=not console.is_jupyter)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the objects to draw: the table or text above the progress bars, if there is one, and the bars."""
        view = self.above()
        if view is not None:
            yield view
        yield from super().get_renderables()

    def start(self) -> None:
        """Show the progress bars."""
        if not self.console.is_jupyter:
            super().start()
            return
        from IPython.display import HTML, display

        self._cell = display(HTML(as_html(self.get_renderable())), display_id=True)

    def stop(self) -> None:
        """Stop updating the progress bars, which stay visible."""
        if not self.console.is_jupyter:
            super().stop()
        self.refresh()
        self._cell = None

    def refresh(self) -> None:
        """Draw the progress bars in their current state."""
        if not self.console.is_jupyter:
            super().refresh()
        elif self._cell is not None:
            from IPython.display import HTML

            self._cell.update(HTML(as_html(self.get_renderable())))

    def update(self, *bar: Any, **changes: Any) -> None:
        """Change the state of a progress bar; the arguments are the same as for `rich.progress.Progress.update`.

        In a notebook, no thread redraws the bars regularly, so this method redraws them.
        """
        super().update(*bar, **{**changes, "refresh": self.console.is_jupyter})
