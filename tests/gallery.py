"""Tiny configurations of many architectures, with random weights: 4 layers of width 32, where the architecture lets it.

Names are those of the library's `model_type`, with a suffix where one is here in several variants.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_models import SPECIAL, save_tokenizer, vocabulary

WORDS = len(vocabulary("bert"))
IDS: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 3}
AFTER_PADDING: dict[str, Any] = {"pad_token_id": 1}
"""Positions are counted from the padding id."""
DECODER: dict[str, Any] = {"num_key_value_heads": 2, **IDS}
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 4, "n_head": 2, "n_positions": 66}
XLM: dict[str, Any] = {"emb_dim": 32, "n_layers": 4, "n_heads": 2, "pad_index": 0}
RELATIVE: dict[str, Any] = {
    "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0, "position_biased_input": False,
}  # fmt: skip
BART: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 3, **IDS,
}  # fmt: skip
T5: dict[str, Any] = {
    "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 4, "num_heads": 2, "decoder_start_token_id": 0,
    "eos_token_id": 3,
}  # fmt: skip
CANINE: dict[str, Any] = {
    "num_hash_buckets": 64, "num_hash_functions": 4, "downsampling_rate": 4, "local_transformer_stride": 16,
    "upsampling_kernel_size": 4,
}  # fmt: skip
SQUEEZED: dict[str, Any] = {
    "q_groups": 2, "k_groups": 2, "v_groups": 2, "post_attention_groups": 1, "intermediate_groups": 2,
    "output_groups": 2, "embedding_size": 32,
}  # fmt: skip
MODERN: dict[str, Any] = {
    "global_attn_every_n_layers": 2, "local_attention": 16, "cls_token_id": 2, "sep_token_id": 3, **IDS,
}  # fmt: skip
GALLERY: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "bart": BART,
    "bert": {},
    "big_bird": {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    "biogpt": IDS,
    "bloom": {"n_layer": 4, "n_head": 2, **IDS},
    "camembert": {**AFTER_PADDING, "type_vocab_size": 1},
    "canine": CANINE,
    "convbert": {"num_attention_heads": 4, "embedding_size": 32},
    "ctrl": {**GPT, "dff": 64},
    "data2vec-text": {**AFTER_PADDING, "type_vocab_size": 1},
    "deberta": RELATIVE,
    "deberta-v2": RELATIVE,
    "deberta-v3": {
        "model_type": "deberta-v2", **RELATIVE, "share_att_key": True, "norm_rel_ebd": "layer_norm",
        "position_buckets": 16, "conv_kernel_size": 3,
    },
    "distilbert": {"dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "esm": {**AFTER_PADDING, "mask_token_id": 4, "position_embedding_type": "absolute"},
    "esm-rotary": {"model_type": "esm", **AFTER_PADDING, "mask_token_id": 4, "position_embedding_type": "rotary"},
    "eurobert": DECODER,
    "falcon": IDS,
    "flaubert": XLM,
    "fnet": {"tpu_short_seq_length": 32},
    "funnel": {"block_sizes": [2, 2], "d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64},
    "gemma2": {"head_dim": 16, "sliding_window": 16, **DECODER},
    "gpt2": {**GPT, **IDS},
    "gpt_neo": {
        "num_layers": 4, "num_heads": 2, "attention_types": [[["global", "local"], 2]], "window_size": 16, **IDS,
    },
    "gpt_neox": IDS,
    "gte": {},
    "ibert": {**AFTER_PADDING, "type_vocab_size": 1},
    "layoutlm": {"max_2d_position_embeddings": 64},
    "llama": DECODER,
    "longformer": {"attention_window": 8, **AFTER_PADDING, "type_vocab_size": 1},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16, **AFTER_PADDING},
    "mbart": BART,
    "megatron-bert": {},
    "mobilebert": {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
    "modernbert": MODERN,
    "mpnet": AFTER_PADDING,
    "mpt": {"d_model": 32, "n_heads": 2, "n_layers": 4, "expansion_ratio": 2},
    "mt5": T5,
    "nomic_bert": {},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 12},
    "openai-gpt": GPT,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16, **IDS},
    "qwen2": DECODER,
    "qwen2_moe": {
        "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2,
        **DECODER,
    },
    "qwen3": {"head_dim": 16, **DECODER},
    "reformer": {
        "attn_layers": ["local"] * 4, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16],
        "feed_forward_size": 64, "attention_head_size": 16, "local_attn_chunk_length": 8, "is_decoder": False,
        "max_position_embeddings": 64,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": {**AFTER_PADDING, "type_vocab_size": 1},
    "roberta-pad0": {"model_type": "roberta", "type_vocab_size": 1},
    "roberta-prelayernorm": {**AFTER_PADDING, "type_vocab_size": 1},
    "roformer": {"embedding_size": 32},
    "squeezebert": SQUEEZED,
    "t5": T5,
    "xlm": XLM,
    "xlm-roberta": {**AFTER_PADDING, "type_vocab_size": 1},
    "xlm-roberta-xl": {**AFTER_PADDING, "type_vocab_size": 1},
    "xlnet": {"d_model": 32, "n_layer": 4, "n_head": 2, "d_inner": 64},
    "xmod": {**AFTER_PADDING, "type_vocab_size": 1, "languages": ["en_XX", "ar_AR"], "default_language": "ar_AR"},
    "yoso": {},
}  # fmt: skip
COMMON: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 66, "pad_token_id": 0,
}  # fmt: skip
WITHOUT = {
    "funnel": ("num_hidden_layers", "hidden_size"),
    "reformer": ("num_hidden_layers",),
    "xlnet": ("num_hidden_layers", "hidden_size", "max_position_embeddings"),
}
"""Common options that a configuration does not take."""


def gallery_config(name: str, **more: Any) -> Any:
    """Return the library's configuration of one of them."""
    from transformers import AutoConfig

    options = {**COMMON, **GALLERY[name], **more}
    kind = str(options.pop("model_type", name))
    for option in WITHOUT.get(kind, ()):
        options.pop(option)
    return AutoConfig.for_model(kind, **options)


def gallery_model(name: str, *, tags: bool = False, **more: Any) -> Any:
    """Return a model of one of them that classifies texts, or tokens, with random weights, in eval mode."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    kind = AutoModelForTokenClassification if tags else AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return kind.from_config(gallery_config(name, **more)).eval()


def save_encoder(name: str, folder: Path) -> Path:
    """Save a model of one of them, without a head, with a tokenizer of letters."""
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        AutoModel.from_config(gallery_config(name)).save_pretrained(folder)
    save_tokenizer(folder, "roberta" if GALLERY[name].get("pad_token_id") == 1 else "bert")
    return folder


def save_decoder(name: str, folder: Path, *, pad: str | None = None, eos: str | None = "[SEP]", **more: Any) -> Path:
    """Save a language model of one of them with a tokenizer of bytes, as GPT-2's: by default without padding token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    options = {"pad_token_id": None, "vocab_size": len(pieces), **more}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(gallery_config(name, **options)).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    given = {key: value for key, value in (("pad_token", pad), ("eos_token", eos)) if value}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", mask_token="[MASK]", model_max_length=64, **given
    ).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": pad}))  # else Qwen2's class has its own
    return folder
