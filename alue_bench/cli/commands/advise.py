"""`alue-bench advise`: predict the loss of score and the FLOPs saved by freezing layers on a task, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alue_bench.cli import reading_options as reading
from alue_bench.contract.errors import UsageError
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT
from alue_bench.views.standard_output import reserve_stdout_for_documents

FORMATS = ("table", "markdown", "json")


def advise(
    context: typer.Context,
    task: Annotated[str, typer.Option("--task", "-t", help="Task, or path of a task file (.toml).")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, local folder, or hub/id@revision, as in the sweeps.")
    ],
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the official files; also ALUE_BENCH_DATA.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Use the embedded sample data.")] = False,
    tolerance: Annotated[
        str, typer.Option(help="Largest accepted loss, as a share of what full fine-tuning learns.")
    ] = "5%",
    experiment: reading.Experiment = DEFAULT_EXPERIMENT,
    tracking_uri: reading.TrackingUri = None,
    format_: Annotated[str, typer.Option("--format", help="Output format: table, markdown or json.")] = "table",
) -> None:
    """Predict what freezing layers costs and saves on a task, from sweeps of other tasks, without fine-tuning on it.

    For ten settings: the loss of score to expect, as a share of what full fine-tuning learns (its score minus that of a
    baseline without a model), with a prediction interval, and the FLOPs saved. A probe of the model scores its layers;
    the scores correct the prediction if such a correction helps on the swept tasks. The last line is the command that
    confirms the cheapest setting within the tolerance.

    Needs sweeps of at least three other tasks in the store, with the same model and options.

    `alue-bench advise -t oold -m mini`
    """
    from alue_bench.reporting.advice_table import advice_as_json, advice_table, recommendation
    from alue_bench.reporting.comparison_table import markdown_tables
    from alue_bench.studies.advice import AdviceQuestion, do_advise
    from alue_bench.studies.settings import parse_tolerance
    from alue_bench.views.console import print_exactly, remarks, styled
    from alue_bench.views.console import results as shown
    from alue_bench.views.text_tables import text_table_view

    if format_ not in FORMATS:
        raise UsageError(f"--format is {format_!r}; it must be one of {', '.join(FORMATS)}")
    reserve_stdout_for_documents(format_ != "table")
    question = AdviceQuestion(
        task=task, model=model, data_dir=data_dir, sample=sample, tolerance=parse_tolerance(tolerance)
    )
    results = reading.open_results({"experiment": experiment, "tracking_uri": tracking_uri})
    advice, command = do_advise(question, results, context.obj, remarks().print)
    sentence = f"Recommended: {recommendation(advice)}."
    if format_ == "json":
        print_exactly(advice_as_json(advice, command) + "\n")
    elif format_ == "markdown":
        print_exactly(markdown_tables([advice_table(advice)], [sentence, f"Confirm it with: `{command}`"]))
    else:
        for part in text_table_view(advice_table(advice)):
            shown().print(part)
        shown().print(styled(sentence, "bold"))
        shown().print(f"Confirm it with: {command}")
