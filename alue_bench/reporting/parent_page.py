"""The report on the runs of one command, which is stored in MLflow with their parent run.

The parent run holds the command's list of runs and the aggregated results.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from alue_bench.messages.display import markdown
from alue_bench.messages.suggestion import command_line
from alue_bench.reporting.page import PageRequest, build_page
from alue_bench.reporting.recorded import RecordedRuns
from alue_bench.reporting.rendering import pictures, write_page
from alue_bench.reporting.run_figures import FigureLimits
from alue_bench.tracking.connection import Connection, where_options

PAGE_FILE = "report.html"
FIGURES = "figures"
MAX_RUNS = 400
"""The largest number of runs for which a report is written at the end of a command, so that the user does not wait."""
FIGURE_LIMITS = FigureLimits(subjects=4, strategies=3, seeds=3)
"""The largest numbers of tasks, strategies and seeds in figures of single runs. They are lower than in `alue-bench
report`, to save a second or two."""


def log_parent_page(recorded: RecordedRuns) -> bool:
    """Write a report on the runs of one command, and log it with its figures as artifacts of their MLflow parent run.

    A link to the report is written into the parent run's description.

    Args:
        recorded: The command's runs.

    Returns:
        True if a report was written; False without a parent run, for a single run, for more than `MAX_RUNS` runs, or
        if no run has finished.
    """
    connection, parent_id = recorded.connection, recorded.parent_id
    if parent_id is None or not 1 < len(recorded.run_ids) <= MAX_RUNS or recorded.results.frame.empty:
        return False
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

    request = PageRequest(tolerance=recorded.tolerance, figure_limits=FIGURE_LIMITS)
    page = build_page(recorded.results, request, compared=recorded.comparison)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_page(page, folder / PAGE_FILE)
        (folder / FIGURES).mkdir()
        for picture in pictures(page):
            (folder / FIGURES / f"{picture.name}.svg").write_text(picture.standalone, encoding="utf-8")
        connection.client.log_artifacts(parent_id, scratch)
    connection.client.set_tag(parent_id, MLFLOW_RUN_NOTE, _description(connection, parent_id, page.lead))
    return True


def _description(connection: Connection, parent_id: str, lead: str) -> str:
    """Return the MLflow description of the parent run, as Markdown: the sentence `lead`, then links to the report."""
    where = where_options(connection.uri, connection.experiment)
    again = command_line("report", options={"parent": parent_id, **where})
    run = f"#/experiments/{connection.experiment_id}/runs/{parent_id}"
    return (
        f"{markdown(lead)}\n\n[The report of these runs]({run}/artifacts/{PAGE_FILE}); figures, `plan.json` and "
        f"`results.json` are beside it. To write the full report again: `{again}`"
    )
