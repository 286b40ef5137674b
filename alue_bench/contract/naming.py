"""The derivation of a model's name from the folder or hub id that a user gives instead of a declared model.

Letters of every script are kept, so that the name stays readable. The name is the same on every machine.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_NAME_BYTES = 100
"""The largest length of a name in bytes; it is limited because names become parts of file names."""
SEPARATORS = "._-"
"""The characters that a name may contain besides letters, digits and combining marks, but not at its beginning."""


def model_name(given: str) -> str:
    """Return the name of a model for which a user gives the name of a folder or a hub id.

    Letters (in lower case), digits and combining marks of any script are kept, and so are ".", "_" and "-" within the
    name. Each sequence of other characters is replaced by a hyphen. A name that is too long is cut, and a digest of
    `given` is appended. If nothing remains, the name is "model-" followed by the digest.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", given).lower())
    kept = re.sub("\0+", "-", "".join(c if _is_allowed(c) else "\0" for c in text)).strip(SEPARATORS)
    while kept and not _begins_name(kept[0]):  # a combining mark without its letter
        kept = kept[1:].strip(SEPARATORS)
    if not kept:
        return f"model-{_digest(given)}"
    if len(kept.encode()) > MAX_NAME_BYTES:
        short = kept.encode()[: MAX_NAME_BYTES - 7].decode(errors="ignore").rstrip(SEPARATORS)
        return f"{short}-{_digest(given)}"
    return kept


def is_model_name(name: str) -> bool:
    """Return whether `name` has the form of a model's name, which may have letters of any script.

    A name consists of lower-case letters, digits, combining marks, ".", "_" and "-". It begins with a letter or digit.
    """
    return bool(name) and name == name.lower() and _begins_name(name[0]) and all(map(_is_allowed, name))


def _begins_name(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


def _is_allowed(character: str) -> bool:
    return character in SEPARATORS or unicodedata.category(character)[0] in "LMN"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
