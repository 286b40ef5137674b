"""The model AraModernBERT, an Arabic ModernBERT whose embeddings were initialised by transtokenization.

No preprocessing is declared, because the sources that could be read (the abstract of the paper and some web pages about
the model) describe none. The full paper and the model's page were not accessible, so that the licence is not known.
"""

from alue_bench import Model
from alue_bench_models.shapes import MODERNBERT_BASE

MODEL = Model(
    name="aramodernbert",
    title="AraModernBERT (base)",
    checkpoint="NAMAA-Space/AraModernBert-Base-V1.0",
    architecture=MODERNBERT_BASE,
    languages=("ar",),
    licence="see the model's page; not checked for this declaration",
    citation="Omar Elshehy, Omer Nacar, Abdelbasset Djamai, Muhammed Ragab, Khloud Al Jallad and Mona Abdelazim. 2026. "
    "AraModernBERT: Transtokenized Initialization and Long-Context Encoder Modeling for Arabic. In Proceedings of the "
    "2nd Workshop on NLP for Languages Using Arabic Script, pages 313-321. arXiv:2603.09982.",
)
