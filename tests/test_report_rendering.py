"""A page as text: every string is shown as it is, figures take the page's colours, nothing is fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chromium import measure

from alue_bench.contract.errors import UnavailableError
from alue_bench.reporting.charts import Point, learning_curves, pareto
from alue_bench.reporting.content import (
    Block,
    Cell,
    Column,
    Facts,
    Findings,
    Folded,
    Gallery,
    Matrices,
    Matrix,
    Missing,
    Page,
    Paragraph,
    ReportTable,
    Row,
    RowGroup,
    Section,
    Sentence,
)
from alue_bench.reporting.rendering import pictures, render_html, render_markdown, write_page

HOSTILE = (
    '"><script>alert(1)</script><img src=http://example.org/x.png onerror=alert(2)> $\\frac{}{$ `|` {{ 7*7 }} &amp;'
)
ARABIC = "ليس ساخرا"


def page_of(text: str) -> Page:
    """A page that holds the text wherever a page can hold one."""
    table = ReportTable(
        text,
        text,
        [Column(text, explained=text), Column("number")],
        [RowGroup(text, [Row(text, [Cell(text, detail=text), Cell("1")], note=text)], remark=text)],
    )
    drawn = [
        pareto(
            [Point(text, 0.5, 2.0, 0.1, 0.1), Point("full", 0.6, 3.0)], [text], name="a", metric=text, figure_title=text
        ),
        learning_curves({text: [[(1, 0.1), (2, 0.3)], [(1, 0.2), (2, 0.4)]]}, name="b", metric=text, figure_title=text),
    ]
    items = [
        Findings([Sentence(text, text, "bad")]),
        Paragraph(text, warning=True),
        table,
        Matrices([Matrix(text, [text, ARABIC], [[3, 1], [0, 2]])]),
        Gallery(drawn),
        Missing(text, text),
        Facts([(text, text)]),
        Folded(text, [table, Paragraph(text)]),
    ]
    return Page(text, text, [Section("one", text, [Block(text, items)], intro=text)], notices=[text], footer=text)


class Tags(HTMLParser):
    """The elements of a document, and the addresses in them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.handlers: set[str] = set()
        self.addresses: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.handlers |= {name for name, _ in attributes if name.startswith("on")}
        self.addresses |= {
            value or "" for name, value in attributes if name in ("src", "href", "srcset", "action", "data")
        }


def tags_of(document: str) -> Tags:
    parser = Tags()
    parser.feed(document)
    return parser


@pytest.fixture(scope="module")
def hostile() -> str:
    return render_html(page_of(HOSTILE))


def test_no_name_becomes_markup(hostile: str) -> None:
    tags = tags_of(hostile)
    assert tags.names.isdisjoint({"script", "img", "iframe", "object", "embed", "base", "form"})
    assert not tags.handlers
    assert "{{ 7*7 }}" in hostile  # a name is no template


def test_the_page_refers_to_nothing_outside_it(hostile: str) -> None:
    assert all(address.startswith(("#", "data:")) for address in tags_of(hostile).addresses)
    assert not re.search(r"@import|url\((?!#|\"?data:)", hostile)


def test_rendering_says_the_same_twice() -> None:
    assert render_html(page_of(ARABIC)) == render_html(page_of(ARABIC))


def test_tables_name_their_rows_and_columns(hostile: str) -> None:
    assert hostile.count("<th ") == len(re.findall(r'<th [^>]*scope="(?:col|row|rowgroup)"', hostile))
    assert hostile.count("<caption>") == hostile.count("<table")
    assert hostile.count('role="img" aria-label=') == hostile.count("<figure")


def test_figures_take_their_colours_from_the_page() -> None:
    drawn = next(pictures(page_of("x")))
    assert "var(--ink)" in drawn.inline
    assert not re.search(r"#[0-9a-f]{6}", re.sub(r"(?:href=\"|url\()#[^\")]+", "", drawn.inline))
    assert "var(" not in drawn.standalone


def test_names_in_figures_are_text() -> None:
    """Shaped by the browser, found by a search, read by a screen reader; and a dollar sign begins no formula."""
    drawn = list(pictures(page_of("a$b$c")))
    assert all("a$b$c" in picture.svg for picture in drawn)


def test_markdown_tables_have_as_many_cells_in_each_row() -> None:
    written = render_markdown(page_of("a | b"), "figures")
    tables = re.findall(r"(?:^\|.*\n)+", written, flags=re.MULTILINE)
    assert tables
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table


def test_markdown_has_its_figures_beside_it(tmp_path: Path) -> None:
    write_page(page_of("x"), tmp_path / "answer.md")
    linked = re.findall(r"\]\(([^)]+\.svg)\)", (tmp_path / "answer.md").read_text(encoding="utf-8"))
    assert len(linked) == 2
    assert all((tmp_path / name).read_text(encoding="utf-8").startswith("<svg") for name in linked)


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="choose another --output"):
        write_page(page_of("x"), tmp_path / "no folder" / "answer.html")
    assert not list(tmp_path.iterdir())


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_colours_stand_out_in_each_scheme(scheme: int) -> None:
    css = render_html(Page("t", "l", []))
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]))
    for name in ("ink", "muted", "link", "good", "bad"):
        for ground in ("paper", "sheet"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast(colours["ink"], colours["warn"]) >= 4.5
    for name in (name for name in colours if name.startswith("series-")):
        assert contrast(colours[name], colours["paper"]) >= 3, name


def test_a_browser_shows_the_page_on_a_phone_without_asking_for_anything(tmp_path: Path, hostile: str) -> None:
    shown = tmp_path / "report.html"
    shown.write_text(hostile, encoding="utf-8")
    asked = "view.performance.getEntriesByType('resource').map(entry => entry.name)"
    measured = measure(
        shown,
        f"""{{asked: {asked}, width: page.documentElement.scrollWidth, room: page.documentElement.clientWidth,
              dialogs: page.scripts.length, figures: page.querySelectorAll('figure svg').length,
              direction: view.getComputedStyle([...page.querySelectorAll('.matrix bdi')].at(-1)).direction,
              twice: [...page.querySelectorAll('[id]')].map(e => e.id)
                .filter((id, at, all) => all.indexOf(id) != at)}}""",
    )
    assert measured["width"] == measured["room"] == 375
    assert measured["asked"] == []
    assert measured["dialogs"] == 0
    assert measured["figures"] == 2
    assert measured["direction"] == "rtl"
    assert measured["twice"] == []


def test_a_browser_would_tell_if_a_page_asked_for_something(tmp_path: Path) -> None:
    shown = tmp_path / "asks.html"
    shown.write_text('<img src="http://127.0.0.1:9/x.png">', encoding="utf-8")
    assert measure(shown, "view.performance.getEntriesByType('resource').length") == 1


def test_the_pareto_front_is_a_dashed_line() -> None:
    points = [Point("cheap", 0.5, 2.0, 0.1, 0.1), Point("full", 0.6, 3.0), Point("worse", 0.4, 4.0)]
    drawn, alone = (
        pareto(points, front, name="a", metric="F1", figure_title="t").svg for front in (["cheap", "full"], [])
    )
    assert "stroke-dasharray" in drawn
    assert "stroke-dasharray" not in alone
