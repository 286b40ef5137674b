"""The benchmarks of the engine: all ways train the same, nothing that is measured is lost, and the sums are right."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, Finished

from alue_bench.contract.errors import DataError
from alue_bench.data.batches import Padding, collate
from benchmarks.command_line import shown_command
from benchmarks.engine import command as engine
from benchmarks.engine.profiling import kind_of
from benchmarks.engine.report import closing_lines, summaries
from benchmarks.machine import peaks
from benchmarks.sweep import command as sweep
from benchmarks.sweep import report as sweep_report
from benchmarks.timing.cells import WAYS, Cell, possible_ways, schedule
from benchmarks.timing.checkpoint import tokenizer_of
from benchmarks.timing.comparison import Comparison, Summary, comparison, ratio, summary, tail_mean
from benchmarks.timing.features import features
from benchmarks.timing.fitting import fit_by_engine, fit_by_trainer
from benchmarks.timing.measuring import Measurement, MeasurementFailed, measured_apart, measured_here
from benchmarks.timing.rows import Row, read_rows
from benchmarks.timing.settings import Setup
from benchmarks.timing.starting_point import StartingPoint, encoder_shape, freeze_plan, prepared

MODEL = ("--layers", "2", "--hidden", "32", "--heads", "2")
SMALL = ("--sample", "--rows", "40", "--eval-rows", "16", "--epochs", "1", "--repetitions", "1", *MODEL)
ON_CPU = possible_ways("cpu")


pytestmark = pytest.mark.usefixtures("folders_of_its_own")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """A benchmark's main function, measuring in this process unless told otherwise."""

    def run(main: Callable[..., int], *arguments: object, measured: Any = measured_here) -> Finished:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments], measured=measured)
        return Finished(code, *capsys.readouterr())

    return run


def setup(**other: Any) -> Setup:
    small = {"rows": 40, "eval_rows": 16, "epochs": 1, "batch_size": 16, "lr": 5e-5, "max_length": 128, "longest": None}
    model = {"layers": 2, "hidden": 32, "heads": 2, "checkpoint": None, "device": "cpu"}
    return Setup(**{**small, **model, **other})


@pytest.fixture
def rows_file(tmp_path: Path, call: Callable[..., Finished]) -> Path:
    file = tmp_path / "rows.json"
    assert call(engine.main, "--write-rows", file, *SMALL).code == 0
    return file


@pytest.fixture
def tagged_file(tmp_path: Path, call: Callable[..., Finished]) -> Path:
    file = tmp_path / "tagged.json"
    assert call(engine.main, "--write-rows", file, "--task", "arabicner", *SMALL).code == 0
    return file


def measurement(cell: Cell, repetition: int, seconds: float = 1.0, **other: Any) -> Measurement:
    """Return a measurement with made-up values."""
    values = {"prefix_s": 0.0, "final_loss": 0.5, "flops": 1.0, "flops_full": 2.0, "hardware": {"threads": 1}}
    fixed = {"steps": 3, "samples": 40, "samples_per_s": 40.0, "tokens": 80, "padded_tokens": 100}
    memory = {"peak_rss_mib": 1.0, "peak_device_mib": None, "score": 0.5, "trainable": 1}
    return Measurement(**cell._asdict(), repetition=repetition, seconds=seconds, **fixed, **memory, **values | other)


class Stand:
    """Counts what is asked for instead of training; stops, as by Ctrl-C, before measurement number `stop`."""

    def __init__(self, stop: int | None = None, **other: Any) -> None:
        self.stop = stop
        self.other = other
        self.asked: list[tuple[Cell, int]] = []

    def __call__(self, setup: Setup, rows: Path, cell: Cell, repetition: int, store: Path | None) -> Measurement:
        if len(self.asked) == self.stop:
            raise KeyboardInterrupt
        self.asked.append((cell, repetition))
        return measurement(cell, repetition, **self.other)


