"""The plugin guide, and the code in it."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")


def block_with(words: str) -> str:
    """The one Python block that contains the words."""
    (block,) = (b for b in re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL) if words in b)
    return str(block)


HERE = block_with("cafes-here")
"""An executor whose one worker is the main process."""
