"""The report of the engine's benchmark: seconds, their ratios, costs relative to full fine-tuning, losses, scores."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.tables import Sheet, number, span
from benchmarks.timing.cells import BASE, ENGINE, Cell, in_order
from benchmarks.timing.comparison import Comparison, Summary, comparison, ratio, summary
from benchmarks.timing.measuring import Measurement


def summaries(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return all values of the report's tables as JSON-like values, for the `--json` file."""
    return {
        "summaries": [
            {
                **cell._asdict(),
                "seconds": asdict(own) if (own := _seconds(measurements, cell)) else None,
                "against_trainer": ratio(own, _seconds(measurements, cell._replace(way=BASE))),
                "against_trainer_fp32": ratio(own, _seconds(measurements, cell._replace(way=BASE, precision="fp32"))),
                **{
                    f"mean_{name}": statistics.fmean(_values(measurements, cell, name))
                    for name in ("final_loss", "score")
                },
            }
            for cell in _cells(measurements)
        ],
        "against_full": [
            {"strategy": cell.strategy, "precision": cell.precision, "runtime": runtime, "flops": flops}
            for cell, _, runtime, flops in _against_full(measurements)
        ],
        "losses": [
            {
                "strategy": cell.strategy,
                "precision": cell.precision,
                "difference": compared.difference,
                "noise": compared.noise,
                "within": compared.within,
            }
            for cell in _cells(measurements)
            if cell.way == ENGINE and (compared := _loss_comparison(measurements, cell))
        ],
    }


def all_sheets(measurements: Sequence[Measurement]) -> list[Sheet]:
    """Return all tables of the report."""
    precisions = dict.fromkeys(cell.precision for cell in _cells(measurements))
    return [
        *(seconds_sheet(measurements, precision) for precision in precisions),
        *([full_sheet(measurements)] if _against_full(measurements) else []),
        *(quality_sheet(measurements, precision) for precision in precisions),
    ]


def seconds_sheet(measurements: Sequence[Measurement], precision: str) -> Sheet:
    """Return the table of training times in one number format, and their ratios to the times of `Trainer`.

    For bf16, the table also has the ratios to the times of `Trainer` in fp32.
    """
    with_fp32_ratio = precision != "fp32"

    def row(cell: Cell) -> tuple[str, ...]:
        own, base = _seconds(measurements, cell), _seconds(measurements, cell._replace(way=BASE))
        fp32_base = _seconds(measurements, cell._replace(way=BASE, precision="fp32"))
        tokens, padded = (sum(_values(measurements, cell, name)) for name in ("tokens", "padded_tokens"))
        device = [value for value in _values(measurements, cell, "peak_device_mib") if value is not None]
        return (
            *(cell.strategy, cell.way),
            *(number(own.median if own else None, ".2f"), span(own, ".2f"), number(ratio(own, base), ".2f")),
            *([number(ratio(own, fp32_base), ".2f")] if with_fp32_ratio else []),
            number(statistics.median(_values(measurements, cell, "samples_per_s")), ".0f"),
            number(1 - tokens / padded, ".0%"),
            number(statistics.median(device or _values(measurements, cell, "peak_rss_mib")), ".0f"),
        )

    where = "device" if any(m.peak_device_mib is not None for m in measurements) else "process"
    return Sheet(
        title=f"{precision}: seconds of training, and their ratio to {BASE}",
        columns=(
            *("strategy", "way", "median s", "min–max", f"÷ {BASE}"),
            *([f"÷ {BASE} fp32"] if with_fp32_ratio else []),
            *("samples/s", "padding", f"peak MiB of {where}"),
        ),
        rows=tuple(row(cell) for cell in _cells(measurements) if cell.precision == precision),
    )


