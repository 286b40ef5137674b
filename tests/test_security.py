"""What docs/security.md promises: no secret is stored or shown, no code of strangers runs, nothing listens outside."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from hypothesis import given
from hypothesis import strategies as st

from alue_bench.redaction import REMOVED, has_credentials, redact

ROOT = Path(__file__).parents[1]
SECRETS = {
    "HF_TOKEN": "hf_planted0secret1of2a3test4",
    "MLFLOW_TRACKING_PASSWORD": "planted-password-of-a-test",
    "MLFLOW_TRACKING_TOKEN": "planted-token-of-a-test",
    "SOME_SERVICE_API_KEY": "planted-key-of-a-test",
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
        planted = [*SECRETS.values(), "planted-in-an-address", "planted-in-a-query", "a1a1a1a1"]
        files = [path for path in tmp_path.rglob("*") if path.is_file() and "site-packages" not in path.parts]
        assert len(files) > 5
        for secret in planted:
            assert secret not in said.everything
            assert not [path for path in files if secret.encode() in path.read_bytes()]

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
        assert has_credentials(text) == (text != public)

    @given(
        password=st.text(st.characters(exclude_characters="/?#\"'<>", exclude_categories=["Z", "C"]), min_size=4),
        user=st.text("abc", max_size=3),
        scheme=st.sampled_from(["postgresql+psycopg2", "http", "mysql"]),
    )
    def test_whatever_the_password(self, password: str, user: str, scheme: str) -> None:
        said = redact(f"cannot reach {scheme}://{user}:{password}@db.example:5432/x (refused)")
        assert said == f"cannot reach {scheme}://{REMOVED}@db.example:5432/x (refused)"

    def test_values_of_secret_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_ACCESS_KEY", "value-of-a-key")
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # no secret, though it begins like one
        monkeypatch.setenv("X_TOKEN", "abc")  # too short to be told from a word
        assert redact("value-of-a-key true abc") == "*** true abc"


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
        found = [
            f"{path.relative_to(ROOT)}: {line.strip()}"
            for path in self.SOURCES
            for line in path.read_text(encoding="utf-8").splitlines()
            if re.search(pattern, line) and ".eval()" not in line
        ]
        assert not found


def test_the_user_interface_listens_on_this_machine_alone_unless_told_otherwise() -> None:
    import inspect

    from alue_bench.cli.ui import ui

    assert inspect.signature(ui).parameters["host"].default == "127.0.0.1"
