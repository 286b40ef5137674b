"""The advice for a task as a text table, sentences, and JSON."""

from __future__ import annotations

import json
from typing import Any

from alue_bench.evaluation.intervals import LEVEL
from alue_bench.reporting.advice import Advice, PredictedSetting
from alue_bench.reporting.comparison_table import TextTable
from alue_bench.reporting.numbers import number_with_noun, percent, signed_percent


def advice_table(advice: Advice) -> TextTable:
    """Return the predicted loss and cost of each setting as a table, with notes on the errors of the predictions."""
    columns = ("setting", "predicted loss", f"{LEVEL:.0%} interval", "FLOPs", "saved")
    measured = advice.measured is not None
    tasks = ", ".join(sweep.task for sweep in advice.calibration.sweeps)
    return TextTable(
        title=f"{advice.task}, {advice.model}: predicted loss of score",
        subtitle=f"as a share of what full fine-tuning learns; from sweeps of {tasks}",
        columns=(*columns, "measured") if measured else columns,
        rows=tuple(_row(row, measured=measured) for row in advice.rows),
        notes=tuple(notes(advice)),
    )


def _row(row: PredictedSetting, *, measured: bool) -> tuple[str, ...]:
    low, high = row.loss.interval or (None, None)
    cells = (
        row.strategy,
        signed_percent(row.loss.mean, 1),
        f"{signed_percent(low, 1)} to {signed_percent(high, 1)}",
        percent(row.cost),
        percent(1 - row.cost),
    )
    return (*cells, signed_percent(row.measured, 1)) if measured else cells


def notes(advice: Advice) -> list[str]:
    """Return sentences about the errors of the predictions, the probe, and measured losses."""
    left_out = advice.left_out
    sentences = [
        f"On each of these {len(advice.calibration.sweeps)} tasks, predicted from the others: root mean "
        f"square error {percent(left_out.error, 1)}; {left_out.covered} of {left_out.predictions} measured losses "
        f"within their {LEVEL:.0%} intervals."
    ]
    corrected = advice.calibration.correction
    families = ", ".join(advice.calibration.features)
    if corrected is not None:
        family, fitted = corrected
        sentences.append(
            f"Corrected by the scores of {family} on this task (probe of {advice.probe_s:.1f} s), which reduce this "
            f"error from {percent(fitted.error_without, 1)} to {percent(fitted.error, 1)} over all cells."
        )
    elif families:
        sentences.append(f"Not corrected by a probe: scores of {families} do not reduce this error clearly.")
    else:
        sentences.append("Not corrected by a probe: no selector ran beside every sweep.")
    if (measured := advice.measured) is not None:
        sentences.append(
            f"This task was swept too, and took no part in its prediction: {measured[0]} of {measured[1]} measured "
            "losses within their intervals."
        )
    return sentences


def recommendation(advice: Advice) -> str:
    """Return the recommended setting as a sentence, without the command that confirms it."""
    row = advice.recommended
    low, high = row.loss.interval or (None, None)
    within = row.loss.mean <= advice.tolerance
    why = (
        f"the cheapest of {number_with_noun(len(advice.rows), 'setting')} with a predicted loss of at most "
        f"{percent(advice.tolerance)}"
        if within
        else f"with the smallest predicted loss; no setting is predicted to lose at most {percent(advice.tolerance)}"
    )
    return (
        f"{row.strategy}, {why}: predicted loss {signed_percent(row.loss.mean, 1)} of what full fine-tuning learns "
        f"({signed_percent(low, 1)} to {signed_percent(high, 1)}), {percent(1 - row.cost)} of its FLOPs saved"
    )


def advice_as_json(advice: Advice, command: str) -> str:
    """Return the advice as JSON, with the command that confirms the recommended setting."""
    corrected = advice.calibration.correction
    document: dict[str, Any] = {
        "task": advice.task,
        "model": advice.model,
        "calibrated_on": [sweep.task for sweep in advice.calibration.sweeps],
        "level": LEVEL,
        "tolerance": advice.tolerance,
        "settings": [
            {
                "strategy": row.strategy,
                "loss": row.loss.mean,
                "low": row.loss.interval[0] if row.loss.interval else None,
                "high": row.loss.interval[1] if row.loss.interval else None,
                "flops_share": row.cost,
                "measured": row.measured,
            }
            for row in advice.rows
        ],
        "left_out": vars(advice.left_out),
        "corrected_by": None if corrected is None else {"family": corrected[0], **vars(corrected[1])},
        "probe_s": advice.probe_s,
        "recommended": advice.recommended.strategy,
        "command": command,
    }
    return json.dumps(document, ensure_ascii=False, indent=2)
