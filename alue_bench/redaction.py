"""Keeping passwords and tokens out of what is printed and stored.

Two things are taken out of every text that leaves the process for a terminal, a log or the tracking store: what stands
before the `@` of an address, and the value of every environment variable whose name says that it is a secret.
"""

from __future__ import annotations

import os
import re

REMOVED = "***"

# What a secret's variable is called: HF_TOKEN, MLFLOW_TRACKING_PASSWORD, AWS_SECRET_ACCESS_KEY, WANDB_API_KEY, …
SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIALS?|(API|ACCESS|PRIVATE)_?KEY)($|_)", re.I
)
SHORTEST = 4
"""Shorter values are no secrets, and would tear holes into ordinary words."""

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


def has_credentials(uri: str) -> bool:
    """Whether an address holds what others should not see."""
    return redact(uri) != uri


def _secrets() -> list[str]:
    """Values of secret variables, the longest first: one may be a part of another."""
    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST}
    return sorted(found, key=len, reverse=True)
