"""Texts from outside, made fit for where they are shown: titles, labels, folders, causes of errors.

Each function escapes what means something in its place, so that readers see the text as it is written. For terminals
see `cli/views/console.py`, for figures `figure_text.py`; HTML is escaped by the template.
"""

from __future__ import annotations

import hashlib
import html
import re

_STEERING = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls: colours, cursor movements, bells; not allowed in XML either
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates of direction, which reorder what follows
    "\ud800-\udfff"  # halves of surrogate pairs: bytes of a file name that are no UTF-8
    "\ufffe\uffff"
    "]"
)
LONGEST_FILE_NAME = 200
"""Bytes of a file name; file systems take 255, and some of them are for endings and for scratch files beside."""
DIGEST = 10
"""Hexadecimal digits of a digest that keeps shortened names apart."""


def visible(text: str) -> str:
    """Return the text with all escaped that steers a terminal or that XML does not allow; line feeds stay."""
    return _STEERING.sub(lambda found: found[0] if found[0] == "\n" else _escaped(found[0]), text)


def one_line(text: str) -> str:
    """Return the text as `visible` does, on one line: line feeds are escaped too."""
    return _STEERING.sub(lambda found: _escaped(found[0]), text)


def file_name(stem: str, ending: str = "") -> str:
    """Return a name for a file: the stem with its ending, where need be escaped and shortened.

    Different stems never give the same name: whatever is left out is replaced by a digest of the whole stem.
    """
    safe = one_line(stem).replace("/", "-").replace("\\", "-")
    room = LONGEST_FILE_NAME - len(ending.encode())
    if safe == stem and len(safe.encode()) <= room:
        return stem + ending
    digest = hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
    kept = safe.encode()[: room - DIGEST - 1].decode(errors="ignore")
    return f"{kept}-{digest}{ending}"


_MARKDOWN = re.compile(
    r"[<>&]"  # HTML, which Markdown lets through
    r"|[\\`*_{}\[\]#|~$^]"
    r"|:(?=[\w+-]+:)"  # the name of an emoji
)
_MARKDOWN_BLOCK = re.compile(r"^(\d{1,9}(?=[.)])|(?=[-+=:]))")
"""Beginnings of a line after which a sign would make a list, or a heading of the line before."""


def markdown(text: str) -> str:
    """Return Markdown that shows the text as it is, on one line."""
    line = re.sub(r"[ \t\n\r\f\v]+", " ", visible(text)).strip()
    escaped = _MARKDOWN.sub(lambda sign: html.escape(sign[0]) if sign[0] in "<>&" else f"\\{sign[0]}", line)
    return _MARKDOWN_BLOCK.sub(r"\1\\", escaped)


LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",  # babel gives the sign itself a meaning in some languages
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after the end of a row and after a rule, a bracket would begin an option
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "–": r"\textendash{}",
    "·": r"$\cdot$",
    "\n": " ",
}
_LATEX = re.compile(f"[{re.escape(''.join(LATEX))}]|-(?=-)|,(?=,)")
"""Signs that mean something, and pairs that would be set as a dash or a quotation mark."""


def latex(text: str) -> str:
    """Return LaTeX that sets the text as it stands; it needs UTF-8 and a LaTeX of 2020 or later."""
    return _LATEX.sub(lambda sign: LATEX.get(sign[0], sign[0] + "{}"), visible(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
