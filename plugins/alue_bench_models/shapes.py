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
