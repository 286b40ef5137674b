"""The removal of passwords and tokens from everything that is printed or stored.

Every text for a terminal, a log or the MLflow tracking store is searched for secrets. Secrets are the user and password
before the `@` of a URL, passwords and tokens in the query of a URL, tokens of the Hugging Face hub, and the values of
environment variables with names such as HF_TOKEN or MLFLOW_TRACKING_PASSWORD.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

REPLACEMENT = "***"

# The names of environment variables that hold secrets: HF_TOKEN, MLFLOW_TRACKING_PASSWORD, AWS_SECRET_ACCESS_KEY, …
SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|PG(SSL)?PASSWORD|PASSWORD|PASSWD|MYSQL_PWD|PASSPHRASE|SECRET|CREDENTIALS?"
    r"|(API|ACCESS|PRIVATE)_?KEY)($|_)",
    re.I,
)
MIN_SECRET_LENGTH = 4
"""The smallest length of a secret in an environment variable. Shorter values are not removed from texts, because they
may be parts of ordinary words."""
SWITCH_VALUES = ("true", "false", "none", "null")
"""Values of environment variables that are switches and not secrets, as in HF_HUB_DISABLE_IMPLICIT_TOKEN=true."""

# The user and password end at the last @ before the path, because passwords may contain any character, including @.
_URL_WITH_USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/?#\"'<>]*)@")
_QUERY = re.compile(r"(?P<name>[?&;](?:\w*password|\w*passwd|\w*token|\w*secret|\w*api_?key)=)[^&;\s\"'#]+", re.I)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}\b")


def redact(text: str) -> str:
    """Return the text with passwords and tokens replaced by `***`."""
    return _redact(text, _secrets())


def _redact(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REPLACEMENT)
    text = _URL_WITH_USER.sub(rf"\g<scheme>{REPLACEMENT}@", text)
    text = _QUERY.sub(rf"\g<name>{REPLACEMENT}", text)
    return _HUB_TOKEN.sub(REPLACEMENT, text)


def redacted(value: Any) -> Any:
    """Return a JSON-like value (nested dicts, lists and strings) with passwords and tokens replaced in every string.

    Call this function before the value is written as JSON, not afterwards: in JSON, quotation marks in a secret are
    escaped, so that the secret would not be recognised, and numbers that are equal to a secret would be replaced.
    """
    return _redacted(value, _secrets())


def _redacted(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _redact(value, secrets)
    if isinstance(value, dict):
        return {_redacted(key, secrets): _redacted(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item, secrets) for item in value]
    return value


def _secrets() -> list[str]:
    """Return the values of environment variables that hold secrets, longest first.

    The longest must be replaced first, because one secret may contain another one.
    """
    secrets = {
        value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= MIN_SECRET_LENGTH and value.lower() not in SWITCH_VALUES
    }
    return sorted(secrets, key=len, reverse=True)
