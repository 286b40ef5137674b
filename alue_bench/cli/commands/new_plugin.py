"""`alue-bench new-plugin`: create a plugin package from the example plugin."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from alue_bench.contract.errors import UnavailableError, UsageError

TEMPLATE_DISTRIBUTION = "alue-bench-example"
TEMPLATE_PACKAGE = "alue_bench_example"
TEMPLATE_PREFIX = "example"
"""The name of the example plugin's entry point, and the prefix of the names of its tasks, model and strategies."""

GENERATED = re.compile(r"__pycache__|build|dist|.*\.egg-info|\.(?!gitignore$).*|mlruns")
"""A pattern for the names of files and folders that tools generate; they are not part of the template."""


def new_plugin(
    name: Annotated[str, typer.Argument(help="Short name of the plugin, such as hotels.")],
    folder: Annotated[Path | None, typer.Option("--dir", help="Folder to create. Default: ./alue-bench-NAME.")] = None,
) -> None:
    """Create a plugin package with three tasks (labels, tags, answers), a model, a strategy and tests."""
    from alue_bench.views.console import results

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"plugin name {name!r} must be lower-case letters, digits and single hyphens, such as hotels")
    if name == TEMPLATE_PREFIX:
        raise UsageError("plugin name 'example' is the template's own; choose another")
    package = f"alue_bench_{name.replace('-', '_')}"
    if importlib.util.find_spec(package) is not None:
        raise UsageError(f"a package {package!r} is installed already; choose a plugin name other than {name!r}")
    target = folder or Path(f"alue-bench-{name}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not an empty folder; choose another with --dir")
    rename = renamer(name)
    template = template_folder()
    try:
        for source in template_files(template):
            copy = target / rename(source.relative_to(template).as_posix())
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(rename(source.read_text(encoding="utf-8")), encoding="utf-8")
    except OSError as error:
        raise UnavailableError(f"{target} cannot be written: {error.strerror}") from error
    editable, tests = shlex.quote(f"{target}[test]"), shlex.quote(str(target))
    results().print(f"Created {target}. Next: pip install -e {editable} && alue-bench plugins && pytest {tests}")


def renamer(name: str) -> Callable[[str], str]:
    """Return a function that replaces names of the example plugin in a text by the names for a new plugin `name`."""
    renamed = {
        TEMPLATE_DISTRIBUTION: f"alue-bench-{name}",
        TEMPLATE_PACKAGE: f"alue_bench_{name.replace('-', '_')}",
        f'{TEMPLATE_PREFIX} = "{TEMPLATE_PACKAGE}"': f'{name} = "alue_bench_{name.replace("-", "_")}"',
        f"{TEMPLATE_PREFIX}-": f"{name}-",
        f"{TEMPLATE_PREFIX}_": f"{name.replace('-', '_')}_",
    }
    longest_first = sorted(renamed, key=len, reverse=True)
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, longest_first)) + ")")
    return lambda text: pattern.sub(lambda match: renamed[match.group()], text)


def template_files(template: Path) -> Iterator[Path]:
    """Yield the files of the example plugin, except those that an installation or a test run has generated."""
    for path in sorted(template.rglob("*")):
        parts = path.relative_to(template).parts
        if path.is_file() and not any(GENERATED.fullmatch(part) for part in parts):
            yield path


def template_folder() -> Path:
    """Return the folder of the example plugin, either from the installed wheel or from a source checkout.

    Raises:
        UnavailableError: The installation does not contain the template.
    """
    package = Path(__file__).parents[2]
    for folder in (package / "plugin_template", package.parent / "plugins" / "example_plugin"):
        if folder.is_dir():
            return folder
    raise UnavailableError("the plugin template is missing from this installation; reinstall alue-bench")
