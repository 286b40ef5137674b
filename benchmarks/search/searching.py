"""The search that is compared with a finished sweep, run with the sweep's settings."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from alue_bench.contract.errors import TrainingError

Search = Callable[[list[str]], dict[str, Any]]
"""A function that takes the arguments of `alue-bench search` and returns the document that it prints."""


def search_arguments(options: argparse.Namespace, config: dict[str, Any], store: str) -> list[str]:
    """Return the arguments of `alue-bench search` for a search with the same rows and settings as the sweep.

    Args:
        options: The parsed options.
        config: The recorded configuration of a run of the sweep.
        store: The tracking URI for the search.

    Raises:
        UsageError: The sweep used a setting for which a search has no option.
    """
    given = ["--task", options.task, "--model", options.model, "--tolerance", options.tolerance]
    given += [
        "--budget",
        options.budget,
        "--confirm",
        "0",
        "--seed",
        str(config["seed"]),
        "--tracking-uri",
        store,
        "--json",
    ]
    given += [part for name, value in config["hyper"].items() for part in (f"--{name.replace('_', '-')}", str(value))]
    given += ["--device", config["device"], "--precision", config["precision"]]
    for name in ("limit_train", "limit_eval"):
        given += [f"--{name.replace('_', '-')}", str(config[name])] if config[name] is not None else []
    given += ["--drop-bad"] if config["drop_bad"] else []
    given += ["--sample"] if config["data"]["source"] == "sample" else []
    return given + (["--data-dir", str(options.data_dir)] if options.data_dir else [])


def searched_here(arguments: list[str]) -> dict[str, Any]:
    """Run `alue-bench search` in this process and return the document that it prints.

    Raises:
        TrainingError: The search ended with an exit code other than 0.
    """
    from alue_bench.cli import main as command

    said, given = StringIO(), sys.argv
    sys.argv = ["alue-bench", "search", *arguments]
    try:
        with redirect_stdout(said):
            command.main()
    except SystemExit as end:
        if end.code:
            raise TrainingError(f"the search ended with exit code {end.code}") from end
    finally:
        sys.argv = given
    document: dict[str, Any] = json.loads(said.getvalue())
    return document
