"""Valid MLflow names of metrics and values of params and tags, made from strings that may contain any character.

A metric name in MLflow has at most 250 characters: word characters, `/`, `.`, `-` and spaces (and `:`, but not on
Windows). It must be a path without `.`, `..` or empty parts. Names of labels and strategies may break these rules. A
name that MLflow accepts is stored unchanged; in any other name, the characters that MLflow refuses are spelt out
between double hyphens:

    test/f1_class_C+          test/f1_class_C--plus_sign--
    test/f1_class_😀          test/f1_class_--grinning_face--
    mean_score/mix[low]       mean_score/mix--left_square_bracket--low--right_square_bracket--
    test/f1_class_a//b        test/f1_class_a/--solidus--b
    (a name of 400 letters)   its first letters, `---` and a digest of the whole name

The original name can therefore be computed from the stored name (`original_name`), unless the name was shortened; the
original forms of shortened names are stored in tags of the run (`tags_of_originals`).

Some stores do not distinguish names that differ only in case or accents (MySQL, SQL Server). File systems cannot store
both "a" and "a/b", because "a" would be a file and a folder. If a run has such names, their capital and accented
letters, or the slash after "a", are spelt out too.

A character is spelt out as its Unicode name, or as its code point if Python knows no name for it.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

LONGEST = 250
"""The most characters that MLflow allows in a name."""
TAG = "metric_names"
"""The name of the first tag that holds the original forms of shortened names. Further tags are called `metric_names.1`
and so on."""
TAG_LENGTH = 8000
"""The most characters that MLflow allows in a tag's value."""

_REFUSED = re.compile(r"[^/\w.\- ]|-{2,}|\A/|/\Z|(?<=/)/|\A\.\.|(?<![^/])\.{1,2}(?![^/])|(?<![^/]) +| +(?![^/])")
"""A pattern for all parts of a name that must be spelt out: characters that MLflow refuses, the path parts `.` and
`..`, empty path parts, spaces that a file system or a database ignores, and double hyphens, which mark spelt-out
characters."""
_SPELT_OUT = re.compile(r"--([a-z0-9_.-]+?)--(?!-)")
_EMPTY = "----"
_SHORTENED = re.compile(r"---[0-9a-f]{20}\Z")
_NUMBER = re.compile(r"u([0-9a-f]{4,6})")


def stored_names(names: Iterable[str]) -> dict[str, str]:
    """Return the name in MLflow for each metric name of a run.

    No two returned names are equal, even in a store that ignores case and accents.
    """
    spelt = {name: _encode(name) for name in dict.fromkeys(names)}
    folded = {name: _folded(stored) for name, stored in spelt.items()}
    times = Counter(folded.values())
    for name, fold in folded.items():
        # If a run has the names "a" and "a/b", the slash of "a/b" is spelt out, since "a" cannot be file and folder.
        slashes = {
            position
            for position, character in enumerate(name)
            if character == "/" and _folded(_encode(name[:position])) in times
        }
        if times[fold] > 1 or slashes:
            spelt[name] = _encode(name, cased=times[fold] > 1, besides=slashes)
    return {name: _shortened(name, stored) for name, stored in spelt.items()}


def is_stored_as_itself(name: str) -> bool:
    """Return whether `stored_names` always leaves this name unchanged, whatever other names the run has."""
    plain = _encode(name) == name and _folded(name) == name
    return plain and len(name) <= LONGEST and name.count("/") < 2


def original_name(stored: str, originals: Mapping[str, str] | None = None) -> str:
    """Return the original metric name for a name in MLflow, which `stored_names` made.

    Args:
        stored: The name in MLflow.
        originals: The original name for each shortened name of the run, from `originals_of`. If it is None, a shortened
            name is returned unchanged.
    """
    if "--" not in stored:  # the case of nearly all names
        return stored
    if originals and stored in originals:
        return originals[stored]
    if stored == _EMPTY:
        return ""
    if _SHORTENED.search(stored):
        return stored
    return _SPELT_OUT.sub(lambda spelt: _unspelt(spelt.group(0), spelt.group(1)), stored)


