"""The derivation of names for models that users give as a folder or as a hub id.

Such a name is readable in any script, and it is the same on every machine.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

LONGEST = 100
"""The largest length of a name, in bytes; names become parts of file names."""
JOINTS = "._-"


def model_name(given: str) -> str:
    """Return the name of a model that is given by a folder's name or a hub id.

    Letters, digits and combining marks of any script are kept, in lower case. Other characters become hyphens. A name
    that is too long is cut, and a name without letters or digits is replaced; a digest of `given` is appended to both.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", given).lower())
    kept = re.sub("\0+", "-", "".join(c if _is_kept(c) else "\0" for c in text)).strip(JOINTS)
    while kept and not _begins_name(kept[0]):  # a combining mark whose letter was dropped
        kept = kept[1:].strip(JOINTS)
    if not kept:
        return f"model-{_digest(given)}"
    if len(kept.encode()) > LONGEST:
        short = kept.encode()[: LONGEST - 7].decode(errors="ignore").rstrip(JOINTS)
        return f"{short}-{_digest(given)}"
    return kept


def is_model_name(name: str) -> bool:
    """Return whether `name` consists of lower-case letters, digits and marks of any script, ".", "_" and "-"."""
    return bool(name) and name == name.lower() and _begins_name(name[0]) and all(map(_is_kept, name))


def _begins_name(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


def _is_kept(character: str) -> bool:
    return character in JOINTS or unicodedata.category(character)[0] in "LMN"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