class TestWays:
    @pytest.mark.stress
    def test_every_way_trains_the_same_steps_to_finite_numbers(self, call: Any, tmp_path: Path) -> None:
        pytest.importorskip("accelerate")
        files = ("--json", tmp_path / "out.json", "--markdown", tmp_path / "out.md")
        done = call(engine.main, *SMALL, "--strategy", "bottom1", *files)
        assert done.code == 0, done.err
        content = json.loads((tmp_path / "out.json").read_text())
        measurements = content["measurements"]
        assert {(m["way"], m["precision"]) for m in measurements} == {(w, p) for w in ON_CPU for p in ("fp32", "bf16")}
        for name in ("seconds", "samples_per_s", "final_loss", "score", "peak_rss_mib"):
            assert all(math.isfinite(m[name]) for m in measurements)
        for name in ("steps", "samples", "tokens", "trainable"):
            assert len({m[name] for m in measurements}) == 1, name
        assert {m["steps"] for m in measurements} == {3}
        padded = {m["way"]: m["padded_tokens"] for m in measurements}
        assert padded["trainer-128"] == 40 * 128
        assert padded["engine"] <= padded["trainer"] < padded["trainer-128"]
        page = (tmp_path / "out.md").read_text()
        assert "÷ trainer fp32" in page
        assert "noise is unknown" in page
        assert str(tmp_path) not in page + json.dumps(content)

    @pytest.mark.parametrize("strategy", ["full", "bottom1top1"])
    def test_trainer_freezes_exactly_what_the_engine_freezes(self, rows_file: Path, strategy: str) -> None:
        pytest.importorskip("accelerate")
        from alue_bench.training.device.precision import Device

        start = start_of(rows_file)
        plan = freeze_plan(strategy, encoder_shape(start.setup))
        device = Device("cpu", "fp32")
        by_trainer = fit_by_trainer(start, plan, "trainer", 1, device)
        by_engine = fit_by_engine(start, plan, 1, device, cached=True)
        moved = [changed(start, plan, fitted.stack.model) for fitted in (by_trainer, by_engine)]
        assert moved[0] == moved[1] != set()
        assert ("bert.embeddings.word_embeddings.weight" in moved[0]) == (strategy == "full")

    def test_trainer_gets_the_tags_that_the_engine_gets(self, tagged_file: Path) -> None:
        from transformers import DataCollatorForTokenClassification

        start = start_of(tagged_file)
        assert start.labels.scheme == "IOB2"
        split, places = start.longest, np.arange(len(start.longest))
        ours = collate(split, places, Padding(start.tokenizer.pad_token_id))
        padded = DataCollatorForTokenClassification(start.tokenizer)(
            features(split, start.tokenizer.pad_token_id, None)
        )
        assert ours.targets.unique().numel() > 2
        assert padded["labels"].equal(ours.targets)
        assert padded["input_ids"].equal(ours.input_ids)

    @pytest.mark.parametrize("way", ["trainer", "engine"])
    def test_tags_of_words_are_learnt(self, tagged_file: Path, way: str) -> None:
        pytest.importorskip("accelerate")
        known = setup(lr=1e-2, epochs=12, max_length=24)
        measured = measured_here(known, tagged_file, Cell(way, "full", "fp32"), 1, None)
        assert measured.steps == 12 * math.ceil(len(prepared(known, read_rows(tagged_file, 40, 16)).train) / 16)
        assert measured.final_loss < 0.9
        assert 0 <= measured.score <= 1

    def test_all_start_from_the_same_weights(self, rows_file: Path) -> None:
        start = start_of(rows_file)
        plan = freeze_plan("full", encoder_shape(start.setup))
        assert changed(start, plan, start.fresh_stack(plan).model) == set()

    def test_a_process_of_its_own_needs_neither_mlflow_nor_datasets(
        self, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("mlflow", "datasets"):
            (tmp_path / f"{name}.py").write_text("raise ImportError('not on this machine')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        cell = Cell("engine", "bottom1", "fp32")
        apart = measured_apart(setup(), rows_file, cell, 1, None)
        here = measured_here(setup(), rows_file, cell, 1, None)
        assert (apart.steps, apart.tokens, apart.flops) == (here.steps, here.tokens, here.flops)
        assert apart.final_loss == pytest.approx(here.final_loss, abs=1e-4)

    def test_a_process_that_fails_says_why(self, rows_file: Path) -> None:
        with pytest.raises(MeasurementFailed, match=r"engine full fp32, repetition 1: lr is -1\.0"):
            measured_apart(setup(lr=-1.0), rows_file, Cell("engine", "full", "fp32"), 1, None)


def start_of(rows: Path) -> StartingPoint:
    return prepared(setup(), read_rows(rows, 40, 16))


def changed(start: StartingPoint, plan: Any, model: Any) -> set[str]:
    """Names of the parameters that no longer have their initial values."""
    before = dict(start.fresh_stack(plan).model.named_parameters())
    return {name for name, value in model.named_parameters() if not value.equal(before[name])}


class TestGoingOn:
    ARGUMENTS = (*SMALL, "--strategy", "full", "--precision", "fp32", "--repetitions", "2", "--json", "out.json")

    def test_after_an_interruption(self, call: Any, tmp_path: Path) -> None:
        first = Stand(stop=3)
        done = call(engine.main, *self.ARGUMENTS, measured=first)
        assert done.code == 130
        assert "run the same command again to continue" in done.err
        assert len(json.loads((tmp_path / "out.json").read_text())["measurements"]) == 3
        second = Stand()
        assert call(engine.main, *self.ARGUMENTS, measured=second).code == 0
        assert [*first.asked, *second.asked] == schedule([Cell(way, "full", "fp32") for way in ON_CPU], 2)
        content = json.loads((tmp_path / "out.json").read_text())
        assert len(content["measurements"]) == 10
        assert [entry["against_trainer"] for entry in content["summaries"]] == [1.0] * 5

    @pytest.mark.parametrize(
        ("other", "named"), [(("--epochs", "2"), "epochs"), (("--rows", "39"), "rows"), (("--lr", "1e-3"), "lr")]
    )
    def test_not_with_other_settings(self, call: Any, other: tuple[str, str], named: str) -> None:
        call(engine.main, *self.ARGUMENTS, measured=Stand())
        done = call(engine.main, *self.ARGUMENTS, *other, measured=Stand())
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert "other settings" in done.err
        assert named in done.err
        assert "name another --json file" in done.err

    def test_not_with_another_version_of_what_trains(self, call: Any, tmp_path: Path) -> None:
        call(engine.main, *self.ARGUMENTS, measured=Stand(stop=1))
        content = json.loads((tmp_path / "out.json").read_text())
        content["settings"]["code"] = "0" * 12
        (tmp_path / "out.json").write_text(json.dumps(content))
        done = call(engine.main, *self.ARGUMENTS, measured=Stand())
        assert done.code == 2
        assert "(code, that is alue_bench/training/**/*.py" in done.err
        assert "name another --json file" in done.err

    def test_not_on_other_hardware(self, call: Any) -> None:
        call(engine.main, *self.ARGUMENTS, measured=Stand(stop=2))
        done = call(engine.main, *self.ARGUMENTS, measured=Stand(hardware={"threads": 2}))
        assert done.code == 2
        assert "was measured on" in done.err

    @pytest.mark.parametrize("content", ["[1, 2]", '{"benchmark": "sweep", "settings": {}, "measurements": []}'])
    def test_not_from_a_file_of_something_else(self, call: Any, tmp_path: Path, content: str) -> None:
        (tmp_path / "out.json").write_text(content)
        done = call(engine.main, *self.ARGUMENTS, measured=Stand())
        assert done.code == 2
        assert "choose another" in done.err

    def test_a_sweep_broken_off_begins_again_and_keeps_the_rest(self, call: Any) -> None:
        arguments = (*SMALL, "--cells", "0,0", "1,0", "1,1", "--json", "out.json")
        first = Stand(stop=4)
        assert call(sweep.main, *arguments, measured=first).code == 130
        second = Stand()
        assert call(sweep.main, *arguments, measured=second).code == 0
        # Four of six were done, two of them in the sweep: those two and the two that were left.
        assert len(second.asked) == 4


class TestRows:
    def test_the_last_ones_are_held_out(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.json"
        file.write_text(json.dumps([{"text": f"t{place}", "label": "ab"[place % 2]} for place in range(7)]))
        rows = read_rows(file, 3, 2)
        assert rows.train == (Row("t0", "a"), Row("t1", "b"), Row("t2", "a"))
        assert rows.held_out == (Row("t5", "b"), Row("t6", "a"))
        assert rows.labels.names == ("a", "b")
        with pytest.raises(DataError, match="has 7 rows"):
            read_rows(file, 3, 7)

    def test_what_is_written_is_what_is_read(self, call: Any, rows_file: Path) -> None:
        rows = read_rows(rows_file, 40, 16)
        assert (len(rows.train), len(rows.held_out)) == (40, 16)
        assert rows.labels.names == ("NOT_OFF", "OFF")

    def test_long_ones_are_left_out(self, call: Any, tmp_path: Path) -> None:
        file = tmp_path / "short.json"
        assert call(engine.main, "--write-rows", file, *SMALL, "--longest", 12).code == 0
        rows = read_rows(file, 40, 4)
        tokenizer = tokenizer_of(setup())
        lengths = [len(tokenizer(row.text)["input_ids"]) for row in (*rows.train, *rows.held_out)]
        assert 0 < len(lengths) < 56
        assert max(lengths) <= 12

    def test_words_keep_their_tags(self, tagged_file: Path) -> None:
        rows = read_rows(tagged_file, 40, 16)
        assert all(row.words is not None and len(row.words) == len(row.label) for row in rows.train)
        assert {tag for row in rows.train for tag in row.label} <= set(rows.labels.names)
        content = json.loads(tagged_file.read_text())
        content[0]["tags"].pop()
        tagged_file.write_text(json.dumps(content))
        with pytest.raises(DataError, match=r"words with .* tags"):
            read_rows(tagged_file, 40, 16)

    def test_a_file_that_holds_none(self, tmp_path: Path) -> None:
        (tmp_path / "rows.json").write_text('{"text": 1}')
        with pytest.raises(DataError, match="is not a list of"):
            read_rows(tmp_path / "rows.json", 1, 1)

    def test_real_ones_are_not_replaced_by_the_sample(self, call: Any) -> None:
        done = call(engine.main, "--rows", "8")
        assert done.code == 2
        assert "--sample" in done.err


class TestMisuse:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--strategy", "bottom3top4"), "has only 2"),
            (("--strategy", "sideways"), "unknown strategy 'sideways'"),
            (("--way", "by-hand"), "invalid choice"),
            (("--epochs", "0"), "not a whole number above 0"),
            (("--longest", "2"), "too few rows"),
            (("--heads", "3"), "is not a multiple of"),
            (("--json", "nowhere/out.json"), "no such folder"),
        ],
    )
    def test_is_one_sentence_before_anything_is_measured(
        self, call: Any, arguments: tuple[str, ...], said: str
    ) -> None:
        stand = Stand()
        done = call(engine.main, *SMALL, *arguments, measured=stand)
        assert done.code == 2
        assert said in done.err
        assert not stand.asked

    def test_of_cells(self, call: Any) -> None:
        for cells, said in (("3;4", "not of the form"), ("2,1", "has only 2")):
            done = call(sweep.main, *SMALL, "--cells", cells, measured=Stand())
            assert done.code == 2
            assert said in done.err


class TestStatistics:
    def test_medians_and_ratios(self) -> None:
        assert summary([]) is None
        assert summary([3.0, 1.0, 2.0]) == Summary(2.0, 1.0, 3.0)
        assert summary([4.0, 1.0]) == Summary(2.5, 1.0, 4.0)
        assert ratio(Summary(2.0, 1.0, 3.0), Summary(8.0, 0.0, 9.0)) == 0.25
        assert ratio(None, Summary(8.0, 0.0, 9.0)) is None
        assert ratio(Summary(0.0, 0.0, 0.0), Summary(0.0, 0.0, 0.0)) is None

    def test_mean_of_the_last_steps(self) -> None:
        assert tail_mean([(1, 9.0), (2, 5.0), (3, 1.0), (4, 2.0)], 2) == 1.5
        # Entries that stand for two steps, the first of which is cut in half.
        assert tail_mean([(2, 9.0), (4, 4.0), (6, 1.0)], 3) == pytest.approx((1 * 4.0 + 2 * 1.0) / 3)
        assert tail_mean([(2, 4.0), (3, 1.0)], 10) == 3.0

    def test_losses_within_the_noise_of_the_base(self) -> None:
        assert comparison([0.5, 0.7], [0.5, 0.6, 0.55]) == Comparison(pytest.approx(0.05), pytest.approx(0.1))
        assert Comparison(-0.1, 0.1).within
        assert not Comparison(0.11, 0.1).within
        assert comparison([0.5], [0.5]) is None

    def test_ratios_by_cell(self) -> None:
        def cells(way: str, precision: str, *seconds: float) -> list[Measurement]:
            cell = Cell(way, "full", precision)
            return [measurement(cell, place, value) for place, value in enumerate(seconds, start=1)]

        measurements = [
            *cells("trainer", "fp32", 8.0, 10.0, 9.0),
            *cells("trainer", "bf16", 4.0, 6.0, 5.0),
            *cells("engine", "bf16", 3.0, 2.5, 1.0),
        ]
        ratios = {(s["way"], s["precision"]): s for s in summaries(measurements)["summaries"]}
        assert ratios["engine", "bf16"]["against_trainer"] == 0.5
        assert ratios["engine", "bf16"]["against_trainer_fp32"] == pytest.approx(2.5 / 9)
        assert ratios["trainer", "fp32"]["against_trainer"] == 1.0
        (against_full,) = summaries(measurements)["against_full"]
        assert against_full == {"strategy": "full", "precision": "bf16", "runtime": 1.0, "flops": 0.5}

    def test_the_verdict_is_said_either_way(self) -> None:
        base = [measurement(Cell("trainer", "full", "fp32"), r, final_loss=loss) for r, loss in ((1, 0.5), (2, 0.6))]
        for loss, word in ((0.62, "within its noise"), (0.9, "outside its noise")):
            own = measurement(Cell("engine", "full", "fp32"), 1, final_loss=loss)
            assert word in closing_lines([*base, own])[-1]

    def test_a_schedule_goes_through_all_before_it_repeats(self) -> None:
        cells = [Cell(way, "full", "fp32") for way in WAYS]
        planned = schedule(cells, 3)
        assert [repetition for _, repetition in planned] == [1] * 6 + [2] * 6 + [3] * 6
        assert all({cell for cell, r in planned if r == repetition} == set(cells) for repetition in (1, 2, 3))
        assert schedule(list(reversed(cells)), 3) == planned

    def test_a_shown_command_names_no_folders(self) -> None:
        shown = shown_command(
            "benchmarks.engine", ["--json", "/srv/one/out.json", "--markdown=../two/out.md", "--rows", "8"]
        )
        assert shown == "python -m benchmarks.engine --json out.json --markdown=out.md --rows 8"


class TestSweep:
    def test_one_store_computes_each_prefix_once(self, call: Any, tmp_path: Path) -> None:
        arguments = ("--cells", "2,0", "2,1", "1,0", "--rows", "200", "--layers", "4", "--json", tmp_path / "out.json")
        done = call(sweep.main, *SMALL, *arguments)
        assert done.code == 0, done.err
        content = json.loads((tmp_path / "out.json").read_text())
        reused = {(m["way"], m["strategy"]): m["prefix_reused"] for m in content["measurements"]}
        assert [cell for cell, was in reused.items() if was] == [("sweep", "bottom2top1")]
        total = {entry["way"]: entry for entry in content["totals"]}
        for way in ("sweep", "separate"):
            spent = sum(m["prefix_s"] for m in content["measurements"] if m["way"] == way)
            assert total[way]["median_prefix_s"] == pytest.approx(spent)
        assert total["separate"]["against_separate"] == 1.0
        assert "One sweep takes" in done.out

    def test_all_cells_of_twelve_layers(self) -> None:
        assert len(sweep.all_cells(12)) == 91
        assert sweep.all_cells(1) == [(0, 0), (0, 1), (1, 0)]

    def test_totals_add_up_cells_of_a_repetition(self) -> None:
        measurements = [
            replace(measurement(Cell(way, strategy, "fp32"), repetition, seconds, prefix_s=seconds / 10))
            for way, strategy, repetition, seconds in (
                ("sweep", "full", 1, 1.0),
                ("sweep", "bottom1", 1, 2.0),
                ("sweep", "full", 2, 3.0),
                ("sweep", "bottom1", 2, 4.0),
                ("separate", "full", 1, 10.0),
            )
        ]
        shared, separate = sweep_report.totals(measurements, ("sweep", "separate"))
        assert shared.seconds == Summary(5.0, 3.0, 7.0)
        assert shared.prefix_s.median == pytest.approx(0.5)
        assert sweep_report.against([shared, separate], "separate") == {"sweep": 0.5, "separate": 1.0}


class TestProfile:
    def test_shares_add_up(self, call: Any) -> None:
        done = call(engine.main, "--profile", *SMALL, "--strategy", "bottom1", "--batch-size", "4")
        assert done.code == 0, done.err
        assert "matrix products" in done.out
        assert "GFLOP/s" in done.out

    @pytest.mark.parametrize(
        ("operation", "kind"),
        [
            ("aten::addmm", "matrix products"),
            ("aten::mkldnn_linear", "matrix products"),
            ("aten::native_layer_norm_backward", "normalisation"),
            ("aten::gelu_backward", "GELU"),
            ("aten::_softmax_backward_data", "softmax"),
            ("aten::random_", "dropout masks"),
            ("aten::ge_", "dropout masks"),
            ("aten::_to_copy", "copies and casts"),
            ("aten::_fused_adamw_", "optimiser and clipping"),
            ("aten::dot", "optimiser and clipping"),
            ("Optimizer.step#AdamW.step", "optimiser and clipping"),
            ("aten::embedding_dense_backward", "embedding and look-up"),
            ("aten::sum", "sums and elementwise products"),
            ("aten::fill_", "allocating and filling"),
            ("aten::view", "everything else"),
        ],
    )
    def test_kinds(self, operation: str, kind: str) -> None:
        assert kind_of(operation) == kind


@pytest.mark.parametrize("command", ["engine", "sweep", "quality"])
def test_a_command_starts_without_what_it_may_not_need(command: str) -> None:
    unwanted = {"mlflow", "datasets", "torch", "rich"}
    script = f"import sys, benchmarks.{command}.command; print({unwanted} & sys.modules.keys())"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_peak_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    import torch

    held = torch.ones(64 * 2**20 // 4)
    script = "from benchmarks.machine import peaks; print(peaks('cpu')['peak_rss_mib'])"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    own = peaks("cpu")["peak_rss_mib"]
    assert own is not None
    assert len(held) * 4 / 2**20 < own
    assert float(done.stdout) < own - 64
