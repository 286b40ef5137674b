"""The functions for scripts and notebooks do what the commands do, and leave nothing behind in the process."""

from __future__ import annotations

import inspect
import json
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from conftest import SHORT, CommandLine

import alue_bench
from alue_bench import AlueBenchError, Table, UsageError
from alue_bench.api import functions
from alue_bench.api.tasks import given_tasks
from alue_bench.contract.registry import load_registry
from alue_bench.studies.files import study_keys
from alue_bench.studies.options import options_of_command
from alue_bench.studies.results import TrainedRun

SAME: dict[str, Any] = {
    "epochs": 1, "limit_train": 48, "limit_eval": 32, "max_length": 24, "batch_size": 16, "quiet": True,
}  # fmt: skip
"""The options of `SHORT`, as keyword arguments."""


@pytest.fixture
def where(
    alue_bench: CommandLine, store: str, experiment: str, tiny_bert: Path, easy: tuple[str, str]
) -> dict[str, Any]:
    """The options that name the task, the model and the place of the records, for functions and commands."""
    functions._installed_plugins.cache_clear()  # the plugin of `easy` was not there before
    return {"task": easy[0], "model": tiny_bert, "tracking_uri": store, "experiment": experiment}


def command(options: dict[str, Any]) -> list[object]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]


def test_a_function_reuses_what_the_command_has_run_and_the_reverse(
    where: dict[str, Any], alue_bench: CommandLine
) -> None:
    said = alue_bench("run", *command(where), *SHORT, "-s", "full", "--json")
    (of_command,) = json.loads(said.out)["runs"]
    signals = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    threads = set(threading.enumerate())

    results = functions.run(**where, **SAME, strategies=["full", "bottom25%"])

    assert [outcome.status for outcome in results.outcomes] == ["reused", "finished"]
    frame = results.frame().set_index("strategy")
    assert frame.loc["full", "fingerprint"] == of_command["fingerprint"]
    assert frame.loc["full", "test/score"] == of_command["metrics"]["test/score"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == signals
    assert {thread.name for thread in set(threading.enumerate()) - threads} <= {"tqdm_monitor"}

    best = results.best()
    assert best.dev_score == frame["selection/dev_score"].max()
    assert best.score == frame.loc[best.spec.strategy, "test/score"]
    assert "bottom25%" in repr(results)
    assert "<pre" in results._repr_html_()

    fitted = functions.fit(where["task"], tiny_model := where["model"], "bottom25%", **SAME, **_place(where))
    assert (fitted.outcome.status, fitted.spec.model) == ("reused", tiny_model.name)

    compared = functions.compare(**_place(where), parent=results.parent_id)
    assert set(compared.frame()["strategy"]) == {"full", "bottom25%"}
    assert functions.report("page.md", **_place(where)).read_text(encoding="utf-8").startswith("# ")


def _place(where: dict[str, Any]) -> dict[str, Any]:
    return {name: where[name] for name in ("tracking_uri", "experiment")}


def test_a_sweep_and_a_search_find_what_their_commands_find(where: dict[str, Any], alue_bench: CommandLine) -> None:
    grid = "bottom=0..4/4"
    swept = functions.sweep(**where, **SAME, grid=grid, tolerance="70%", confirm=0)
    cells = ("--grid", grid, "--tolerance", "70%", "--confirm", "0")
    said = alue_bench("sweep", *command(where), *SHORT, *cells, "--json")
    document = json.loads(said.out)
    assert {run["status"] for run in document["runs"]} == {"reused"}
    (found,) = document["sweep"]["grids"]
    assert swept.document["sweep"]["grids"] == [found]
    assert swept.best().spec.strategy == found["recommendation"]["strategy"]

    searched = functions.search(**where, **SAME, grid=grid, budget="75%", short_runs=False)  # no more than one run
    assert searched.answers == {(where["task"], where["model"].name): "full"}
    assert searched.best().run_id == swept.frame().set_index("strategy").loc["full", "run_id"]

    rate = searched.best().spec.hyper.lr
    rates = {**SAME, "lr": [rate, 0.9 * rate]}
    searched = functions.search(**where, **rates, grid=grid, budget="75%", short_runs=False)  # `full` at each rate
    (answer,) = searched.answers.values()
    assert answer is not None
    assert answer.startswith("full lr=")
    assert searched.best().spec.strategy == "full"
    assert searched.best().dev_score == searched.frame()["selection/dev_score"].max()


def test_of_folds_none_is_the_best(where: dict[str, Any]) -> None:
    results = functions.run(**where, **SAME, strategy="head-only", folds=2)
    assert list(results.frame()["fold"]) == ["fold1of2", "fold2of2"]
    with pytest.raises(UsageError, match="each fold has different dev rows"):
        results.best()


def test_a_task_may_be_a_value(where: dict[str, Any]) -> None:
    declared = load_registry().task(where["task"])
    own = replace(declared, name="mine")

    def fit(task: Any) -> TrainedRun:
        return functions.fit(**{**where, **SAME, "task": task})

    twice = [fit(own) for _ in range(2)]
    assert [run.outcome.status for run in twice] == ["finished", "reused"]
    assert "task-in-python" not in (twice[0].save("kept") / "requirements.txt").read_text()
    other = fit(replace(own, primary="accuracy"))
    assert other.outcome.status == "finished"
    assert other.spec.fingerprint != twice[0].spec.fingerprint
    assert fit(declared).spec.providers.keys() == {"alue-bench", "alue-bench-easy"}
    with pytest.raises(UsageError, match="worker processes do not know task 'mine'"):
        functions.run(task=own, jobs=2)
    with pytest.raises(UsageError, match=f"task {declared.name!r} is declared by .* a different one"):
        functions.run(task=replace(declared, primary="accuracy"))


def test_a_data_frame_is_fitted_and_its_model_predicts(where: dict[str, Any]) -> None:
    texts = [f"{'a b ' * 4 if n % 2 else 'z y ' * 4}{n}" for n in range(96)]
    frame = pd.DataFrame({"complaint": texts, "category": ["yes", "no"] * 48})
    options = {**_place(where), **SAME, "model": where["model"], "text": "complaint", "label": "category"}

    run = functions.fit(frame, strategy="full", **options)

    predicted = run.predict(texts[:4])
    assert set(predicted) <= {"no", "yes"}
    assert alue_bench.load(run.save("kept")).predict(texts[:4]) == predicted
    with pytest.raises(UsageError, match="kept exists; name a new folder"):
        run.save("kept")
    without_model = functions.run(task=frame, strategy="bottom2", **options).best()
    assert len(without_model.predict(texts[:4])) == 4, "it is trained again"


def test_data_frames_and_paths_become_data_files(folders_of_its_own: None, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["yes", "no"]})
    registry = load_registry()
    (tmp_path / "mine.csv").touch()

    def options(given: Any) -> Any:
        return given_tasks(given, registry).options

    first = options(frame)["file"]
    assert pd.read_parquet(first).equals(frame)
    assert options(frame.copy())["file"] == first != options(frame.head(1))["file"]
    assert options(["oold", tmp_path / "mine.csv"]) == {"task": ["oold"], "file": str(tmp_path / "mine.csv")}
    assert options(str(tmp_path / "mine.csv")) == {"file": str(tmp_path / "mine.csv")}
    assert options([Path("mine.task.toml"), "gone.csv"]) == {"task": ["mine.task.toml", "gone.csv"]}
    with pytest.raises(UsageError, match="2 data files are given as tasks"):
        options([frame, tmp_path / "mine.csv"])
    classes = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    of_classes = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=classes)
    assert [row.target for row in Table(text="text", target="label")(Path(options(of_classes)["file"]))] == [
        "yes",
        "no",
    ]


