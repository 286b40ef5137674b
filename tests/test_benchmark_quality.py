"""The benchmark of the bundled model: what it compares with, how it counts, and that it resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished

from alue_bench.contract.errors import UsageError
from alue_bench.evaluation.intervals import Estimate
from alue_bench.evaluation.yardstick import Yardstick
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from benchmarks.command_line import shown_command
from benchmarks.quality.command import FOLDERS, main
from benchmarks.quality.models import chosen_models, with_models
from benchmarks.quality.random_copy import random_copy
from benchmarks.quality.report import all_sheets, closing_lines, document
from benchmarks.quality.results import Measured, Results, TaskFacts, by_cell, paired_difference, relative_change, sign
from benchmarks.tables import as_markdown

FOLDER = os.environ.get("ALUE_BENCH_DATA", "")  # before the fixtures take it out of the environment
WANTED = "semeval2018/2018-E-c-Ar-train.txt"


pytestmark = pytest.mark.usefixtures("folders_of_its_own")


@pytest.fixture
def benchmark(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """`python -m benchmarks.quality ARGUMENTS`, in this process."""

    def call(*arguments: object) -> Finished:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Finished(code, *capsys.readouterr())

    return call


class TestRandomCopy:
    def test_has_the_same_shapes_and_other_weights(self, registry: Any, tiny_bert: Path) -> None:
        from safetensors.torch import load_file

        (model,) = chosen_models([f"tiny={tiny_bert}"], registry)
        original, copy = (load_file(path / "model.safetensors") for path in (tiny_bert, random_copy(model).checkpoint))
        assert {name: value.shape for name, value in copy.items()} == {n: v.shape for n, v in original.items()}
        matrices = [name for name, value in original.items() if value.dim() == 2]
        assert matrices
        assert not any(copy[name].equal(original[name]) for name in matrices)

    def test_has_the_same_configuration_tokenizer_and_hyper_parameters(self, registry: Any, tiny_bert: Path) -> None:
        (model,) = chosen_models([f"tiny={tiny_bert}"], registry)
        copy = random_copy(model)
        for path in tiny_bert.glob("*.json"):
            assert (Path(copy.checkpoint) / path.name).read_bytes() == path.read_bytes()
        assert copy.defaults == model.defaults == registry.model("mini").defaults
        assert copy.normalise is model.normalise

    def test_is_the_same_wherever_it_is_made(
        self, registry: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import torch

        digests = set()
        for place in ("here", "there"):
            monkeypatch.setenv("ALUE_BENCH_CACHE", str(tmp_path / place))
            torch.rand(3)  # what was drawn before does not matter
            models = chosen_models([f"tiny={tiny_bert}"], registry)
            models.append(random_copy(models[0]))
            plan = build_plan(
                PlanRequest(tasks=("anger",), models=tuple(m.name for m in models), sample=True, strategies=("full",)),
                with_models(registry, models),
            )
            digests.add(tuple(run.spec.fingerprint for run in plan.runs))
        assert len(digests) == 1

    def test_leaves_the_random_state_as_it_was(self, registry: Any, tiny_bert: Path) -> None:
        import torch

        torch.manual_seed(1)
        wanted = torch.rand(1)
        torch.manual_seed(1)
        random_copy(chosen_models([f"tiny={tiny_bert}"], registry)[0])
        assert torch.rand(1) == wanted

    def test_is_whole_for_the_bundled_model(self, registry: Any) -> None:
        from safetensors import safe_open

        model = registry.model("mini")
        weights = []
        for folder in (model.checkpoint, random_copy(model).checkpoint):
            with safe_open(Path(folder) / "model.safetensors", "pt") as file:
                names = [name for name in file.keys() if name.startswith("bert.")]  # noqa: SIM118 - not a mapping
                weights.append({name: file.get_slice(name).get_shape() for name in names})
        assert weights[0] == weights[1]

    def test_keeps_a_pooler_that_was_pre_trained(self, tiny_bert: Path, registry: Any, tmp_path: Path) -> None:
        from safetensors import safe_open
        from transformers import AutoConfig, BertForPreTraining

        BertForPreTraining(AutoConfig.from_pretrained(tiny_bert)).save_pretrained(tmp_path / "with-pooler")
        (model,) = chosen_models([str(tmp_path / "with-pooler")], registry)
        with safe_open(Path(random_copy(model).checkpoint) / "model.safetensors", "pt") as file:
            assert "bert.pooler.dense.weight" in file.keys()  # noqa: SIM118 - not a mapping


class TestModels:
    def test_a_folder_takes_the_hyper_parameters_of_the_first_model(self, registry: Any, tiny_bert: Path) -> None:
        first, second, third = chosen_models(["marbert", f"old={tiny_bert}", "mini"], registry)
        assert [first.name, second.name, third.name] == ["marbert", "old", "mini"]
        assert second.defaults == first.defaults != third.defaults

    def test_the_same_name_twice(self, registry: Any, tiny_bert: Path) -> None:
        with pytest.raises(UsageError, match="'mini' is given twice"):
            chosen_models(["mini", f"mini={tiny_bert}"], registry)

    def test_one_model_under_two_names(self, registry: Any) -> None:
        models = chosen_models(["mini", "again=mini"], registry)
        known = with_models(registry, models)
        assert known.models["mini"] is registry.models["mini"]  # its fingerprints are those of `alue-bench run`
        assert known.model("again").checkpoint == registry.model("mini").checkpoint


class TestStatistics:
    @pytest.mark.parametrize(
        ("low", "high", "expected"), [(0.5, 0.7, 1), (-0.7, -0.5, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0)]
    )
    def test_a_sign_is_that_of_an_interval_without_zero(self, low: float, high: float, expected: int) -> None:
        assert sign(Estimate((low + high) / 2, (high - low) / 2, 3)) == expected
        assert sign(Estimate(0.25, None, 1)) == sign(None) == 0

    def test_differences_are_taken_seed_by_seed(self) -> None:
        # The two vary by seed, their difference does not: 0.1 and 0.3 above, mean 0.2, t(0.975; 1) = 12.706205.
        estimated = paired_difference({42: 0.5, 43: 0.9, 44: 0.7}, {43: 0.6, 42: 0.4})
        assert estimated is not None
        assert estimated.mean == pytest.approx(0.2)
        assert estimated.half_width == pytest.approx(12.706205 * 0.1, rel=1e-6)
        assert paired_difference({42: 0.5}, {43: 0.5}) is None

    def test_the_change_of_time(self) -> None:
        assert relative_change({1: 30.0, 2: 50.0}, {1: 50.0, 2: 50.0}) == pytest.approx(-0.2)
        assert relative_change({}, {1: 1.0}) is None


def results(*scores: tuple[float, float]) -> Results:
    """One task, one strategy; each pair is a seed's score of the model and of the random copy."""
    seeds = range(42, 42 + len(scores))
    facts = TaskFacts("anger", "f1_macro", 2000, 700, "real", 0.3, Yardstick(0.6, 0.6, 1.0, 0.1))
    both = {
        ("anger", name, "full"): Measured(
            {seed: pair[place] for seed, pair in zip(seeds, scores, strict=True)}, dict.fromkeys(seeds, 2.0)
        )
        for place, name in enumerate(("mini", "mini-random"))
    }
    return Results((facts,), ("mini",), "mini-random", ("full",), tuple(seeds), both)


