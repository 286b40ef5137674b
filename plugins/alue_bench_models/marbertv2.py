"""The model MARBERTv2: MARBERT, pre-trained further on news and other formal text, with sequences of up to 512 tokens.

MARBERT was pre-trained with 128 tokens. The authors publish both models in the same paper and repository
(UBC-NLP/marbert) and describe one preprocessing, which is used for both here.
"""

from alue_bench import Model
from alue_bench_models import marbert
from alue_bench_models.shapes import BERT_BASE

MODEL = Model(
    name="marbertv2",
    title="MARBERTv2 (base)",
    checkpoint="UBC-NLP/MARBERTv2",
    architecture=BERT_BASE,
    languages=("ar",),
    licence="not stated on the model's page",
    citation=marbert.MODEL.citation,
    normalise=marbert.normalise,
    normalisation=f"that of MARBERT, from which it was pre-trained further: {marbert.MODEL.normalisation}",
    requires=marbert.MODEL.requires,
)
