"""An option is declared once: command line, study file, checks and worker follow from its declaration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from conftest import CommandLine

from alue_bench import UsageError
from alue_bench.cli.main import app
from alue_bench.contract.options import CheckedOptions, Group, build_options, option, options_of
from alue_bench.executors.replan import rebuild_run, source_of
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.studies.files import read_study
from alue_bench.studies.options import COMMANDS, options_of_command, study_options
from alue_bench.studies.settings import merge_study


@dataclass(frozen=True, kw_only=True)
class Kitchen(CheckedOptions):
    ovens: int = option(1, help="Number of ovens.", group=Group.EXECUTION, at_least=1, at_most=9)
    heat: float | None = option(None, help="Heat.", group=Group.EXECUTION, above=0, remark="kelvin")
    dishes: tuple[str, ...] = option((), name="dish", help="Dish; repeatable.", group=Group.QUESTION)
    kind: Literal["gas", "wood", "none"] = option("gas", help="Kind.", group=Group.EXECUTION)
    book: Path | None = option(None, help="Book.", group=Group.DATA)
    guests: int = 4


class TestDeclaration:
    def test_name_type_and_choices_are_those_of_the_field(self) -> None:
        options = options_of(Kitchen)
        assert list(options) == ["ovens", "heat", "dish", "kind", "book"]
        assert (options["dish"].field, options["dish"].many, options["dish"].kind) == ("dishes", True, str)
        assert (options["heat"].kind, options["book"].kind, options["kind"].kind) == (float, Path, str)
        assert options["kind"].choices == ("gas", "wood", "none")

    def test_values_are_taken_by_name_and_converted(self) -> None:
        kitchen = build_options(
            Kitchen, {"dish": ["soup"], "heat": 3, "book": "b.txt", "ovens": None, "other": 1}, guests=2
        )
        assert kitchen == Kitchen(dishes=("soup",), heat=3.0, book=Path("b.txt"), guests=2)
        assert type(kitchen.heat) is float

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"ovens": 0}, "--ovens is 0; it must be at least 1 and at most 9"),
            ({"ovens": True}, "--ovens is True; it must be of type int"),
            ({"heat": 0.0}, "--heat is 0.0; it must be above 0 and finite (kelvin)"),
            ({"heat": float("nan")}, "--heat is nan; it must be above 0"),
            ({"dishes": ("soup", 3)}, "--dish is 3; it must be of type str"),
            ({"kind": "coal"}, "--kind is 'coal'; it must be gas, wood or none"),
        ],
    )
    def test_a_wrong_value_is_named_with_what_it_must_be(self, values: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError) as told:
            Kitchen(**values)
        assert str(told.value).startswith(said)


class TestDerived:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_the_command_line_has_every_option_with_its_help(self, command: str) -> None:
        group: Any = typer.main.get_command(app)
        parameters = {parameter.name: parameter for parameter in group.commands[command].params}
        for name, declared in options_of_command(command).items():
            parameter = parameters[name]
            assert (parameter.help, parameter.multiple) == (declared.help, declared.many)
            assert declared.flag in parameter.opts
        assert set(parameters) - {"help"} == set(options_of_command(command))

    def test_a_study_file_may_set_every_option_that_says_something_about_the_runs(self) -> None:
        of_commands = {name for command in COMMANDS for name in options_of_command(command)}
        assert of_commands - set(study_options()) == {"config", "dry_run", "yes", "json"}

    def test_a_worker_plans_a_run_under_the_same_request(self, registry: Any, tmp_path: Path) -> None:
        request = PlanRequest(
            tasks=("anger",), models=("mini",), strategies=("bottom2",), seeds=(3,), data_seed=5, limit_train=48,
            limit_eval=24, sample=True, cache_size="7MB", checkpoint_every=2.0, allow_pickles=True, drop_bad=True,
            device="cpu", precision="fp32", cuda_graphs="off",
            overrides=(("command line", {"epochs": 2, "adam_beta2": 0.9}),),
        )  # fmt: skip
        (run,) = build_plan(request, registry).runs
        again = rebuild_run(run.spec, source_of(run, registry), registry, PlanCache())
        assert again.spec == run.spec
        for declared in options_of(PlanRequest).values():
            expected = {"init_seed": 3}.get(declared.field, getattr(request, declared.field))
            assert getattr(again.request, declared.field) == expected, declared.field


class TestSeveralRates:
    """A sweep crosses several values of what may be an axis of its grid, wherever they are given."""

    def planned(self, said: Any) -> list[float]:
        assert said.code == 0, said.err
        return [run["hyper"]["lr"] for run in json.loads(said.out)["planned"]]

    def test_on_the_command_line_and_in_a_study(self, alue_bench: CommandLine) -> None:
        dry = ("-t", "anger", "-m", "mini", "--grid", "bottom=0", "--sample", "--dry-run", "--json")
        Path("rates.toml").write_text("lr = [2e-5, 5e-5]\n")
        by_grid = alue_bench("sweep", *dry, "--grid", "lr=2e-5,5e-5")
        by_option = alue_bench("sweep", *dry, "--lr", "2e-5", "--lr", "5e-5")
        by_study = alue_bench("sweep", *dry, "--config", "rates.toml")
        assert sorted(self.planned(by_grid)) == [2e-5, 5e-5]
        assert self.planned(by_grid) == self.planned(by_option) == self.planned(by_study)
        assert self.planned(alue_bench("sweep", *dry, "--config", "rates.toml", "--lr", "1e-3")) == [1e-3]
        refused = alue_bench("sweep", *dry, "--grid", "lr=2e-5", "--lr", "2e-5", "--lr", "5e-5")
        assert "--lr and --grid lr=… set the same value twice" in refused.err

    def test_a_run_takes_one(self, registry: Any, tmp_path: Path) -> None:
        study = tmp_path / "rates.toml"
        study.write_text("lr = [2e-5, 5e-5]\n")
        assert read_study(study) == {"lr": [2e-5, 5e-5]}
        with pytest.raises(UsageError, match="lr has 2 values; alue-bench run takes one"):
            merge_study({}, str(study), registry)
        study.write_text("lr = [2e-5]\nseed = [7]\n")
        settings, overrides = merge_study({}, str(study), registry, command="search")
        assert (settings, dict(overrides)[f"study {study}"]) == ({"seed": 7}, {"lr": 2e-5})

    def test_a_wrong_one_is_named_with_its_line(self, tmp_path: Path) -> None:
        study = tmp_path / "rates.toml"
        study.write_text("# rates\nlr = [2e-5, -1]\n")
        with pytest.raises(UsageError, match=r"rates.toml:2: lr is -1.0; it must be above 0"):
            read_study(study)
