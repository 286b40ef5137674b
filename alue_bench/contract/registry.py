"""The registry of plugins and their declarations. Plugins are discovered through entry points of Python packages.

A plugin that fails to load is reported, and does not affect the other plugins.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from alue_bench.contract import hookspecs
from alue_bench.contract.errors import AlueBenchError, PluginError, UsageError
from alue_bench.contract.executor import Executor
from alue_bench.contract.formats import excerpt
from alue_bench.contract.model import Model
from alue_bench.contract.spec import resolve_hyper_parameters
from alue_bench.contract.strategy import EncoderShape, Outline, Strategy, StrategyFamily, outline
from alue_bench.contract.task import NAME, Task
from alue_bench.messages.redaction import redact

if TYPE_CHECKING:
    import typer

DISABLE_VARIABLE = "ALUE_BENCH_DISABLE_PLUGINS"
"""The environment variable that disables plugins. Its value is a list of names of their entry points or distributions,
separated by commas."""

RESERVED_EXECUTORS = ("local", "ray")
"""The names of the built-in executors, which no plugin may use."""

Declares = TypeVar("Declares", Task, Model)
T = TypeVar("T", Task, Model, StrategyFamily, Path, Executor)


@dataclass(frozen=True)
class Origin:
    """The origin of a declared task, model or other object: the plugin that declares it, identified by entry point."""

    distribution: str
    """The name of the Python distribution that contains the plugin, such as "alue-bench"."""
    version: str
    """The version of the distribution."""
    entry_point: str
    """The name of the entry point."""
    module: str
    """The module that the entry point names."""

    def __str__(self) -> str:
        """Return the distribution, its version and the entry point, such as "alue-bench 0.1.0 (tasks)"."""
        return f"{self.distribution} {self.version} ({self.entry_point})"


@dataclass
class PluginReport:
    """A report on one plugin: the names of its hooks and of the objects that it declares, or why it failed."""

    origin: Origin
    status: str = "loaded"  # loaded | failed | disabled
    problems: list[str] = field(default_factory=list)
    """The reasons why the plugin failed; empty if it did not."""
    tasks: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    executors: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    """The names of all hooks that the plugin implements, including the hooks that observe runs or add commands."""

    def fail(self, problem: str) -> None:
        """Set the status to "failed" and add a problem to the report."""
        self.status = "failed"
        self.problems.append(problem)


@dataclass(frozen=True)
class Declared(Generic[T]):
    """An object that a plugin declares, such as a task or a model, together with the plugin (`origin`)."""

    value: T
    origin: Origin


@dataclass(frozen=True)
class Registry:
    """The tasks, models, families of strategies, study files and executors that the loaded plugins declare."""

    manager: pluggy.PluginManager
    """The manager in which the loaded plugins are registered, and through which their hooks are called."""
    reports: tuple[PluginReport, ...]
    """A report on each installed plugin, including those that failed or are disabled."""
    tasks: Mapping[str, Declared[Task]]
    models: Mapping[str, Declared[Model]]
    families: tuple[Declared[StrategyFamily], ...]
    """The families of strategies. Strategies have no list of names: each family parses the names of its strategies."""
    studies: Mapping[str, Declared[Path]] = field(default_factory=dict)
    """The study files by name."""
    executors: Mapping[str, Declared[Executor]] = field(default_factory=dict)
    strict: bool = False
    """True if a failed plugin is a fatal error, both when plugins are loaded and when they add their commands."""

    def task(self, name: str) -> Task:
        """Return the task with this name. Raise UsageError, with the most similar name, if no plugin declares it."""
        return self._find("task", name, self.tasks).value

    def model(self, name: str) -> Model:
        """Return the model with this name. Raise UsageError, with the most similar name, if no plugin declares it."""
        return self._find("model", name, self.models).value

    def strategy(self, name: str) -> tuple[Strategy, Origin]:
        """Return the strategy with this name, and the plugin that declares its family.

        Raises:
            UsageError: No family accepts the name.
            PluginError: Two families return different strategies for the name, or the code of a family fails.
        """
        claims = [(strategy, d.origin) for d in self.families if (strategy := _parse(d, name)) is not None]
        rival = next((origin for strategy, origin in claims[1:] if (strategy, origin) != claims[0]), None)
        if rival is not None:
            raise PluginError(_duplicate_name(f"strategy {excerpt(name)}", "claimed", claims[0][1], rival))
        if not claims:
            examples = [example for d in self.families for example in d.value.examples]
            grammars = ", ".join(dict.fromkeys(d.value.grammar for d in self.families))
            raise UsageError(
                f"unknown strategy {excerpt(name)}{_nearest(name, examples)}; strategies are written {grammars}"
                f"{self._failures_hint()}"
            )
        return claims[0]

    def families_of(self, names: Sequence[str]) -> list[StrategyFamily]:
        """Return the families of the strategies with these names, without duplicates.

        For a name without a valid strategy, the method raises the same error as `strategy`.
        """
        for name in names:
            self.strategy(name)
        return [d.value for d in self.families if any(_parse(d, name) is not None for name in names)]

    def study(self, name: str) -> Path:
        """Return the study file with this name. Raise UsageError, with the most similar name, if there is none."""
        return self._find("study", name, self.studies).value

    def failures(self) -> list[PluginReport]:
        """Return the reports of the plugins that failed."""
        return [report for report in self.reports if report.status == "failed"]

    def _find(self, kind: str, name: str, known: Mapping[str, Declared[T]]) -> Declared[T]:
        if name in known:
            return known[name]
        raise UsageError(
            f"unknown {kind} {excerpt(name)}{_nearest(name, known)}; known are {', '.join(sorted(known)) or 'none'}"
            f"{self._failures_hint()}"
        )

    def _failures_hint(self) -> str:
        failed = self.failures()
        if not failed:
            return ""
        causes = "; ".join(f"{report.origin}: {report.problems[0]}" for report in failed)
        return f". A plugin that failed to load may have provided it: {causes}"


def outline_of(strategy: Strategy, origin: Origin, shape: EncoderShape) -> Outline:
    """Return the changes that a plugin's strategy makes to a model before training, as `strategy.outline` does.

    `Strategy.revisions` is called too, so that an error in it is found before a run begins.

    Args:
        strategy: The strategy.
        origin: The plugin that declares the strategy's family; error messages name it.
        shape: The size of the model's encoder.

    Raises:
        DoesNotFit: The strategy cannot be applied to the model.
        PluginError: The strategy's code raises any other error, or returns a value of a wrong type.
    """
    with _errors_naming(origin, strategy.name):
        outlined = outline(strategy, shape)
        strategy.revisions()
    return outlined


def _parse(declared: Declared[StrategyFamily], name: str) -> Strategy | None:
    """Return the strategy of this name in a declared family; None if the name does not belong to the family."""
    with _errors_naming(declared.origin, name):
        strategy = declared.value.parse(name)
        if strategy is None:
            return None
        if not isinstance(strategy, Strategy):
            raise TypeError(f"parse() returned {strategy!r:.60} where a Strategy was expected")
        if not isinstance(strategy.name, str):
            raise TypeError(f"its name is {strategy.name!r:.60}, which is not a string")
        return strategy


@contextmanager
def _errors_naming(origin: Origin, strategy: str) -> Iterator[None]:
    """Turn an error in the `with` block into a PluginError that names the plugin; pass on any AlueBenchError.

    Args:
        origin: The plugin whose code the block calls.
        strategy: The name of the strategy, for the error message.
    """
    try:
        yield
    except AlueBenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"plugin {origin} failed on strategy {excerpt(strategy)}: {_cause(error)}; correct the plugin, or leave "
            "the strategy out"
        ) from error


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def entry_points() -> list[tuple[EntryPoint, Distribution]]:
    """Return the entry points of the group `alue_bench` with their distributions, sorted and without duplicates."""
    by_name: dict[tuple[str, str], tuple[EntryPoint, Distribution]] = {}
    for distribution in distributions():
        for entry_point in distribution.entry_points:
            if entry_point.group == hookspecs.GROUP:
                # An editable installation may be listed twice. As with imports, the first one on sys.path is used.
                by_name.setdefault((_name_of(distribution), entry_point.name), (entry_point, distribution))
    return [by_name[key] for key in sorted(by_name)]


def _metadata(distribution: Distribution, field: str, otherwise: str) -> str:
    """Return a field of a distribution's metadata; `otherwise` if a broken installation lacks the field."""
    try:
        value: str | None = distribution.metadata[field]
    except Exception:  # missing or unreadable metadata raise various errors, without further information
        value = None
    return value or otherwise


