"""What Abir et al. published, and our results beside it.

The numbers are those of the appendix tables 1 to 7 of "On Enhancing Fine-Tuning for Pre-trained Language Models": F1
and runtime of full fine-tuning, and of freezing the bottom 3 and top 4 of 12 layers, for 7 tasks and 4 models. They
are kept as printed in `published_results.csv`, with the names that alue-bench gives the same tasks and models.

What the paper does not state decides what a comparison can say:

- which F1 it reports. Its tables 5 and 6 (0.97 for offensive speech, 0.77 for hate speech) are the reverse of what F1
  of the label that it codes as 1 would give. So our side shows every variant of F1, and none is called the same;
- hardware, number of seeds, hyper-parameters, split. So runtimes compare as changes, not as seconds; even so, in
  table 4 one model's seconds are an order below those of the others.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SOURCE = (
    "Abir et al., On Enhancing Fine-Tuning for Pre-trained Language Models, appendix, tables 1-7 "
    "(F1 variant, hardware, seeds and hyper-parameters not stated)"
)
FULL = "full"
FROZEN = "bottom3top4"
"""Our names for the two settings of the tables."""

TITLES = {
    1: "Anger detection",
    2: "Question similarity",
    3: "Irony detection",
    4: "Dialect detection",
    5: "Offensive speech",
    6: "Hate speech",
    7: "Sentence inference",
}
"""What each table is about."""

F1 = re.compile(r"test/(f1_.+)", re.DOTALL)
ALIKE = ("data_source", "protocol", "hardware")
"""Columns in which runs that are averaged must not differ, where the frame has them."""


def published_results() -> pd.DataFrame:
    """The published numbers, one row for each table and model, in the order of the tables.

    Columns: table (int), published_task, published_model (the paper's names), task, model (ours), f1_full, f1_frozen
    (0 to 1), runtime_full_s, runtime_frozen_s (seconds), f1_change_pct and runtime_saving_pct (per cent, as printed).
    """
    import pandas as pd

    names = ("published_task", "published_model", "task", "model")
    numbers = (
        "f1_full", "f1_frozen", "runtime_full_s", "runtime_frozen_s", "f1_change_pct", "runtime_saving_pct",
    )  # fmt: skip
    types = {"table": "int64", **dict.fromkeys(names, "str"), **dict.fromkeys(numbers, "float64")}
    return pd.read_csv(Path(__file__).with_name("published_results.csv"), dtype=types)


def beside_published(runs: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """The published numbers with ours beside them, one row for each table, model and variant of F1.

    `runs` has one row for each finished run, with the columns task, model, strategy, runtime/train_s and the metrics as
    `test/NAME`; runs of a task and model that differ in their data source, protocol or hardware are not averaged but
    refused. Seeds are averaged. `metric` (such as "f1_macro") picks one variant; None shows each that a task's runs
    have. A table and model without runs stays, with our side empty and `metric` as asked for.

    Columns beside those of `published_results`, which get the prefix `published_` where ours have the same name:
    metric; f1_full, f1_frozen (means); runs_full, runs_frozen (how many); runtime_full_s, runtime_frozen_s;
    f1_change_pct, runtime_saving_pct (computed as the paper does, relative to full).

    Raises UsageError where no run has `metric`, or where runs that do not compare would be averaged.
    """
    import pandas as pd

    known = sorted(found[1] for column in runs.columns if (found := F1.fullmatch(str(column))))
    if metric is not None and f"test/{metric}" not in runs.columns:
        raise UsageError(f"no run has the metric {metric!r}; variants of F1 here: {', '.join(known) or 'none'}")
    rows = []
    for published in published_results().to_dict("records"):
        ours = runs[(runs["task"] == published["task"]) & (runs["model"] == published["model"])]
        ours = ours[ours["strategy"].isin((FULL, FROZEN))]
        _refuse_mixture(ours, f"{published['task']} with {published['model']}")
        # A column holds one task's F1 of a class, and nothing for the runs of other tasks.
        variants = [metric] if metric else [name for name in known if ours[f"test/{name}"].notna().any()]
        theirs = {
            (
                name if name in ("table", "task", "model") or name.startswith("published_") else f"published_{name}"
            ): value
            for name, value in published.items()
        }
        rows += [{**theirs, **measured(ours, variant)} for variant in variants or [None]]
    return pd.DataFrame(rows)


def measured(runs: pd.DataFrame, metric: str | None) -> dict[str, Any]:
    """Our side of a row: means over the runs of one task and model in both settings, and the changes between them; nan
    where there is no run."""
    found: dict[str, Any] = {"metric": metric}
    means: dict[str, float] = {}
    for side, strategy in (("full", FULL), ("frozen", FROZEN)):
        of_side = runs[runs["strategy"] == strategy]
        found[f"runs_{side}"] = len(of_side)
        means[f"f1_{side}"] = float(of_side[f"test/{metric}"].mean()) if metric and len(of_side) else float("nan")
        means[f"runtime_{side}_s"] = float(of_side["runtime/train_s"].mean()) if len(of_side) else float("nan")
    found |= means
    full_f1, full_s = means["f1_full"], means["runtime_full_s"]
    found["f1_change_pct"] = 100 * (means["f1_frozen"] / full_f1 - 1) if full_f1 else float("nan")
    found["runtime_saving_pct"] = 100 * (1 - means["runtime_frozen_s"] / full_s) if full_s else float("nan")
    return found


def _refuse_mixture(runs: pd.DataFrame, of: str) -> None:
    for column in ALIKE:
        if column in runs.columns and runs[column].nunique() > 1:
            values = "; ".join(sorted(map(str, runs[column].unique())))
            raise UsageError(f"the runs of {of} do not compare: {column} is {values}; choose the runs of one")
