"""The export of a checkpoint to a folder that the ``AutoModelFor...`` classes of transformers can load.

The folder has the averaged weights as fp16 safetensors, the files of the tokenizer, and `pretraining.json` with the
recipe. The model is a ``BertForPreTraining`` whose masked-word head and pooler are trained; its next-sentence head is
not.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BertForPreTraining, PreTrainedTokenizerFast

from tools.pretraining import checkpoint as checkpoints
from tools.pretraining.checkpoint import Checkpoint
from tools.pretraining.recipe import Recipe
from tools.pretraining.tokenization import SPECIAL

LIMIT_BYTES = 20_000_000
"""The largest accepted size of an exported folder."""


def export(folder: Path, out: Path) -> None:
    """Export the newest checkpoint of a pre-training run to a folder that transformers can load.

    Args:
        folder: The folder of the run.
        out: The folder to write.

    Raises:
        SystemExit: The run has no checkpoint, or the export is larger than the limit.
    """
    path = checkpoints.newest(folder)
    if path is None:
        raise SystemExit(f"no checkpoint in {folder} yet: the first is written after a few hundred steps of train")
    saved = checkpoints.load(path)
    model = averaged_model(saved)
    model.half().save_pretrained(out)
    # The weights are stored in half precision, but transformers should load them as fp32.
    config = json.loads((out / "config.json").read_text(encoding="utf-8")) | {"dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    pad, unknown, first, separator, mask = SPECIAL
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=separator,
        mask_token=mask,
        model_max_length=model.config.max_position_embeddings,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(out)
    facts = {"step": saved.step, "tokens": saved.tokens, "recipe": saved.recipe}
    (out / "pretraining.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{path.name} to {out}: {size / 1e6:.1f} MB")
    if size > LIMIT_BYTES:
        raise SystemExit(f"{out} is larger than {LIMIT_BYTES / 1e6:.0f} MB")


def averaged_model(saved: Checkpoint) -> BertForPreTraining:
    """Return a model with the averaged weights of a checkpoint, in eval mode."""
    from tools.pretraining.model import new_model

    recipe = Recipe.from_dict(saved.recipe)
    layers = recipe.stages[recipe.stage_at(saved.tokens)[0]].layers
    vocabulary = saved.average["bert.embeddings.word_embeddings.weight"].shape[0]
    with torch.no_grad():
        model = new_model(vocabulary, layers, recipe.hidden, recipe.seed)
        model.load_state_dict(saved.average)
    return model.eval()