def _name_of(distribution: Distribution) -> str:
    return _metadata(distribution, "Name", "a distribution without a name")


def load_registry(*, disable: Iterable[str] = (), strict: bool = False) -> Registry:
    """Load every installed plugin that is not disabled, and return the objects that the plugins declare.

    Args:
        disable: The names of the entry points or distributions of the plugins that are not loaded. The environment
            variable `ALUE_BENCH_DISABLE_PLUGINS` can name further plugins.
        strict: Whether a failed plugin is a fatal error; otherwise, `Registry.reports` says what failed.

    Raises:
        PluginError: A name is declared twice, by one plugin or by two; or, with `strict`, a plugin failed.
    """
    disabled = {*disable, *filter(None, os.environ.get(DISABLE_VARIABLE, "").replace(" ", "").split(","))}
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    reports: list[PluginReport] = []
    loaded: list[tuple[PluginReport, object]] = []
    for entry_point, distribution in entry_points():
        origin = Origin(
            _name_of(distribution),
            _metadata(distribution, "Version", "of unknown version"),
            entry_point.name,
            entry_point.value,
        )
        report = PluginReport(origin)
        reports.append(report)
        if disabled & {origin.entry_point, origin.distribution}:
            report.status = "disabled"
            continue
        try:
            plugin = entry_point.load()
            manager.register(plugin, name=str(origin))
            manager.check_pending()  # raises an error for a misspelt hook, which pluggy would otherwise ignore
        except (Exception, SystemExit) as error:  # a broken plugin must not end the program
            report.fail(_cause(error))
            if manager.has_plugin(str(origin)):
                manager.unregister(name=str(origin))
            continue
        report.hooks = sorted(caller.name for caller in manager.get_hookcallers(plugin) or ())
        loaded.append((report, plugin))

    tasks: dict[str, Declared[Task]] = {}
    models: dict[str, Declared[Model]] = {}
    families: dict[str, Declared[StrategyFamily]] = {}
    studies: dict[str, Declared[Path]] = {}
    executors: dict[str, Declared[Executor]] = {}
    for report, plugin in loaded:
        for task in _with_known_defaults(_declared(plugin, report, "alue_bench_tasks", Task), report, "task"):
            _add_unique("task", task.name, Declared(task, report.origin), tasks)
            report.tasks.append(task.name)
        for model in _with_known_defaults(_declared(plugin, report, "alue_bench_models", Model), report, "model"):
            _add_unique("model", model.name, Declared(model, report.origin), models)
            report.models.append(model.name)
        for family in _declared(plugin, report, "alue_bench_strategies", StrategyFamily):
            _add_unique("strategy family", family.grammar, Declared(family, report.origin), families)
            report.strategies.append(family.grammar)
        for study in _declared(plugin, report, "alue_bench_studies", Path):
            if study.suffix != ".toml" or not NAME.fullmatch(study.stem) or not study.is_file():
                report.fail(f"alue_bench_studies() returned {str(study)!r}, which is not a file NAME.toml")
                continue
            _add_unique("study", study.stem, Declared(study, report.origin), studies)
            report.studies.append(study.stem)
        for executor in _declared(plugin, report, "alue_bench_executors", Executor):
            if not isinstance(executor.name, str) or not NAME.fullmatch(executor.name):
                report.fail(
                    f"alue_bench_executors() named one {_repr_or_error(executor.name)}, but names match {NAME.pattern}"
                )
                continue
            if executor.name in RESERVED_EXECUTORS:
                report.fail(
                    f"alue_bench_executors() returned {executor.name!r}, which is the name of a built-in one; rename it"
                )
                continue
            _add_unique("executor", executor.name, Declared(executor, report.origin), executors)
            report.executors.append(executor.name)
    registry = Registry(manager, tuple(reports), tasks, models, tuple(families.values()), studies, executors, strict)
    _refuse_failures(registry)
    return registry


