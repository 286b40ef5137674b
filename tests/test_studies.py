"""Studies: found by path or by name; those that ship are whole, known key by key, and plan what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

from alue_bench.contract.errors import UsageError
from alue_bench.planning.grid import parse_grid
from alue_bench.reporting.published import published_results
from alue_bench.studies.files import find_study, read_study, study_keys

SHIPPED = ("paper-figure1", "paper-figure1-mini", "paper-tables", "paper-tables-mini")
PLUGIN = """
from pathlib import Path
from alue_bench import hookimpl

@hookimpl
def alue_bench_studies():
    return [Path(__file__).parent / name for name in {names!r}]
"""


class TestShipped:
    def test_these_and_no_others(self, registry: Any) -> None:
        assert set(registry.studies) == set(SHIPPED)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_every_key_is_known_and_every_name_is_installed(self, registry: Any, name: str) -> None:
        study = read_study(registry.study(name))
        assert set(study) <= set(study_keys())
        assert study["title"]
        for task in study["task"]:
            registry.task(task)
        for model in study["model"]:
            registry.model(model)
        for strategy in study.get("strategy", ()):
            registry.strategy(strategy)

    def test_the_papers_tables_are_those_that_were_published(self, registry: Any) -> None:
        study, published = read_study(registry.study("paper-tables")), published_results()
        assert study["task"] == list(dict.fromkeys(published["task"]))
        assert study["model"] == list(dict.fromkeys(published["model"]))
        assert study["strategy"] == ["full", "bottom3top4"]
        assert (study["seed"], study.get("seeds")) == ([42], None)

    @pytest.mark.parametrize("name", ["paper-tables", "paper-figure1"])
    def test_what_the_paper_does_not_state_is_said_where_it_is_chosen(self, registry: Any, name: str) -> None:
        text = registry.study(name).read_text(encoding="utf-8")
        for choice in ("embeddings", "seeds", "Hyper-parameters", "Which F1", "split"):
            lines = [line for line in text.splitlines() if choice.lower() in line.lower() and line.startswith("#")]
            assert any("not stated" in line for line in lines), choice

    def test_the_mini_study_plans_every_table_on_the_sample(self, alue_bench: CommandLine) -> None:
        said = alue_bench("run", "--config", "paper-tables-mini", "--dry-run", "--json")
        assert said.code == 0, said.err
        planned = json.loads(said.out)["planned"]
        assert {run["task"] for run in planned} == set(published_results()["task"])
        assert {run["strategy"] for run in planned} == {"full", "bottom3top4"}
        assert {run["model"] for run in planned} == {"mini"}
        assert len(planned) == 14

    def test_the_figure_is_every_pair_of_twelve_layers(self, registry: Any) -> None:
        study = read_study(registry.study("paper-figure1"))
        assert (study["command"], study["task"]) == ("sweep", ["mdd"])
        assert len(parse_grid(study["grid"]).cells(12)) == 91

    def test_the_mini_figure_plans_a_part_of_the_same_grid(self, alue_bench: CommandLine) -> None:
        said = alue_bench("sweep", "--config", "paper-figure1-mini", "--dry-run", "--json")
        assert said.code == 0, said.err
        document = json.loads(said.out)
        planned = {run["strategy"] for run in document["planned"]}
        whole = set(parse_grid(["bottom-top"]).strategy_names(12))
        assert planned < whole
        assert {"full", "bottom12", "top12", "bottom2top4"} <= planned
        assert len(document["planned"]) == document["estimate"]["here"]["runs"] == len(planned) == 28

    @pytest.mark.real_data
    def test_on_real_files_tasks_without_them_are_left_out_with_where_to_get_them(
        self, alue_bench: CommandLine, official_data: Path
    ) -> None:
        said = alue_bench("run", "--config", "paper-tables-mini", "--dry-run", "--json", "--data-dir", official_data)
        assert said.code == 0, said.err
        document = json.loads(said.out)
        present = {run["task"] for run in document["planned"]}
        missing = {skipped["task"]: skipped["reason"] for skipped in document["skipped"]}
        assert present | set(missing) == set(published_results()["task"])
        assert all("get them from" in reason for reason in missing.values())


class TestFinding:
    def test_a_path_is_a_path(self, registry: Any, tmp_path: Path) -> None:
        for given in ("study.toml", "./paper-tables", str(tmp_path / "anything")):
            assert find_study(given, registry) == Path(given)

    def test_a_name_is_the_plugins_file(self, registry: Any) -> None:
        assert find_study("paper-tables", registry) == registry.studies["paper-tables"].value
        assert find_study("study:paper-tables", registry) == registry.studies["paper-tables"].value

    def test_an_unknown_name_lists_the_known_ones(self, alue_bench: CommandLine) -> None:
        said = alue_bench("run", "--config", "paper-table", "--dry-run")
        assert said.code == 2
        assert "unknown study 'paper-table' (did you mean 'paper-tables'?)" in said.err
        assert all(name in said.err for name in SHIPPED)
        assert "Traceback" not in said.everything

    def test_a_name_that_is_a_file_too_is_explained(
        self, registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("paper-tables").write_text('task = "anger"\n')
        with pytest.raises(UsageError, match=r"\./paper-tables for the file, study:paper-tables for the study"):
            find_study("paper-tables", registry)
        assert find_study("./paper-tables", registry) == Path("paper-tables")

    def test_a_study_for_another_command_names_it(self, alue_bench: CommandLine) -> None:
        Path("grid.toml").write_text('command = "sweep"\ntask = "anger"\n')
        said = alue_bench("run", "-c", "grid.toml", "--dry-run")
        assert said.code == 2
        assert "alue-bench sweep --config grid.toml" in said.err


class TestOfPlugins:
    def test_a_plugins_study_is_listed_and_found(self, install: Any, alue_bench: CommandLine) -> None:
        site = install("alue-bench-cafes", PLUGIN.format(names=["cafes.toml"]))
        (site / "cafes.toml").write_text('title = "Cafés"\ntask = "anger"\nmodel = "mini"\nlimit_train = 48\n')
        listed = {entry["name"]: entry for entry in json.loads(alue_bench("list", "studies", "--json").out)}
        assert set(listed) == {*SHIPPED, "cafes"}
        assert (listed["cafes"]["title"], listed["cafes"]["command"]) == ("Cafés", "alue-bench run --config cafes")
        assert listed["cafes"]["from"].startswith("alue-bench-cafes 1.0")
        said = alue_bench("run", "--config", "cafes", "--dry-run", "--json")
        assert {run["task"] for run in json.loads(said.out)["planned"]} == {"anger"}

    def test_one_that_is_not_there_is_reported_and_the_rest_goes_on(
        self, install: Any, alue_bench: CommandLine
    ) -> None:
        install("alue-bench-cafes", PLUGIN.format(names=["nowhere.toml"]))
        said = alue_bench("plugins")
        assert "alue_bench_studies() returned" in said.everything
        assert "paper-tables" in alue_bench("list", "studies").out

    def test_a_broken_one_is_listed_with_what_is_wrong(self, install: Any, alue_bench: CommandLine) -> None:
        site = install("alue-bench-cafes", PLUGIN.format(names=["cafes.toml"]))
        (site / "cafes.toml").write_text("epochs = 0\n")
        said = alue_bench("list", "studies", "--json")
        assert said.code == 0
        (broken,) = (entry for entry in json.loads(said.out) if entry["name"] == "cafes")
        assert "cafes.toml:1: epochs is 0" in broken["problem"]

    def test_two_of_one_name_are_an_error_that_names_both(self, install: Any, alue_bench: CommandLine) -> None:
        site = install("alue-bench-cafes", PLUGIN.format(names=["paper-tables.toml"]))
        (site / "paper-tables.toml").write_text('task = "anger"\n')
        said = alue_bench("list", "studies")
        assert said.code == 2
        assert "alue-bench-cafes" in said.err
        assert "study 'paper-tables'" in said.err


class TestSkipMissing:
    def test_what_was_named_must_be_there(self, alue_bench: CommandLine, tmp_path: Path) -> None:
        said = alue_bench("run", "-t", "anger", "-m", "mini", "--data-dir", tmp_path, "--dry-run")
        assert said.code == 2
        assert "no files of task 'anger'" in said.err

    def test_unless_it_may_be_missing(self, alue_bench: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        said = alue_bench(
            "run", "-t", "anger", "-m", "mini", "-m", "marbert", "-s", "full", "--skip-missing", "--dry-run", "--json"
        )
        assert said.code == 0, said.err
        document = json.loads(said.out)
        assert [run["model"] for run in document["planned"]] == ["mini"]
        (skipped,) = document["skipped"]
        assert skipped["model"] == "marbert"
        assert "UBC-NLP/MARBERT" in skipped["reason"]

    def test_a_misspelt_name_is_an_error_in_any_case(self, alue_bench: CommandLine) -> None:
        said = alue_bench("run", "-t", "angre", "-m", "mini", "--skip-missing", "--dry-run")
        assert said.code == 2
        assert "unknown task 'angre'" in said.err
