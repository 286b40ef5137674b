"""docs/your-own-data.md goes from a file to a served model; its commands do what it says, as they are written."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, CommandLine
from stress.servers import free_port

PAGE = (REPOSITORY / "docs" / "your-own-data.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## From a CSV to a served model")[1].split("\n## ")[0]
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```$", SECTION, re.M | re.S) for line in block.splitlines()]
WORDS = {
    "billing": ("invoice", "refund", "payment"),
    "delivery": ("parcel", "courier", "shipment"),
    "quality": ("scratched", "cracked", "faulty"),
    "service": ("agent", "phone", "support"),
    "other": ("website", "password", "newsletter"),
}
SIZES = {"billing": 70, "delivery": 40, "quality": 20, "service": 12, "other": 8}


def write_files() -> None:
    """Write the two files of the page into the working folder."""
    complaints = [
        (f"{place}: the {WORDS[label][place % 3]} and the {WORDS[label][place // 3 % 3]} were a problem", label)
        for label, size in SIZES.items()
        for place in range(size)
    ]
    with open("complaints.csv", "w", newline="") as file:
        csv.writer(file).writerows([("complaint", "category"), *complaints])
    with open("new.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "complaint"), (7, "My parcel never came."), (8, "The invoice is wrong.")])


@pytest.fixture
def served() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Servers that are ended with the test."""
    servers: list[subprocess.Popen[bytes]] = []
    yield servers
    for server in servers:
        os.killpg(server.pid, 15)
        server.wait()


@pytest.mark.slow
def test_from_a_csv_to_a_served_model(
    alue_bench: CommandLine, served: list[subprocess.Popen[bytes]], tiny: Callable[..., Path]
) -> None:
    """Run the commands of the page, but with a smaller model, for one epoch and over three folds instead of five."""
    write_files()
    assert [command.split()[:2] for command in COMMANDS[:-1]] == [
        ["alue-bench", name] for name in ("run", "compare", "run", "predict")
    ]
    said = []
    for command in COMMANDS[:-1]:
        command = command.replace(" --epochs 10", "").replace("--folds 5", "--folds 3")
        words = shlex.split(command.replace("-m mini", f"-m {tiny('bert', layers=8)}"))[1:]
        done = alue_bench(*words, *(("--epochs", "1") if words[0] == "run" else ()))
        assert done.code == 0, done.err
        said.append(done)
    divided, compared, kept, _ = said
    assert "3-fold cross-validation over 150 rows" in divided.err
    assert "bottom3top4" in compared.out
    assert "models:/complaints/1" in kept.err

    with open("labelled.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["7", "8"]
    scores = [{label: float(row[f"score_{label}"]) for label in WORDS} for row in rows]
    assert [row["prediction"] for row in rows] == [max(given, key=given.__getitem__) for given in scores]
    assert all(sum(given.values()) == pytest.approx(1, abs=1e-4) for given in scores)

    port = free_port()
    variables, *words = COMMANDS[-1].replace("5001", str(port)).split(" ", 1)
    name, _, value = variables.partition("=")
    server = subprocess.Popen(
        shlex.split(words[0]), env=os.environ | {name: value}, start_new_session=True, cwd=Path.cwd()
    )
    served.append(server)
    body = json.dumps({"dataframe_records": [{"text": "My parcel never came."}]}).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    for _ in range(3000):
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                predictions = json.load(answer)["predictions"]
            break
        except OSError:
            assert server.poll() is None
            time.sleep(0.1)
    (predicted,) = predictions
    assert predicted["prediction"] == rows[0]["prediction"]
    assert predicted["score_delivery"] == pytest.approx(scores[0]["delivery"], abs=0.01)  # bf16 where it is fast