def _refuse_failures(registry: Registry) -> None:
    """Raise PluginError if a plugin failed and the registry is strict."""
    if registry.strict and registry.failures():
        report = registry.failures()[0]
        raise PluginError(f"plugin {report.origin} failed: {report.problems[0]} (--strict makes this fatal)")


def _declared(plugin: object, report: PluginReport, hook: str, kind: type[T]) -> list[T]:
    """Call a plugin's hook, and return the declared objects that have the type `kind`.

    The result is empty if the plugin does not implement the hook. A problem is added to the plugin's report if the hook
    fails or is not marked as a hook, and for each returned object that is not of the type `kind`.
    """
    function: Callable[[], Iterable[Any]] | None = getattr(plugin, hook, None)
    if function is None:
        return []
    if not hasattr(function, f"{hookspecs.GROUP}_impl"):
        report.fail(f"{hook}() is not marked with @alue_bench.hookimpl, so nothing calls it")
        return []
    try:
        values = list(function())
    except (Exception, SystemExit) as error:  # as above: a broken plugin must not end the program
        report.fail(f"{hook}() raised {_cause(error)}")
        return []
    good = [value for value in values if isinstance(value, kind)]
    for value in values:
        if not isinstance(value, kind):
            report.fail(f"{hook}() returned {_repr_or_error(value)} where a {kind.__name__} was expected")
    return good


