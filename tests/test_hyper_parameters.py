"""Option beats study file beats model beats task beats ALUE's defaults, and everyone can see which it was."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_runs import spec

from alue_bench import Labels, UsageError
from alue_bench.contract.spec import HyperParameters, resolve_hyper_parameters
from alue_bench.training.architecture.encoder_stack import view_as_stack
from alue_bench.training.optimizer import build_optimiser
from alue_bench.training.pretrained.loading import Checkpoint, load_model

ORDER = ("task anger", "model mini", "study study.toml", "command line")


def test_the_defaults_are_those_of_alue() -> None:
    assert HyperParameters() == HyperParameters(
        epochs=10, batch_size=16, lr=2e-5, warmup=0.0, weight_decay=0.0, adam_eps=1e-8, clip=1.0, max_length=256
    )


@given(st.sets(st.sampled_from(ORDER)))
def test_the_strongest_layer_that_gives_a_value_wins(giving: set[str]) -> None:
    layers = [(origin, {"epochs": 1 + place} if origin in giving else {}) for place, origin in enumerate(ORDER)]
    resolved = resolve_hyper_parameters(layers)
    strongest = max(giving, key=ORDER.index, default=None)
    assert resolved.origins["epochs"] == (strongest or "default")
    assert resolved.values.epochs == (1 + ORDER.index(strongest) if strongest else 10)


def test_each_value_has_an_origin_of_its_own() -> None:
    resolved = resolve_hyper_parameters([("task", {"lr": 1e-3, "epochs": 2}), ("model", {"lr": 5e-4})])
    assert (resolved.values.lr, resolved.origins["lr"]) == (5e-4, "model")
    assert (resolved.values.epochs, resolved.origins["epochs"]) == (2, "task")
    assert resolved.origins["clip"] == "default"


def test_none_means_not_given() -> None:
    assert resolve_hyper_parameters([("task", {"lr": 1e-3}), ("command line", {"lr": None})]).origins["lr"] == "task"


def test_a_whole_number_will_do_for_a_fraction() -> None:
    value = resolve_hyper_parameters([("study", {"clip": 2})]).values.clip
    assert (value, type(value)) == (2.0, float)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs", 0, "epochs is 0; it must be at least 1"),
        ("epochs", 1.5, "epochs is 1.5; it must be of type int"),
        ("epochs", True, "epochs is True; it must be of type int"),
        ("epochs", "3", "epochs is '3'; it must be of type int"),
        ("batch_size", 0, "batch_size is 0; it must be at least 1"),
        ("lr", 0, "lr is 0.0; it must be above 0"),
        ("lr", -1e-5, "lr is -1e-05; it must be above 0"),
        ("lr", float("nan"), "lr is nan; it must be above 0"),
        ("lr", float("inf"), "lr is inf; it must be"),
        ("warmup", 1.0, "warmup is 1.0; it must be at least 0 and below 1"),
        ("weight_decay", -0.1, "weight_decay is -0.1; it must be at least 0"),
        ("clip", -1.0, "clip is -1.0; it must be at least 0"),
        ("max_length", 3, "max_length is 3; it must be at least 4"),
        ("select", "worst", "select is 'worst'; it must be best or last"),
        ("adam_beta2", 1.0, "adam_beta2 is 1.0; it must be at least 0 and below 1"),
        ("learning_rate", 1e-5, "unknown hyper-parameter 'learning_rate'; known are epochs, batch_size, lr"),
    ],
)
def test_a_wrong_value_is_named_with_its_origin(name: str, value: object, said: str) -> None:
    with pytest.raises(UsageError, match=f"^study my.toml: {re.escape(said)}"):
        resolve_hyper_parameters([("task", {"epochs": 3}), ("study my.toml", {name: value})])


class TestADefaultThatIsImplied:
    """A hyper-parameter that was added after runs had been recorded, all of them trained with what is its default."""

    BEFORE = ("04fbb5627e7d569c6bc5c0a794dabb9e", "494eeb7a569674ceef2791254e8ef5e8")
    """Fingerprints of the two runs below, taken before there was `adam_beta2`."""

    def test_it_changes_no_fingerprint(self) -> None:
        runs = spec("anger", "full"), spec("anger", "bottom3top4", seed=7, hyper={"lr": 1e-3})
        assert tuple(run.fingerprint for run in runs) == self.BEFORE

    def test_another_value_does(self) -> None:
        run = spec("anger", "full", hyper={"adam_beta2": 0.98})
        assert run.fingerprint not in self.BEFORE
        assert run.hyper.identity() == {**HyperParameters().identity(), "adam_beta2": 0.98}

    def test_it_reaches_the_optimiser(self, tiny_bert: Path) -> None:
        checkpoint = Checkpoint(tiny_bert, "", pickled=False)
        stack = view_as_stack(load_model(checkpoint, Labels.binary("no", "yes"), init_seed=0))
        for hyper, betas in ((HyperParameters(), (0.9, 0.999)), (HyperParameters(adam_beta2=0.98), (0.9, 0.98))):
            assert {group["betas"] for group in build_optimiser(stack, hyper).param_groups} == {betas}

    def test_it_is_an_option_of_commands_and_studies(self, run: Any, tmp_path: Path) -> None:
        study = tmp_path / "study.toml"
        study.write_text("adam_beta2 = 0.95\n")
        for options, value in ((("--config", study), 0.95), (("--config", study, "--adam-beta2", "0.9"), 0.9)):
            shown = run(*options, "-s", "full", "--dry-run", "--json")
            assert [planned["hyper"]["adam_beta2"] for planned in json.loads(shown.out)["planned"]] == [value]


class TestInAPlan:
    def test_all_five_layers_meet(self, run: Any, tmp_path: Path) -> None:
        study = tmp_path / "study.toml"
        study.write_text("weight_decay = 0.01\nlr = 1e-3\n")
        shown = run("--config", study, "--lr", "0.002", "--dry-run", model="mini")
        assert shown.code == 0
        settings = " ".join(shown.err.split())
        assert "lr=0.002 [command line]" in settings
        assert f"weight_decay=0.01 [study {study}]" in settings
        assert "warmup=0.1 [model mini]" in settings
        assert "clip=1.0," in settings

    def test_a_length_beyond_the_model_is_cut_to_its_limit_unless_someone_asked_for_it(
        self, alue_bench: Any, tiny_bert: Path
    ) -> None:
        shown = alue_bench("run", "-t", "anger", "-m", tiny_bert, "--dry-run")
        assert "max_length=66 [the model's limit of 66 tokens]" in " ".join(shown.err.split())
        refused = alue_bench("run", "-t", "anger", "-m", tiny_bert, "--dry-run", "--max-length", "67")
        assert refused.code == 2
        assert "command line: max_length is 67, but model 'tiny-bert' takes at most 66 tokens" in refused.err
