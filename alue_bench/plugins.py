"""Discovery of plugins through entry points: a broken one is isolated, reported, and the rest goes on."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from alue_bench import hookspecs
from alue_bench.errors import AlueBenchError, PluginError, UsageError
from alue_bench.executor import Executor
from alue_bench.formats import shown
from alue_bench.model import Model
from alue_bench.redaction import redact
from alue_bench.strategy import EncoderShape, Outline, Strategy, StrategyFamily, outline
from alue_bench.task import NAME, Task

DISABLE_VARIABLE = "ALUE_BENCH_DISABLE_PLUGINS"
"""Names of plugins not to load, separated by commas: entry-point names or distribution names."""

RESERVED_EXECUTORS = ("local", "ray")

T = TypeVar("T", Task, Model, StrategyFamily, Path, Executor)


@dataclass(frozen=True)
class Origin:
    """The entry point that something comes from."""

    distribution: str
    version: str
    entry_point: str
    module: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point})"


@dataclass
class PluginReport:
    """What one entry point provides, or why it does not."""

    origin: Origin
    status: str = "loaded"  # loaded | failed | disabled
    problems: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    executors: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    """Every hook that it implements, observers and commands included."""

    def fail(self, problem: str) -> None:
        self.status = "failed"
        self.problems.append(problem)


@dataclass(frozen=True)
class Declared(Generic[T]):
    """A declaration and where it comes from."""

    value: T
    origin: Origin


@dataclass(frozen=True)
class Registry:
    """Everything the plugins declare."""

    manager: pluggy.PluginManager
    reports: tuple[PluginReport, ...]
    tasks: Mapping[str, Declared[Task]]
    models: Mapping[str, Declared[Model]]
    families: tuple[Declared[StrategyFamily], ...]
    studies: Mapping[str, Declared[Path]] = field(default_factory=dict)
    """Study files by name."""
    executors: Mapping[str, Declared[Executor]] = field(default_factory=dict)

    def task(self, name: str) -> Task:
        """Raises UsageError with the nearest name where there is none."""
        return self._find("task", name, self.tasks).value

    def model(self, name: str) -> Model:
        """Raises UsageError with the nearest name where there is none."""
        return self._find("model", name, self.models).value

    def strategy(self, name: str) -> tuple[Strategy, Origin]:
        """The strategy that one family makes of a name.

        Raises UsageError where no family knows the name, and PluginError where two do.
        """
        found = [(strategy, d.origin) for d in self.families if (strategy := _parse(d, name)) is not None]
        if len({origin for _, origin in found}) > 1:
            raise PluginError(
                f"strategy {shown(name)} is claimed by {found[0][1]} and by {found[1][1]}; disable one of them "
                f"with --disable-plugin or {DISABLE_VARIABLE}"
            )
        if not found:
            examples = [example for d in self.families for example in d.value.examples]
            grammars = ", ".join(dict.fromkeys(d.value.grammar for d in self.families))
            raise UsageError(
                f"unknown strategy {shown(name)}{_nearest(name, examples)}; strategies are written {grammars}"
                f"{self._failures_hint()}"
            )
        return found[0]

    def families_of(self, names: Sequence[str]) -> list[StrategyFamily]:
        """The families that know these names, each once. Raises as `strategy` does."""
        for name in names:
            self.strategy(name)
        return [d.value for d in self.families if any(_parse(d, name) is not None for name in names)]

    def study(self, name: str) -> Path:
        """The file of a study that a plugin ships. Raises UsageError with the nearest name where there is none."""
        return self._find("study", name, self.studies).value

    def failures(self) -> list[PluginReport]:
        return [report for report in self.reports if report.status == "failed"]

    def _find(self, kind: str, name: str, known: Mapping[str, Declared[T]]) -> Declared[T]:
        if name in known:
            return known[name]
        raise UsageError(
            f"unknown {kind} {shown(name)}{_nearest(name, known)}; known are {', '.join(sorted(known)) or 'none'}"
            f"{self._failures_hint()}"
        )

    def _failures_hint(self) -> str:
        failed = self.failures()
        if not failed:
            return ""
        causes = "; ".join(f"{report.origin}: {report.problems[0]}" for report in failed)
        return f". A plugin that failed to load may have provided it: {causes}"


def outline_of(strategy: Strategy, origin: Origin, shape: EncoderShape) -> Outline:
    """As `strategy.outline`. Raises PluginError where the strategy raises something else than it may, or gives
    something else than an outline is made of; also where its `revisions` would, in the middle of a run."""
    with _blaming(origin, strategy.name):
        found = outline(strategy, shape)
        strategy.revisions()
    return found


def _parse(declared: Declared[StrategyFamily], name: str) -> Strategy | None:
    with _blaming(declared.origin, name):
        strategy = declared.value.parse(name)
        if strategy is None:
            return None
        if not isinstance(strategy, Strategy):
            raise TypeError(f"parse() returned {strategy!r:.60} where a Strategy was expected")
        if not isinstance(strategy.name, str):
            raise TypeError(f"its name is {strategy.name!r:.60}, which is no text")
        return strategy


@contextmanager
def _blaming(origin: Origin, strategy: str) -> Iterator[None]:
    """Whatever a stranger's strategy raises inside is that plugin's failure, in a sentence."""
    try:
        yield
    except AlueBenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"plugin {origin} failed on strategy {shown(strategy)}: {_cause(error)}; mend it, or leave the strategy out"
        ) from error


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def entry_points() -> list[tuple[EntryPoint, Distribution]]:
    """The entry points of our group with their distributions, each distribution once, in a stable order."""
    found: dict[tuple[str, str], tuple[EntryPoint, Distribution]] = {}
    for distribution in distributions():
        for entry_point in distribution.entry_points:
            if entry_point.group == hookspecs.GROUP:
                # The first one on sys.path wins, as with imports; an editable install may be listed twice.
                found.setdefault((_name_of(distribution), entry_point.name), (entry_point, distribution))
    return [found[key] for key in sorted(found)]


def _metadata(distribution: Distribution, field: str, otherwise: str) -> str:
    """What a broken installation may not tell: its metadata may be missing, or not even be a text."""
    try:
        value: str | None = distribution.metadata[field]
    except Exception:  # each of these raises an error of its own, which says nothing more
        value = None
    return value or otherwise


def _name_of(distribution: Distribution) -> str:
    return _metadata(distribution, "Name", "a distribution without a name")


def load_registry(*, disable: Iterable[str] = (), strict: bool = False) -> Registry:
    """Load every plugin that is installed and not disabled.

    Raises PluginError where two plugins declare one name; and with `strict`, where any plugin failed.
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
            manager.check_pending()  # a hook of ours misspelt is an error, not silence
        except (Exception, SystemExit) as error:  # whatever a stranger's module does must not take the tool down
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
        for task in _declared(plugin, report, "alue_bench_tasks", Task):
            _claim("task", task.name, Declared(task, report.origin), tasks)
            report.tasks.append(task.name)
        for model in _declared(plugin, report, "alue_bench_models", Model):
            _claim("model", model.name, Declared(model, report.origin), models)
            report.models.append(model.name)
        for family in _declared(plugin, report, "alue_bench_strategies", StrategyFamily):
            _claim("strategy family", family.grammar, Declared(family, report.origin), families)
            report.strategies.append(family.grammar)
        for study in _declared(plugin, report, "alue_bench_studies", Path):
            if study.suffix != ".toml" or not NAME.fullmatch(study.stem) or not study.is_file():
                report.fail(f"alue_bench_studies() returned {str(study)!r}, which is no file NAME.toml")
                continue
            _claim("study", study.stem, Declared(study, report.origin), studies)
            report.studies.append(study.stem)
        for executor in _declared(plugin, report, "alue_bench_executors", Executor):
            if executor.name in RESERVED_EXECUTORS:
                report.fail(f"alue_bench_executors() returned {executor.name!r}, which is the name of a built-in one")
                continue
            _claim("executor", executor.name, Declared(executor, report.origin), executors)
            report.executors.append(executor.name)
    registry = Registry(manager, tuple(reports), tasks, models, tuple(families.values()), studies, executors)
    if strict and registry.failures():
        report = registry.failures()[0]
        raise PluginError(f"plugin {report.origin} failed: {report.problems[0]} (--strict makes this fatal)")
    return registry