def tags_of_originals(stored: Mapping[str, str]) -> dict[str, str]:
    """Return MLflow tags that hold the original forms of shortened metric names; empty if no name was shortened.

    An original name that is too long for a tag is left out; its metric can then only be shown under the shortened name.

    Args:
        stored: The name in MLflow for each original name, from `stored_names`.
    """
    shortened = {short: name for name, short in stored.items() if original_name(short) != name}
    values: list[str] = []
    for short, name in shortened.items():
        entry = json.dumps({short: name}, ensure_ascii=False)
        if len(entry) > TAG_LENGTH:
            continue
        if values and len(values[-1]) + len(entry) <= TAG_LENGTH:
            values[-1] = f"{values[-1][:-1]}, {entry[1:]}"
        else:
            values.append(entry)
    return {f"{TAG}.{position}" if position else TAG: value for position, value in enumerate(values)}


def originals_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the original name for each shortened metric name, as `tags_of_originals` stored it in a run's tags."""
    originals: dict[str, str] = {}
    for tag, value in tags.items():
        if tag == TAG or tag.startswith(f"{TAG}."):
            try:
                originals |= {str(short): str(name) for short, name in json.loads(value).items()}
            except (ValueError, AttributeError):  # the tag was edited by hand: its names remain shortened
                continue
    return originals


def metrics_by_original(metrics: Mapping[str, float], tags: Mapping[str, str]) -> dict[str, float]:
    """Return a run's metrics under their original names.

    Args:
        metrics: The metrics by their names in MLflow.
        tags: The run's tags.
    """
    originals = originals_of(tags)
    return {original_name(stored, originals): value for stored, value in metrics.items()}


def storable_value(text: str, longest: int) -> str:
    """Convert a string to a value of a param or tag that every MLflow store accepts.

    The value has at most `longest` characters. A longer string is cut, and a digest is added, so that different strings
    stay different. NUL characters and lone surrogates, which databases cannot store, are written as escapes.
    """
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    if len(safe) <= longest:
        return safe
    return f"{safe[: longest - 22]}… {_digest(text)}"


def _encode(name: str, *, cased: bool = False, besides: Collection[int] = ()) -> str:
    """Return a name in which the characters that MLflow refuses are spelt out.

    Args:
        name: The name to encode.
        cased: Whether to spell out also each character that `_folded` changes, such as capital and accented letters.
        besides: The positions, in the name, of further characters that are to be spelt out.
    """
    if not name:
        return _EMPTY
    refused = [
        position in besides or (cased and _folded(character) != character) for position, character in enumerate(name)
    ]
    for match in _REFUSED.finditer(name):
        refused[match.start() : match.end()] = [True] * (match.end() - match.start())
    # A hyphen next to a spelt-out character would be taken for one of the delimiters.
    for position, character in enumerate(name):
        beside = refused[max(0, position - 1) : position + 2]
        refused[position] |= character == "-" and any(beside)
    pieces: list[str] = []
    spellings: list[str] = []
    for character, bad in zip(name, refused, strict=True):
        if bad:
            spellings.append(_spelling(character))
            continue
        if spellings:
            pieces.append(f"--{'.'.join(spellings)}--")
            spellings = []
        pieces.append(character)
    if spellings:
        pieces.append(f"--{'.'.join(spellings)}--")
    return "".join(pieces)


def _spelling(character: str) -> str:
    name = unicodedata.name(character, "")
    return name.lower().replace(" ", "_") if name else f"u{ord(character):04x}"


def _unspelt(whole: str, inside: str) -> str:
    characters = []
    for spelling in inside.split("."):
        number = _NUMBER.fullmatch(spelling)
        try:
            if number:
                characters.append(chr(int(number.group(1), 16)))
            else:
                characters.append(unicodedata.lookup(spelling.replace("_", " ").upper()))
        except (KeyError, ValueError, OverflowError):
            return whole
    return "".join(characters)


def _shortened(name: str, stored: str) -> str:
    if len(stored) <= LONGEST:
        return stored
    digest = _digest(name)
    return f"{stored[: LONGEST - 3 - len(digest)].rstrip('-. /')}---{digest}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _folded(text: str) -> str:
    """Return a string in lower case and without accents, so that strings can be compared as MySQL and SQL Server do."""
    bare = "".join(
        str(unicodedata.digit(character, character))
        for character in unicodedata.normalize("NFKD", text.casefold())
        if not unicodedata.combining(character)
    )
    return unicodedata.normalize("NFKD", bare.casefold())