def _with_known_defaults(declared: list[Declares], report: PluginReport, kind: str) -> list[Declares]:
    """Return the tasks or models whose `defaults` are valid hyper-parameters.

    For each task or model with invalid `defaults`, a problem is added to the plugin's report.
    """
    good = []
    for value in declared:
        try:
            resolve_hyper_parameters([(f"{kind} {value.name!r}", value.defaults)])
        except UsageError as error:
            report.fail(f"{error}; correct or remove that entry of defaults")
        else:
            good.append(value)
    return good


def _add_unique(kind: str, name: str, declared: Declared[T], taken: dict[str, Declared[T]]) -> None:
    """Add a declaration to `taken` under its name. Raise PluginError if there already is one with this name."""
    if name in taken:
        raise PluginError(_duplicate_name(f"{kind} {name!r}", "declared", taken[name].origin, declared.origin))
    taken[name] = declared


def _duplicate_name(subject: str, verb: str, one: Origin, other: Origin) -> str:
    """Return the error message, with a remedy, for a name that is declared twice, by the same plugin or by two plugins.

    Args:
        subject: The kind and the name, such as "task 'mdd'".
        verb: The participle for the message: "declared" or "claimed".
        one: The plugin of the first declaration.
        other: The plugin of the second declaration.
    """
    if one == other:
        return (
            f"{subject} is {verb} twice by {one}; rename or remove one of the two in its module {one.module}, or leave "
            f"the plugin out with --disable-plugin {_name_to_disable(one, None)}"
        )
    return (
        f"{subject} is {verb} by {one} and by {other}; leave one of them out with --disable-plugin "
        f"{_name_to_disable(one, other)} or --disable-plugin {_name_to_disable(other, one)}, or with {DISABLE_VARIABLE}"
    )


def _name_to_disable(origin: Origin, kept: Origin | None) -> str:
    """Return a value of `--disable-plugin` that disables the plugin `origin` but not the plugin `kept`.

    The value is the name of the entry point or of the distribution of `origin`, quoted for a shell. If `kept` is None,
    no plugin needs to be kept, and the value is the name of the entry point.
    """
    others = {kept.entry_point, kept.distribution} if kept is not None else set()
    return shlex.quote(origin.entry_point if origin.entry_point not in others else origin.distribution)