def _declared(plugin: object, report: PluginReport, hook: str, kind: type[T]) -> list[T]:
    """What one plugin's hook returns; whatever is wrong with it goes into its report."""
    function: Callable[[], Iterable[Any]] | None = getattr(plugin, hook, None)
    if function is None:
        return []
    if not hasattr(function, f"{hookspecs.GROUP}_impl"):
        report.fail(f"{hook}() is not marked with @alue_bench.hookimpl, so nothing calls it")
        return []
    try:
        values = list(function())
    except (Exception, SystemExit) as error:  # as above: isolate the stranger
        report.fail(f"{hook}() raised {_cause(error)}")
        return []
    good = [value for value in values if isinstance(value, kind)]
    for value in values:
        if not isinstance(value, kind):
            report.fail(f"{hook}() returned {value!r:.80} where a {kind.__name__} was expected")
    return good


def _claim(kind: str, name: str, declared: Declared[T], taken: dict[str, Declared[T]]) -> None:
    if name in taken:
        raise PluginError(
            f"{kind} {name!r} is declared by {taken[name].origin} and by {declared.origin}; disable one of them "
            f"with --disable-plugin or {DISABLE_VARIABLE}"
        )
    taken[name] = declared


def _cause(error: BaseException) -> str:
    message = " ".join(redact(str(error)).split())  # pluggy says what is wrong in the last of several lines
    return f"{type(error).__name__}: {message:.300}" if message else type(error).__name__


def add_commands(registry: Registry, app: object) -> None:
    """Let every plugin add its commands; one that raises is reported as failed and does not stop the rest."""
    reports = {str(report.origin): report for report in registry.reports}
    _call_all(registry, "alue_bench_commands", lambda plugin, cause: reports[plugin].fail(cause), app=app)


def notify(registry: Registry, hook: str, warn: Callable[[str], None], **arguments: object) -> None:
    """Call an observer hook of every plugin; one that raises is reported through `warn` and does not stop the rest."""
    _call_all(registry, hook, lambda plugin, cause: warn(f"plugin {plugin}: {cause}"), **arguments)


def _call_all(registry: Registry, hook: str, failed: Callable[[str, str], None], **arguments: object) -> None:
    """Call each implementation with those of the arguments that it names; `failed` is told plugin and cause."""
    for implementation in getattr(registry.manager.hook, hook).get_hookimpls():
        wanted = {name: arguments[name] for name in implementation.argnames}
        try:
            implementation.function(**wanted)
        except (Exception, SystemExit) as error:  # a stranger must not cost anybody the tool or a result
            failed(implementation.plugin_name, f"{hook}() raised {_cause(error)}")
