"""MkDocs hooks for the documentation site: they add pages from outside `docs/` and rewrite links.

The documentation pages link to each other and to files of the repository by relative paths, so that the links also work
on a forge such as GitHub. MkDocs reads only the files below `docs/`. These hooks add the pages that `mkdocs.yml` lists
under `extra.pages_beside_code`, and rewrite links before MkDocs checks them:

    to a page of the site              a relative link to that page
    to another file of the repository  a link to it on the forge
    to a file that does not exist      unchanged, so that a strict build fails
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

BRANCH = "main"
CODE = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)[ ]*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
"""The pattern of code blocks and inline code in Markdown, in which no links are rewritten."""
RELATIVE_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|[#/])(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?")
"""The pattern of the target of a Markdown link, if it is a relative path with or without an anchor."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make MkDocs form the anchors of headings as a forge does, so that links to headings work on both."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add to the files of the site the pages outside `docs/` that `mkdocs.yml` names.

    Raises:
        PluginError: `mkdocs.yml` lists a file that does not exist.
    """
    for name, path in config.extra["pages_beside_code"].items():
        source = _root(config) / path
        if not source.is_file():
            raise PluginError(f"mkdocs.yml: extra.pages_beside_code names {path}, which is no file; correct its path")
        page = File.generated(config, name, abs_src_path=str(source))
        page.edit_uri = posixpath.relpath(path, Path(config.docs_dir).name)
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the text of a page with its relative links rewritten for the site; links in code stay unchanged."""
    pages = {Path(file.abs_src_path): file.src_uri for file in files if file.abs_src_path}
    folder = Path(page.file.abs_src_path or config.docs_dir).parent

    def rewritten(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / unquote(link["path"])))
        anchor = link["anchor"] or ""
        if target in pages:
            return posixpath.relpath(pages[target], posixpath.dirname(page.file.src_uri) or ".") + anchor
        if config.repo_url and target.exists() and target.is_relative_to(_root(config)):
            kind = "tree" if target.is_dir() else "blob"
            return posixpath.join(config.repo_url, kind, BRANCH, *target.relative_to(_root(config)).parts) + anchor
        return link[0]

    parts = CODE.split(markdown)
    parts[::2] = [RELATIVE_LINK.sub(rewritten, prose) for prose in parts[::2]]
    return "".join(parts)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent
