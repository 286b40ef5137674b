"""The promises of docs/security.md: no secret is stored or shown, no foreign code runs, nothing listens outside."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import CommandLine
from huggingface_hub.hf_api import BlobLfsInfo, RepoSibling
from hypothesis import given
from hypothesis import strategies as st

from alue_bench.messages.redaction import REPLACEMENT, redact, redacted
from alue_bench.tracking.connection import connect
from alue_bench.training.pretrained.hub import removed_if_altered

ROOT = Path(__file__).parents[1]
SECRETS = {
    "HF_TOKEN": "hf_planted0secret1of2a3test4",
    "MLFLOW_TRACKING_PASSWORD": "planted-password-of-a-test",
    "MLFLOW_TRACKING_TOKEN": "planted-token-of-a-test",
    "SOME_SERVICE_API_KEY": "planted-key-of-a-test",
    "PGPASSWORD": 'planted-"quoted"-\\of-a-test',
}

# A model whose normalisation shouts out all that it knows.
TALKATIVE = """
import os
from pathlib import Path
from alue_bench import Model, hookimpl

def normalise(text):
    raise RuntimeError("no luck with " + " ".join(os.environ[name] for name in {names!r})
        + " at postgresql://me:planted-in-an-address@db.example/x?password=planted-in-a-query and hf_" + "a1" * 17)

@hookimpl
def alue_bench_models():
    return [Model(name="talkative", title="t", checkpoint=Path({folder!r}), normalise=normalise, normalisation="none")]

@hookimpl
def alue_bench_run_started(spec):
    raise RuntimeError("started with " + os.environ["HF_TOKEN"])
"""


class TestSecrets:
    def test_are_neither_stored_nor_shown(
        self, run: CommandLine, install: Any, own_store: str, tiny_bert: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        install("alue-bench-talkative", TALKATIVE.format(names=list(SECRETS), folder=str(tiny_bert)))
        said = run("-s", "full", "-m", "talkative", "--tracking-uri", own_store, "--json")
        assert said.code == 1
        failed = next(done for done in json.loads(said.out)["runs"] if done["status"] == "failed")
        assert failed["cause"].startswith("RuntimeError: no luck with ***")
        planted = [
            *SECRETS.values(),
            json.dumps(SECRETS["PGPASSWORD"])[1:-1],
            "planted-in-an-address",
            "planted-in-a-query",
            "a1a1a1a1",
        ]
        files = [path for path in tmp_path.rglob("*") if path.is_file() and "site-packages" not in path.parts]
        assert len(files) > 5
        for secret in planted:
            assert secret not in said.everything
            assert not [path for path in files if secret.encode() in path.read_bytes()]

    @pytest.mark.parametrize("before", [(), ("run",)])
    def test_nor_in_what_is_said_of_a_command_line(self, alue_bench: CommandLine, before: tuple[str, ...]) -> None:
        said = alue_bench(*before, "postgresql://me:planted@db.example/x")
        assert said.code == 2
        assert "postgresql://***@db.example/x" in said.err
        assert "planted" not in said.everything

    @pytest.mark.parametrize(
        ("text", "public"),
        [
            ("postgresql://me:pw@h:5/db", "postgresql://***@h:5/db"),
            ("http://me:p%40ss@h/x", "http://***@h/x"),
            ("https://token@h/x", "https://***@h/x"),
            ("https://h/x?token=abcd&y=1", "https://h/x?token=***&y=1"),
            ("hf_" + "b" * 30, "***"),
            ("http://h:5000/#/experiments/1", "http://h:5000/#/experiments/1"),
            ("write to a@b.example", "write to a@b.example"),
            ("sqlite:///a@b/c.db", "sqlite:///a@b/c.db"),
        ],
    )
    def test_are_taken_out_of_texts(self, text: str, public: str) -> None:
        assert redact(text) == public

    @given(
        password=st.text(st.characters(exclude_characters="/?#\"'<>", exclude_categories=["Z", "C"]), min_size=4),
        user=st.text("abc", max_size=3),
        scheme=st.sampled_from(["postgresql+psycopg2", "http", "mysql"]),
    )
    def test_whatever_the_password(self, password: str, user: str, scheme: str) -> None:
        said = redact(f"cannot reach {scheme}://{user}:{password}@db.example:5432/x (refused)")
        assert said == f"cannot reach {scheme}://{REPLACEMENT}@db.example:5432/x (refused)"

    def test_values_of_secret_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_ACCESS_KEY", "value-of-a-key")
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # no secret, though it begins like one
        monkeypatch.setenv("X_TOKEN", "abc")  # too short to be told from a word
        monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "true")  # says that there is none
        assert redact("value-of-a-key true abc") == "*** true abc"

    def test_what_becomes_json_stays_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_TOKEN", 'wi"ld')
        monkeypatch.setenv("MY_PASSWORD", "1024")
        content = {"cause": ['no wi"ld here', ("1024",)], "rows": 1024, "done": True}
        assert redacted(content) == {"cause": ["no *** here", ["***"]], "rows": 1024, "done": True}

    def test_nor_in_the_traceback_of_a_mistake_of_ours(
        self, alue_bench: CommandLine, install: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
        install(
            "alue-bench-clumsy",
            "import os\nfrom alue_bench import hookimpl\n\n@hookimpl\ndef alue_bench_commands(app):\n"
            "    @app.command('stumble')\n    def stumble():\n        raise KeyError(os.environ['HF_TOKEN'])\n",
        )
        said = alue_bench("stumble")
        assert said.code == 1
        assert "KeyError: '***'" in said.err
        assert SECRETS["HF_TOKEN"] not in said.everything


class Marks:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class TestCheckpoints:
    @pytest.fixture
    def pickled(self, tiny_bert: Path, tmp_path: Path) -> Path:
        """A model whose weights are a pickle that does something."""
        import shutil

        folder = tmp_path / "pickled"
        shutil.copytree(tiny_bert, folder)
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weights": Marks(tmp_path / "mark")}))
        return folder

    def test_pickles_are_not_read_unasked(self, run: CommandLine, pickled: Path, tmp_path: Path) -> None:
        said = run("-s", "full", model=pickled)
        assert said.code == 2
        assert "has pickled weights only" in said.err
        assert "--allow-pickles" in said.err
        assert not (tmp_path / "mark").exists()

    def test_and_run_no_code_when_they_are(self, run: CommandLine, pickled: Path, tmp_path: Path) -> None:
        said = run("-s", "full", "--allow-pickles", model=pickled)
        assert said.code == 1
        assert "the weights cannot be loaded" in said.err
        assert not (tmp_path / "mark").exists()

    def test_honest_ones_are_read_then(self, run: CommandLine, pickled: Path, tiny_bert: Path) -> None:
        import torch
        from safetensors.torch import load_file

        torch.save(load_file(tiny_bert / "model.safetensors"), pickled / "pytorch_model.bin")
        assert run("-s", "full", "--allow-pickles", model=pickled).code == 0

    def test_code_beside_the_weights_is_not_run(self, run: CommandLine, tiny_bert: Path, tmp_path: Path) -> None:
        import shutil

        folder = tmp_path / "custom"
        shutil.copytree(tiny_bert, folder)
        (folder / "modeling_custom.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
        config = json.loads((folder / "config.json").read_text())
        names = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
        config |= {"model_type": "custom", "auto_map": dict.fromkeys(names, "modeling_custom.Custom")}
        (folder / "config.json").write_text(json.dumps(config))
        said = run("-s", "full", model=folder)
        assert said.code == 2
        assert "config.json cannot be used" in said.err
        assert not (tmp_path / "mark").exists()


class TestDownloads:
    """Downloads are left by the hub's client as links to files that are named after their digests."""

    CONTENT: ClassVar = {"config.json": b"{}", "model.safetensors": b"weights " * 1000, "vocab.txt": "كلمة".encode()}

    @pytest.fixture
    def told(self) -> list[RepoSibling]:
        large, small = self.CONTENT["model.safetensors"], self.CONTENT["config.json"]
        lfs = BlobLfsInfo(size=len(large), sha256=hashlib.sha256(large).hexdigest(), pointer_size=1)
        git = "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # git hash-object of {}
        assert git == hashlib.sha1(b"blob 2\0" + small).hexdigest()
        return [
            RepoSibling("config.json", size=2, blob_id=git),
            RepoSibling("model.safetensors", size=len(large), blob_id="0" * 40, lfs=lfs),
            RepoSibling("vocab.txt"),
            RepoSibling("../../outside", blob_id="0" * 40),
        ]

    @pytest.fixture
    def snapshot(self, tmp_path: Path) -> Path:
        folder, blobs = tmp_path / "snapshots" / "c0ffee", tmp_path / "blobs"
        folder.mkdir(parents=True)
        blobs.mkdir()
        (tmp_path / "outside").write_bytes(b"not of the hub")
        for name, content in self.CONTENT.items():
            (blobs / name).write_bytes(content)
            (folder / name).symlink_to(blobs / name)
        return folder

    def test_as_the_hub_tells_are_kept(self, snapshot: Path, told: list[RepoSibling]) -> None:
        assert removed_if_altered(snapshot, told) == []
        assert {path.name for path in snapshot.iterdir()} == set(self.CONTENT)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_with_one_bit_changed_are_removed_and_nothing_else(
        self, snapshot: Path, told: list[RepoSibling], name: str
    ) -> None:
        content = bytearray(self.CONTENT[name])
        content[-1] ^= 1
        (snapshot / name).write_bytes(content)  # the size, which the hub's client checks, is the same
        assert removed_if_altered(snapshot, told) == [name]
        assert {path.name for path in snapshot.iterdir()} == set(self.CONTENT) - {name}
        assert {path.name for path in (snapshot.parents[1] / "blobs").iterdir()} == set(self.CONTENT) - {name}
        assert (snapshot.parents[1] / "outside").exists()


class TestTheSource:
    SOURCES = (*(ROOT / "alue_bench").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"))

    @pytest.mark.parametrize(
        "pattern",
        [
            r"trust_remote_code\s*=\s*True",
            r"\bpickle\.loads?\(",
            r"weights_only\s*=\s*False",
            r"\b(tarfile|unpack_archive|extractall|extract)\b",  # what unpacks nothing meets no archive's tricks
            r"shell\s*=\s*True",
            r"verify\s*=\s*False",
            r"\b(eval|exec)\(",
        ],
    )
    def test_holds_none_of(self, pattern: str) -> None:
        leaks = [
            f"{path.relative_to(ROOT)}: {line.strip()}"
            for path in self.SOURCES
            for line in path.read_text(encoding="utf-8").splitlines()
            if re.search(pattern, line) and ".eval()" not in line
        ]
        assert not leaks


def test_the_user_interface_listens_on_this_machine_alone_unless_told_otherwise() -> None:
    import inspect

    from alue_bench.cli.commands.ui import ui

    assert inspect.signature(ui).parameters["host"].default == "127.0.0.1"


@pytest.mark.parametrize(("set_by_the_user", "disabled"), [(None, True), ("false", False)])
def test_mlflow_reports_to_nobody_unless_told_otherwise(
    store: str, monkeypatch: pytest.MonkeyPatch, set_by_the_user: str | None, disabled: bool
) -> None:
    from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "")
    if set_by_the_user is None:
        del os.environ["MLFLOW_DISABLE_TELEMETRY"]
    else:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = set_by_the_user
    connect(store, "first")
    assert MLFLOW_DISABLE_TELEMETRY.get() is disabled
