"""Keeping passwords and tokens out of what is printed and stored.

Two things are taken out of every text that leaves the process for a terminal, a log or the tracking store: what stands
before the `@` of an address, and the value of every environment variable whose name says that it is a secret.
"""

from __future__ import annotations

import os
import re
from typing import Any

REMOVED = "***"

# What a secret's variable is called: HF_TOKEN, MLFLOW_TRACKING_PASSWORD, PGPASSWORD, AWS_SECRET_ACCESS_KEY, …
SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|PG(SSL)?PASSWORD|PASSWORD|PASSWD|MYSQL_PWD|PASSPHRASE|SECRET|CREDENTIALS?"
    r"|(API|ACCESS|PRIVATE)_?KEY)($|_)",
    re.I,
)
SHORTEST = 4
"""Shorter values are no secrets, and would tear holes into ordinary words."""
SWITCHES = ("true", "false", "none", "null")
"""No secrets either: HF_HUB_DISABLE_IMPLICIT_TOKEN=true says that there is none."""

# The last @ before the path ends what belongs to the user: passwords may hold any sign, an @ included.
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/?#\"'<>]*)@")
_QUERY = re.compile(r"(?P<name>[?&;](?:\w*password|\w*passwd|\w*token|\w*secret|\w*api_?key)=)[^&;\s\"'#]+", re.I)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}\b")


def redact(text: str) -> str:
    """The text without passwords and tokens."""
    for secret in _secrets():
        text = text.replace(secret, REMOVED)
    text = _ADDRESS.sub(rf"\g<scheme>{REMOVED}@", text)
    text = _QUERY.sub(rf"\g<name>{REMOVED}", text)
    return _HUB_TOKEN.sub(REMOVED, text)


def redacted(value: Any) -> Any:
    """A value made of mappings, lists and texts, with every text redacted: before it becomes JSON, where quotation
    marks in a secret would be escaped and numbers that look like one replaced."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redacted(key): redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return value


def has_credentials(uri: str) -> bool:
    """Whether an address holds what others should not see."""
    return redact(uri) != uri


def _secrets() -> list[str]:
    """Values of secret variables, the longest first: one may be a part of another."""
    found = {
        value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SHORTEST and value.lower() not in SWITCHES
    }
    return sorted(found, key=len, reverse=True)