def full_sheet(measurements: Sequence[Measurement]) -> Sheet:
    """Return the table of the engine's runtime and FLOPs relative to full fine-tuning."""
    return Sheet(
        title=f"{ENGINE}: what a strategy costs against full fine-tuning",
        columns=("strategy", "precision", "median s", "runtime ÷ full", "FLOPs ÷ full"),
        rows=tuple(
            (cell.strategy, cell.precision, number(own, ".2f"), number(runtime, ".2f"), number(flops, ".2f"))
            for cell, own, runtime, flops in _against_full(measurements)
        ),
    )


def quality_sheet(measurements: Sequence[Measurement], precision: str) -> Sheet:
    """Return the table of final training losses, and scores on held-out rows, in one number format."""

    def row(cell: Cell) -> tuple[str, ...]:
        losses, scores = (_values(measurements, cell, name) for name in ("final_loss", "score"))
        return (
            *(cell.strategy, cell.way),
            *(number(statistics.fmean(losses), ".4f"), span(summary(losses), ".4f")),
            *(number(statistics.fmean(scores), ".3f"), span(summary(scores), ".3f")),
        )

    return Sheet(
        title=f"{precision}: what was learnt",
        columns=("strategy", "way", "final loss", "min–max", "F1", "min–max"),
        rows=tuple(row(cell) for cell in _cells(measurements) if cell.precision == precision),
    )


def closing_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Return sentences that explain the tables and compare the engine's final loss with that of `Trainer`."""
    lines = [
        f"Ratios are of medians; below 1 is faster than {BASE}. Final loss: mean over the last quarter of the last "
        "epoch's steps. The Trainer leaves dropout on in frozen layers, the engine does not."
    ]
    if measurements:
        lines.append(f"{measurements[0].tokens / measurements[0].samples:.1f} tokens on average in a text.")
    for cell in (cell for cell in _cells(measurements) if cell.way == ENGINE):
        compared = _loss_comparison(measurements, cell)
        named = f"{cell.strategy}, {cell.precision}: "
        if compared is None:
            lines.append(f"{named}no two repetitions of {BASE}, so its noise is unknown and losses are not compared.")
        else:
            lines.append(
                f"{named}the engine's mean final loss differs from that of {BASE} by {compared.difference:+.4f}, "
                f"repetitions of {BASE} among themselves by up to {compared.noise:.4f}: "
                f"{'within' if compared.within else 'outside'} its noise."
            )
    return lines


def _cells(measurements: Iterable[Measurement]) -> list[Cell]:
    """Return the measured cells in the order of reports."""
    return in_order(m.cell for m in measurements)


def _values(measurements: Iterable[Measurement], cell: Cell, name: str) -> list[Any]:
    """Return the field `name` of the cell's measurements, one value for each repetition."""
    return [getattr(m, name) for m in measurements if m.cell == cell]


def _seconds(measurements: Iterable[Measurement], cell: Cell) -> Summary | None:
    return summary(_values(measurements, cell, "seconds"))


def _against_full(measurements: Sequence[Measurement]) -> list[tuple[Cell, float, float | None, float]]:
    """Return the engine's measured cells with their cost relative to full fine-tuning.

    Returns:
        For each cell (strategy and number format): the cell, its median seconds, its runtime divided by that of full
        fine-tuning (None if full fine-tuning was not measured), and its FLOPs divided by those of full fine-tuning.
    """
    rows = []
    for cell in _cells(measurements):
        own = _seconds(measurements, cell)
        if cell.way == ENGINE and own:
            measurement = next(m for m in measurements if m.cell == cell)
            assert measurement.flops is not None
            assert measurement.flops_full is not None
            full = _seconds(measurements, cell._replace(strategy="full"))
            rows.append((cell, own.median, ratio(own, full), measurement.flops / measurement.flops_full))
    return rows


def _loss_comparison(measurements: Sequence[Measurement], cell: Cell) -> Comparison | None:
    """Compare the final training losses of a cell with those of `Trainer`.

    The result is None if `Trainer` was measured fewer than two times with the cell's strategy and number format.
    """
    return comparison(
        _values(measurements, cell, "final_loss"), _values(measurements, cell._replace(way=BASE), "final_loss")
    )
