"""Every mistake is answered with one sentence that names the culprit and the remedy, and exit code 2."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bad_files import BAD_FILES
from conftest import CommandLine
from tiny_models import save_tiny_model

HEADER = "ID\tTweet\tanger\tanticipation\tdisgust\tfear\tjoy\tlove\toptimism\tpessimism\tsadness\tsurprise\ttrust\n"
ROW = "x{}\tنص {}" + "\t{}" + "\t0" * 10 + "\n"


@dataclass(frozen=True)
class Mistake:
    arguments: tuple[str, ...]
    said: tuple[str, ...]
    """The texts that the message must contain."""
    prepare: Callable[[Path], object] = lambda folder: None
    """Puts into the working folder what the mistake is made with."""


def emotions(content: bytes | str) -> Callable[[Path], object]:
    """A data folder with good dev and test files, and this train file."""

    def write(folder: Path) -> None:
        (folder / "data/semeval2018").mkdir(parents=True)
        good = HEADER + "".join(ROW.format(n, n, n % 2) for n in range(10))
        for split in ("train", "dev", "test-gold"):
            (folder / f"data/semeval2018/2018-E-c-Ar-{split}.txt").write_text(good)
        bad = content if isinstance(content, bytes) else content.encode()
        (folder / "data/semeval2018/2018-E-c-Ar-train.txt").write_bytes(bad)

    return write


def file(name: str, content: str = "") -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)

    return write


def model(*, without: str = "", **options: Any) -> Callable[[Path], object]:
    """A model folder that lacks a file."""

    def write(folder: Path) -> None:
        save_tiny_model("bert", folder / "model", layers=1, **options)
        if without:
            (folder / "model" / without).unlink()

    return write


RUN = ("run", "-t", "anger", "-m", "mini", "-s", "full")
WITH_DATA = (*RUN, "--data-dir", "data")
OWN_MODEL = ("run", "-t", "anger", "-s", "full", "-m", "./model")
TRAIN = "data/semeval2018/2018-E-c-Ar-train.txt"

MISTAKES = {
    # Names
    "registered model": Mistake((*RUN, "--keep", "best", "--register", "a/b"), ("--register 'a/b'", "none of / : @")),
    "task": Mistake(("run", "-t", "angr"), ("unknown task 'angr'", "did you mean 'anger'?", "mdd-algiers-amman")),
    "task unlike any": Mistake(("run", "-t", "zzzzzz"), ("unknown task 'zzzzzz'; known are anger",)),
    "task, second": Mistake((*RUN, "-t", "odl"), ("unknown task 'odl'", "did you mean 'oold'?")),
    "model": Mistake(
        ("run", "-t", "anger", "-m", "marbret"),
        ("unknown model 'marbret'", "did you mean 'marbert'?", "a local folder or hub/id@revision"),
    ),
    "strategy": Mistake(
        ("run", "-s", "botom3top4"), ("unknown strategy 'botom3top4'", "did you mean 'bottom3top4'?", "bottom<N>top<M>")
    ),
    "strategy of nothing": Mistake((*RUN[:-1], "bottom0"), ("'bottom0' freezes 0 layers", "use full")),
    "strategy that does not fit": Mistake(
        (*RUN[:-1], "bottom7top6"), ("nothing to run", "bottom7top6 freezes 13 layers, but the model has only 12")
    ),
    "command": Mistake(("rnu",), ("No such command 'rnu'.",)),
    "option": Mistake((*RUN, "--epoch", "3"), ("No such option: --epoch",)),
    # Numbers
    "--limit-train 0": Mistake((*RUN, "--limit-train", "0"), ("--limit-train is 0; it must be at least 1",)),
    "--limit-eval -1": Mistake((*RUN, "--limit-eval", "-1"), ("--limit-eval is -1; it must be at least 1",)),
    "negative lr": Mistake((*RUN, "--lr", "-1e-5"), ("command line: lr is -1e-05; it must be above 0",)),
    "lr of no number": Mistake((*RUN, "--lr", "fast"), ("Invalid value for '--lr': ",)),
    "--epochs 0": Mistake((*RUN, "--epochs", "0"), ("command line: epochs is 0; it must be at least 1",)),
    "--batch-size 0": Mistake((*RUN, "--batch-size", "0"), ("batch_size is 0; it must be at least 1",)),
    "--warmup 1": Mistake((*RUN, "--warmup", "1"), ("warmup is 1.0; it must be at least 0 and below 1",)),
    "--clip -1": Mistake((*RUN, "--clip", "-1"), ("clip is -1.0; it must be at least 0",)),
    "--select": Mistake((*RUN, "--select", "worst"), ("select is 'worst'; it must be best or last",)),
    "--seeds 0": Mistake((*RUN, "--seeds", "0"), ("--seeds is 0; it must be at least 1",)),
    "--seed -1": Mistake((*RUN, "--seed", "-1"), ("--seed is -1; it must be at least 0",)),
    "--seed 2**64": Mistake((*RUN, "--seed", str(2**64)), (f"--seed is {2**64}; it must be",)),
    "--seed and --seeds": Mistake(
        (*RUN, "--seed", "1", "--seeds", "2"), ("--seed and --seeds", "give only one of them")
    ),
    "--max-length beyond the model": Mistake(
        (*RUN, "--max-length", "300"), ("max_length is 300, but model 'mini' takes at most 256 tokens",)
    ),
    # Small data
    "--folds 1": Mistake((*RUN, "--folds", "1"), ("--folds is 1; it must be at least 2",)),
    "--repeats without --folds": Mistake((*RUN, "--repeats", "2"), ("--repeats 2", "add --folds 5")),
    "--folds of a diagnostic set": Mistake(
        ("run", "-t", "diag", "-m", "mini", "--folds", "3"), ("task 'diag' has no train rows to divide",)
    ),
    "--folds of a search": Mistake(
        ("search", "-t", "anger", "-m", "mini", "--folds", "3"),
        ("--folds 3: a search compares settings on the same dev rows", "alue-bench sweep"),
    ),
    "--class-weights of a regression": Mistake(
        ("run", "-t", "svreg", "-m", "mini", "--class-weights", "balanced"), ("'svreg' is a regression",)
    ),
    "--eval-every 2": Mistake((*RUN, "--eval-every", "2"), ("eval_every is 2.0; it must be above 0 and at most 1",)),
    "--patience -1": Mistake((*RUN, "--patience", "-1"), ("patience is -1; it must be at least 0",)),
    # Device
    "--device": Mistake(
        (*RUN, "--device", "tpu"), ("--device is 'tpu'; it must be auto, cpu, gpu, cuda, cuda:N, mps or xpu",)
    ),
    "--device mps elsewhere": Mistake((*RUN, "--device", "mps"), ("torch finds no Apple GPU", "use --device cpu")),
    "--precision": Mistake(
        (*RUN, "--precision", "fp8"), ("--precision is 'fp8'; it must be auto, fp32, tf32, bf16 or fp16",)
    ),
    "fp16 on the CPU": Mistake(
        (*RUN, "--device", "cpu", "--precision", "fp16"),
        ("--precision fp16 needs a CUDA device or an Intel GPU", "use bf16 or fp32"),
    ),
    # Study files
    "no study file": Mistake((*RUN, "-c", "no.toml"), ("--config: no.toml cannot be read",)),
    "a folder for a study file": Mistake((*RUN, "-c", "."), ("--config: . cannot be read",)),
    "bad TOML": Mistake(
        (*RUN, "-c", "s.toml"), ("s.toml:2: not valid TOML",), file("s.toml", "epochs = 1\nlr = = 2\n")
    ),
    "unknown key": Mistake((*RUN, "-c", "s.toml"), ("s.toml:1: unknown key 'epoch'",), file("s.toml", "epoch = 1\n")),
    # Data
    "no data folder": Mistake((*RUN, "--data-dir", "nowhere"), ("--data-dir: nowhere is not a folder",)),
    "data folder without the task": Mistake(
        (*RUN, "--data-dir", "."), ("no files of task 'anger' in .", "2018-E-c-Ar-train.txt", "get them from")
    ),
    "a file missing": Mistake(
        WITH_DATA,
        ("2018-E-c-Ar-dev.txt: the file is missing",),
        lambda folder: (
            emotions(HEADER + ROW.format(1, 1, 1))(folder),
            (folder / TRAIN.replace("train", "dev")).unlink(),
        ),
    ),
    "empty file": Mistake(WITH_DATA, (f"{TRAIN}: the file is empty",), emotions("")),
    "header alone": Mistake(WITH_DATA, (f"{TRAIN}: the file has no rows",), emotions(HEADER)),
    "wrong encoding": Mistake(
        WITH_DATA,
        (f"{TRAIN}: the file is not UTF-8 text", "iconv -f CP1256"),
        emotions((HEADER + ROW.format(1, 1, 1) * 9).encode("cp1256")),
    ),
    "UTF-16": Mistake(WITH_DATA, (f"{TRAIN}: the file is UTF-16",), emotions((HEADER + ROW).encode("utf-16"))),
    "missing column": Mistake(
        WITH_DATA,
        (f"{TRAIN}:1: column 'anger' is missing", "the header has ID, Tweet"),
        emotions(HEADER.replace("\tanger", "") + ROW.format(1, 1, 1)),
    ),
    "malformed rows": Mistake(
        WITH_DATA,
        (f"{TRAIN}:3: 2 columns instead of 13", f"{TRAIN}:4: unknown label '7'", "--drop-bad"),
        emotions(HEADER + ROW.format(1, 1, 1) + "x\tنص\n" + ROW.format(2, 2, 7)),
    ),
    "no good row": Mistake(
        (*WITH_DATA, "--drop-bad"), ("task 'anger': the train split has no rows left",), emotions(HEADER + "x\n")
    ),
    "too few rows to hold out a part": Mistake(
        ("run", "-t", "oold", "-m", "mini", "--data-dir", "data"),
        ("task 'oold': 3 train rows are too few to hold out 10% of them",),
        lambda folder: [
            file(f"data/osact4/OSACT2020-sharedTask-{split}.txt", "".join(f"نص {n}\tOFF\tHS\n" for n in range(3)))(
                folder
            )
            for split in ("train", "dev")
        ],
    ),
    "data verify of an unknown task": Mistake(("data", "verify", "angr"), ("unknown task 'angr'", "'anger'")),
    "data add of nothing": Mistake(("data", "add", "anger", "nowhere"), ("nowhere: there is no such file or folder",)),
    "data add of an empty file": Mistake(
        ("data", "add", "anger", "data"), (f"{TRAIN}: the file is empty; nothing was added",), emotions("")
    ),
    # Models
    "no model folder": Mistake(
        ("run", "-t", "anger", "-m", "./nowhere"), ("--model ./nowhere: there is no such folder",)
    ),
    "model without config": Mistake(OWN_MODEL, ("has no config.json", "save_pretrained"), model(without="config.json")),
    "model without weights": Mistake(OWN_MODEL, ("has no weights",), model(without="model.safetensors")),
    "broken config": Mistake(
        OWN_MODEL,
        ("model: config.json cannot be used: ",),
        lambda folder: (model()(folder), file("model/config.json", "{")(folder)),
    ),
    "architecture nobody knows": Mistake(
        OWN_MODEL,
        ("model: config.json cannot be used: ", "hyena-9"),
        lambda folder: (model()(folder), file("model/config.json", '{"model_type": "hyena-9"}')(folder)),
    ),
    "list strategies of no model": Mistake(("list", "strategies", "-m", "mni"), ("unknown model 'mni'", "'mini'")),
    # Tracking
    "file store": Mistake((*RUN, "--tracking-uri", "file:///tmp/x"), ("database or on a server", "sqlite:///")),
    "folder for a store": Mistake((*RUN, "--tracking-uri", "mlruns"), ("'mlruns'", "sqlite:///path/to/mlflow.db")),
    "sqlite without a file": Mistake((*RUN, "--tracking-uri", "sqlite://"), ("names no file", "sqlite:///path/to")),
    "sqlite with a folder": Mistake((*RUN, "--tracking-uri", "sqlite:////"), ("names a folder", "sqlite:///path/to")),
    "tracking folder that cannot be made": Mistake(
        (*RUN, "--tracking-uri", "sqlite:///taken/here/mlflow.db"),
        ("tracking folder taken/here cannot be created", "choose another with --tracking-uri"),
        file("taken"),
    ),
    "default tracking folder that cannot be made": Mistake(RUN, ("mlruns cannot be created",), file("mlruns")),
    "store that is no database": Mistake(
        (*RUN, "--tracking-uri", "sqlite:///notes.db"),
        ("tracking store sqlite:///notes.db cannot be used", "not a database"),
        file("notes.db", "shopping list " * 100),
    ),
    "server that nobody started": Mistake(
        (*RUN, "--tracking-uri", "http://127.0.0.1:9"),
        ("tracking server http://127.0.0.1:9 does not answer", "start it"),
    ),
    "address of no server": Mistake(
        (*RUN, "--tracking-uri", "http://127.0.0.1:notaport"), ("http://127.0.0.1:notaport does not answer",)
    ),
    "empty experiment": Mistake((*RUN, "--experiment", " "), ("--experiment is empty",)),
    "ui without a store": Mistake(("ui",), ("there is no store at", "alue-bench run creates one")),
    "server with a password": Mistake(
        (*RUN, "--tracking-uri", "http://me:secret@127.0.0.1:9"),
        ("tracking server http://***@127.0.0.1:9 does not answer (", "start it, or leave out --tracking-uri"),
    ),
    "database that nobody started": Mistake(
        (*RUN, "--tracking-uri", "postgresql+psycopg2://me:secret@127.0.0.1:9/x"),
        ("tracking store postgresql+psycopg2://***@127.0.0.1:9/x cannot be used: ",),
    ),
    # Files that pretend
    "NULs": Mistake(
        WITH_DATA,
        (f"{TRAIN}:2: holds a NUL character: the file is damaged, or not UTF-8 text",),
        emotions(HEADER + ROW.format(1, "\0", 1) + ROW.format(2, 2, 0) * 3),
    ),
    "lines that end with carriage returns": Mistake(
        WITH_DATA,
        (f"{TRAIN}: its lines end with carriage returns only; convert them",),
        emotions((HEADER + ROW.format(1, 1, 1)).replace("\n", "\r")),
    ),
    "two columns of one name": Mistake(
        WITH_DATA,
        (f"{TRAIN}:1: the header has 2 columns of the name 'anger'",),
        emotions(HEADER.replace("fear", "anger") + ROW.format(1, 1, 1)),
    ),
    "label with an invisible mark": Mistake(
        WITH_DATA,
        (f"{TRAIN}:2: unknown label '1\\u200f' (expected 0 for no_anger, 1 for anger)",),
        emotions(HEADER + ROW.format(1, 1, "1\u200f")),
    ),
    # Sizes and counts
    "size without a unit": Mistake(
        (*RUN, "--cache-size", "20"), ("'20' is not a size; give one with its unit, such as 20GB or 512MiB, or 0",)
    ),
    "size that no disk has": Mistake((*RUN, "--cache-size", "9" * 400 + "GB"), ("is not a size; give one with",)),
    "more seeds than any plan": Mistake(
        (*RUN, "--seeds", "1000000000"), ("--seeds is 1000000000; it must be at least 1 and at most 10000",)
    ),
    "checkpoints before the beginning": Mistake(
        (*RUN, "--checkpoint-every", "-1"), ("--checkpoint-every is -1.0; it must be at least 0 and finite (minutes)",)
    ),
    "brackets without end": Mistake(
        (*RUN, "-c", "s.toml"), ("s.toml: cannot be read as TOML: ",), file("s.toml", "task = " + "[" * 5000)
    ),
    "model with pickles": Mistake(
        OWN_MODEL,
        ("model 'model' has pickled weights only (pytorch_model.bin), which can contain code.", "--allow-pickles"),
        lambda folder: (model(without="model.safetensors")(folder), file("model/pytorch_model.bin", "x")(folder)),
    ),
    "model whose layers share their weights": Mistake(
        OWN_MODEL,
        ("nothing to run: AlbertForSequenceClassification has no list of its encoder layers",),
        lambda folder: (model()(folder), file("model/config.json", '{"model_type": "albert"}')(folder)),
    ),
    # The rest
    "name of a plugin": Mistake(("new-plugin", "My Plugin"), ("'My Plugin' must be lower-case",)),
    "folder of a plugin": Mistake(
        ("new-plugin", "hotels", "--dir", "taken"), ("taken exists",), file("taken/precious.txt", "x")
    ),
}


MISTAKES |= {f"file: {name}": Mistake(bad.arguments, bad.said, bad.prepare) for name, bad in BAD_FILES.items()}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake(mistake: Mistake, alue_bench: CommandLine, tmp_path: Path) -> None:
    mistake.prepare(tmp_path / "work")
    before = sorted((tmp_path / "work").rglob("*"))
    said = alue_bench(*mistake.arguments)
    assert said.code == 2, said.everything
    sentence = " ".join(said.err.split())
    for part in mistake.said:
        assert part in sentence
    assert "Traceback" not in said.everything
    assert not said.out
    created = set((tmp_path / "work").rglob("*")) - set(before)
    assert not {path.name for path in created} - {".mlflow.lock"}  # nothing was begun


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        stop = threading.Event()
        kept = []

        def take() -> None:
            listening.settimeout(0.2)
            while not stop.is_set():
                try:
                    kept.append(listening.accept()[0])
                except OSError:
                    continue

        thread = threading.Thread(target=take)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        stop.set()
        thread.join()
        for connection in kept:
            connection.close()


class TestHub:
    """These run in a process of their own: the hub's client reads its settings when it is imported."""

    ASK = ("run", "-t", "anger", "-m", "UBC-NLP/nothing@main", "--dry-run")

    @pytest.mark.slow
    def test_offline_by_choice(self, command: CommandLine) -> None:
        said = command(*self.ASK, HF_HUB_OFFLINE="1")
        assert said.code == 2
        assert "model 'ubc-nlp-nothing' (UBC-NLP/nothing@main) is not in the hub cache" in said.err
        assert "HF_HUB_OFFLINE forbids asking the hub" in said.err
        assert "Traceback" not in said.err

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["nobody listens", "nobody answers"])
    def test_unreachable(self, command: CommandLine, silent_hub: str, kind: str) -> None:
        started = time.monotonic()
        said = command(*self.ASK, HF_ENDPOINT="http://127.0.0.1:9" if kind == "nobody listens" else silent_hub)
        assert said.code == 2
        assert (
            "cannot be downloaded from the hub: it does not answer; check the network, or name a local folder"
            in said.err
        )
        assert "Traceback" not in said.err
        assert time.monotonic() - started < 40  # five seconds of waiting, and the imports of a slow machine


def test_a_cache_folder_that_cannot_be_written_is_a_sentence(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / "taken"))
    said = run("-s", "full")
    assert said.code == 2
    assert f"{tmp_path / 'taken'}" in " ".join(said.err.split())
    assert "ALUE_BENCH_CACHE" in said.err
    assert "Traceback" not in said.everything


@pytest.mark.parametrize("without", ["tokenizer.json"])
def test_a_model_without_a_tokenizer_fails_its_runs_with_a_reason(
    run: CommandLine, tiny_bert: Path, tmp_path: Path, without: str
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "mute")
    (tmp_path / "mute" / without).unlink()
    said = run("-s", "full", model=tmp_path / "mute")
    assert said.code in (1, 2)
    assert "the tokenizer cannot be loaded" in " ".join(said.err.split())
    assert "Traceback" not in said.everything


@pytest.mark.parametrize(
    ("task", "fewer", "named"),
    [
        ("anger", {"vocab_size": 40}, "but the model has only 40 embeddings of ids"),
        ("mq2q", {"type_vocab_size": 1}, "segment number 1, but the model has only 1 embeddings of segment numbers"),
    ],
)
def test_a_tokenizer_of_another_model_fails_its_runs_with_a_reason(
    run: CommandLine, tmp_path: Path, task: str, fewer: dict[str, int], named: str
) -> None:
    save_tiny_model("bert", tmp_path / "mixed", **fewer)
    said = run("-s", "full", model=tmp_path / "mixed", task=task)
    assert said.code == 1
    seen = " ".join(said.err.split())
    assert "model 'mixed': the tokenizer gives the" in seen
    assert named in seen
    assert "take the tokenizer that belongs to the weights" in seen
    assert "Traceback" not in said.everything