class TestTables:
    def test_with_three_seeds(self) -> None:
        compared = results((0.7, 0.5), (0.8, 0.6), (0.9, 0.7))
        (sheet,) = all_sheets(compared)
        row = dict(zip(sheet.columns, sheet.rows[0], strict=True))
        assert row["rows"] == "2000/700"
        assert row["mini"] == "0.800 ± 0.248"
        assert (row["mini - random"], row["95 % interval"]) == ("+0.200", "[+0.200, +0.200]")
        assert "excludes zero on 1 of 1 tasks (1 above, 0 below)" in closing_lines(compared)[-1]
        assert "above TF-IDF on 1 of 1" in closing_lines(compared)[-1]

    def test_with_one_seed_there_is_no_interval(self) -> None:
        compared = results((0.5, 0.4))
        (sheet,) = all_sheets(compared)
        assert "nan" not in as_markdown(sheet)
        row = dict(zip(sheet.columns, sheet.rows[0], strict=True))
        assert (row["mini"], row["mini - random"], row["95 % interval"]) == ("0.500 ± –", "+0.100", "–")
        assert "One seed gives no interval" in "".join(closing_lines(compared))
        assert document(compared)["results"][0]["score"] == {
            "mean": 0.5,
            "half_width": None,
            "values": 1,
            "interval": None,
        }

    def test_with_nothing_measured(self) -> None:
        (sheet,) = all_sheets(results())
        assert sheet.rows[0][5:] == ("–",) * 5

    def test_markdown_has_as_many_cells_in_each_line(self) -> None:
        (sheet,) = all_sheets(results((0.5, 0.4)))
        lines = as_markdown(sheet).splitlines()[2:]
        assert len({line.count("|") for line in lines}) == 1


