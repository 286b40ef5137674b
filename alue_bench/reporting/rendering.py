"""The rendering of report pages: as self-contained HTML, or as Markdown with the figures in a separate folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.version import __version__
from alue_bench.messages.display import file_name, markdown, visible
from alue_bench.reporting.content import Folded, Gallery, Item, Page
from alue_bench.reporting.drawing import Picture

if TYPE_CHECKING:
    from jinja2 import Environment


def render_html(page: Page) -> str:
    """Return a page as one HTML document without scripts or external files, in which every text is escaped."""
    css = (Path(__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
    return _environment(autoescape=True).get_template("page.html.jinja").render(page=page, css=css, version=__version__)


def render_markdown(page: Page, figures: str) -> str:
    """Return a page as Markdown.

    Args:
        page: The page to convert.
        figures: The path to the folder of the pictures. The Markdown links each picture of `pictures` as
            `figures`/NAME.svg.
    """
    written = _environment(autoescape=False).get_template("page.md.jinja").render(page=page, figures=figures)
    return re.sub(r"\n{3,}", "\n\n", written).strip() + "\n"


def pictures(page: Page) -> Iterator[Picture]:
    """Yield every picture of a page, in the order of appearance."""

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
        loader=PackageLoader("alue_bench.reporting"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["kind"] = lambda item: type(item).__name__
    environment.filters["md"] = markdown
    environment.filters["fence"] = _fence
    return environment


def _fence(text: str) -> str:
    """Return a row of backticks that can enclose this text as a Markdown code block.

    It is longer than every row of backticks in the text.
    """
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


ENDINGS = (".html", ".htm", ".md", ".markdown")


def check_ending(output: Path, name: str) -> None:
    """Raise UsageError if the ending of a report file's name, such as .html, is not one of `ENDINGS`.

    Args:
        output: The file to write.
        name: The name of the option or argument that gave the file, for the error message.
    """
    if output.suffix.lower() not in ENDINGS:
        raise UsageError(f"{name} {output}: the name must end in .html or .md, which says what to write")


def write_page(page: Page, output: Path) -> None:
    """Write a page in the format that its file name implies: Markdown for .md and .markdown, otherwise HTML.

    The figures of a Markdown page NAME.md are written to the folder NAME-figures next to it.

    Args:
        page: The page to write.
        output: The file to write.

    Raises:
        UnavailableError: The file cannot be written. An existing page is then left unchanged.
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
    """Write a text to a file. If this fails, an existing file is left unchanged."""
    # A short name, since the file's own name may already have the longest length that is allowed.
    scratch = path.with_name(f".alue-bench-{os.getpid()}")
    try:
        scratch.write_text(content, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
