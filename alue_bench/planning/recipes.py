"""Hyper-parameters that publications recommend together, by name.

A recipe goes with any strategy. What it sets wins over the defaults of task and model, and gives way to a study file
and to options: `--recipe mosbach --epochs 5` is that recipe with five epochs. Each is complete but for `max_length`,
which belongs to the task, and `select`: whichever epoch is tested, the training is the same.

The betas of AdamW are 0.9 and 0.999 in all of them, and the bias of its moments is always corrected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alue_bench.contract.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How somebody fine-tuned."""

    title: str
    source: str
    values: Mapping[str, object]


RECIPES: Mapping[str, Recipe] = {
    "alue": Recipe(
        title="the baselines of ALUE: no warm-up, no weight decay (the defaults)",
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
        title="the paper of BERT: few epochs, short warm-up",
        source="Devlin et al. 2019, BERT, appendix A.3 (of batches of 16 and 32, rates of 5e-5, 3e-5 and 2e-5, 2 to 4 "
        "epochs one each), and its published code (which did not correct Adam's bias, as we do)",
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
        title="long training with warm-up, for runs that agree between seeds",
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
        title="rates that fall by a twentieth from each layer to the one below",
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
    """Raises UsageError where there is none of that name."""
    try:
        return RECIPES[name]
    except KeyError:
        raise UsageError(f"--recipe: there is no recipe {name!r}; there are {', '.join(RECIPES)}") from None
