"""The remark that the strategies of a comparison share their learning rate, and that none was tuned for its own."""

from __future__ import annotations

from typing import Any


def untuned_text(lr: Any) -> str:
    """Return the remark for runs with this learning rate; empty if it is not known, or was tuned and is left out."""
    if lr is None or lr != lr:
        return ""
    return f"one learning rate for all strategies ({lr:g}), not tuned"
