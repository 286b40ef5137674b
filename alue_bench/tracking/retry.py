"""Trying again where a database is merely busy.

sqlite lets one process write at a time. Others wait for its busy time-out, but where two that read want to write at
once, one is refused without waiting; and a busy time-out ends. MLflow hands that on as an error. The transaction was
rolled back: to try again is safe.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from mlflow import MlflowClient

BUSY = ("database is locked", "database table is locked", "deadlock detected", "could not serialize access")
"""As sqlite and PostgreSQL say it."""

PATIENCE_S = 60.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 2.0


def patient(client: MlflowClient) -> MlflowClient:
    """The client, with every call tried again while the database is busy."""
    return cast("MlflowClient", _Patient(client))


class _Patient:
    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return patiently(found) if callable(found) else found


def patiently(call: Callable[..., Any], *, patience_s: float = PATIENCE_S) -> Callable[..., Any]:
    """The call, tried again while it fails because the database is busy, with waits that double and are never equal
    in two processes."""

    @functools.wraps(call)
    def trying(*args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + patience_s
        wait = FIRST_WAIT_S
        while True:
            try:
                return call(*args, **kwargs)
            except Exception as error:
                if not is_busy(error) or time.monotonic() + wait > deadline:
                    raise
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, LONGEST_WAIT_S)

    return trying


def is_busy(error: BaseException) -> bool:
    """Whether the database would take the same a little later."""
    return any(sign in str(error) for sign in BUSY)
