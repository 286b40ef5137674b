"""A kept model gives the predictions of its run, whoever loads it, and a file is predicted as it stands."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CommandLine
from tiny_models import save_tiny_model

import alue_bench
from alue_bench.contract.errors import DataError, UnavailableError, UsageError
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.deployment.kept_model import KeptModel
from alue_bench.deployment.model_folder import FinishedRun, write_model_folder
from alue_bench.deployment.predicting import PredictionRequest, _gold_of, predict_file
from alue_bench.planning.build import PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute

HYPER = {"epochs": 1, "max_length": 24, "batch_size": 16, "lr": 1e-3}


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model whose predictions differ from text to text, since its random weights are large."""
    root = tmp_path_factory.mktemp("lively")

    def folder(architecture: str = "bert") -> Path:
        if not (root / architecture).exists():
            save_tiny_model(architecture, root / architecture, initializer_range=0.3)
        return root / architecture

    return folder


@pytest.fixture
def planned(
    lively: Callable[[str], Path], registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., PlannedRun]:
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))

    def build(task: str = "anger", strategy: str = "bottom1", architecture: str = "bert") -> PlannedRun:
        request = PlanRequest(
            tasks=(task,), models=(str(lively(architecture)),), strategies=(strategy,), sample=True, precision="fp32",
            overrides=(("test", HYPER),), limit_train=48, limit_eval=32,
        )  # fmt: skip
        (run,) = build_plan(request, registry).runs
        return run

    return build


@pytest.fixture
def finished(planned: Callable[..., PlannedRun], tmp_path: Path) -> Callable[..., tuple[FinishedRun, Path]]:
    def do(*arguments: str, **options: str) -> tuple[FinishedRun, Path]:
        run = planned(*arguments, **options)
        result, trained = execute(run.spec, run.inputs)
        done = FinishedRun("0" * 32, run.spec, run.inputs, trained, result)
        write_model_folder(tmp_path / "kept", done)
        return done, tmp_path / "kept"

    return do


def texts_of(run: FinishedRun) -> tuple[list[str], list[str] | None]:
    rows = run.inputs.rows.splits["test"].examples
    pairs = [row.text_pair or "" for row in rows] if rows[0].text_pair is not None else None
    return [row.text for row in rows], pairs


