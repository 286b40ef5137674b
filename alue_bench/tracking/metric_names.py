"""Names of metrics, params and tags in MLflow, from names that may hold any character.

MLflow allows word characters, `/`, `.`, `-` and blanks (and `:`, but not on Windows), at most 250 of them, and a name
that is a path without `.`, `..` or empty parts. Labels and strategies are not bound to that. A name that MLflow takes
is stored as it is; of any other, the characters that it does not take are spelt out between double hyphens:

    test/f1_class_C+          test/f1_class_C--plus_sign--
    test/f1_class_😀          test/f1_class_--grinning_face--
    mean_score/mix[low]       mean_score/mix--left_square_bracket--low--right_square_bracket--
    test/f1_class_a//b        test/f1_class_a/--solidus--b
    (a name of 400 letters)   its first letters, `---` and a digest of the whole name

So a stored name can be read back (`original_name`); of shortened names, which cannot, the originals are kept beside, in
tags of the run (`tags_of_originals`). Names that a database or a file system would take for one, because they differ in
case or accents only (MySQL, SQL Server), or because one is a folder in the other's path, are spelt out as far as is
needed to tell them apart.

A character is spelt by its Unicode name; one without a name, or younger than Python's own tables, by its number.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

LONGEST = 250
"""Characters in a name; MLflow's limit."""
TAG = "metric_names"
"""Tags with the originals of shortened names: this one, `metric_names.1` and so on."""
TAG_LENGTH = 8000
"""Characters in the value of a tag; MLflow's limit."""

_REFUSED = re.compile(r"[^/\w.\- ]|-{2,}|\A/|/\Z|(?<=/)/|\A\.\.|(?<![^/])\.{1,2}(?![^/])|(?<![^/]) +| +(?![^/])")
"""Characters that MLflow does not take, parts of a path that name another path, blanks that a file system or a
database ignores, and what would be mistaken for a character spelt out."""
_SPELT = re.compile(r"--([a-z0-9_.-]+?)--(?!-)")
_EMPTY = "----"
_SHORTENED = re.compile(r"---[0-9a-f]{20}\Z")
_NUMBER = re.compile(r"u([0-9a-f]{4,6})")


def stored_names(names: Iterable[str]) -> dict[str, str]:
    """The name in MLflow of each of these names, which belong to one run; no two are taken for one by any store."""
    spelt = {name: _encode(name) for name in dict.fromkeys(names)}
    folded = {name: _folded(stored) for name, stored in spelt.items()}
    times = Counter(folded.values())
    for name, fold in folded.items():
        # One that is a folder in the path of another keeps its name; the other does not lie in it any more.
        slashes = {
            place
            for place, character in enumerate(name)
            if character == "/" and _folded(_encode(name[:place])) in times
        }
        if times[fold] > 1 or slashes:
            spelt[name] = _encode(name, cased=times[fold] > 1, besides=slashes)
    return {name: _shortened(name, stored) for name, stored in spelt.items()}


def is_stored_as_itself(name: str) -> bool:
    """Whether MLflow has this name as it is, whatever other names a run has."""
    plain = _encode(name) == name and _folded(name) == name
    return plain and len(name) <= LONGEST and name.count("/") < 2


def original_name(stored: str, originals: Mapping[str, str] | None = None) -> str:
    """The way back from `stored_names`; `originals`: those of shortened names, as `originals_of` gives them."""
    if "--" not in stored:  # nearly all
        return stored
    if originals and stored in originals:
        return originals[stored]
    if stored == _EMPTY:
        return ""
    if _SHORTENED.search(stored):
        return stored
    return _SPELT.sub(lambda spelt: _unspelt(spelt.group(0), spelt.group(1)), stored)


def tags_of_originals(stored: Mapping[str, str]) -> dict[str, str]:
    """Tags that keep the originals of shortened names; none where no name was shortened. Names too long for a tag are
    left out: only the stored ones are then known.

    stored: the stored name of each name, from `stored_names`.
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
    return {f"{TAG}.{place}" if place else TAG: value for place, value in enumerate(values)}


def originals_of(tags: Mapping[str, str]) -> dict[str, str]:
    """The originals of a run's shortened names, by what they are stored as, from its tags."""
    found: dict[str, str] = {}
    for tag, value in tags.items():
        if tag == TAG or tag.startswith(f"{TAG}."):
            try:
                found |= {str(short): str(name) for short, name in json.loads(value).items()}
            except (ValueError, AttributeError):  # edited by hand: its names are shown as they are stored
                continue
    return found


def metrics_by_original(metrics: Mapping[str, float], tags: Mapping[str, str]) -> dict[str, float]:
    """A run's metrics, as MLflow gives them, under the names that they were given."""
    originals = originals_of(tags)
    return {original_name(stored, originals): value for stored, value in metrics.items()}


def fitted(text: str, longest: int) -> str:
    """A text as a value that a store takes: not longer than `longest`, two different ones still different, and without
    what no database holds (zeros and halves of characters, which are written as escapes)."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    if len(safe) <= longest:
        return safe
    return f"{safe[: longest - 22]}… {_digest(text)}"


def _encode(name: str, *, cased: bool = False, besides: Collection[int] = ()) -> str:
    """cased: spell out too whatever differs from its own folded form. besides: places of further characters to spell
    out."""
    if not name:
        return _EMPTY
    refused = [place in besides or (cased and _folded(character) != character) for place, character in enumerate(name)]
    for match in _REFUSED.finditer(name):
        refused[match.start() : match.end()] = [True] * (match.end() - match.start())
    # A hyphen beside what is spelt out would be taken for one of the marks.
    for place, character in enumerate(name):
        beside = refused[max(0, place - 1) : place + 2]
        refused[place] |= character == "-" and any(beside)
    pieces: list[str] = []
    run: list[str] = []
    for character, bad in zip(name, refused, strict=True):
        if bad:
            run.append(_spelling(character))
            continue
        if run:
            pieces.append(f"--{'.'.join(run)}--")
            run = []
        pieces.append(character)
    if run:
        pieces.append(f"--{'.'.join(run)}--")
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
    """Equal for names that a case-insensitive and accent-insensitive comparison takes for one."""
    bare = "".join(
        str(unicodedata.digit(character, character))
        for character in unicodedata.normalize("NFKD", text.casefold())
        if not unicodedata.combining(character)
    )
    return unicodedata.normalize("NFKD", bare.casefold())
