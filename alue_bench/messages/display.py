"""Escaping of texts from outside the program (titles, labels, folders, error messages) for each output format.

Each function escapes the characters that have a special meaning in one format, so that readers see exactly the original
text. Markup in terminal output is escaped in `views/console.py`, figures in `figure_text.py`, and HTML by the template
of the report.
"""

from __future__ import annotations

import hashlib
import html
import re

_CONTROL_CHARACTERS = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters: colours, cursor movements, bells; XML does not allow them either
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # directional embeddings, overrides and isolates, which reorder the text after them
    "\ud800-\udfff"  # unpaired surrogates: bytes of a file name that are not UTF-8
    "\ufffe\uffff"
    "]"
)
LONGEST_FILE_NAME = 200
"""The largest length of a file name in bytes. File systems permit 255; the difference leaves space for suffixes that
are appended later, such as the suffixes of temporary files."""
DIGEST = 10
"""The number of hexadecimal digits of the digest that distinguishes changed file names."""


def visible(text: str) -> str:
    """Escape the characters that control a terminal or that XML forbids, except line feeds, and return the text."""
    return _CONTROL_CHARACTERS.sub(lambda match: match[0] if match[0] == "\n" else _escaped(match[0]), text)


def one_line(text: str) -> str:
    """Escape the same characters as `visible`, and also line feeds, and return the text, which is one line."""
    return _CONTROL_CHARACTERS.sub(lambda match: _escaped(match[0]), text)


def file_name(stem: str, ending: str = "") -> str:
    """Return a safe file name that consists of a stem and an ending; the stem is escaped and shortened if necessary.

    If the stem is changed, a digest of the original stem is appended, so that different stems give different names.
    """
    safe = one_line(stem).replace("/", "-").replace("\\", "-")
    longest = LONGEST_FILE_NAME - len(ending.encode())
    if safe == stem and len(safe.encode()) <= longest:
        return stem + ending
    digest = hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
    kept = safe.encode()[: longest - DIGEST - 1].decode(errors="ignore")
    return f"{kept}-{digest}{ending}"


_MARKDOWN = re.compile(
    r"[<>&]"  # HTML, which Markdown passes through
    r"|[\\`*_{}\[\]#|~$^]"
    r"|:(?=[\w+-]+:)"  # the name of an emoji
)
_MARKDOWN_BLOCK = re.compile(r"^(\d{1,9}(?=[.)])|(?=[-+=:]))")
"""A pattern for the beginning of a line that Markdown would interpret, for example as a list item."""


def markdown(text: str) -> str:
    """Return Markdown code, on one line, that is displayed as the original text."""
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
    '"': r"\symbol{34}",  # babel gives the character itself a meaning in some languages
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after the end of a row and after a rule, a bracket would start an optional argument
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\textsection{}",
    "°": r"\textdegree{}",
    "≤": r"$\leq$",
    "–": r"\textendash{}",
    "·": r"$\cdot$",
    "\n": " ",
}
_LATEX = re.compile(f"[{re.escape(''.join(LATEX))}]|-(?=-)|,(?=,)")
"""A pattern for the characters that LaTeX interprets, and for the first character of the pairs "--" and ",,", which it
would typeset as a dash or a quotation mark."""


def latex(text: str) -> str:
    """Return LaTeX code that typesets the original text. It requires UTF-8, and LaTeX of 2020 or later."""
    return _LATEX.sub(lambda sign: LATEX.get(sign[0], sign[0] + "{}"), visible(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of the error's type if it has no message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
