"""Sizes in bytes: parsing a size that a user writes, such as "20GB", and formatting a size for messages."""

from __future__ import annotations

import re

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import excerpt

UNITS = {"b": 1}
UNITS |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)}
UNITS |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)}


def parse_size(text: str) -> int:
    """Parse a size such as "20GB" (decimal), "512 MiB" (binary) or "0", and return it in bytes.

    Raises:
        UsageError: The text is not a size.
    """
    # pydantic's ByteSize is not used, because it accepts "20GB or so" and "10bit", and reads 20 as 20 bytes.
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    if match and match[2] in UNITS and len(match[1]) < 20:
        return int(float(match[1]) * UNITS[match[2]])
    if match and not match[2] and float(match[1]) == 0:
        return 0
    raise UsageError(f"{excerpt(text)} is not a size; give one with its unit, such as 20GB or 512MiB, or 0 for none")


def readable(size: int) -> str:
    """Format a number of bytes for a message, in decimal units such as kB and GB."""
    from rich.filesize import decimal

    return decimal(size)
