"""`--dry-run`: what a plan would cost, counted as the runs will count it, and a guess at its time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SHORT, CommandLine, call_in
from tiny_models import ARCHITECTURES, tiny_config

from alue_bench import Labels
from alue_bench.cli.dry_run import duration
from alue_bench.contract.spec import HyperParameters
from alue_bench.cost.calibration import _measured_speeds, measure_speed, shape_key, speed_of
from alue_bench.training.architecture.encoder_stack import view_as_stack
from alue_bench.training.device.precision import Device
from alue_bench.training.pretrained.loading import Checkpoint, declared_config, empty_model, load_config

STRATEGIES = ("full", "bottom2", "bottom1top1", "head-only", "bottom2-trainemb", "drop-top1", "bitfit")


def estimate_of(run: CommandLine, *arguments: object, **options: Any) -> dict[str, Any]:
    said = run(*arguments, "--dry-run", "--json", **options)
    assert said.code == 0, said.err
    return json.loads(said.out)["estimate"]  # type: ignore[no-any-return]


class TestCounting:
    def test_flops_are_those_that_the_runs_record(self, run: CommandLine) -> None:
        what = [word for name in STRATEGIES for word in ("-s", name)] + ["--epochs", "3"]
        estimated = {one["strategy"]: one["flops"] for one in estimate_of(run, *what)["runs"]}
        recorded = {
            one["strategy"]: one["metrics"]["flops/train"] for one in json.loads(run(*what, "--json").out)["runs"]
        }
        assert estimated == recorded

    def test_without_a_cache_too(self, run: CommandLine) -> None:
        what = ("-s", "bottom2", "--epochs", "2", "--cache-size", "0")
        (estimated,) = estimate_of(run, *what)["runs"]
        (done,) = json.loads(run(*what, "--json").out)["runs"]
        assert estimated["flops"] == done["metrics"]["flops/train"]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_a_checkpoint_in_half_precision_is_timed_in_the_format_that_it_trains_in(
        self, run: CommandLine, tiny_bert: Path, tmp_path: Path, dtype: torch.dtype
    ) -> None:
        from transformers import AutoModel

        folder = tmp_path / "half"
        shutil.copytree(tiny_bert, folder)
        AutoModel.from_pretrained(tiny_bert, dtype=dtype).save_pretrained(folder)
        assert load_config(Checkpoint(folder, "", pickled=False)).dtype == dtype
        _measured_speeds.clear()
        halved, whole = (estimate_of(run, "-s", "full", model=model) for model in (folder, tiny_bert))
        assert halved["problems"] == []
        assert halved["here"]["seconds"] > 0
        assert halved["here"]["flops"] == whole["here"]["flops"]

    def test_totals_are_sums(self, run: CommandLine) -> None:
        estimate = estimate_of(run, "-s", "full", "-s", "top1", "--seeds", "2")
        assert estimate["here"]["runs"] == len(estimate["runs"]) == 4
        assert estimate["here"]["flops"] == pytest.approx(sum(one["flops"] for one in estimate["runs"]))
        # Neither strategy has a frozen prefix to share.
        assert estimate["here"]["seconds"] == pytest.approx(sum(one["seconds"] for one in estimate["runs"]))
        assert estimate["model_missing"]["runs"] == estimate["data_missing"]["runs"] == 0
        assert estimate["problems"] == []

    def test_more_epochs_cost_more_and_frozen_layers_less(self, run: CommandLine) -> None:
        costs = [estimate_of(run, "-s", "full", "--epochs", str(epochs))["here"]["flops"] for epochs in (1, 2, 4)]
        assert costs[1] == pytest.approx(2 * costs[0])
        assert costs[2] == pytest.approx(4 * costs[0])
        by_strategy = estimate_of(
            run, "-s", "full", "-s", "bottom1", "-s", "bottom3", "-s", "head-only", "--epochs", "4"
        )
        flops, seconds = ([one[name] for one in by_strategy["runs"]] for name in ("flops", "seconds"))
        assert flops == sorted(flops, reverse=True)
        assert seconds == sorted(seconds, reverse=True)
        assert all(value > 0 for value in (*flops, *seconds))

    def test_a_training_that_two_runs_share_takes_time_once(
        self, alue_bench: CommandLine, tiny_bert: Path, store: str
    ) -> None:
        command = ("run", "-t", "xnli", "-t", "diag", "-m", tiny_bert, "-s", "full", *SHORT, "--tracking-uri", store)
        trained, scored = estimate_of(lambda *more: alue_bench(*command, *more))["runs"]
        assert scored["flops"] == trained["flops"]
        assert scored["seconds"] < 0.5 * trained["seconds"]


class TestForPeople:
    def test_runs_flops_time_and_that_it_is_a_guess(self, run: CommandLine) -> None:
        said = run("-s", "full", "-s", "bottom2", "--dry-run")
        assert said.code == 0
        assert "estimate: 2 runs can be done here: " in said.err
        assert "FLOPs, about " in said.err
        assert "extrapolated from" in said.err
        assert "not known, since the store has no 3 common seeds of full and another strategy" in said.err
        assert said.out == ""

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(0.01, "1 s"), (40, "40 s"), (100, "1.7 min"), (720, "12 min"), (12600, "3.5 h"), (1e6, "12 days")],
    )
    def test_durations_are_no_more_exact_than_a_guess_is(self, seconds: float, said: str) -> None:
        assert duration(seconds) == said


class TestModelsThatAreNotHere:
    @pytest.fixture(scope="class")
    def document(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        """The paper's tables on the sample, without the paper's models."""
        with call_in(tmp_path_factory.mktemp("absent")) as call:
            said = call("run", "--config", "paper-tables", "--sample", "--epochs", "2", "--dry-run", "--json")
        assert said.code == 0, said.err
        return {"err": said.err, **json.loads(said.out)}

    def test_their_runs_are_counted_from_the_shape_that_is_declared(
        self, document: dict[str, Any], registry: Any
    ) -> None:
        estimate = document["estimate"]
        assert document["planned"] == []
        assert estimate["here"] == {"runs": 0, "flops": 0, "seconds": 0}
        assert estimate["model_missing"]["runs"] == len(estimate["runs"]) == 7 * 4 * 2
        assert estimate["model_missing"]["lengths_by_tokenizer_of"] == "mini"
        assert estimate["model_missing"]["seconds"] > 0
        by_strategy = {
            strategy: sum(one["flops"] for one in estimate["runs"] if one["strategy"] == strategy)
            for strategy in ("full", "bottom3top4")
        }
        # 23 F + 3 F / epochs of 36 F, with two epochs; a little less for the shortcuts of the last layer.
        assert 0.6 < by_strategy["bottom3top4"] / by_strategy["full"] < 0.7

    def test_each_missing_model_is_named_with_how_to_get_it(self, document: dict[str, Any]) -> None:
        reasons = {skipped["model"]: skipped["reason"] for skipped in document["skipped"]}
        assert set(reasons) == {"arabertv02", "camelbert", "qarib", "marbert"}
        assert all("downloads it" in reason for reason in reasons.values())
        assert "estimate: no run can be done here" in document["err"]
        assert "56 runs more with models that are missing here" in document["err"]

    @pytest.mark.parametrize(
        ("name", "layers", "parameters"),
        [
            *((name, 12, 85_054_464) for name in ("arabertv02", "camelbert", "qarib", "marbert", "marbertv2")),
            *((name, 22, 110_330_112) for name in ("aramodernbert", "mmbert")),
        ],
    )
    def test_declared_shapes_are_those_of_bert_base_and_modernbert_base(
        self, registry: Any, name: str, layers: int, parameters: int
    ) -> None:
        stack = view_as_stack(empty_model(declared_config(registry.model(name)), Labels.binary("no", "yes")))
        assert (stack.shape.layers, stack.shape.hidden_size) == (layers, 768)
        assert sum(p.numel() for layer in stack.layers for p in layer.parameters()) == parameters

    def test_mmbert_is_as_large_as_its_authors_say(self, registry: Any) -> None:
        model = empty_model(declared_config(registry.model("mmbert")), Labels.binary("no", "yes"))
        assert round(sum(p.numel() for p in model.base_model.parameters()) / 1e6) == 307

    def test_data_that_is_not_here_is_counted_as_runs_of_unknown_cost(
        self, alue_bench: CommandLine, tiny_bert: Path, registry: Any
    ) -> None:
        only_anger = Path("data")
        file = registry.task("anger").splits.train.path.split("/")[0]
        only_anger.mkdir()
        (only_anger / file).symlink_to(registry.task("anger").sample / file)
        what = ("-t", "anger", "-t", "fid", "-m", tiny_bert, "-s", "full", "-s", "top1", "--seeds", "3", *SHORT)
        estimate = estimate_of(
            lambda *more: alue_bench("run", *what, "--skip-missing", "--data-dir", only_anger, *more)
        )
        assert estimate["here"]["runs"] == 6
        assert estimate["data_missing"]["runs"] == 6


class TestCalibration:
    lengths = np.array([5, 9, 12, 20, 24])
    hyper = HyperParameters(batch_size=4, epochs=1)

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_every_architecture_can_be_timed(self, architecture: str) -> None:
        speed = measure_speed(tiny_config(architecture), self.lengths, self.hyper, Device("cpu", "fp32"))
        assert speed > 0

    def test_it_leaves_the_random_state_as_it_was(self) -> None:
        before = torch.random.get_rng_state()
        measure_speed(tiny_config("bert"), self.lengths, self.hyper, Device("cpu", "fp32"))
        assert torch.equal(before, torch.random.get_rng_state())

    def test_a_batch_larger_than_any_memory_is_no_trouble(self) -> None:
        huge = HyperParameters(batch_size=10**9, epochs=1)
        assert measure_speed(tiny_config("bert"), self.lengths, huge, Device("cpu", "fp32")) > 0

    def test_models_of_one_shape_are_timed_once(self) -> None:
        device = Device("cpu", "fp32")
        first = speed_of(tiny_config("bert"), self.lengths, self.hyper, device)
        assert speed_of(tiny_config("bert", vocab_size=5000), self.lengths, self.hyper, device) == first
        wide = tiny_config("bert", vocab_size=5000)
        assert shape_key(wide) == shape_key(tiny_config("bert"))
        assert shape_key(tiny_config("bert", layers=6)) != shape_key(tiny_config("bert"))
