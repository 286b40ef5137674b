"""Plugins are found through entry points; a broken one is reported, and everything else works."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

from alue_bench.contract.errors import PluginError, UsageError
from alue_bench.contract.registry import Registry, load_registry

Install = Callable[..., Path]

MODEL = """
from alue_bench import Model, hookimpl

@hookimpl
def alue_bench_models():
    return [Model(name={name!r}, title="a model", checkpoint="some/where")]
"""
FAMILY = """
from alue_bench import EncoderShape, FreezePlan, Strategy, StrategyFamily, hookimpl

class Odd(Strategy):
    name = {name!r}

    def freeze_plan(self, shape):
        return FreezePlan(shape, frozenset(range(1, shape.layers, 2)))

@hookimpl
def alue_bench_strategies():
    parse = lambda name: Odd() if name == {name!r} else None
    return [StrategyFamily(grammar={grammar!r}, title="t", source="s", examples=({name!r},), parse=parse)]
"""
OUT_OF_DOMAIN = """
import dataclasses
from alue_bench import Splits, hookimpl
from alue_bench_tasks import anger

@hookimpl
def alue_bench_tasks():
    splits = Splits(test=anger.TASK.splits.test, protocol="the same rows again")
    return [dataclasses.replace(anger.TASK, name="shifted", splits=splits, trained_on="anger")]
