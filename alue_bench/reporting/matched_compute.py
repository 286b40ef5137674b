"""The request for runs of full fine-tuning at matched compute, if a comparison lacks such runs.

A freezing strategy saves FLOPs, and so does full fine-tuning with fewer steps. Matched compute means that both need the
same number of FLOPs. Without such runs, a comparison does not show whether freezing layers keeps the score better than
training for fewer steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alue_bench.contract.matched_compute import FULL, matched_limit, matched_name
from alue_bench.contract.registry import load_registry
from alue_bench.messages.suggestion import command_line
from alue_bench.reporting.comparison import Comparison, ComparisonBlock, StrategyResult
from alue_bench.reporting.content import Item, Missing
from alue_bench.reporting.grid import cell_table, recommend
from alue_bench.reporting.subjects import Subject
from alue_bench.tracking.connection import where_options
from alue_bench.tracking.reading import Results, read_config
from alue_bench.tracking.reproduction import options_of

if TYPE_CHECKING:
    import pandas as pd

MATCH_TOLERANCE = 0.03
"""The largest difference in FLOPs at which two strategies count as matched, as a share of the FLOPs of `full`."""
MAX_REQUESTED = 3
"""The largest number of strategies in a request. If more lack matched runs, only the recommended one is named."""
SELECTED_ROWS = ("limit_train", "limit_eval", "drop_bad")
"""The options that select rows, by their names in a run's config.json."""


@dataclass(frozen=True)
class MatchedComputeRequest:
    """A request for runs of full fine-tuning with as many FLOPs as some freezing strategies need."""

    sentence: str
    options: dict[str, Any]
    """The options of `alue-bench run` for these runs, without those that name the MLflow store and experiment."""


def unmatched(block: ComparisonBlock) -> list[StrategyResult]:
    """Return the strategies with fewer FLOPs than `full` for which full fine-tuning at matched compute is missing.

    Args:
        block: A set of comparable runs. The result is empty if it has no runs of full fine-tuning, or if its runs are
            low-fidelity runs of a search.
    """
    shares = {row.strategy: row.flops_share for row in block.rows if row.flops_share is not None}
    if FULL not in shares or block.low_fidelity:
        return []
    matched = [share for name, share in shares.items() if matched_limit(name) is not None]
    return [
        row
        for row in block.rows
        if row.strategy != FULL
        and matched_limit(row.strategy) is None
        and row.flops_share is not None
        and row.flops_share < 1 - MATCH_TOLERANCE
        and all(abs(share - row.flops_share) > MATCH_TOLERANCE for share in matched)
    ]


def request_of(block: ComparisonBlock, results: Results) -> MatchedComputeRequest | None:
    """Return the request for full fine-tuning at matched compute; None if no such runs are missing.

    If more than `MAX_REQUESTED` strategies lack such runs, as in a sweep, the request is for the recommended strategy
    alone. The result is then also None if no strategy is recommended, or if the recommended one does not lack them.

    Args:
        block: A set of comparable runs.
        results: The runs that were compared, with the connection to their MLflow store.
    """
    lacking = unmatched(block)
    full = next((row for row in block.rows if row.strategy == FULL), None)
    if full is None or not lacking:
        return None
    if len(lacking) > MAX_REQUESTED:
        ids = [run_id for row in block.rows for run_id in row.run_ids]
        advice = recommend(cell_table(results.frame[results.frame["run_id"].isin(ids)]))
        lacking = [row for row in lacking if advice is not None and row.strategy == advice.strategy]
        if not lacking:
            return None
    names = ", ".join(f"{row.strategy} ({100 * (row.flops_share or 0):.0f} %)" for row in lacking)
    return MatchedComputeRequest(
        f"no full fine-tuning with as many FLOPs as {names}: whether fewer steps keep the score as well as frozen "
        "layers do is not known. To find out, run:",
        _options(results, full, [row.strategy for row in lacking]),
    )


def with_requests(comparison: Comparison, results: Results) -> Comparison:
    """Return the comparison, with notes that request full fine-tuning at matched compute where it is missing."""
    where = where_options(results.connection.uri, results.connection.experiment)
    blocks = []
    for block in comparison.blocks:
        request = request_of(block, results)
        notes = (
            [] if request is None else [f"{request.sentence} {command_line('run', options=request.options | where)}"]
        )
        blocks.append(replace(block, notes=(*block.notes, *notes)))
    return replace(comparison, blocks=tuple(blocks))


def missing_run_notices(subjects: Sequence[Subject], results: Results, limit: int) -> list[Item]:
    """Return a notice, with the command, for each subject that lacks full fine-tuning at matched compute.

    Args:
        subjects: The comparisons of a report page.
        results: The runs of the page, with the connection to their MLflow store.
        limit: The largest number of notices.
    """
    items: list[Item] = []
    for subject in subjects:
        request = request_of(subject.compared, results)
        if request is not None and len(items) < limit:
            command = command_line("run", options=request.options)
            items.append(Missing(f"{subject.label}: {request.sentence}", command))
    return items


def _options(results: Results, full: StrategyResult, strategies: Sequence[str]) -> dict[str, Any]:
    """Return the options of the command that runs full fine-tuning at matched compute.

    The command uses the same seeds, hyper-parameters and rows as the recorded runs of `full`.
    """
    frame = results.frame
    run = frame[frame["run_id"] == full.run_ids[0]].iloc[0].to_dict()
    options: dict[str, Any] = options_of(run, load_registry())
    options |= {"strategy": [matched_name(name) for name in strategies], "seed": list(full.seeds)}
    config = read_config(results, str(run["run_id"])) or {}
    options |= {name: config.get(name) for name in SELECTED_ROWS}
    return options | {"sample": run["data_source"] == "sample"} | _folds(frame, full)


def _folds(frame: pd.DataFrame, full: StrategyResult) -> dict[str, Any]:
    """Return the options of the cross-validation to which the runs belong; empty if there is none."""
    runs = frame[frame["run_id"].isin(full.run_ids)]
    if runs["folds"].isna().all():
        return {}
    repeats = int(runs["repeat"].max())
    return {"folds": int(runs["folds"].max()), **({"repeats": repeats} if repeats > 1 else {})}