def write_csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def read_csv(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def piped(folder: Path, texts: list[str], pairs: list[str] | None, labels: tuple[str, ...]) -> np.ndarray[Any, Any]:
    """The scores of a pipeline of transformers: [texts, labels]."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    classify = transformers.pipeline("text-classification", model=str(folder), truncation=True, top_k=None)
    inputs: Any = texts if pairs is None else [{"text": a, "text_pair": b} for a, b in zip(texts, pairs, strict=True)]
    found = classify(inputs) if pairs is None else [classify(one) for one in inputs]
    return np.array([[{one["label"]: one["score"] for one in row}[name] for name in labels] for row in found])


@pytest.mark.parametrize("task", ["anger", "mdd", "sec", "svreg", "mq2q"])
def test_whoever_loads_it_gets_the_predictions_of_the_run(
    task: str, finished: Callable[..., tuple[FinishedRun, Path]], tmp_path: Path
) -> None:
    import mlflow
    import pandas as pd

    run, folder = finished(task)
    recorded, labels = run.result.predictions, run.inputs.task.labels
    texts, pairs = texts_of(run)
    assert np.ptp(recorded.scores, axis=0).max() > 0.05  # else any constant would do

    model = alue_bench.load(folder)
    assert model.labels == recorded.columns
    assert np.allclose(model.scores(texts, pairs), recorded.scores, atol=1e-5, rtol=0)
    assert np.allclose(piped(folder, texts, pairs, recorded.columns), recorded.scores, atol=1e-5, rtol=0)

    columns = {"text": texts} | ({"pair": pairs} if pairs is not None else {})
    served = mlflow.pyfunc.load_model(str(folder)).predict(pd.DataFrame(columns))
    file = write_csv(tmp_path / "new.csv", {"n": list(range(len(texts))), **columns, "gold": list(recorded.gold)})
    request = PredictionRequest(source=file, output=str(tmp_path / "out.csv"), label="gold", scores=True)
    done = predict_file(model, request)
    written = read_csv(tmp_path / "out.csv")
    assert written["n"] == list(map(str, range(len(texts))))
    assert written["text"] == texts
    if labels.kind is TargetKind.REGRESSION:
        for values in (served["prediction"], written["prediction"], model.predict(texts)):
            assert np.allclose(np.array(values, dtype=float), recorded.predicted, atol=1e-5)
    else:
        assert served["prediction"].tolist() == written["prediction"] == recorded.predicted
        for place, name in enumerate(labels.names):
            for values in (served[f"score_{name}"], written[f"score_{name}"]):
                assert np.allclose(np.array(values, dtype=float), recorded.scores[:, place], atol=1e-5, rtol=0)
    assert done.scored == len(texts)
    primary = run.inputs.task.primary
    assert done.metrics[primary] == pytest.approx(run.result.metrics["test/score"], abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("strategy", "architecture"), [("lora-r4", "bert"), ("ia3", "bert"), ("drop-top2", "bert"), ("full", "modernbert")]
)
def test_a_changed_model_is_saved_as_a_plain_one(
    strategy: str, architecture: str, finished: Callable[..., tuple[FinishedRun, Path]]
) -> None:
    run, folder = finished("anger", strategy, architecture)  # compared with the run's predictions as it is written
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == (2 if strategy == "drop-top2" else 4)
    assert KeptModel(folder).description.adapter is None
    names = [name for name, _ in run.trained.stack.model.named_parameters()]
    assert any("lora" in name or "ia3" in name for name in names) == (run.spec.adapter is not None)  # as it was


def test_an_adapter_that_cannot_be_merged_lies_beside_the_weights(
    finished: Callable[..., tuple[FinishedRun, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import layer

    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError("it cannot be merged")

    monkeypatch.setattr(layer.Linear, "merge", refuse)
    run, folder = finished("anger", "lora-r4")
    assert not (folder / "config.json").exists()  # transformers must not load it without its adapter
    assert "could not be merged" in (folder / "README.md").read_text()
    texts, _ = texts_of(run)
    assert np.allclose(KeptModel(folder).scores(texts), run.result.predictions.scores, atol=1e-5)


# The command line ------------------------------------------------------------------------------------------------

ARABERT = """
from pathlib import Path
from alue_bench import Model, hookimpl
from alue_bench_models.arabert import normalise

@hookimpl
def alue_bench_models():
    return [Model(name="tiny-arabert", title="t", checkpoint=Path({folder!r}), normalise=normalise,
                  normalisation="that of arabertv02", requires=("arabert",))]
"""


class TestTheBestOfAPlan:
    def test_is_kept_with_its_normalisation_and_predicts_by_any_name(
        self,
        install: Any,
        lively: Callable[[str], Path],
        run: CommandLine,
        alue_bench: CommandLine,
        store: str,
        tmp_path: Path,
    ) -> None:
        from alue_bench_models.arabert import normalise

        pytest.importorskip("arabert")
        install("alue-bench-tiny-arabert", ARABERT.format(folder=str(lively("bert"))))
        said = run(
            "-s", "full", "-s", "bottom2", "--lr", "1e-3", "--precision", "fp32", "--keep", "best", "--register",
            "anger-model", "--json", model="tiny-arabert",
        )  # fmt: skip
        assert said.code == 0, said.err
        document = json.loads(said.out)
        (kept,) = document["kept"]
        scores = {done["run_id"]: done["metrics"]["selection/dev_score"] for done in document["runs"]}
        assert scores[kept["run_id"]] == max(scores.values()) == kept["dev_score"]
        assert said.err.count("kept the model of") == 1

        from alue_bench.deployment.logged_models import connection_of_run, folder_of
        from alue_bench.tracking.reading import read_predictions, read_runs

        results = read_runs(connection_of_run(kept["run_id"], store), [kept["run_id"]])
        recorded = read_predictions(results, kept["run_id"])
        rows = registry_rows(32)
        assert [normalise(text) for text in rows] != rows
        texts = write_csv(tmp_path / "new.csv", {"complaint": rows})
        outputs = []
        for number, name in enumerate((kept["run_id"], kept["uri"])):
            out = tmp_path / f"{number}.csv"
            where = ("--tracking-uri", store, "--text", "complaint")
            done = alue_bench("predict", name, texts, *where, "-o", out, "--scores")
            assert done.code == 0, done.err
            outputs.append(out.read_text())
        assert outputs[0] == outputs[1]
        written = read_csv(out)
        assert written["prediction"] == recorded["prediction"].tolist()
        assert len(set(written["prediction"])) > 1
        for name in ("score_no_anger", "score_anger"):
            assert np.allclose(np.array(written[name], dtype=float), recorded[name], atol=1e-5, rtol=0)
        folder = folder_of(kept["run_id"], store)
        by_pipeline = piped(folder, [normalise(text) for text in rows], None, ("no_anger", "anger"))
        assert np.allclose(by_pipeline[:, 1], recorded["score_anger"], atol=1e-5, rtol=0)

        again = run(
            "-s", "full", "-s", "bottom2", "--lr", "1e-3", "--precision", "fp32", "--keep", "best", "--json",
            model="tiny-arabert",
        )  # fmt: skip
        assert json.loads(again.out)["kept"][0]["model_id"] == kept["model_id"]  # reused with its model

    def test_a_finished_run_is_trained_again_and_kept(
        self, run: CommandLine, alue_bench: CommandLine, store: str, tmp_path: Path, lively: Callable[[str], Path]
    ) -> None:
        """A plan that reuses it says how."""
        what = ("-s", "lora-r4", "--lr", "1e-3", "--limit-eval", "24", "--data-seed", "5", "--json")
        first = json.loads(run(*what, model=lively("bert")).out)["runs"][0]
        said = run(*what, "--keep", "best", model=lively("bert"))
        assert json.loads(said.out)["kept"] == []
        assert f"alue-bench keep {first['run_id']}" in said.err
        where = ("--tracking-uri", store)
        kept = alue_bench("keep", first["run_id"], tmp_path / "dir", *where)
        assert kept.code == 0, kept.err
        assert "the test predictions equal the recorded ones" in kept.err
        from alue_bench.deployment.logged_models import folder_of

        weights = [place / "model.safetensors" for place in (folder_of(first["run_id"], store), tmp_path / "dir")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        again = alue_bench("keep", first["run_id"], tmp_path / "dir", *where)
        assert (again.code, "exists; name a new folder" in again.err) == (2, True)

    def test_a_fold_of_a_data_file_too(
        self, run: CommandLine, alue_bench: CommandLine, store: str, tmp_path: Path, lively: Callable[[str], Path]
    ) -> None:
        rows = [(f"{word} {number}", label) for number in range(12) for word, label in (("good", "yes"), ("bad", "no"))]
        columns = {"comment": [text for text, _ in rows], "label": [label for _, label in rows]}
        file = write_csv(tmp_path / "opinions.csv", columns)
        said = run("--file", file, "--folds", "2", "-s", "bottom1", "--json", task=None, model=lively("bert"))
        second = json.loads(said.out)["runs"][1]
        kept = alue_bench("keep", second["run_id"], tmp_path / "dir", "--tracking-uri", store)
        assert kept.code == 0, kept.err
        assert "the test predictions equal the recorded ones" in kept.err
        assert KeptModel(tmp_path / "dir").labels == ("no", "yes")
        card = (tmp_path / "dir" / "README.md").read_text()
        assert "Protocol: 2-fold cross-validation over 24 rows" in card
        assert "Fold: 2 of 2." in card

    def test_a_run_whose_model_is_another_now_is_refused(
        self, run: CommandLine, alue_bench: CommandLine, store: str, tmp_path: Path
    ) -> None:
        save_tiny_model("bert", tmp_path / "mine", layers=2)
        first = json.loads(run("-s", "full", "--json", model=tmp_path / "mine").out)["runs"][0]
        shutil.rmtree(tmp_path / "mine")
        save_tiny_model("bert", tmp_path / "mine", layers=2, initializer_range=0.1)
        said = alue_bench("keep", first["run_id"], "--tracking-uri", store)
        assert said.code == 2
        assert "its pre-trained model differs from what is here" in said.err
        assert "alue-bench run --task anger" in said.err
        assert "--epochs 1 " in said.err, "it has the run's settings"
        assert "--sample --keep best" in said.err


def test_a_model_that_the_store_does_not_take_is_kept_here(
    finished: Callable[..., tuple[FinishedRun, Path]], store: str, experiment: str, folders_of_its_own: None
) -> None:
    from alue_bench.deployment.keeping import keep_model
    from alue_bench.tracking.connection import connect
    from alue_bench.tracking.recording import Recorder, UnavailablePeriod

    run, folder = finished()
    recorder = Recorder(connect(store, experiment), keep="best")
    recorder.unavailable = UnavailablePeriod("it is down", time.monotonic() + 600)
    (problem,) = keep_model(recorder, run)
    place = problem.removeprefix("its model is kept in ").partition(",")[0]
    assert (Path(place) / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert f"alue-bench predict {place} FILE" in problem


def registry_rows(count: int) -> list[str]:
    """The first test texts of the sample of `anger`."""
    from alue_bench.contract.registry import load_registry
    from alue_bench.data.location import DataFolder
    from alue_bench.data.splits import load_rows

    task = load_registry().task("anger")
    rows = load_rows(task, DataFolder(task.sample, "sample"), drop_bad=False, limit_train=None, limit_eval=count)
    return [example.text for example in rows.splits["test"].examples]


# Files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, lively: Callable[[str], Path], registry: Any) -> KeptModel:
    """A model of three labels with random weights."""
    from alue_bench.planning.build import build_plan

    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("ALUE_BENCH_CACHE", str(folder / "cache"))
        request = PlanRequest(
            tasks=("anger",), models=(str(lively("bert")),), strategies=("head-only",), sample=True, precision="fp32",
            overrides=(("test", HYPER),), limit_train=16, limit_eval=8,
        )  # fmt: skip
        (run,) = build_plan(request, registry).runs
        result, trained = execute(run.spec, run.inputs)
        write_model_folder(folder / "kept", FinishedRun("", run.spec, run.inputs, trained, result))
    return KeptModel(folder / "kept")


TEXTS = ["a b c", 'she said "no", and left', "two\nlines", "ماذا", "x " * 40]


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pandas as pd

    frame = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        encoding = "utf-8-sig" if path.suffix == ".tsv" else "utf-8"
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",", encoding=encoding)
    return path


def read_table(path: Path) -> list[dict[str, Any]]:
    import pandas as pd

    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".parquet":
        return list(pd.read_parquet(path).to_dict("records"))
    return list(pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", keep_default_na=False).to_dict("records"))


@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("target", ["csv", "jsonl", "parquet"])
def test_every_column_stays_in_order_whatever_the_formats(
    source: str, target: str, model: KeptModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alue_bench.deployment.predicting.CHUNK", 2)  # three chunks of five rows
    rows = [{"id": f"r{number}", "text": text, "more": "é"} for number, text in enumerate(TEXTS)]
    out = tmp_path / f"out.{target}"
    done = predict_file(
        model, PredictionRequest(source=write_table(tmp_path / f"in.{source}", rows), output=str(out), scores=True)
    )
    assert (done.rows, done.bad, done.truncated) == (5, 0, 1)
    written = read_table(out)
    assert [{name: row[name] for name in rows[0]} for row in written] == rows
    assert [row["prediction"] for row in written] == model.predict(TEXTS)
    scores = np.array([[float(row[f"score_{name}"]) for name in model.labels] for row in written])
    assert np.allclose(scores, model.scores(TEXTS), atol=1e-6)


def test_a_key_that_only_later_rows_have_is_a_column(model: KeptModel, tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b", "late": "x"}]
    request = PredictionRequest(source=write_table(tmp_path / "in.jsonl", rows), output=str(tmp_path / "out.csv"))
    predict_file(model, request)
    assert [row["late"] for row in read_table(tmp_path / "out.csv")] == ["", "x"]
    assert not list(tmp_path.glob("*.part"))


BAD = {
    "a null in the middle": ("in.jsonl", '{"text": "a"}\n{"text": null}\n', r"in\.jsonl:2: no text; mend .*--skip-bad"),
    "an empty cell": ("in.csv", "id,text\n1,a\n2,  \n", r"in\.csv:3: no text"),
    "an unknown label": (
        "in.csv",
        "text,label\na,anger\nb,fury\n",
        r"in\.csv:3: label 'fury' is not a label of the model: .*no_anger",
    ),
    "no label": ("in.csv", "text,label\na,anger\nb,\n", r"in\.csv:3: no gold label"),
    "a row too short": ("in.csv", "id,text\n1,a\n2\n", r"in\.csv:3: 1 columns instead of 2"),
    "no JSON": ("in.jsonl", '{"text": "a"}\n{"text"\n', r"in\.jsonl:2: not a JSON object"),
    "no object": ("in.jsonl", '["a"]\n', r"in\.jsonl:1: .* is no JSON object"),
    "no rows": ("in.csv", "text\n", r"in\.csv: the file has no rows"),
    "an empty file": ("in.csv", "", r"in\.csv: the file has no rows"),
    "no such column": ("in.csv", "id,words\n1,a\n", r"say with --text which column to read; it has id, words"),
    "two columns of a name": ("in.csv", "text,text\na,b\n", r"two columns of the name 'text'"),
    "no Parquet": ("in.parquet", "text", r"in\.parquet: cannot be read as Parquet"),
    "an unknown suffix": ("in.xyz", "text\na\n", r"its suffix must be one of \.csv"),
    "a column of the new name": ("in.csv", "text,prediction\na,b\n", r"has a column 'prediction' already.*--prefix"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_its_row(case: str, model: KeptModel, tmp_path: Path) -> None:
    name, content, message = BAD[case]
    (tmp_path / name).write_text(content, encoding="utf-8")
    label = "label" if "label" in content else None
    request = PredictionRequest(source=tmp_path / name, output=str(tmp_path / "out.jsonl"), label=label)
    with pytest.raises((DataError, UsageError), match=message):
        predict_file(model, request)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_columns_and_labels_may_be_written_as_in_a_data_file(model: KeptModel, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text;label\na, b;anger\nc;no_anger\n", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    done = predict_file(model, PredictionRequest(source=tmp_path / "in.csv", output=str(out), label="label"))
    assert (done.rows, done.scored) == (2, 2)
    assert [row["text"] for row in read_table(out)] == ["a, b", "c"]
    written = {("false", "true"): (True, "true"), ("0", "1"): (1, 1.0, "1", "1.0")}
    for names, cells in written.items():
        description = replace(model.description, labels=Labels.binary(*names))
        assert {_gold_of(cell, description) for cell in cells} == {(names[1],)}


def test_rows_without_a_text_may_stay_empty(model: KeptModel, tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": None}, {"text": ""}, {"text": "b"}]
    out = tmp_path / "out.jsonl"
    source = write_table(tmp_path / "in.jsonl", rows)
    done = predict_file(model, PredictionRequest(source=source, output=str(out), skip_bad=True))
    assert (done.rows, done.bad) == (4, 2)
    first, last = model.predict(["a", "b"])
    assert [row["prediction"] for row in read_table(out)] == [first, None, None, last]
    with pytest.raises(UsageError, match="--overwrite"):
        predict_file(model, PredictionRequest(source=source, output=str(out)))


def test_it_says_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no alue_bench.json"):
        alue_bench.load(tmp_path)
    with pytest.raises(UsageError, match="is no folder, no run's id"):
        alue_bench.load("nothing")
    (tmp_path / "alue_bench.json").write_text("{")
    with pytest.raises(UnavailableError, match="cannot be read"):
        alue_bench.load(tmp_path)
