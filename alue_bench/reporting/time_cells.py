"""The entries of a report's tables with training times and speed-ups, and the explanation of their marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from alue_bench.reporting.content import Cell, Item, Paragraph
from alue_bench.reporting.numbers import MISSING
from alue_bench.reporting.training_times import TimeComparison, ratio_text, session_mark, time_legend, train_mark


def time_cell(cell: Cell, times: TimeComparison | None) -> Cell:
    """Return the entry of a training time, marked if the time contains the recorded cost of cached layer outputs."""
    return replace(cell, text=cell.text + train_mark(times))


def speed_up_cell(times: TimeComparison | None) -> Cell:
    """Return the entry of a speed-up, with its interval below and a mark if it compares different sessions."""
    text, _, interval = ratio_text(times.speed_up if times else None).partition(" ")
    return Cell(text + session_mark(times) if text else MISSING, detail=interval)


def time_remarks(compared: Sequence[TimeComparison | None]) -> list[Item]:
    """Return a list with a paragraph that explains speed-ups and marks; empty if there is nothing to explain."""
    lines = time_legend(compared)
    return [Paragraph(" ".join(lines))] if lines else []
