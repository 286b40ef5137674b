"""Model architectures that several checkpoints share."""

from collections.abc import Mapping
from types import MappingProxyType

BERT_BASE: Mapping[str, object] = MappingProxyType(
    {
        "model_type": "bert",
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
    }
)
"""The architecture of BERT-base (Devlin et al. 2019), which the four models of Betka et al. share; their vocabularies
differ."""

MODERNBERT_BASE: Mapping[str, object] = MappingProxyType(
    {
        "model_type": "modernbert",
        "num_hidden_layers": 22,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_attention_heads": 12,
        "max_position_embeddings": 8192,
        "local_attention": 128,
    }
)
"""The architecture of ModernBERT-base (Warner et al. 2024): every third layer attends to the whole text, the others to
128 tokens."""
