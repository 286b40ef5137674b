"""The documentation site: every page has its place in it, and it builds without a broken link."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import alue_bench
import alue_bench.testing

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIGURATION: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
BESIDE_CODE: dict[str, str] = CONFIGURATION["extra"]["pages_beside_code"]
PACKAGES = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers")
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))} | {
    page: ROOT / path for page, path in BESIDE_CODE.items()
}
"""The file that each page is made from."""


@cache
def missing_package() -> str | None:
    return next((package for package in PACKAGES if importlib.util.find_spec(package) is None), None)


needs_mkdocs = pytest.mark.skipif(
    missing_package() is not None,
    reason=f"{missing_package()} is not installed; pip install -c constraints.txt -e '.[docs]' installs it",
)


def build(configuration: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build a site strictly, in a process in which torch cannot be imported."""
    program = "import sys; sys.modules['torch'] = None; from mkdocs.__main__ import cli; cli()"
    options = ["build", "--strict", "--config-file", str(configuration), "--site-dir", str(site)]
    return subprocess.run(
        [sys.executable, "-c", program, *options],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def leaves(navigation: Any) -> Iterator[str]:
    """The pages of a navigation, in its order."""
    if isinstance(navigation, str):
        yield navigation
    else:
        for entry in navigation.values() if isinstance(navigation, dict) else navigation:
            yield from leaves(entry)


class TestNavigation:
    def test_every_page_stands_in_it_once(self) -> None:
        assert sorted(leaves(CONFIGURATION["nav"])) == sorted(page for page in PAGES if not page.startswith("notes/"))

    def test_another_page_links_to_each_note(self) -> None:
        for note in (page for page in PAGES if page.startswith("notes/")):
            texts = (path.read_text(encoding="utf-8") for page, path in PAGES.items() if page != note)
            assert any(f"]({note}" in text for text in texts), f"no page links to docs/{note}"

    def test_pages_beside_code_exist_and_hide_none_of_docs(self) -> None:
        for page, path in BESIDE_CODE.items():
            assert (ROOT / path).is_file(), f"mkdocs.yml: pages_beside_code: {path} does not exist"
            assert not (DOCS / page).exists(), f"mkdocs.yml: pages_beside_code: docs/{page} exists as well"


@pytest.mark.parametrize(
    ("module", "not_documented"), [(alue_bench, {"__version__"}), (alue_bench.testing, set())], ids=lambda it: str(it)
)
def test_the_api_reference_lists_every_public_name(module: Any, not_documented: set[str]) -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    listed = re.findall(rf"^::: {re.escape(module.__name__)}\.([A-Za-z_]+)$", pages, re.MULTILINE)
    modules = {name for name in listed if importlib.util.find_spec(f"{module.__name__}.{name}") is not None}
    assert sorted(set(listed) - modules) == sorted(set(module.__all__) - not_documented)
    assert len(listed) == len(set(listed))


@needs_mkdocs
class TestBuild:
    @pytest.mark.slow
    def test_it_builds_strictly_without_torch(self, tmp_path: Path) -> None:
        done = build(ROOT / "mkdocs.yml", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert 'id="alue_bench.Task"' in (tmp_path / "api" / "declarations" / "index.html").read_text(encoding="utf-8")
        assert 'href="data/"' in (tmp_path / "index.html").read_text(encoding="utf-8")

    def test_links_of_the_repository_become_links_of_the_site_and_broken_ones_fail(self, tmp_path: Path) -> None:
        docs = tmp_path / "docs"
        docs.mkdir()
        (tmp_path / "CHANGES.md").write_text("# Changes\n\n## A – b_c\n\n[guide](docs/index.md) [no](docs/gone.md)\n")
        (tmp_path / "code.py").touch()
        (docs / "index.md").write_text(
            "# Guide\n\n[changes](../CHANGES.md#a--b_c) [code](../code.py) [root](..) `[in code](../CHANGES.md)`\n\n"
            "[page](absent.md) [anchor](#absent) [file](../absent.py)\n"
        )
        small = {key: CONFIGURATION[key] for key in ("site_name", "repo_url", "validation", "markdown_extensions")} | {
            "hooks": [str(ROOT / path) for path in CONFIGURATION["hooks"]],
            "extra": {"pages_beside_code": {"changes.md": "CHANGES.md"}},
            "nav": ["index.md", "changes.md"],
            "theme": "mkdocs",
            "plugins": [],
        }
        configuration = tmp_path / "mkdocs.yml"
        configuration.write_text(yaml.safe_dump(small))
        done = build(configuration, tmp_path / "site")
        assert done.returncode != 0
        warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
        for broken in ("'absent.md'", "'#absent'", "'../absent.py'", "'docs/gone.md'"):
            assert any(broken in line for line in warnings), done.stderr
        assert len(warnings) == 4, done.stderr

        (docs / "index.md").write_text((docs / "index.md").read_text().rpartition("\n\n")[0])
        (tmp_path / "CHANGES.md").write_text("# Changes\n\n## A – b_c\n\n[guide](docs/index.md)\n")
        done = build(configuration, tmp_path / "site")
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "site" / "index.html").read_text()
        for link in ("changes/#a--b_c", f"{small['repo_url']}/blob/main/code.py", f"{small['repo_url']}/tree/main"):
            assert f'href="{link}"' in page
        assert "[in code](../CHANGES.md)" in page
        assert 'href=".."' in (tmp_path / "site" / "changes" / "index.html").read_text()


@needs_mkdocs
@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_same_structure_on_a_forge_and_in_the_site(page: str) -> None:
    """The site wants four spaces before a nested list and a blank line before a list; CommonMark does not."""
    from markdown import markdown
    from markdown_it import MarkdownIt

    text = re.sub(r"\A---\n.*?^---\n", "", PAGES[page].read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    forge = MarkdownIt("commonmark").enable("table").render(text)
    site = markdown(text, extensions=["sane_lists", "tables", "pymdownx.superfences"])
    for tag in ("h1", "h2", "h3", "h4", "ol", "ul", "li", "table", "tr", "td", "blockquote", "img"):
        in_forge, in_site = (len(re.findall(rf"<{tag}[ />]", html)) for html in (forge, site))
        assert in_site == in_forge, f"{PAGES[page].name}: {in_forge} <{tag}> on a forge, {in_site} in the site"
