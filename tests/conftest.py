"""Fixtures for all tests: tiny models on disk, one MLflow store, and the command line called in this process.

Nothing is imitated but a GPU, in the tests that ask for `simulated_cuda`. The models are real ones with random weights,
saved as any checkpoint is; the store is sqlite; the data are the embedded samples. A test that needs
a process of its own starts one.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tiny_models import ARCHITECTURES, save_tiny_model

# Models this small gain nothing from a second thread, and lose much where another process wants the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when a process starts: by the workers of pytest-xdist and by every command that a test starts. A virtual machine
# may need tens of microseconds for the first touch of a page, and `import torch` alone touches 40,000 pages; with huge
# pages it is 6,000. Other C libraries ignore the variable.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
os.environ.setdefault("PYTHONMALLOC", "malloc")
# Read by the hub's client when it is imported: no test sees what this machine's user has downloaded.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="alue-bench-hub-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
# What else the machine does decides on no test.
settings.register_profile("alue-bench", deadline=None)
settings.load_profile("alue-bench")
REPOSITORY = Path(__file__).parents[1]
OFFICIAL_DATA = os.environ.get("ALUE_BENCH_DATA", "")  # before fixtures take it out of the environment
OURS = ("ALUE_BENCH_DATA", "ALUE_BENCH_DISABLE_PLUGINS", "MLFLOW_TRACKING_URI")

# Small enough to train in a second, with every flag that costs time set low.
SHORT = ("--epochs", "1", "--limit-train", "48", "--limit-eval", "32", "--max-length", "24", "--batch-size", "16")


IN_MEMORY, FREE_BYTES = Path("/dev/shm"), 2 << 30
"""Linux's file system in memory, and the free space without which tests do not use it."""
_folder = pytest.StashKey[Path]()
_failed = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let temporary folders lie in memory: sqlite waits for the disk two dozen times in each recorded run."""
    chosen = config.option.basetemp is not None or hasattr(config, "workerinput")
    if chosen or not os.access(IN_MEMORY, os.W_OK) or shutil.disk_usage(IN_MEMORY).free < FREE_BYTES:
        return
    for folder in IN_MEMORY.glob("alue-bench-tests-*"):
        if time.time() - folder.stat().st_mtime > 24 * 3600:
            shutil.rmtree(folder, ignore_errors=True)
    config.stash[_folder] = Path(tempfile.mkdtemp(prefix="alue-bench-tests-", dir=IN_MEMORY))
    config.option.basetemp = str(config.stash[_folder])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember whether a failed test's files may have to be looked into."""
    session.config.stash[_failed] = exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Free the memory, unless a test has failed."""
    if _folder in config.stash and not config.stash.get(_failed, True):
        shutil.rmtree(config.stash[_folder], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests, so that no process waits at the end for another one's."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Make garbage collections rare and cheap: one over all modules of torch, transformers and MLflow takes 0.5 s."""
    _exclude_present_objects()
    gc.set_threshold(10_000, 20, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Exclude also the modules that tests have imported since."""
    if len(sys.modules) > _excluded + 300:
        _exclude_present_objects()


_excluded = 0
"""The number of modules at the last call of the next function."""


def _exclude_present_objects() -> None:
    """Exclude all present objects from later garbage collections."""
    global _excluded
    gc.collect()
    gc.freeze()
    _excluded = len(sys.modules)


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command that has ended."""

    code: int
    out: str
    err: str

    @property
    def everything(self) -> str:
        return self.out + self.err


CommandLine = Callable[..., Finished]


def environment_of(folder: Path) -> dict[str, str]:
    """Folders of a test's own, and none of the user's settings."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return kept | {
        "ALUE_BENCH_CACHE": str(folder / "cache"),
        "ALUE_BENCH_STATE": str(folder / "state"),
        "XDG_DATA_HOME": str(folder / "data-home"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def _settle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process works in the folder, caches below it, and knows none of the user's settings."""
    monkeypatch.chdir(folder)
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment_of(folder).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def folders_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _settle(tmp_path, monkeypatch)


@pytest.fixture
def alue_bench(folders_of_its_own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """`alue-bench ARGUMENTS`, in this process, in an empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return _in_this_process(monkeypatch)


@contextmanager
def call_in(folder: Path) -> Iterator[CommandLine]:
    """The same in a given folder, for fixtures that several tests share."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _settle(folder, monkeypatch)
        yield _in_this_process(monkeypatch)


class _Parsers:
    """Typer's conversion of an application to a parser, done again only when its commands have changed.

    It takes as long as a short command, and a process that serves one command does it once anyway.
    """

    def __init__(self) -> None:
        from typer.main import get_command

        self._convert = get_command
        self._parser: Any = None
        self._made_from: list[Any] = []

    def __call__(self, app: Any) -> Any:
        made_from = [app, *app.registered_commands, *app.registered_groups]
        if made_from != self._made_from:
            self._parser, self._made_from = self._convert(app), made_from
        return self._parser


@cache
def _parsers() -> _Parsers:
    return _Parsers()


def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    from alue_bench.cli.main import main

    monkeypatch.setattr("typer.main.get_command", _parsers())

    def call(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["alue-bench", *map(str, arguments)])
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
        return Finished(code, out.getvalue(), err.getvalue())

    return call


def _heed_interrupts() -> None:
    """A shell's background job ignores SIGINT, and hands that on to what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`alue-bench ARGUMENTS` in a process of its own."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", "from alue_bench.cli.main import main; main()", *map(str, arguments)],
            cwd=work,
            env=environment_of(tmp_path) | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_heed_interrupts if os.name == "posix" else None,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def command(start_process: Callable[..., subprocess.Popen[str]]) -> CommandLine:
    """`alue-bench ARGUMENTS` in a process of its own, to its end."""

    def call(*arguments: object, **variables: str) -> Finished:
        process = start_process(*arguments, **variables)
        out, err = process.communicate(timeout=600)  # a bound, not an expectation
        return Finished(process.returncode, out, err)

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model with random weights, by architecture."""
    root = tmp_path_factory.mktemp("models")

    def folder(architecture: str = "bert", layers: int = 4) -> Path:
        assert architecture in ARCHITECTURES
        path = root / f"tiny-{architecture}{'' if layers == 4 else layers}"
        if not path.exists():
            save_tiny_model(architecture, path, layers=layers)
        return path

    return folder


@pytest.fixture(scope="session")
def tiny_bert(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


@pytest.fixture
def simulated_cuda(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A simulated CUDA device for the test's duration, an H200 unless the parameter is another GPU."""
    from simulated_cuda import H200, simulated

    with simulated(getattr(request, "param", H200)) as machine:
        yield machine


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One sqlite store for all tests: making one takes seconds. Each test has an experiment of its own in it."""
    from alue_bench.tracking.connection import connect

    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    connect(uri, "first")
    return uri


@pytest.fixture
def own_store(store: str, tmp_path: Path) -> str:
    """A copy of that store for a test that starts processes, kills them, or wants artifacts in a folder of its own."""
    folder = tmp_path / "own-store"
    folder.mkdir()
    shutil.copy(store.removeprefix("sqlite:///"), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return f"{request.node.nodeid.rpartition('/')[2]} {time.time_ns()}"


@pytest.fixture
def client(store: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store)


@pytest.fixture
def run(alue_bench: CommandLine, store: str, experiment: str, tiny_bert: Path) -> CommandLine:
    """`alue-bench run` on the sample of `anger` with a tiny BERT, in an experiment of the test's own."""

    def call(*arguments: object, task: str | None = "anger", model: object = tiny_bert) -> Finished:
        what = [*(("--task", task) if task else ()), *(("--model", model) if model else ())]
        return alue_bench("run", "--tracking-uri", store, "--experiment", experiment, *what, *SHORT, *arguments)

    return call


@pytest.fixture
def runs(client: Any, experiment: str) -> Callable[..., list[Any]]:
    """The runs of the test's experiment, oldest first; a filter in MLflow's language may be given."""

    def find(where: str = "") -> list[Any]:
        recorded = client.get_experiment_by_name(experiment)
        return list(client.search_runs([recorded.experiment_id], where, order_by=["attributes.start_time ASC"]))

    return find


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """A plugin as pip would leave it: a module and a dist-info folder, on the path of modules. Returns that path.

    Gone after the test.
    """
    site = tmp_path / "site-packages"
    modules: list[str] = []

    def write(distribution: str, source: str, *, entry_point: str = "", version: str = "1.0") -> Path:
        module = distribution.replace("-", "_")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[alue_bench]\n{entry_point or module} = {module}\n")
        (site / f"{module}.py").write_text(source)
        if not modules:
            monkeypatch.syspath_prepend(str(site))
        modules.append(module)
        return site

    yield write
    for module in modules:
        sys.modules.pop(module, None)


EASY = """
from pathlib import Path
from alue_bench import DataFile, Delimited, Labels, Splits, Task, hookimpl

HERE = Path(__file__).parent

def task(name):
    splits = {split: DataFile(f"easy/{split}.tsv", Delimited(columns=2, text=0, target=1)) for split in SPLITS}
    return Task(
        name=name, title="Which letters", languages=("en",), labels=Labels.binary("no", "yes"), splits=Splits(**splits),
        source="the tests", licence="CC0-1.0", citation="none", defaults={"lr": 1e-2}, sample=HERE,
    )

SPLITS = {"train": 48, "dev": 32, "test": 32}
(HERE / "easy").mkdir(exist_ok=True)
for split, rows in SPLITS.items():
    lines = (f"{'a b ' * 4 if n % 2 else 'z y ' * 4}{n}\\t{'no' if n % 2 else 'yes'}\\n" for n in range(rows))
    (HERE / "easy" / f"{split}.tsv").write_text("".join(lines))

@hookimpl
def alue_bench_tasks():
    return [task("easy"), task("easy-too")]
"""


@pytest.fixture
def easy(install: Callable[..., Path]) -> tuple[str, str]:
    """The names of two tasks that a tiny model with random weights learns in an epoch, unlike any other."""
    install("alue-bench-easy", EASY)
    return "easy", "easy-too"


@pytest.fixture(scope="session")
def official_data() -> Path:
    """The folder of the official files, for tests marked `real_data`."""
    if not OFFICIAL_DATA:
        pytest.skip("ALUE_BENCH_DATA is not set to the folder of the official files")
    return Path(OFFICIAL_DATA)


@pytest.fixture(scope="session")
def registry() -> Any:
    """The registry of the installed plugins."""
    from alue_bench.contract.registry import load_registry

    return load_registry()


@pytest.fixture
def plan_sample(
    tiny: Callable[[str], Path], registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """A function that plans short runs of a tiny model on a task's sample, with a cache of their own."""
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "cache"))

    def build(task: str, *strategies: str, max_length: int, architecture: str = "bert", **options: Any) -> Any:
        from alue_bench.planning.build import build_plan
        from alue_bench.planning.request import PlanRequest

        model = options.pop("model", None) or tiny(architecture)
        hyper = {"epochs": 1, "max_length": max_length, "lr": 1e-3, "batch_size": 8, **options.pop("hyper", {})}
        return build_plan(
            PlanRequest(
                tasks=(task,), models=(str(model),), strategies=strategies, sample=True,
                overrides=(("test", hyper),), limit_train=24, limit_eval=16, **{"precision": "fp32"} | options,
            ),
            registry,
        )  # fmt: skip

    return build
