"""`alue-bench new-plugin`: a plugin of one's own, from the example."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from alue_bench.errors import UnavailableError, UsageError

TEMPLATE_DISTRIBUTION = "alue-bench-example"
TEMPLATE_PACKAGE = "alue_bench_example"
TEMPLATE_PREFIX = "example"
"""Names of the example's task, model and strategy begin with this."""


def new_plugin(
    name: Annotated[str, typer.Argument(help="The plugin's short name, such as hotels.")],
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where to create it. Default: ./alue-bench-NAME.")
    ] = None,
) -> None:
    """Create a plugin package with a task, a model, a strategy and tests, ready for pip install."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"plugin name {name!r} must be lower-case letters, digits and single hyphens, such as hotels")
    if name == TEMPLATE_PREFIX:
        raise UsageError("plugin name 'example' is the template's own; choose another")
    target = folder or Path(f"alue-bench-{name}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not an empty folder; choose another with --dir")
    renamed = {
        TEMPLATE_DISTRIBUTION: f"alue-bench-{name}",
        TEMPLATE_PACKAGE: f"alue_bench_{name.replace('-', '_')}",
        f"{TEMPLATE_PREFIX}-": f"{name}-",
        f"{TEMPLATE_PREFIX}_": f"{name.replace('-', '_')}_",
    }

    def rename(text: str) -> str:
        for old, new in renamed.items():
            text = text.replace(old, new)
        return text

    template = template_folder()
    try:
        for source in sorted(template.rglob("*")):
            relative = source.relative_to(template)
            generated = "__pycache__" in relative.parts or any(p.endswith(".egg-info") for p in relative.parts)
            if source.is_file() and not generated:
                copy = target / rename(relative.as_posix())
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(rename(source.read_text(encoding="utf-8")), encoding="utf-8")
    except OSError as error:
        raise UnavailableError(f"{target} cannot be written: {error.strerror}") from error
    typer.echo(f"Created {target}. Next: pip install -e {target} && alue-bench plugins && pytest {target}")


def template_folder() -> Path:
    """The example plugin: package data of an installed wheel, or its folder in a source checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "plugin_template", package.parent / "plugins" / "example_plugin"):
        if folder.is_dir():
            return folder
    raise UnavailableError("the plugin template is missing from this installation; reinstall alue-bench")