def _cause(error: BaseException) -> str:
    """Return an error's type and message on one line; passwords are removed, and a long message is cut."""
    try:
        message = " ".join(redact(str(error)).split())  # pluggy's messages have several lines
    except Exception:  # the str() of a plugin's own exception class may fail
        message = ""
    return f"{type(error).__name__}: {message:.300}" if message else type(error).__name__


def _repr_or_error(value: object) -> str:
    """Return the beginning of a value's repr or, if the repr raises an error, a phrase that says so."""
    try:
        return f"{value!r:.80}"
    except Exception as error:
        return f"a {type(value).__name__} whose repr raises {type(error).__name__}"


def add_commands(registry: Registry, app: typer.Typer) -> None:
    """Let every plugin add its commands to the command-line application.

    A plugin that raises an error is reported as failed, without effect on the other plugins. A command whose name is
    already in use is not added, and its plugin is reported as failed.

    Raises:
        PluginError: A plugin failed and the registry is strict.
    """
    reports = {str(report.origin): report for report in registry.reports}
    registered: tuple[list[Any], list[Any]] = (app.registered_commands, app.registered_groups)
    for infos in registered:  # remove the commands that an earlier call in this process added
        infos[:] = [info for info in infos if not hasattr(info, _ADDED_BY)]
    owners = {_command_name(info): "alue-bench" for infos in registered for info in infos}
    for implementation in registry.manager.hook.alue_bench_commands.get_hookimpls():
        plugin = implementation.plugin_name
        before = [len(infos) for infos in registered]
        _call(implementation, lambda plugin, cause: reports[plugin].fail(cause), "alue_bench_commands", app=app)
        for infos, known in zip(registered, before, strict=True):
            for info in infos[known:]:
                setattr(info, _ADDED_BY, plugin)
                name = _command_name(info)
                if name in owners:
                    infos.remove(info)
                    reports[plugin].fail(
                        f"alue_bench_commands() adds the command {name!r}, which {owners[name]} has already; rename it"
                    )
                owners.setdefault(name, plugin)
    _refuse_failures(registry)


_ADDED_BY = "alue_bench_plugin"
"""The name of the attribute that `add_commands` sets on a command to record which plugin added it."""


def _command_name(info: Any) -> str:
    """Return the name that Typer gives to a command or a group of commands.

    Args:
        info: Typer's record of a registered command or group.
    """
    from typer.main import get_command_name

    inner = getattr(getattr(info, "typer_instance", None), "info", None)
    given = next((name for name in (info.name, getattr(inner, "name", None)) if isinstance(name, str)), None)
    return given if given is not None else get_command_name(getattr(info.callback, "__name__", ""))


def notify(registry: Registry, hook: str, warn: Callable[[str], None], **arguments: object) -> None:
    """Call a hook in every plugin that implements it, even if some of the plugins raise errors.

    Args:
        registry: The loaded plugins.
        hook: The name of a hook that observes runs, such as "alue_bench_run_started".
        warn: A function that is called with a message for each plugin that raises an error.
        **arguments: The arguments of the hook.
    """
    _call_all(registry, hook, lambda plugin, cause: warn(f"plugin {plugin}: {cause}"), **arguments)


def _call_all(registry: Registry, hook: str, failed: Callable[[str, str], None], **arguments: object) -> None:
    """Call a hook's implementations in all plugins.

    Each implementation gets only the arguments that its signature names. If it raises an error,
    `failed(plugin, cause)` is called before the next implementation is called.
    """
    for implementation in getattr(registry.manager.hook, hook).get_hookimpls():
        _call(implementation, failed, hook, **arguments)


def _call(implementation: Any, failed: Callable[[str, str], None], hook: str, **arguments: object) -> None:
    """Call one plugin's implementation of a hook; if it raises an error, call `failed(plugin, cause)`."""
    wanted = {name: arguments[name] for name in implementation.argnames}
    try:
        implementation.function(**wanted)
    except (Exception, SystemExit) as error:  # a broken plugin must not end the program or lose a result
        failed(implementation.plugin_name, f"{hook}() raised {_cause(error)}")