"""

BROKEN = {
    "raises at import": ("raise OSError('no libfoo.so')\n", "OSError: no libfoo.so"),
    "exits at import": ("import sys\nsys.exit('go away')\n", "SystemExit: go away"),
    "imports what is not there": ("import nowhere_to_be_found\n", "No module named 'nowhere_to_be_found'"),
    "does not parse": ("def (:\n", "SyntaxError"),
    "misspells a hook": (
        "from alue_bench import hookimpl\n\n@hookimpl\ndef alue_bench_taks():\n    return []\n",
        "alue_bench_taks",
    ),
    "asks a hook for what it does not give": (
        "from alue_bench import hookimpl\n\n@hookimpl\ndef alue_bench_tasks(config):\n    return []\n",
        "config",
    ),
    "raises in a hook": (
        "from alue_bench import hookimpl\n\n@hookimpl\ndef alue_bench_tasks():\n    raise KeyError('x')\n",
        "alue_bench_tasks() raised KeyError",
    ),
    "returns nothing": (
        "from alue_bench import hookimpl\n\n@hookimpl\ndef alue_bench_tasks():\n    pass\n",
        "alue_bench_tasks() raised TypeError",
    ),
    "returns strings": (
        "from alue_bench import hookimpl\n\n@hookimpl\ndef alue_bench_models():\n    return ['bert']\n",
        "alue_bench_models() returned 'bert' where a Model was expected",
    ),
    "declares a hyper-parameter that there is not": (
        "from alue_bench import Model, hookimpl\n\n@hookimpl\ndef alue_bench_models():\n"
        "    return [Model(name='m', title='t', checkpoint='c', defaults={'learning_rate': 1})]\n",
        "model 'm': unknown hyper-parameter 'learning_rate'",
    ),
    "raises what cannot be written": (
        "class Worse(Exception):\n    def __str__(self):\n        raise ValueError\n\nraise Worse\n",
        "Worse",
    ),
    "returns what cannot be written": (
        "from alue_bench import hookimpl\n\nclass Worse:\n    def __repr__(self):\n        raise ValueError\n\n"
        "@hookimpl\ndef alue_bench_tasks():\n    return [Worse()]\n",
        "a Worse whose repr raises ValueError where a Task was expected",
    ),
    "names an executor that no option can": (
        "from alue_bench import Executor, hookimpl\n\n@hookimpl\ndef alue_bench_executors():\n"
        "    return [Executor(name=['x'], title='t', start=print)]\n",
        "alue_bench_executors() named one ['x'], but names match",
    ),
    "takes a command that there is": (
        "from alue_bench import hookimpl\n\n@hookimpl\ndef alue_bench_commands(app):\n"
        "    app.command('run')(lambda: print('mine'))\n",
        "adds the command 'run', which alue-bench has already; rename it",
    ),
    "declares nonsense": (
        "from alue_bench import Model, hookimpl\n\n@hookimpl\ndef alue_bench_models():\n"
        "    return [Model(name='Not A Name', title='t', checkpoint='c')]\n",
        "model name 'Not A Name' must match",
    ),
}


def report(registry: Registry, distribution: str) -> Any:
    (own,) = [report for report in registry.reports if report.origin.distribution == distribution]
    return own


class TestBuiltIn:
    def test_they_are_ordinary_plugins_and_all_load(self, registry: Registry) -> None:
        ours = [r for r in registry.reports if r.origin.distribution == "alue-bench"]
        assert {r.origin.entry_point: r.status for r in ours} == dict.fromkeys(
            ("tasks", "models", "strategies"), "loaded"
        )

    def test_each_can_be_disabled(self) -> None:
        assert load_registry(disable=["tasks"]).tasks == {}
        assert load_registry(disable=["alue-bench"]).families == ()


@pytest.mark.parametrize(("source", "cause"), BROKEN.values(), ids=BROKEN)
class TestABrokenPlugin:
    def test_is_reported_with_its_cause_while_everything_else_works(
        self, install: Install, alue_bench: CommandLine, source: str, cause: str
    ) -> None:
        install("alue-bench-broken", source, version="3.2")
        listed = alue_bench("plugins")
        assert listed.code == 0
        assert "failed: alue-bench-broken 3.2 (alue_bench_broken): " in listed.out
        assert cause in listed.out
        (broken,) = [r for r in json.loads(alue_bench("plugins", "--json").out) if r["status"] == "failed"]
        assert broken["origin"] == {
            "distribution": "alue-bench-broken",
            "version": "3.2",
            "entry_point": "alue_bench_broken",
            "module": "alue_bench_broken",
        }
        assert alue_bench("list", "tasks").code == 0

    def test_is_fatal_when_asked_to_be_strict(
        self, install: Install, alue_bench: CommandLine, source: str, cause: str
    ) -> None:
        install("alue-bench-broken", source)
        said = alue_bench("plugins", "--strict")
        assert said.code == 2
        assert cause in said.err
        assert "--strict makes this fatal" in said.err


def test_a_run_warns_of_a_broken_plugin_and_goes_on(install: Install, run: CommandLine) -> None:
    install("alue-bench-broken", "raise OSError('no libfoo.so')\n")
    said = run("--dry-run")
    assert said.code == 0
    assert "warning: plugin alue-bench-broken 1.0 (alue_bench_broken) failed: OSError: no libfoo.so" in said.err


@pytest.mark.parametrize("what", [("--task", "hotels"), ("--model", "hotelbert"), ("--strategy", "odd-layers")])
def test_asking_for_what_a_broken_plugin_may_have_owned_says_so(
    install: Install, alue_bench: CommandLine, what: tuple[str, str]
) -> None:
    install("alue-bench-broken", "raise OSError('no libfoo.so')\n")
    said = alue_bench("run", *what, "--dry-run")
    assert said.code == 2
    assert "may have provided it: alue-bench-broken 1.0 (alue_bench_broken): OSError: no libfoo.so" in said.err


class TestADisabledPlugin:
    @pytest.mark.parametrize("name", ["alue-bench-broken", "broken"])
    def test_by_option_wherever_it_stands(self, install: Install, alue_bench: CommandLine, name: str) -> None:
        install("alue-bench-broken", "raise OSError\n", entry_point="broken")
        for arguments in (
            ("--disable-plugin", name, "plugins", "--json"),
            ("plugins", "--json", "--disable-plugin", name),
        ):
            statuses = {r["origin"]["entry_point"]: r["status"] for r in json.loads(alue_bench(*arguments).out)}
            assert statuses["broken"] == "disabled"

    def test_by_environment_variable(self, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
        install("alue-bench-one", "raise OSError\n")
        install("alue-bench-two", "raise OSError\n", entry_point="two")
        monkeypatch.setenv("ALUE_BENCH_DISABLE_PLUGINS", "alue-bench-one, two")
        registry = load_registry()
        assert report(registry, "alue-bench-one").status == report(registry, "alue-bench-two").status == "disabled"

    def test_is_not_even_imported(self, install: Install, tmp_path: Path) -> None:
        install("alue-bench-loud", f"open({str(tmp_path / 'imported')!r}, 'w')\n")
        load_registry(disable=["alue-bench-loud"])
        assert not (tmp_path / "imported").exists()
        load_registry()
        assert (tmp_path / "imported").exists()


class TestOneNameTwice:
    def test_the_error_names_both_distributions(self, install: Install, alue_bench: CommandLine) -> None:
        install("alue-bench-one", MODEL.format(name="same"), version="1.1")
        install("alue-bench-two", MODEL.format(name="same"), version="2.2")
        said = alue_bench("list", "models")
        assert said.code == 2
        assert "model 'same' is declared by alue-bench-one 1.1 (alue_bench_one) and by alue-bench-two 2.2" in said.err
        assert "--disable-plugin" in said.err

    def test_a_built_in_name_has_no_privilege(self, install: Install) -> None:
        install("alue-bench-one", MODEL.format(name="mini"))
        with pytest.raises(PluginError, match=r"'mini' is declared by alue-bench .* and by alue-bench-one"):
            load_registry()

    def test_disabling_one_helps(self, install: Install) -> None:
        install("alue-bench-one", MODEL.format(name="same"))
        install("alue-bench-two", MODEL.format(name="same"))
        assert str(load_registry(disable=["alue-bench-one"]).models["same"].origin).startswith("alue-bench-two")

    def test_two_grammars_that_claim_one_strategy(self, install: Install) -> None:
        install("alue-bench-one", FAMILY.format(name="odd-layers", grammar="odd-layers"))
        install("alue-bench-two", FAMILY.format(name="odd-layers", grammar="<odd|even>-layers"))
        with pytest.raises(PluginError, match=r"claimed by alue-bench-one 1.0 .* and by alue-bench-two 1.0"):
            load_registry().strategy("odd-layers")

    @pytest.mark.parametrize("kind", ["model", "strategy family", "study", "executor"])
    def test_one_plugin_that_declares_a_name_twice_is_told_to_rename_one(
        self, install: Install, alue_bench: CommandLine, tmp_path: Path, kind: str
    ) -> None:
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "same.toml").write_text("epochs = 1\n")
        sources = {
            "model": MODEL.format(name="same").replace("return [", "return 2 * ["),
            "strategy family": FAMILY.format(name="odd", grammar="same").replace("return [", "return 2 * ["),
            "study": "from pathlib import Path\nfrom alue_bench import hookimpl\n\n@hookimpl\n"
            f"def alue_bench_studies():\n    return Path({str(tmp_path)!r}).glob('*/same.toml')\n",
            "executor": "from alue_bench import Executor, hookimpl\n\n@hookimpl\ndef alue_bench_executors():\n"
            "    return 2 * [Executor(name='same', title='t', start=print)]\n",
        }
        install("alue-bench-one", sources[kind], entry_point="one")
        said = alue_bench("list", "models")
        assert said.code == 2
        assert (
            f"{kind} 'same' is declared twice by alue-bench-one 1.0 (one); rename or remove one of the two" in said.err
        )
        assert " by alue-bench-one 1.0 (one) and by " not in said.err
        (remedy,) = re.findall(r"--disable-plugin \S+", said.err)
        assert alue_bench("list", "models", *remedy.split()).code == 0

    def test_each_remedy_for_two_plugins_works_as_it_is_printed(
        self, install: Install, alue_bench: CommandLine
    ) -> None:
        install("alue-bench-one", MODEL.format(name="same"), entry_point="models of mine")
        install("alue-bench-two", MODEL.format(name="same"), entry_point="models of mine")
        said = alue_bench("list", "models")
        remedies = re.findall(r"--disable-plugin ('.*?'|[\w-]+)", said.err)
        assert remedies == ["alue-bench-one", "alue-bench-two"]
        for remedy in remedies:
            assert alue_bench("list", "models", "--disable-plugin", remedy).code == 0

    def test_two_families_of_one_plugin_that_claim_one_strategy(self, install: Install) -> None:
        source = FAMILY.format(name="odd-layers", grammar="odd-layers")
        other = "StrategyFamily(grammar='other', title='t', source='s', examples=('odd-layers',), parse=parse)]"
        install("alue-bench-one", source.replace("parse=parse)]", f"parse=parse), {other}"))
        with pytest.raises(PluginError, match=r"'odd-layers' is claimed twice by alue-bench-one .*; rename or remove"):
            load_registry().strategy("odd-layers")


class TestAPluginAtWork:
    def test_its_strategy_runs_and_its_version_is_part_of_the_result(self, install: Install, run: CommandLine) -> None:
        install("alue-bench-odd", FAMILY.format(name="odd-layers", grammar="odd-layers"), version="0.3")
        said = run("-s", "odd-layers", "--json")
        assert said.code == 0, said.err
        (done,) = json.loads(said.out)["runs"]
        assert done["strategy"] == "odd-layers"
        planned = json.loads(run("-s", "odd-layers", "--json", "--dry-run").out)["planned"]
        assert planned[0]["providers"]["alue-bench-odd"] == "0.3"
        assert planned[0]["freeze_plan"]["frozen_layers"] == [1, 3]

    def test_its_task_out_of_domain_is_scored_with_the_model_that_another_plugins_task_trained(
        self, install: Install, run: CommandLine
    ) -> None:
        install("alue-bench-outside", OUT_OF_DOMAIN, version="0.3")
        said = run("-t", "shifted", "-s", "full", "--json")
        assert said.code == 0, said.err
        here, outside = json.loads(said.out)["runs"]
        assert (here["metrics"]["runtime/train_reused"], outside["metrics"]["runtime/train_reused"]) == (0, 1)
        planned = json.loads(run("-t", "shifted", "-s", "full", "--json", "--dry-run").out)["planned"]
        own, other = (
            next(spec for spec in planned if spec["task"] == task) for task in (here["task"], outside["task"])
        )
        assert own["training_key"] == other["training_key"]
        assert (own["test_providers"], other["test_providers"]) == ({}, {"alue-bench-outside": "0.3"})

    def test_another_version_of_the_plugin_of_a_test_set_makes_another_result_of_the_same_training(
        self, install: Install, run: CommandLine, tmp_path: Path
    ) -> None:
        specs = []
        for version in ("0.3", "0.4"):
            site = install("alue-bench-outside", OUT_OF_DOMAIN, version=version)
            specs += json.loads(run("-t", "shifted", "-s", "full", "--json", "--dry-run").out)["planned"][-1:]
            shutil.rmtree(site / f"alue_bench_outside-{version}.dist-info")
        assert [spec["task"] for spec in specs] == ["shifted", "shifted"]
        assert len({spec["training_key"] for spec in specs}) == 1
        assert len({spec["fingerprint"] for spec in specs}) == 2

    def test_a_grammar_that_raises_is_named(self, install: Install, registry: Registry) -> None:
        source = FAMILY.format(name="odd-layers", grammar="odd-layers").replace(
            "parse = lambda name: Odd() if", "parse = lambda name: 1 / 0 if"
        )
        install("alue-bench-odd", source)
        with pytest.raises(PluginError, match=r"plugin alue-bench-odd 1.0 .* failed on strategy 'odd-layers'"):
            load_registry().strategy("odd-layers")

    @pytest.mark.parametrize(
        ("line", "cause"),
        [
            ("    def freeze_plan(self, shape):\n        return 1 / 0", "ZeroDivisionError: division by zero"),
            ("    def freeze_plan(self, shape):\n        return None", "TypeError: freeze_plan() returned None where"),
            ("    def kept_layers(self, shape):\n        return 3", "TypeError: 'int' object is not iterable"),
            ("    def adapter(self):\n        return {}[0]", "KeyError: 0"),
            ("    def revisions(self):\n        return self.none", "AttributeError"),
        ],
    )
    def test_whatever_its_strategy_raises_while_a_plan_is_made_is_named(
        self, install: Install, run: CommandLine, line: str, cause: str
    ) -> None:
        source = FAMILY.format(name="odd-layers", grammar="odd-layers")
        install("alue-bench-odd", source.replace("@hookimpl", f"{line}\n\n@hookimpl", 1))
        said = run("-s", "odd-layers", "--dry-run")
        assert said.code == 2
        assert "Traceback" not in said.everything
        assert "alue-bench: plugin alue-bench-odd 1.0 (alue_bench_odd) failed on strategy 'odd-layers'" in said.err
        assert cause in said.err
        assert "leave the strategy out" in said.err

    def test_its_command_is_a_command(self, install: Install, alue_bench: CommandLine) -> None:
        source = "from alue_bench import hookimpl\n\n@hookimpl\ndef alue_bench_commands(app):\n"
        source += "    @app.command('greet')\n    def greet():\n        print('good morning')\n"
        install("alue-bench-greeter", source)
        assert alue_bench("greet").out == "good morning\n"
        install("alue-bench-zebra", source.replace("good morning", "me too"))
        assert alue_bench("greet").out == "good morning\n"
        assert "adds the command 'greet', which alue-bench-greeter 1.0" in alue_bench("plugins").out


class TestObservers:
    OBSERVER = """
