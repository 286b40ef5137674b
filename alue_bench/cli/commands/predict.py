"""`alue-bench predict`: write the predictions of a saved model for the rows of a file."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alue_bench.cli import arguments
from alue_bench.contract.errors import UsageError
from alue_bench.views.standard_output import reserve_stdout_for_documents, write_exactly

if TYPE_CHECKING:
    from alue_bench.deployment.description import Description
    from alue_bench.deployment.predicting import OnRows, Predicted
    from alue_bench.views.console import PlainConsole

PROGRESS_INTERVAL_S = 15.0
"""The time in seconds between two lines of progress if no bar can be shown."""
STDOUT = "-"


def predict(
    model: Annotated[
        str, typer.Argument(help="Kept model: a folder, the id of the run that kept it, or models:/NAME/VERSION.")
    ],
    file: Annotated[
        Path, typer.Argument(help="File of texts: CSV, TSV, JSON lines, Parquet, .txt or .conll, by suffix.")
    ],
    text: Annotated[
        str | None, typer.Option(help="Column of the texts. Default: the column text, or the only one.")
    ] = None,
    pair: Annotated[str | None, typer.Option(help="Column of the second texts, for a model that reads pairs.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of gold labels: score the predictions with them.")] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="File to write, in the format of its suffix; - for stdout.")
    ] = STDOUT,
    scores: Annotated[bool, typer.Option("--scores", help="Write the probability of each label too.")] = False,
    prefix: Annotated[str, typer.Option(help="Prefix of the names of the new columns.")] = "",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave the predictions of rows without a text empty.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    device: Annotated[str, arguments.run_option("device")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(help="Number format: auto, fp32, tf32, bf16 or fp16. Default: the run's own, where fast."),
    ] = None,
    tracking_uri: Annotated[str | None, arguments.run_option("tracking_uri")] = None,
    as_json: Annotated[bool, arguments.run_option("json")] = False,
) -> None:
    """Predict the label of each row of a file, with a model that a run kept.

    Writes all columns of the file, in their order, followed by `prediction`, and by `score_LABEL` with --scores. With
    --label also scores the predictions. Texts are normalised as the model needs, and the file is read in parts, so that
    it can be larger than the memory.

    `alue-bench predict RUN_ID new.csv --text complaint -o out.csv --scores`

    `alue-bench predict models:/complaints/1 gold.jsonl --label category -o out.jsonl`
    """
    from alue_bench.deployment.kept_model import load
    from alue_bench.deployment.predicting import PredictionRequest, predict_file
    from alue_bench.views.console import remarks

    if as_json and output == STDOUT:
        raise UsageError("--json and the predictions are both written to stdout; name a file with --output")
    reserve_stdout_for_documents(as_json or output == STDOUT)
    stderr = remarks()
    request = PredictionRequest(
        source=file, output=output, text=text, pair=pair, label=label, scores=scores, prefix=prefix, skip_bad=skip_bad,
        overwrite=overwrite,
    )  # fmt: skip
    loaded = load(model, device=device, precision=precision, tracking_uri=tracking_uri)
    with _progress(stderr) as on_rows:
        predicted = predict_file(loaded, request, on_rows=on_rows, stdout=_Stdout() if output == STDOUT else None)
    _print_summary(predicted, loaded.description, output, stderr, as_json=as_json)


class _Stdout(io.TextIOBase):
    """A text stream that writes text unchanged to standard output, which carries only the predictions."""

    def write(self, text: str) -> int:
        write_exactly(text)
        return len(text)


@contextmanager
def _progress(stderr: PlainConsole) -> Iterator[OnRows]:
    """Show the number of rows done: in a bar on a terminal, otherwise in a line every `PROGRESS_INTERVAL_S` seconds.

    The context manager yields a function, to be called with the number of rows done and the total number of rows.
    """
    if not stderr.is_terminal:
        last = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > PROGRESS_INTERVAL_S:
                last = time.monotonic()
                stderr.print(f"{done} of {total} rows")

        yield tell
        return
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    from alue_bench.views.console import PlainColumn

    columns = (PlainColumn("{task.completed} of {task.total} rows"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as progress:
        bar = progress.add_task("rows", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _print_summary(
    predicted: Predicted, description: Description, output: str, stderr: PlainConsole, *, as_json: bool
) -> None:
    """Print the number of rows, the speed, the number of truncated texts and, with gold labels, the metrics."""
    rate = predicted.rows / predicted.seconds if predicted.seconds else math.nan
    into = "" if output == STDOUT else f" in {output}"
    stderr.print(f"{predicted.rows} rows{into}, {rate:,.0f} a second")
    if predicted.truncated:
        labels = description.labels
        what = "words" if labels.tags_words else "questions" if labels.extracts_spans else "texts"
        stderr.print(f"{predicted.truncated} {what} were cut to {description.max_length} tokens")
    if predicted.bad:
        stderr.print(f"{predicted.bad} rows have no text, and no prediction", style="yellow")
    if as_json:
        from alue_bench.views.console import print_document

        finite = {name: value if math.isfinite(value) else None for name, value in predicted.metrics.items()}
        print_document(
            {
                "output": output,
                "rows": predicted.rows,
                "without_prediction": predicted.bad,
                "truncated": predicted.truncated,
                "seconds": predicted.seconds,
                "scored": predicted.scored,
                "metrics": finite,
            }
        )
    elif predicted.scored:
        _show_metrics(predicted, description, stderr, output)


def _show_metrics(predicted: Predicted, description: Description, stderr: PlainConsole, output: str) -> None:
    from rich.table import Table

    from alue_bench.views.console import results

    table = Table(title=f"{predicted.scored} rows with a gold label", title_justify="left", title_style="bold")
    table.add_column("metric")
    table.add_column("score", justify="right")
    for name, value in sorted(predicted.metrics.items(), key=lambda item: item[0] != description.primary):
        table.add_row(name, f"{value:.3f}" if math.isfinite(value) else "undefined")
    (stderr if output == STDOUT else results()).print(table)
