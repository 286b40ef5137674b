"""Tiny encoders of every supported architecture, with random weights, saved as any checkpoint is."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

HIDDEN = 32
POSITIONS = 64
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ARABIC = "ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي"

# By architecture: the prefix of its classes in transformers, options of its configuration beyond the common ones,
# and whether it tells two texts apart by token types.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "bert": ("Bert", {}, True),
    "roberta": ("Roberta", {"type_vocab_size": 1}, False),
    "electra": ("Electra", {"embedding_size": 16}, True),
    "distilbert": ("DistilBert", {}, False),
    "deberta-v2": (
        "DebertaV2",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
        False,
    ),
    "xlm-roberta": ("XLMRoberta", {"type_vocab_size": 1}, False),
    "modernbert": (
        "ModernBert",
        {"global_attn_every_n_layers": 2, "local_attention": 16, "reference_compile": False, "mlp_dropout": 0.1},
        False,
    ),
}


def vocabulary(architecture: str) -> dict[str, int]:
    """Letters, as word pieces; RoBERTa and its kin keep place 1 for padding, as their positions are counted from it."""
    special = list(SPECIAL)
    if architecture in ("roberta", "xlm-roberta"):
        special[0], special[1] = special[1], special[0]
    letters = [*ARABIC, *string.ascii_lowercase, *string.punctuation]
    return {piece: place for place, piece in enumerate([*special, *letters, *(f"##{letter}" for letter in letters)])}


def save_tokenizer(folder: Path, architecture: str) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = vocabulary(architecture)
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    types = ["token_type_ids"] if ARCHITECTURES[architecture][2] else []
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", *types, "attention_mask"],
    ).save_pretrained(folder)


def tiny_config(architecture: str, *, layers: int = 4, **options: Any) -> Any:
    import transformers

    prefix, more, _ = ARCHITECTURES[architecture]
    vocab = vocabulary(architecture)
    size = {
        "vocab_size": len(vocab),
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * HIDDEN,
        "max_position_embeddings": POSITIONS + 2,
        "pad_token_id": vocab["[PAD]"],
    }
    if architecture == "distilbert":
        size = {
            **{k: size[k] for k in ("vocab_size", "max_position_embeddings", "pad_token_id")},
            "dim": HIDDEN,
            "n_layers": layers,
            "n_heads": 2,
            "hidden_dim": 2 * HIDDEN,
        }
    if architecture == "modernbert":
        size |= {f"{name}_token_id": vocab[f"[{name.upper()}]"] for name in ("cls", "sep")}
        size |= {"bos_token_id": vocab["[CLS]"], "eos_token_id": vocab["[SEP]"]}
    return getattr(transformers, f"{prefix}Config")(**{**size, **more, **options})


def save_tiny_model(architecture: str, folder: Path, *, layers: int = 4, **options: Any) -> None:
    """Saved as pre-trained encoders are: with the masked-language head, and without one for the task."""
    import torch
    import transformers

    config = tiny_config(architecture, layers=layers, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = getattr(transformers, f"{ARCHITECTURES[architecture][0]}ForMaskedLM")(config)
    model.save_pretrained(folder)
    save_tokenizer(folder, architecture)