def test_the_command_is_shown_without_the_folders_of_this_machine() -> None:
    given = ["--data-dir", "/a/b/data", "--model", "old=~/c/mini/", "--store", "sqlite:////d/e.db", "--model", "A/B"]
    assert shown_command("benchmarks.quality", given, FOLDERS) == (
        "python -m benchmarks.quality --data-dir data --model old=mini/ --store sqlite:///e.db --model A/B"
    )


TINY = (
    *("--sample", "--task", "svreg", "--strategy", "full", "--strategy", "bottom2", "--seeds", "2"),
    *("--limit-train", "32", "--limit-eval", "24", "--epochs", "1"),
)


def test_the_second_call_does_nothing_again(
    benchmark: Callable[..., Finished], own_store: str, tiny_bert: Path, tmp_path: Path
) -> None:
    files = {name: tmp_path / name for name in ("first.json", "second.json", "tables.md")}
    arguments = (*TINY, "--model", f"tiny={tiny_bert}", "--store", own_store)
    first = benchmark(*arguments, "--json", files["first.json"], "--markdown", files["tables.md"])
    second = benchmark(*arguments, "--json", files["second.json"])
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.out == second.out
    assert second.err.count(": reused,") == 8  # models, strategies, seeds: two of each
    assert ": started" not in second.err

    once, again = (json.loads(files[name].read_text()) for name in ("first.json", "second.json"))
    assert {run["status"] for run in once["runs"]} == {"finished"}
    assert {run["status"] for run in again["runs"]} == {"reused"}
    assert once["results"] == again["results"]
    hyper = [run["hyper"] for run in once["runs"]]
    assert all(one == hyper[0] for one in hyper)  # the random copy's are the model's
    assert once["environment"]["hardware"]["processor"]
    assert "tiny - random" in first.out
    page = files["tables.md"].read_text()
    assert page.count("| task | metric |") == 3
    assert str(tmp_path) not in page + files["first.json"].read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sedes", "3"), "unrecognized arguments"),
        (("--seeds", "0", "--sample"), "--seeds is 0"),
        (("--limit-train", "few"), "'few' is neither a number of rows nor all"),
        (("--task", "angre", "--sample"), "did you mean 'anger'"),
        (("--task", "anger"), "no official files of anger"),
        (("--strategy", "bottom", "--sample"), "unknown strategy"),
        (("--model", "Mini=mini"), "'Mini' is not a name"),
        (("--model", "mini=./nowhere"), "there is no such folder"),
        (("--model", "mini", "--model", "mini-random=mini"), "is the name of the random copy"),
        (("--json", "nowhere/numbers.json"), "there is no such folder"),
        (("--lr", "-1", "--sample"), "lr is -1.0"),
    ],
)
def test_a_bad_option_gives_one_sentence(
    benchmark: Callable[..., Finished], arguments: tuple[str, ...], said: str
) -> None:
    done = benchmark(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert said in done.err
    assert done.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.err


def test_a_run_that_failed_is_left_out() -> None:
    class Failed:
        status = "failed"

    assert by_cell([Failed()]) == {}  # type: ignore[list-item]


@pytest.mark.real_data
@pytest.mark.skipif(not FOLDER, reason="ALUE_BENCH_DATA is not set to the folder of the official files")
@pytest.mark.skipif(not (Path(FOLDER) / WANTED).is_file(), reason=f"ALUE_BENCH_DATA has no {WANTED}")
def test_on_the_official_files(benchmark: Callable[..., Finished], own_store: str, tiny_bert: Path) -> None:
    done = benchmark(
        *("--data-dir", FOLDER, "--task", "anger", "--strategy", "full", "--model", f"tiny={tiny_bert}"),
        *("--seeds", "1", "--limit-train", "64", "--limit-eval", "48", "--epochs", "1", "--store", own_store),
    )
    assert done.code == 0, done.err
    assert "64/48" in done.out
    assert "sample" not in done.out
