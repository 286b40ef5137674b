"""Recipes: named sets of hyper-parameters that a publication recommends.

A recipe can be combined with any strategy. Its values take precedence over the defaults of task and model, and a study
file and options take precedence over the recipe: `--recipe mosbach --epochs 5` means the recipe "mosbach" with five
epochs. A recipe sets the number of epochs, the batch size, the learning rate with its warm-up and layer-wise decay, the
weight decay, AdamW's epsilon and gradient clipping. It does not set other hyper-parameters, such as `max_length`, which
depends on the task.

All recipes use AdamW with bias correction and the betas 0.9 and 0.999; `--adam-beta2` changes the second beta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alue_bench.contract.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A set of hyper-parameters from a publication."""

    title: str
    source: str
    """The publication, with the sections or tables that give the values."""
    values: Mapping[str, object]
    """The values of the hyper-parameters, by their names in `HyperParameters`."""


RECIPES: Mapping[str, Recipe] = {
    "alue": Recipe(
        title="ALUE's baselines: no warm-up, no weight decay (these are the defaults)",
        source="Seelawi et al. 2021, ALUE: Arabic Language Understanding Evaluation",
        values={
            "epochs": 10,
            "batch_size": 16,
            "lr": 2e-5,
            "llrd": 1.0,
            "warmup": 0.0,
            "weight_decay": 0.0,
            "adam_eps": 1e-8,
            "clip": 1.0,
            "clip_by": "global",
        },
    ),
    "devlin": Recipe(
        title="BERT's paper: few epochs, short warm-up",
        source="Devlin et al. 2019, BERT, appendix A.3 (one combination of its batch sizes 16 and 32, rates 5e-5, 3e-5 "
        "and 2e-5, and 2 to 4 epochs), and its published code (which, unlike alue-bench, does not correct Adam's bias)",
        values={
            "epochs": 3,
            "batch_size": 32,
            "lr": 2e-5,
            "llrd": 1.0,
            "warmup": 0.1,
            "weight_decay": 0.01,
            "adam_eps": 1e-6,
            "clip": 1.0,
            "clip_by": "global",
        },
    ),
    "mosbach": Recipe(
        title="long training with warm-up, for results that vary little between seeds",
        source="Mosbach, Andriushchenko & Klakow 2021, On the Stability of Fine-tuning BERT, section 6, and the "
        "configurations that they published (AdamW with bias correction)",
        values={
            "epochs": 20,
            "batch_size": 16,
            "lr": 2e-5,
            "llrd": 1.0,
            "warmup": 0.1,
            "weight_decay": 0.01,
            "adam_eps": 1e-6,
            "clip": 1.0,
            "clip_by": "global",
        },
    ),
    "sun": Recipe(
        title="layer-wise learning rates: each layer's is 0.95 times that of the layer above",
        source="Sun et al. 2019, How to Fine-Tune BERT for Text Classification? (layer-wise decreasing learning rate; "
        "weight decay and Adam's epsilon as in the code of BERT)",
        values={
            "epochs": 4,
            "batch_size": 24,
            "lr": 2e-5,
            "llrd": 0.95,
            "warmup": 0.1,
            "weight_decay": 0.01,
            "adam_eps": 1e-6,
            "clip": 1.0,
            "clip_by": "global",
        },
    ),
}


def recipe(name: str) -> Recipe:
    """Return the recipe with this name; raise UsageError if there is none."""
    try:
        return RECIPES[name]
    except KeyError:
        raise UsageError(f"--recipe: unknown recipe {name!r}; known are {', '.join(RECIPES)}") from None
