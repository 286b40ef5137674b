"""The command line: ``python -m tools.pretraining STEP``. See README.md beside this file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
from pathlib import Path


def main() -> None:
    """Parse the command line and execute the chosen pre-training step, which imports the libraries that it needs."""
    arguments = _parser().parse_args()
    # This must be set before torch is imported. Threads that wait for each other then spin for a tenth of a millisecond
    # before they sleep. Threads that spin without limit take four times the CPU time if other processes use the same
    # cores; threads that sleep at once reduce the speed by almost half if no other process does (see README.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    arguments.step(arguments)


def _parser() -> argparse.ArgumentParser:
    """Return the command-line parser, with all pre-training steps and their options."""
    root = argparse.ArgumentParser(prog="python -m tools.pretraining", description="Pre-train mini, an Arabic BERT.")
    steps = root.add_subparsers(required=True, metavar="STEP")

    step = steps.add_parser("prepare", help="clean the corpus, learn the vocabulary, encode")
    step.add_argument("--corpus", type=Path, required=True, help="folder with the .txt.xz files")
    step.add_argument(
        "--tasks",
        type=Path,
        default=os.environ.get("ALUE_BENCH_DATA"),
        help="folder with the tasks' files, whose texts are left out (default: $ALUE_BENCH_DATA)",
    )
    step.add_argument("--no-overlap-check", action="store_true", help="continue without the tasks' files")
    step.add_argument("--out", type=Path, required=True)
    words = step.add_mutually_exclusive_group()
    words.add_argument("--vocabulary", type=int, default=14_000, help="pieces to learn (default: 14000)")
    words.add_argument("--tokenizer", type=Path, help="keep the vocabulary of this tokenizer.json, to resume a model")
    step.set_defaults(step=_prepare)

    step = steps.add_parser("train", help="train, or resume from the newest checkpoint in --run")
    step.add_argument("--prepared", type=Path, required=True, help="folder that prepare wrote")
    step.add_argument("--run", type=Path, required=True, help="folder for checkpoints and metrics")
    step.add_argument("--warm-start", type=Path, help="exported model to start from (default: train from scratch)")
    step.add_argument("--tokens", type=float, help="end the run after this many tokens (default: never)")
    step.add_argument("--lr", type=float)
    _running(step)
    step.set_defaults(step=_train)

    step = steps.add_parser("anneal", help="end a copy of a run with a falling learning rate")
    step.add_argument("--prepared", type=Path, required=True)
    step.add_argument("--run", type=Path, required=True, help="the run to start from; it is not changed")
    step.add_argument("--out", type=Path, required=True, help="folder of the annealed run")
    step.add_argument("--tokens", type=float, default=1.5e6)
    _running(step)
    step.set_defaults(step=_anneal)

    step = steps.add_parser("evaluate", help="loss and accuracy of an exported model on held-out text, per source")
    step.add_argument("--prepared", type=Path, required=True)
    step.add_argument("--model", type=Path, required=True)
    step.set_defaults(step=_evaluate)

    step = steps.add_parser("export", help="write the newest checkpoint of a run for transformers, in fp16")
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--out", type=Path, required=True)
    step.set_defaults(step=_export)
    return root


def _running(step: argparse.ArgumentParser) -> None:
    """Add to a step's parser the options that the steps `train` and `anneal` have in common."""
    step.add_argument("--mlflow", metavar="URI", help="tracking store, for example sqlite:///mlflow.db")
    step.add_argument("--device", default="cpu", help="cpu or cuda; bf16 autocast where the hardware is fast at it")
    step.add_argument("--threads", type=int, default=2)


def _prepare(arguments: argparse.Namespace) -> None:
    from tools.pretraining.prepare import prepare

    if arguments.tasks is None and not arguments.no_overlap_check:
        raise SystemExit("name the tasks' files with --tasks or ALUE_BENCH_DATA, or pass --no-overlap-check")
    tasks = None if arguments.no_overlap_check else arguments.tasks
    prepare(arguments.corpus, tasks, arguments.out, arguments.vocabulary, arguments.tokenizer)


def _train(arguments: argparse.Namespace) -> None:
    import torch

    from tools.pretraining import recipe
    from tools.pretraining.train import train

    torch.set_num_threads(arguments.threads)
    chosen = recipe.WARM if arguments.warm_start else recipe.FRESH
    if arguments.lr:
        chosen = dataclasses.replace(chosen, peak_lr=arguments.lr)
    if arguments.tokens:
        chosen = recipe.ending(chosen, arguments.tokens)
    train(
        arguments.prepared,
        arguments.run,
        chosen,
        warm_start=arguments.warm_start,
        tracking_uri=arguments.mlflow,
        device=arguments.device,
    )


def _anneal(arguments: argparse.Namespace) -> None:
    import torch

    from tools.pretraining import checkpoint
    from tools.pretraining.recipe import Recipe, annealing
    from tools.pretraining.train import train

    torch.set_num_threads(arguments.threads)
    if checkpoint.newest(arguments.out) is None:
        path = checkpoint.newest(arguments.run)
        if path is None:
            raise SystemExit(f"no checkpoint in {arguments.run}")
        saved = checkpoint.load(path)
        done = Recipe.from_dict(saved.recipe)
        saved.recipe = annealing(done, saved.tokens, arguments.tokens).as_dict()
        saved.tracking_run = None
        saved.save(arguments.out)
        if (arguments.run / "metrics.jsonl").exists():
            shutil.copy(arguments.run / "metrics.jsonl", arguments.out / "metrics.jsonl")
    train(
        arguments.prepared,
        arguments.out,
        Recipe(stages=()),
        warm_start=None,
        tracking_uri=arguments.mlflow,
        device=arguments.device,
    )


def _evaluate(arguments: argparse.Namespace) -> None:
    from transformers import BertForPreTraining

    from tools.pretraining.evaluate import evaluate
    from tools.pretraining.train import Text

    text = Text.load(arguments.prepared)
    model = BertForPreTraining.from_pretrained(arguments.model).float().eval()
    for name, result in evaluate(model, text.held_out, text.continues).items():
        figures = {"loss": result.loss, "perplexity": result.perplexity, "accuracy": result.accuracy}
        print(name, json.dumps({key: round(value, 4) for key, value in figures.items()}), result.predicted)


def _export(arguments: argparse.Namespace) -> None:
    from tools.pretraining.export import export

    export(arguments.run, arguments.out)


if __name__ == "__main__":
    main()
