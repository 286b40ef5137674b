"""A checkpoint is what its folder says, whole: weights, tokenizer and head, and nothing that lies beside them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import CommandLine
from gallery import save_decoder
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, save_tokenizer, tiny_config, vocabulary

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.model import Model
from alue_bench.contract.task import Labels
from alue_bench.executors.replan import rebuild_run, source_of
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import Plan, PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.fine_tuning import train
from alue_bench.running.run import execute
from alue_bench.training.pretrained.files import wanted_names
from alue_bench.training.pretrained.loading import Checkpoint, load_model, load_tokenizer, locate_checkpoint
from alue_bench.training.pretrained.model_cache import ModelCache

LABELS = Labels.multiclass("a", "b", "c")
HYPER = {"epochs": 1, "max_length": 24, "lr": 1e-3, "batch_size": 8}
SMALL: dict[str, Any] = {"sample": True, "limit_train": 16, "limit_eval": 8, "device": "cpu", "precision": "fp32"}


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def located(folder: Path) -> Checkpoint:
    return locate_checkpoint(Model(name="t", title="t", checkpoint=folder))


def planned(registry: Any, *folders: Path, strategies: tuple[str, ...] = ("full",), **options: Any) -> Plan:
    names = tuple(str(folder) for folder in folders)
    request = PlanRequest(
        tasks=("anger",), models=names, strategies=strategies, overrides=(("test", HYPER),), **{**SMALL, **options}
    )
    return build_plan(request, registry)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def equal(one: Any, other: Any) -> bool:
    mine, theirs = weights_of(one), weights_of(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def save_with_head(architecture: str, pretrained: Path, folder: Path, *labels: str) -> Path:
    """The pre-trained encoder after a fine-tuning elsewhere: with a head, whose weights no seed of ours draws."""
    names = labels or LABELS.names
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        pretrained, num_labels=len(names), id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    )
    encoder = set(transformers.AutoModelForMaskedLM.from_pretrained(pretrained).state_dict())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in encoder:
                parameter.fill_(0.25)
    model.save_pretrained(folder)
    save_tokenizer(folder, architecture)
    return folder


class TestHead:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_a_fresh_one_is_drawn_as_for_a_checkpoint_without_one(
        self, architecture: str, tiny: Callable[[str], Path], tmp_path: Path
    ) -> None:
        pretrained = tiny(architecture)
        if architecture == "bert":  # whose pooler pre-training gives too, but for masked words alone
            model = transformers.BertForPreTraining.from_pretrained(pretrained)
            model.save_pretrained(tmp_path / "pretrained")
            save_tokenizer(tmp_path / "pretrained", architecture)
            pretrained = tmp_path / "pretrained"
        tuned = save_with_head(architecture, pretrained, tmp_path / "tuned")
        if architecture == "bert":
            state = load_file(tuned / "model.safetensors")
            state |= {name: t for name, t in load_file(pretrained / "model.safetensors").items() if "pooler" in name}
            save_file(state, tuned / "model.safetensors", metadata={"format": "pt"})
        without, fresh = located(pretrained), located(tuned)
        models = ModelCache()
        for _ in range(3):
            models.expect(fresh, LABELS)
        for seed in (1, 2, 1):
            wanted = load_model(without, LABELS, init_seed=seed)
            assert equal(load_model(fresh, LABELS, init_seed=seed), wanted)
            assert equal(models.model(fresh, LABELS, init_seed=seed), wanted)
        kept = weights_of(load_model(Checkpoint(tuned, "", pickled=False, keep_head=True), LABELS, init_seed=1))
        stored = load_file(tuned / "model.safetensors")
        assert all(torch.equal(kept[name], stored[name]) for name in kept)

    def test_is_kept_where_that_is_asked_for_and_its_labels_are_the_tasks(
        self, registry: Any, tiny_bert: Path, tmp_path: Path
    ) -> None:
        tuned = save_with_head("bert", tiny_bert, tmp_path / "tuned", "no_anger", "anger")
        plain, keeping = planned(registry, tuned), planned(registry, tuned, keep_head=True)
        (note,) = plain.notes
        assert note.startswith("tuned: the checkpoint has a fine-tuned head (classifier.bias, classifier.weight)")
        assert note.endswith("--keep-head keeps it")
        assert not keeping.notes
        fresh, kept = plain.runs[0].spec, keeping.runs[0].spec
        assert fresh.fingerprint != kept.fingerprint
        content = fresh.as_dict()
        assert content["keep_head"] is False
        scores = {}
        for seed in (1, 2):
            (run,) = planned(registry, tuned, strategies=("head-only",), keep_head=True, init_seed=seed).runs
            trained = train(run.spec, run.inputs)
            scores[seed] = weights_of(trained.stack.model)["classifier.weight"]
            assert not any("head" in note for note in trained.notes)
        assert torch.equal(scores[1], scores[2])
        (run,) = keeping.runs
        again = rebuild_run(run.spec, source_of(run, registry), registry, PlanCache())
        assert again.inputs.checkpoint.keep_head

    @pytest.mark.parametrize(
        ("labels", "said"),
        [
            (("anger", "no_anger"), "trained for 2 outputs (anger, no_anger), but the task has 2 (no_anger, anger)"),
            (("no_anger", "anger", "joy"), "trained for 3 outputs (no_anger, anger, joy), but the task has 2"),
            (
                (),
                "model 'tuned' has no head of a BertForSequenceClassification to keep (the checkpoint lacks classifier",
            ),
        ],
    )
    def test_is_not_kept_where_it_does_not_fit(
        self, registry: Any, tiny_bert: Path, tmp_path: Path, labels: tuple[str, ...], said: str
    ) -> None:
        folder = tmp_path / "tuned"
        _ = save_with_head("bert", tiny_bert, folder, *labels) if labels else copy_of(tiny_bert, folder)
        with pytest.raises(UsageError) as caught:
            planned(registry, folder, keep_head=True)
        assert str(caught.value).startswith("--keep-head: ")
        assert said in str(caught.value)
        assert str(caught.value).endswith("leave out --keep-head, and a fresh head is drawn")


class TestWeights:
    @pytest.mark.parametrize("peft_is_here", [True, False])
    def test_an_adapter_beside_them_is_not_used_whatever_is_installed(
        self, registry: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peft_is_here: bool
    ) -> None:
        import peft

        alone = copy_of(tiny_bert, tmp_path / "model")
        before = located(alone)
        plain = load_model(before, LABELS, init_seed=1)
        base = transformers.AutoModelForSequenceClassification.from_pretrained(alone)
        peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])).save_pretrained(alone)
        from transformers.integrations import peft as integration
        from transformers.models.auto import auto_factory

        for module in (integration, auto_factory):
            monkeypatch.setattr(module, "is_peft_available", lambda: peft_is_here)
        beside = located(alone)
        assert beside.digest == before.digest
        assert equal(load_model(beside, LABELS, init_seed=1), plain)
        (note,) = planned(registry, alone).notes
        assert "the adapter beside the weights (adapter_config.json, adapter_model.safetensors) is not used" in note

    @pytest.mark.parametrize("with_config", [True, False])
    def test_an_adapter_alone_is_none(self, tiny_bert: Path, tmp_path: Path, with_config: bool) -> None:
        folder = copy_of(tiny_bert, tmp_path / "adapter")
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
        if not with_config:
            (folder / "config.json").unlink()
        with pytest.raises(UnavailableError, match=r"holds an adapter alone .*'owner/base'.* merge_and_unload\(\)"):
            located(folder)

    def test_are_those_that_the_index_names(self, tiny_bert: Path, tmp_path: Path) -> None:
        whole, folder = located(tiny_bert), copy_of(tiny_bert, tmp_path / "shards")
        (folder / "model.safetensors").unlink()
        transformers.BertForMaskedLM.from_pretrained(tiny_bert).save_pretrained(folder, max_shard_size="60KB")
        sharded = located(folder)
        assert equal(load_model(sharded, LABELS, init_seed=1), load_model(whole, LABELS, init_seed=1))
        shards = sorted(folder.glob("model-*.safetensors"))
        assert len(shards) > 1
        for stranger in ("consolidated.00.safetensors", "model.fp16.safetensors", "optimizer.pt", "training_args.bin"):
            (folder / stranger).write_bytes(b"of something else")
        assert located(folder) == sharded
        shards[1].rename(folder / "elsewhere.safetensors")
        with pytest.raises(
            UnavailableError, match=rf"lacks {shards[1].name} \(1 of the {len(shards)} files of weights"
        ):
            located(folder)

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("model.safetensors", lambda whole: whole[:-8], "bytes instead of the"),
            ("model.safetensors", lambda whole: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            ("model.safetensors", lambda whole: b"<html>no such file</html>", "is no safetensors file, or damaged"),
            ("model.safetensors.index.json", lambda whole: b'{"weight_map": {"a": "../b"}}', "index of weights"),
            ("tf_model.h5", lambda whole: whole, "has no weights that alue-bench reads"),
        ],
    )
    def test_that_cannot_be_read_are_told_of_in_the_plan(
        self, tiny_bert: Path, tmp_path: Path, name: str, content: Callable[[bytes], bytes], said: str
    ) -> None:
        folder = copy_of(tiny_bert, tmp_path / "model")
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(content(whole))
        with pytest.raises(UnavailableError, match=said) as caught:
            located(folder)
        assert name in str(caught.value)

    @pytest.mark.parametrize("value", [float("nan"), float("-inf")])
    def test_that_are_not_finite_are_named_before_training(self, tiny_bert: Path, tmp_path: Path, value: float) -> None:
        folder = copy_of(tiny_bert, tmp_path / "model")
        state = load_file(folder / "model.safetensors")
        wrong = "bert.encoder.layer.1.output.dense.weight"
        state[wrong][3, 4] = value
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UnavailableError) as caught:
            load_model(located(folder), LABELS, init_seed=1)
        assert f"{folder / 'model.safetensors'}: 1 of the 2048 values of {wrong} are not finite" in str(caught.value)

    def test_of_a_quantised_checkpoint_are_refused(self, registry: Any, tiny_bert: Path, tmp_path: Path) -> None:
        folder = copy_of(tiny_bert, tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(UnavailableError, match="the weights are quantised"):
            planned(registry, folder)


class TestDigest:
    @pytest.mark.parametrize(
        "name",
        ["bpe.codes", "merges.bpe", "vocab", "my.vocab", "source.spm", "x.tiktoken", "prophetnet.tokenizer", "كلمات"],
    )
    def test_changes_with_any_file_that_a_tokenizer_may_read(self, tiny_bert: Path, tmp_path: Path, name: str) -> None:
        folder = copy_of(tiny_bert, tmp_path / "model")
        digests = [located(folder).digest]
        for content in ("un", "deux"):
            (folder / name).write_text(content)
            digests.append(located(folder).digest)
        assert len(set(digests)) == 3
        assert name in wanted_names(["config.json", name])

    @pytest.mark.parametrize(
        "name",
        [
            *("README.md", "optimizer.pt", "training_args.bin", "rng_state_0.pth", "adapter_config.json"),
            *("onnx/model.onnx", "checkpoint-500/config.json", ".gitattributes", "events.out.tfevents.1"),
            *("tf_model.h5", "modeling_own.py"),
        ],
    )
    def test_does_not_with_what_nothing_reads(self, tiny_bert: Path, tmp_path: Path, name: str) -> None:
        folder = copy_of(tiny_bert, tmp_path / "model")
        before = located(folder).digest
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("anything")
        assert located(folder).digest == before
        assert name not in wanted_names(["config.json", name])

    def test_of_a_folder_with_nothing_else_is_that_of_descriptions_and_weights(self, tiny_bert: Path) -> None:
        digest = hashlib.sha256()
        for path in [*sorted(p for p in tiny_bert.iterdir() if p.suffix == ".json"), tiny_bert / "model.safetensors"]:
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
        assert located(tiny_bert).digest == digest.hexdigest()[:32]

    def test_weights_of_one_format_are_downloaded(self) -> None:
        both = [
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "adapter_model.safetensors",
            "onnx/config.json",
        ]
        assert sorted(wanted_names(both)) == ["config.json", "model.safetensors"]
        shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        assert set(shards) < set(wanted_names([*shards, "model.safetensors.index.json", "consolidated.safetensors"]))
        assert "consolidated.safetensors" not in wanted_names(["consolidated.safetensors", *shards])
        assert wanted_names(["pytorch_model.bin", "pytorch_model.bin.index.json"])[0] == "pytorch_model.bin"


class TestCache:
    def test_a_snapshot_counts_where_all_its_weights_are_there(self, tiny_bert: Path) -> None:
        from huggingface_hub import constants

        repository, commit = Path(constants.HF_HUB_CACHE) / "models--owner--tiny", "c0ffee" * 6 + "c0ff"
        snapshot = repository / "snapshots" / commit
        for folder in (snapshot, repository / "blobs", repository / "refs"):
            folder.mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        for path in tiny_bert.iterdir():
            shutil.copy(path, repository / "blobs" / path.name)
            (snapshot / path.name).symlink_to(repository / "blobs" / path.name)
        model = Model(name="t", title="t", checkpoint="owner/tiny", revision="main")
        assert locate_checkpoint(model) == Checkpoint(snapshot, commit, pickled=False)  # without asking the hub
        (snapshot / "model.safetensors").rename(snapshot / "adapter_model.safetensors")
        with pytest.raises(UnavailableError, match="is not in the hub cache"):
            locate_checkpoint(model, download=False)
        shutil.rmtree(repository)


SPECIAL_ONLY = {piece: place for piece, place in vocabulary("bert").items() if piece.startswith("[") and len(piece) > 1}


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def with_special_words(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] = SPECIAL_ONLY
    (folder / "tokenizer.json").write_text(json.dumps(content))


def with_files(**files: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        without_tokenizer(folder)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(content)

    return write


class TestTokenizer:
    @pytest.mark.parametrize(
        ("architecture", "damage", "said"),
        [
            ("bert", without_tokenizer, "has no tokenizer (tokenizer.json or vocab.txt), so that every word would be"),
            ("roberta", without_tokenizer, "has no tokenizer (merges.txt or tokenizer.json or vocab.json)"),
            ("deberta-v2", without_tokenizer, "has no tokenizer (spm.model or tokenizer.json)"),
            ("bert", with_special_words, "the tokenizer's vocabulary consists of special tokens only"),
            ("bert", with_files(vocab__txt="\n".join(SPECIAL_ONLY)), "vocabulary consists of special tokens only"),
            (
                "roberta",
                with_files(vocab__txt="[UNK]\nword"),
                "has no tokenizer (merges.txt or tokenizer.json or vocab",
            ),
            (
                "roberta",
                with_files(vocab__json='{"<s>": 0, "h": 1}'),
                "tokenizer.json is missing, and so is merges.txt; save",
            ),
            ("bert", with_files(tokenizer__json="{"), "cannot be loaded: tokenizer.json is not valid JSON (Expecting"),
            ("bert", with_files(vocab__txt="version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
            ("bert", with_files(vocab__txt="[PAD]\na\nb"), "cannot read a text: WordPiece error: Missing [UNK] token"),
            (
                "roberta",
                with_files(vocab__txt="a 1", tokenizer_config__json='{"tokenizer_class": "PhobertTokenizer"}'),
                "cannot be loaded: bpe.codes is missing",
            ),
        ],
    )
    def test_that_is_missing_or_knows_no_word_is_refused_in_the_plan(
        self, registry: Any, tiny: Callable[[str], Path], tmp_path: Path, architecture: str,
        damage: Callable[[Path], None], said: str,
    ) -> None:  # fmt: skip
        folder = copy_of(tiny(architecture), tmp_path / "model")
        damage(folder)
        with pytest.raises(UnavailableError) as caught:
            planned(registry, folder)
        assert said in str(caught.value)
        assert str(folder) in str(caught.value)

    @pytest.mark.parametrize("kind", ["CanineTokenizer", "ByT5Tokenizer", "PerceiverTokenizer"])
    def test_of_bytes_or_characters_needs_no_file(self, tiny_bert: Path, tmp_path: Path, kind: str) -> None:
        folder = copy_of(tiny_bert, tmp_path / "model")
        without_tokenizer(folder)
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
        assert len(load_tokenizer(located(folder))("نص")["input_ids"]) > 2

    @pytest.mark.parametrize("hidden", ["sentencepiece", "google.protobuf"])
    def test_of_sentencepiece_names_the_package_that_reads_it(
        self, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
    ) -> None:
        folder = copy_of(tiny("deberta-v2"), tmp_path / "model")
        without_tokenizer(folder)
        (folder / "spm.model").write_bytes(b"a vocabulary that nothing here can read")
        find = importlib.util.find_spec

        def without(name: str, *arguments: Any) -> Any:
            return None if name == hidden else find(name, *arguments)

        monkeypatch.setattr(importlib.util, "find_spec", without)
        with pytest.raises(UnavailableError) as caught:
            load_tokenizer(located(folder))
        package = hidden.rpartition(".")[2]
        assert f"which needs the package {package}; install with: pip install {package}" in str(caught.value)
        assert "tiktoken" not in str(caught.value)


class TestPadding:
    @pytest.mark.parametrize(
        ("options", "pad_id", "note"),
        [
            ({"pad": "[PAD]", "eos": None}, 0, None),
            ({"pad": None, "eos": "[SEP]"}, 3, "the tokenizer has no padding token; batches are padded with '[SEP]'"),
            ({"pad": None, "eos": "[SEP]", "pad_token_id": 4}, 4, "padded with '[MASK]' (id 4), which is masked"),
            ({"pad": "[PAD]", "eos": None, "pad_token_id": 1}, 1, "pads with id 0, config.json says 1; batches are"),
            ({"pad": "[PAD]", "eos": None, "pad_token_id": 9999}, 0, "pads with id 0, config.json says 9999"),
        ],
    )
    def test_is_one_that_model_and_tokenizer_know(
        self, registry: Any, tmp_path: Path, options: dict[str, Any], pad_id: int, note: str | None
    ) -> None:
        folder = save_decoder("gpt2", tmp_path / "model", **options)
        plan = planned(registry, folder)
        (run,) = plan.runs
        tokenizer = run.inputs.models.tokenizer(run.inputs.checkpoint)
        model = run.inputs.models.model(run.inputs.checkpoint, run.inputs.task.labels, init_seed=1)
        assert tokenizer.pad_token_id == model.config.pad_token_id == pad_id
        assert model(**{"input_ids": torch.tensor([[5, 6, 7], [5, pad_id, pad_id]])}).logits.shape == (2, 2)
        assert [note in told for told in plan.notes] == ([True] if note else [])

    def test_without_any_the_plan_says_what_to_do(self, registry: Any, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match="the tokenizer has no padding token; name one of its tokens"):
            planned(registry, save_decoder("gpt2", tmp_path / "a", eos=None))

    def test_positions_go_on_counting_by_the_id_that_the_weights_were_trained_with(
        self, registry: Any, tmp_path: Path
    ) -> None:
        config = tiny_config("roberta", pad_token_id=0)
        folder = tmp_path / "model"
        transformers.RobertaForMaskedLM(config).save_pretrained(folder)
        save_tokenizer(folder, "roberta")  # its padding token is number 1
        (run,) = planned(registry, folder).runs
        model = run.inputs.models.model(run.inputs.checkpoint, run.inputs.task.labels, init_seed=1)
        assert run.inputs.models.tokenizer(run.inputs.checkpoint).pad_token_id == 0 == model.config.pad_token_id


class TestNames:
    @pytest.mark.parametrize(
        ("folder", "name"),
        [
            ("My Model_v1.2", "my-model_v1.2"),
            ("نموذج عربي", "نموذج-عربي"),
            ("हिन्दी", "हिन्दी"),
            ("模型-大", "模型-大"),
            ("mode\u0300le", "modèle"),  # written in two ways, one name
            ("mod\u00e8le", "modèle"),
            ("--x--", "x"),
        ],
    )
    def test_are_readable_in_any_script(
        self, registry: Any, tiny_bert: Path, tmp_path: Path, folder: str, name: str
    ) -> None:
        (run,) = planned(registry, copy_of(tiny_bert, tmp_path / folder)).runs
        assert run.spec.model == name

    def test_do_not_depend_on_the_order(self, registry: Any, tiny_bert: Path, tmp_path: Path) -> None:
        folders = []
        for place, parent in enumerate(("a", "b", "c")):
            folders.append(copy_of(tiny_bert, tmp_path / parent / ("Model" if place else "model")))
            (folders[-1] / "vocab.extra").write_text(parent)
        other = copy_of(tiny_bert, tmp_path / "other")

        def names(*given: Path) -> dict[Path, str]:
            return {Path(str(run.inputs.model.checkpoint)): run.spec.model for run in planned(registry, *given).runs}

        forwards, backwards = names(*folders, other), names(other, *reversed(folders))
        assert forwards == backwards
        assert len(set(forwards.values())) == 4
        assert forwards[other] == "other"
        assert all(forwards[f] == f"model-{located(f).digest[:6]}" for f in folders)
        assert names(folders[0]) == {folders[0]: "model"}

    def test_of_declared_models_are_theirs_alone(self, registry: Any, tiny_bert: Path, tmp_path: Path) -> None:
        folder = copy_of(tiny_bert, tmp_path / "mini")
        for order in (("mini", str(folder)), (str(folder), "mini")):
            runs = planned(registry, *map(Path, order)).runs
            specs = {str(run.inputs.model.checkpoint): run.spec for run in runs}
            assert specs.pop(str(folder)).model == f"mini-{located(folder).digest[:6]}"
            assert [spec.model for spec in specs.values()] == ["mini"]

    def test_that_are_long_or_have_no_letter_stay_apart(self, registry: Any, tiny_bert: Path, tmp_path: Path) -> None:
        given = ["ا" * 126 + "x", "ا" * 126 + "y", "m" * 255, "🤖", "🐫", "!!"]
        folders = [copy_of(tiny_bert, tmp_path / name) for name in given]
        for place, folder in enumerate(folders):
            (folder / "vocab.extra").write_text(str(place))
        names = [run.spec.model for run in planned(registry, *folders).runs]
        assert len(set(names)) == len(given)
        assert all(len(name.encode()) <= 100 for name in names)
        assert names[0].startswith("ااااا")
        assert names[3].startswith("model-")


class TestTexts:
    def run_of(self, registry: Any, folder: Path, normalise: Callable[[str], str]) -> PlannedRun:
        from dataclasses import replace

        (run,) = planned(registry, folder).runs
        model = replace(run.inputs.model, normalise=normalise, name="changed")
        return replace(run, inputs=replace(run.inputs, model=model))

    @pytest.mark.usefixtures("folders_of_its_own")
    def test_that_the_tokenizer_does_not_know_are_told_of(self, registry: Any, tiny_bert: Path, tmp_path: Path) -> None:
        folder = copy_of(tiny_bert, tmp_path / "latin")
        content = json.loads((folder / "tokenizer.json").read_text())
        known = {p: i for p, i in content["model"]["vocab"].items() if p.isascii()}
        content["model"]["vocab"] = known
        (folder / "tokenizer.json").write_text(json.dumps(content))
        plan = planned(registry, folder)
        assert any(
            "of the tokens of the first 16 train texts are unknown to the tokenizer" in note for note in plan.notes
        )
        (run,) = plan.runs
        result, _ = execute(run.spec, run.inputs)
        for split in ("train", "dev", "test"):
            assert any(f"% of the tokens of the {split} texts are unknown" in note for note in result.notes)

    @pytest.mark.usefixtures("folders_of_its_own")
    def test_of_which_nothing_is_left_are_counted(self, registry: Any, tmp_path: Path) -> None:
        # GPT-2 puts nothing around a text: an empty one would have no token at all.
        folder = save_decoder("gpt2", tmp_path / "model", pad="[PAD]")
        content = json.loads((folder / "tokenizer.json").read_text())
        content["post_processor"] = None
        (folder / "tokenizer.json").write_text(json.dumps(content))
        texts = iter(range(1000))
        run = self.run_of(registry, folder, lambda text: "" if next(texts) % 4 == 0 else text)
        result, _ = execute(run.spec, run.inputs)
        assert "4 of 16 train texts had nothing left after normalisation and tokenization" in result.notes
        assert sum("texts had nothing left" in note for note in result.notes) == 3

    @pytest.mark.usefixtures("folders_of_its_own")
    def test_that_are_all_known_are_not_spoken_of(self, registry: Any, tiny_bert: Path) -> None:
        (run,) = planned(registry, tiny_bert).runs
        result, _ = execute(run.spec, run.inputs)
        assert not any("unknown" in note or "nothing left" in note for note in result.notes)


def test_what_is_said_of_a_checkpoint_stands_in_the_plan_and_with_the_run(
    run: CommandLine, runs: Callable[..., list[Any]], tiny_bert: Path, tmp_path: Path
) -> None:
    folder = save_with_head("bert", tiny_bert, tmp_path / "نموذج", "x", "y")
    said = run("-s", "head-only", model=folder)
    assert said.code == 0
    assert "note: نموذج: the checkpoint has a fine-tuned head" in " ".join(said.err.split())
    (recorded,) = runs()
    assert recorded.data.params["model"] == "نموذج"
    notes = Path(recorded.info.artifact_uri.removeprefix("file://")) / "notes.txt"
    assert "which is not used: a fresh one is drawn" in notes.read_text(encoding="utf-8")
    refused = run("-s", "head-only", "--keep-head", model=folder)
    assert refused.code == 2
    assert "--keep-head: the head of model 'نموذج' was trained for 2 outputs (x, y)" in " ".join(refused.err.split())
