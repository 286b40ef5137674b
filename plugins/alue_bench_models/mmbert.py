"""The model mmBERT, a multilingual ModernBERT with the tokenizer of Gemma 2.

Its authors describe no preprocessing (repository JHU-CLSP/mmBERT), so that none is declared. They note that scores on
tagging tasks are a little lower because of how the tokenizer treats the space before a word.
"""

from alue_bench import Model
from alue_bench_models.shapes import MODERNBERT_BASE

MODEL = Model(
    name="mmbert",
    title="mmBERT (base)",
    checkpoint="jhu-clsp/mmBERT-base",
    architecture={**MODERNBERT_BASE, "vocab_size": 256_000},
    languages=("ar", "mul"),
    licence="MIT",
    citation="Marc Marone, Orion Weller, William Fleshman, Eugene Yang, Dawn Lawrie and Benjamin Van Durme. 2025. "
    "mmBERT: A Modern Multilingual Encoder with Annealed Language Learning. arXiv:2509.06888.",
)