@pytest.mark.parametrize(
    ("function", "options", "told"),
    [
        ("run", {"epoch": 1}, "run() has no option 'epoch'; did you mean 'epochs'?"),
        ("run", {"tolerance": "1%"}, "run() has no option 'tolerance'"),
        ("run", {"dry_run": True}, "run() has no option 'dry_run'"),
        ("run", {"epochs": 0}, "run(): epochs is 0; it must be at least 1"),
        ("run", {"epochs": [1, 2]}, "run(): epochs is [1, 2]; it must be of type int"),
        ("run", {"task": "oold", "tasks": ["mdd"]}, "run() is given 'task' twice"),
        ("run", {"model": "mini", "models": ["mini"]}, "run() is given 'model' twice"),
        ("run", {"tasks": [3]}, "a task is given as int"),
        ("run", {"tasks": ["oolt"]}, "unknown task 'oolt' (did you mean 'oold'?)"),
        ("search", {"init_seed": 1}, "search() has no option 'init_seed'"),
        ("fit", {"task": "oold", "seeds": 2}, "fit() trains one model"),
        ("fit", {"task": "oold", "folds": 2}, "fit() trains one model, and folds ask for one of each fold"),
        ("compare", {"lr": 1}, "compare() has no option 'lr'"),
        ("report", {"output": "page.pdf"}, "output page.pdf: the name must end in .html or .md"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(folders_of_its_own: None, function: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(AlueBenchError) as error:
        getattr(alue_bench, function)(**options)
    assert told in str(error.value)


@pytest.mark.parametrize("name", ["run", "sweep", "search"])
def test_keyword_arguments_are_the_keys_of_a_study_and_the_signature_shows_them(name: str) -> None:
    function: Callable[..., Any] = getattr(alue_bench, name)
    shown = set(inspect.signature(function).parameters) - {"quiet"}
    plurals = {"tasks": "task", "models": "model", "strategies": "strategy", "maps": "map"}
    taken = {plurals.get(word, word) for word in shown}
    keys = {key for key, option in options_of_command(name).items() if key in study_keys() and option.in_studies}
    assert taken - {"config"} == keys


def test_an_interrupted_call_raises_keyboard_interrupt_and_goes_on_later(
    where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from alue_bench.views.progress import PlainProgress

    def stop(*anything: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PlainProgress, "ended", stop)
        with pytest.raises(KeyboardInterrupt):
            functions.run(**where, **SAME, strategies=["full", "bottom2"])
    results = functions.run(**where, **SAME, strategies=["full", "bottom2"])
    assert [outcome.status for outcome in results.outcomes] == ["reused", "finished"]


@pytest.mark.stress
def test_the_example_notebook_runs_as_it_is_written(folders_of_its_own: None, store: str, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    path = Path(__file__).parents[1] / "docs" / "example.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "docs/example.ipynb: clear the outputs"
    shutil.copy(store.removeprefix("sqlite:///"), tmp_path / "example.db")  # making one takes seconds
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    html = "".join(output["data"].get("text/html", "") for output in outputs if "data" in output)
    for told in ("Plan: 2 runs", "bottom25%top33%", "100%", "Test scores", "Δ full", "dataframe"):
        assert told in html
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
