"""`python -m benchmarks.prediction`: rows per second of `alue-bench predict`, compared with a transformers pipeline.

Both programs read the same CSV file of short texts and write a CSV file with a label and its probability for each row.
The pipeline reads the file as a stream, as its documentation recommends. It is measured once with each batch size; the
fastest measurement counts. Each measurement runs in a separate process, after a warm-up on the first rows. The time to
load the model is excluded.

| column | meaning |
| --- | --- |
| rows/s | rows divided by the seconds from the first row read to the last one written |
| rows/CPU s | rows divided by the CPU seconds of the process, summed over all cores |
| peak MiB | the largest resident memory of the process, including libraries and model |
| × | rows/s divided by the rows/s of the fastest pipeline |
| labels | a hash of the predicted labels; equal hashes mean equal predictions |

The texts are cut from the train texts of a task's embedded sample. Their lengths vary like the lengths of tweets. Each
text ends with its row number, so that all rows differ. With `--file`, the texts are the column `text` of that file
instead.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import peaks

TASK = "oold"
"""The task on whose sample the model is trained, and from whose texts the predicted texts are cut."""
LENGTHS = 2.2, 0.45
"""The mean and the standard deviation of the logarithm of a text's number of words. The median is nine words, and a
batch of 32 texts in random order is half padding, as with the tweets of ALUE's tasks."""
BATCH_SIZES = (8, 32, 128, 512)
OURS: dict[str, str | None] = {"alue-bench, fp32": "fp32", "alue-bench, as the run": None}
"""The number format for each way to predict with alue-bench: fp32 as in the pipeline, or None for the number format in
which the model was trained."""
WARM_UP = 256
"""The number of rows that are predicted before the clock starts."""


@dataclass(frozen=True)
class Measured:
    """The measurement of one way to predict: by alue-bench or by a pipeline."""

    name: str
    rows: int
    """The number of predicted rows."""
    seconds: float
    """The wall-clock seconds."""
    cpu_s: float
    """CPU seconds on all cores, which vary less with the load of the machine than wall-clock seconds."""
    peak_mib: float
    digest: str
    """A hash of the predicted labels; equal hashes mean equal predictions."""

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds


def write_texts(path: Path, rows: int) -> None:
    """Write a CSV file of `rows` short texts, with the columns id and text."""
    import numpy as np

    from alue_bench.contract.registry import load_registry
    from alue_bench.data.location import DataFolder
    from alue_bench.data.splits import load_rows

    task = load_registry().task(TASK)
    assert task.sample is not None
    data = load_rows(task, DataFolder(task.sample, "sample"), drop_bad=False, limit_train=None, limit_eval=None)
    words = [word for example in data.splits["train"].examples for word in example.text.split()]
    rng = np.random.default_rng(0)
    lengths = np.clip(np.rint(rng.lognormal(*LENGTHS, rows)), 1, 60).astype(int)
    starts = rng.integers(0, len(words) - 60, rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            writer.writerow([row, " ".join([*words[start : start + length], str(row)])])


def keep_a_model(folder: Path, model: str) -> None:
    """Train the model named `model` for one epoch on the sample data, and save it to `folder`."""
    from alue_bench.contract.registry import load_registry
    from alue_bench.deployment.model_folder import FinishedRun, write_model_folder
    from alue_bench.planning.build import build_plan
    from alue_bench.planning.request import PlanRequest
    from alue_bench.running.run import execute

    request = PlanRequest(
        tasks=(TASK,), models=(model,), strategies=("full",), sample=True,
        overrides=(("benchmark", {"epochs": 1}),),
    )  # fmt: skip
    (planned,) = build_plan(request, load_registry()).runs
    result, trained = execute(planned.spec, planned.inputs)
    write_model_folder(folder, FinishedRun("", planned.spec, planned.inputs, trained, result))


def by_alue_bench(folder: Path, file: Path, out: Path, precision: str | None) -> tuple[int, float, float]:
    """Predict a file as `alue-bench predict` does; return the number of rows, wall-clock seconds and CPU seconds.

    The number format, `precision`, is a value of `OURS`.
    """
    from alue_bench.deployment.kept_model import KeptModel
    from alue_bench.deployment.predicting import PredictionRequest, predict_file

    model = KeptModel(folder, precision=precision)
    model.scores(list(_texts(file, WARM_UP)))
    began, cpu = time.perf_counter(), time.process_time()
    done = predict_file(model, PredictionRequest(source=file, output=str(out), text="text", scores=True))
    return done.rows, time.perf_counter() - began, time.process_time() - cpu  # including the check of the file


def by_pipeline(folder: Path, file: Path, out: Path, batch_size: int) -> tuple[int, float, float]:
    """Predict a file with a transformers pipeline; return the number of rows, wall-clock seconds and CPU seconds."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    classify = transformers.pipeline("text-classification", model=str(folder), batch_size=batch_size, truncation=True)
    list(classify(_texts(file, WARM_UP)))
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    with file.open(encoding="utf-8", newline="") as rows, out.open("w", encoding="utf-8", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(["id", "text", "prediction", "score"])
        for row, predicted in zip(csv.DictReader(rows), classify(_texts(file)), strict=True):
            writer.writerow([row["id"], row["text"], predicted["label"], predicted["score"]])
            count += 1
    return count, time.perf_counter() - began, time.process_time() - cpu


def _texts(file: Path, most: int | None = None) -> Iterator[str]:
    """Yield the texts of a CSV file: the first `most` of them, or all if `most` is None."""
    with file.open(encoding="utf-8", newline="") as rows:
        for number, row in enumerate(csv.DictReader(rows)):
            if number == most:
                return
            yield row["text"]


def measure(folder: Path, file: Path, way: str) -> Measured:
    """Measure one way to predict in this process; `way` is a key of `OURS`, or the pipeline's batch size as text."""
    import hashlib

    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.csv"
        if way in OURS:
            rows, seconds, cpu_s = by_alue_bench(folder, file, out, OURS[way])
        else:
            rows, seconds, cpu_s = by_pipeline(folder, file, out, int(way))
        with out.open(encoding="utf-8", newline="") as written:
            labels = "\n".join(row["prediction"] for row in csv.DictReader(written))
    name = way if way in OURS else f"pipeline, batch size {way}"
    digest = hashlib.sha256(labels.encode()).hexdigest()[:8]
    return Measured(name, rows, seconds, cpu_s, peaks("cpu")["peak_rss_mib"] or 0.0, digest)


def in_a_process(folder: Path, file: Path, way: str) -> Measured:
    """Call `measure` in a separate process and return its result."""
    command = [sys.executable, "-m", "benchmarks.prediction", "--measure", way, "--folder", str(folder), "--file"]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def table(measured: list[Measured]) -> str:
    """Return the measurements as a table in Markdown."""
    best = max(m.rate for m in measured if m.name not in OURS)
    lines = ["| | rows/s | rows/CPU s | peak MiB | × | labels |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    lines += [
        f"| {m.name} | {m.rate:,.0f} | {m.rows / m.cpu_s:,.0f} | {m.peak_mib:,.0f} | {m.rate / best:.2f} | {m.digest} |"
        for m in measured
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: measure all ways to predict and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prediction", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rows", type=int, default=100_000, help="rows to predict (default: 100000)")
    parser.add_argument("--model", default="mini", help="model to train and keep (default: mini)")
    parser.add_argument("--batch-sizes", default=",".join(map(str, BATCH_SIZES)), help="batch sizes of the pipeline")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="folder of a kept model, instead of training one")
    parser.add_argument("--file", type=Path, help="CSV file with the columns id and text, instead of made texts")
    options: Any = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(vars(measure(options.folder, options.file, options.measure))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        file, folder = options.file or Path(scratch) / "texts.csv", options.folder or Path(scratch) / "model"
        if options.file is None:
            write_texts(file, options.rows)
        if options.folder is None:
            keep_a_model(folder, options.model)
        ways = [*options.batch_sizes.split(","), *OURS]
        print(table([in_a_process(folder, file, way) for way in ways]))


if __name__ == "__main__":
    main()
