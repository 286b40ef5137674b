"""The remark that all strategies of a comparison have the same learning rate, which was not tuned for any of them."""

from __future__ import annotations

from typing import Any


def untuned_text(lr: Any) -> str:
    """Return the remark that all strategies have this learning rate.

    The remark is empty if the rate is None or nan, that is, if it is unknown or was tuned.
    """
    if lr is None or lr != lr:
        return ""
    return f"one learning rate for all strategies ({lr:g}), not tuned"
