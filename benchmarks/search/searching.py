"""The search that is compared with a finished sweep; it has the same rows and hyper-parameters as the sweep."""

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
"""A function that takes the arguments of `alue-bench search` and returns the JSON document that the command prints."""


def search_arguments(options: argparse.Namespace, config: dict[str, Any], store: str) -> list[str]:
    """Return the arguments of `alue-bench search` for a search with the same rows and settings as the sweep.

    Args:
        options: The parsed options.
        config: The recorded configuration of one of the sweep's runs.
        store: The URI of the MLflow store for the runs of the search.

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
    """Run `alue-bench search` in this process and return the JSON document that it prints.

    Args:
        arguments: The command-line arguments after `alue-bench search`.

    Raises:
        TrainingError: The search ended with an exit code other than 0.
    """
    from alue_bench.cli import main as command

    printed, previous_argv = StringIO(), sys.argv
    sys.argv = ["alue-bench", "search", *arguments]
    try:
        with redirect_stdout(printed):
            command.main()
    except SystemExit as end:
        if end.code:
            raise TrainingError(f"the search ended with exit code {end.code}") from end
    finally:
        sys.argv = previous_argv
    document: dict[str, Any] = json.loads(printed.getvalue())
    return document
