"""The architectures that several of the built-in models share, as fields of a transformers configuration.

They are known before a checkpoint is downloaded, so that the cost of a run can be estimated.
"""

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
"""The architecture of BERT-base (Devlin et al. 2019). The four models that Betka et al. compare have it, with different
vocabularies."""

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
"""The architecture of ModernBERT-base (Warner et al. 2024). In every third layer a token attends to the whole text, in
the other layers to a window of 128 tokens."""
