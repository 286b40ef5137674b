"""Studies: the options of `run`, `sweep` or `search`, written down once and shared, found by path or by name.

    title = "Dialects, five seeds"
    task = ["mdd", "oold"]
    model = "mini"
    strategy = ["full", "bottom3top4"]
    seeds = 5
    epochs = 3

Every key but `title` and `command` is an option of the command, with `_` for `-`. An option on the command line wins
over the file. Plugins ship studies by the hook `alue_bench_studies`; such a one is known by its file's name.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import shown
from alue_bench.contract.registry import Registry

if TYPE_CHECKING:
    from pydantic import BaseModel


def study_schema() -> type[BaseModel]:
    """The keys a study file may hold. Built on demand: pydantic costs a tenth of a second to import."""
    from typing import Annotated, Literal

    from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

    names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    numbers = Annotated[list[int], BeforeValidator(lambda value: [value] if isinstance(value, int) else value)]

    class Study(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

        task: names | None = None
        model: names | None = None
        grid: names | None = None
        tolerance: str | None = None
        margin: str | None = None
        level: float | None = Field(None, gt=0, lt=0.5)
        budget: str | None = None
        short_runs: bool | None = None
        strategy: names | None = None
        seed: numbers | None = None
        seeds: int | None = Field(None, ge=1)
        init_seed: int | None = Field(None, ge=0)
        data_seed: int | None = Field(None, ge=0)
        recipe: str | None = None
        epochs: int | None = Field(None, ge=1)
        batch_size: int | None = Field(None, ge=1)
        lr: float | None = Field(None, gt=0)
        llrd: float | None = Field(None, gt=0, le=1)
        max_length: int | None = Field(None, ge=4)
        warmup: float | None = Field(None, ge=0, lt=1)
        weight_decay: float | None = Field(None, ge=0)
        clip: float | None = Field(None, ge=0)
        clip_by: Literal["global", "component"] | None = None
        select: Literal["best", "last"] | None = None
        precision: Literal["auto", "fp32", "bf16", "fp16"] | None = None
        device: Literal["auto", "cpu", "cuda"] | None = None
        cuda_graphs: bool | None = None
        keep_head: bool | None = None
        limit_train: int | None = Field(None, ge=1)
        limit_eval: int | None = Field(None, ge=1)
        experiment: str | None = None
        tracking_uri: str | None = None
        data_dir: str | None = None
        sample: bool | None = None
        drop_bad: bool | None = None
        skip_missing: bool | None = None
        cache_size: str | None = None
        executor: str | None = None
        jobs: int | None = Field(None, ge=1)
        gpus_per_run: float | None = Field(None, gt=0)
        allow_pickles: bool | None = None
        checkpoint_every: float | None = Field(None, ge=0)
        rerun: bool | None = None
        fail_fast: bool | None = None
        title: str | None = None
        command: Literal["run", "sweep", "search"] | None = None

    return Study


EXPLICIT = "study:"
"""Before a name: a study that a plugin ships, whatever files there are."""


def find_study(given: str, registry: Registry) -> Path:
    """The file that `--config` means: a path, or the name of a study that a plugin ships.

    Raises UsageError where it is neither or could be both.
    """
    if given.startswith(EXPLICIT):
        return registry.study(given.removeprefix(EXPLICIT))
    path = Path(given)
    is_name = given in registry.studies
    if is_name and path.is_file():
        raise UsageError(
            f"--config {given} is the name of a study and of a file in this folder; write ./{given} for the file, "
            f"{EXPLICIT}{given} for the study"
        )
    if is_name:
        return registry.studies[given].value
    if path.suffix == ".toml" or path.name != given or path.exists():
        return path
    try:
        return registry.study(given)
    except UsageError as error:
        raise UsageError(f"--config: {error}; a path to a file of your own will do too") from None


def read_study(path: Path) -> dict[str, Any]:
    """The keys that the file gives, checked.

    Raises UsageError naming file, line and key.
    """
    from pydantic import ValidationError

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config: {path} cannot be read: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise UsageError(f"{path}:{line.group(1) if line else 1}: not valid TOML: {error}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets within brackets
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    schema = study_schema()
    try:
        return schema.model_validate(content).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        where = re.search(rf"^\s*\[*{re.escape(key)}\b", text, flags=re.MULTILINE)
        line_number = text.count("\n", 0, where.start()) + 1 if where else 1
        if first["type"] == "extra_forbidden":
            problem = f"unknown key {shown(key)}; known are {', '.join(schema.model_fields)}"
        else:
            problem = (
                f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {shown(repr(first['input']), quote=False)}"
            )
        raise UsageError(f"{path}:{line_number}: {problem}") from error
