"""Pages as text: self-contained HTML, or Markdown with its figures in a folder beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alue_bench import __version__
from alue_bench.contract.errors import UnavailableError
from alue_bench.messages.display import file_name, markdown, visible
from alue_bench.report.content import Folded, Gallery, Item, Page
from alue_bench.report.drawing import Picture

if TYPE_CHECKING:
    from jinja2 import Environment


def render_html(page: Page) -> str:
    """One HTML document that holds everything it shows: no script, nothing to fetch. Every text is escaped."""
    css = (Path(__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
    return _environment(autoescape=True).get_template("page.html.jinja").render(page=page, css=css, version=__version__)


def render_markdown(page: Page, figures: str) -> str:
    """The same in Markdown. Its figures are expected as `figures`/NAME.svg: see `pictures`."""
    written = _environment(autoescape=False).get_template("page.md.jinja").render(page=page, figures=figures)
    return re.sub(r"\n{3,}", "\n\n", written).strip() + "\n"


def pictures(page: Page) -> Iterator[Picture]:
    """Every figure of a page, in order."""

    def within(item: Item) -> Iterator[Picture]:
        if isinstance(item, Gallery):
            yield from item.pictures
        elif isinstance(item, Folded):
            for part in item.items:
                yield from within(part)

    for section in page.sections:
        for block in section.blocks:
            for item in block.items:
                yield from within(item)


def _environment(*, autoescape: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("alue_bench.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["kind"] = lambda item: type(item).__name__
    environment.filters["md"] = markdown
    environment.filters["fence"] = _fence
    return environment


def _fence(text: str) -> str:
    """More backticks than stand beside each other anywhere in the text, which is shown between two lines of them."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def write_page(page: Page, output: Path) -> None:
    """Write a page as its file's ending says: .md as Markdown, with figures in NAME-figures beside it, else HTML.

    Raises UnavailableError where the file cannot be written; a page that was there is then left as it was.
    """
    try:
        if output.suffix.lower() in (".md", ".markdown"):
            figures = output.with_name(file_name(output.stem, "-figures"))
            drawn = list(pictures(page))
            if drawn:
                figures.mkdir(parents=True, exist_ok=True)
            for picture in drawn:
                _replace(figures / f"{picture.name}.svg", picture.standalone)
            _replace(output, render_markdown(page, figures.name))
        else:
            _replace(output, render_html(page))
    except OSError as error:
        raise UnavailableError(f"{output} cannot be written ({error.strerror}); choose another --output") from error


def _replace(path: Path, content: str) -> None:
    """All of a file or nothing of it."""
    scratch = path.with_name(f".alue-bench-{os.getpid()}")  # the name of the file itself may be as long as names may be
    try:
        scratch.write_text(content, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
