"""Retries of calls to a database that fail because the database is busy.

sqlite lets only one process write at a time. Other processes wait, and fail after a time-out. If two transactions have
read data and both want to write, sqlite refuses one of them without waiting. In both cases MLflow raises an error. The
failed transaction has been rolled back, so that the call can safely be repeated.
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
"""Parts of the error messages of databases that are busy."""

RETRY_TIMEOUT_S = 60.0
"""The seconds after which a call is no longer retried."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 2.0
"""The average waiting time before the first retry, and the longest average waiting time before a later retry, in
seconds. The average doubles with each retry until it is the longest."""


def retrying_client(client: MlflowClient) -> MlflowClient:
    """Return a wrapper of an MLflow client whose methods are retried while the database is busy."""
    return cast("MlflowClient", _RetryingClient(client))


class _RetryingClient:
    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        return retrying(attribute) if callable(attribute) else attribute


def retrying(call: Callable[..., Any], *, timeout_s: float = RETRY_TIMEOUT_S) -> Callable[..., Any]:
    """Return a callable that retries `call` while it fails because the database is busy.

    The waiting times grow and are random, so that two processes do not retry at the same moments.

    Args:
        call: The function to call.
        timeout_s: The seconds after which the call is no longer retried, and its error is raised.
    """

    @functools.wraps(call)
    def trying(*args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + timeout_s
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
    """Return whether an error means that the database is busy, so that a later call may succeed."""
    return any(sign in str(error) for sign in BUSY)