from alue_bench import hookimpl

@hookimpl
def alue_bench_run_started(spec):
    open({file!r}, 'a').write(f'started {{spec.label}}\\n')

@hookimpl
def alue_bench_run_finished(spec, result):
    open({file!r}, 'a').write(f'finished {{spec.strategy}} {{"test/score" in result.metrics}}\\n')
"""

    def test_are_told_of_each_run(self, install: Install, run: CommandLine, tmp_path: Path) -> None:
        install("alue-bench-observer", self.OBSERVER.format(file=str(tmp_path / "seen")))
        arguments = ("-s", "full", "-s", "bottom2")
        assert run(*arguments).code == 0
        seen = (tmp_path / "seen").read_text().splitlines()
        assert seen == [
            "started anger/tiny-bert/full/seed42",
            "finished full True",
            "started anger/tiny-bert/bottom2/seed42",
            "finished bottom2 True",
        ]
        run(*arguments)  # reused runs do not start
        assert (tmp_path / "seen").read_text().splitlines() == seen

    @pytest.mark.parametrize("hook", ["alue_bench_run_started(spec)", "alue_bench_run_finished(spec, result)"])
    def test_one_that_raises_is_reported_and_costs_nobody_a_result(
        self, install: Install, run: CommandLine, hook: str
    ) -> None:
        install("alue-bench-observer", f"from alue_bench import hookimpl\n\n@hookimpl\ndef {hook}:\n    1 / 0\n")
        said = run("-s", "full", "--json")
        assert said.code == 0
        assert json.loads(said.out)["runs"][0]["status"] == "finished"
        name = hook.partition("(")[0]
        assert (
            f"warning: plugin alue-bench-observer 1.0 (alue_bench_observer): {name}() raised ZeroDivisionError"
            in said.err
        )


def test_a_name_that_nobody_declares_is_answered_with_the_nearest(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"unknown task 'angr' \(did you mean 'anger'\?\); known are anger, arabicner"):
        registry.task("angr")
