"""The results that Betka et al. published, next to our results.

The numbers come from the appendix tables 1 to 7 of "On Enhancing Fine-Tuning for Pre-trained Language Models": F1
and runtime of full fine-tuning, and of freezing the bottom 3 and top 4 of 12 layers, for 7 tasks and 4 models. They
are stored as printed in `published_results.csv`, together with the names of these tasks and models in alue-bench.

The paper does not state some facts, which limits the comparison:

- the variant of F1. Tables 5 and 6 have an F1 of 0.97 for offensive speech and of 0.77 for hate speech. If this were
  F1 of the label that the paper codes as 1, the order of the two values would be the reverse. Our results are therefore
  shown with every variant of F1, and no variant is claimed to be the paper's;
- hardware, number of seeds, hyper-parameters and split. Runtimes are therefore compared as relative changes and not in
  seconds. Even so, in table 4 the seconds of one model are an order of magnitude below those of the other models.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SOURCE = (
    "Betka et al., On Enhancing Fine-Tuning for Pre-trained Language Models, appendix, tables 1-7 "
    "(F1 variant, hardware, seeds and hyper-parameters not stated)"
)
FULL = "full"
FROZEN = "bottom3top4"
"""The name in alue-bench of the paper's second setting, which freezes the bottom 3 and top 4 layers. `FULL` is the
first, full fine-tuning."""

TITLES = {
    1: "Anger detection",
    2: "Question similarity",
    3: "Irony detection",
    4: "Dialect detection",
    5: "Offensive speech",
    6: "Hate speech",
    7: "Sentence inference",
}
"""The name of the task of each table in the paper, by the number of the table."""

F1 = re.compile(r"test/(f1_.+)", re.DOTALL)
EQUAL_COLUMNS = ("data_source", "protocol", "hardware")
"""The columns that must have equal values in runs that are averaged; a column that the frame lacks is ignored."""


def published_results() -> pd.DataFrame:
    """Return the numbers that Betka et al. published, with a row for each table of the paper and each model.

    Returns:
        The columns table (int), published_task and published_model (the paper's names), task and model (ours), f1_full
        and f1_frozen (0 to 1), runtime_full_s and runtime_frozen_s (seconds), f1_change_pct and runtime_saving_pct (per
        cent, as printed).
    """
    import pandas as pd

    names = ("published_task", "published_model", "task", "model")
    numbers = (
        "f1_full", "f1_frozen", "runtime_full_s", "runtime_frozen_s", "f1_change_pct", "runtime_saving_pct",
    )  # fmt: skip
    types = {"table": "int64", **dict.fromkeys(names, "str"), **dict.fromkeys(numbers, "float64")}
    return pd.read_csv(Path(__file__).with_name("published_results.csv"), dtype=types)


def beside_published(runs: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Return the published results next to ours, with a row for each table of the paper, model and F1 variant.

    Our results are means over seeds. If a task and model have no runs, the columns for our results are empty.

    Args:
        runs: One row for each finished run, with the columns task, model, strategy, runtime/train_s and the metrics as
            `test/NAME`.
        metric: The variant of F1, such as "f1_macro"; None for every variant that a task's runs have.

    Returns:
        The columns of `published_results`, with the prefix `published_` for its numbers; the column metric; and the
        columns for our results: f1_full, f1_frozen (means); runs_full, runs_frozen (numbers of runs); runtime_full_s,
        runtime_frozen_s (seconds); f1_change_pct, runtime_saving_pct (per cent, computed as in the paper, relative to
        full).

    Raises:
        UsageError: No run has `metric`, or the runs of a task and model differ in data source, protocol or hardware, so
            that they must not be averaged.
    """
    import pandas as pd

    known = sorted(match[1] for column in runs.columns if (match := F1.fullmatch(str(column))))
    if metric is not None and f"test/{metric}" not in runs.columns:
        raise UsageError(f"no run has the metric {metric!r}; variants of F1 here: {', '.join(known) or 'none'}")
    rows = []
    compared_runs = runs[runs["strategy"].isin((FULL, FROZEN))]
    by_subject = dict(iter(compared_runs.groupby(["task", "model"])))
    nothing = measured(compared_runs.iloc[:0], None)
    for published in published_results().to_dict("records"):
        ours = by_subject.get((published["task"], published["model"]))
        published_values = {
            (
                name if name in ("table", "task", "model") or name.startswith("published_") else f"published_{name}"
            ): value
            for name, value in published.items()
        }
        if ours is None:
            rows.append({**published_values, **nothing, "metric": metric})
            continue
        _refuse_mixture(ours, f"{published['task']} with {published['model']}")
        # A column may hold the F1 of one task's label, and is then empty for the runs of other tasks.
        variants = [metric] if metric else [name for name in known if ours[f"test/{name}"].notna().any()]
        rows += [{**published_values, **measured(ours, variant)} for variant in variants or [None]]
    return pd.DataFrame(rows)


def measured(runs: pd.DataFrame, metric: str | None) -> dict[str, Any]:
    """Return our results for one row of the table of `beside_published`: means for `FULL` and `FROZEN`, and changes.

    Args:
        runs: The runs of one task and model.
        metric: The variant of F1, such as "f1_macro"; None if no run has a variant of F1, so that our F1 is nan.

    Returns:
        The values by column name; a mean or change is nan if there is no run.
    """
    ours: dict[str, Any] = {"metric": metric}
    means: dict[str, float] = {}
    for side, strategy in (("full", FULL), ("frozen", FROZEN)):
        of_side = runs[runs["strategy"] == strategy]
        ours[f"runs_{side}"] = len(of_side)
        means[f"f1_{side}"] = float(of_side[f"test/{metric}"].mean()) if metric and len(of_side) else float("nan")
        means[f"runtime_{side}_s"] = float(of_side["runtime/train_s"].mean()) if len(of_side) else float("nan")
    ours |= means
    full_f1, full_s = means["f1_full"], means["runtime_full_s"]
    ours["f1_change_pct"] = 100 * (means["f1_frozen"] / full_f1 - 1) if full_f1 else float("nan")
    ours["runtime_saving_pct"] = 100 * (1 - means["runtime_frozen_s"] / full_s) if full_s else float("nan")
    return ours


def _refuse_mixture(runs: pd.DataFrame, of: str) -> None:
    for column in EQUAL_COLUMNS:
        if column in runs.columns and runs[column].nunique() > 1:
            values = "; ".join(sorted(map(str, runs[column].unique())))
            raise UsageError(f"the runs of {of} do not compare: {column} is {values}; choose the runs of one")
