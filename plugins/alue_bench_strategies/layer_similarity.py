"""The selector `prism-K`: the layers train whose outputs are most similar to those of the other layers.

Source: Biswas et al. 2026, "PRiSM: Partial Ranking via Inter-layer Semantic Measurement for Efficient Fine-tuning of
Language Models", LREC 2026. The method computes the cosine similarity between the layers' representations of an
aggregate token, in a single forward pass before training, scores the layers by it, and trains the highest-scoring layer
of each block of layers. Only the abstracts of the paper and of the thesis on which it is based (A. K. Biswas,
"Training-Free Layer Selection for Parameter-Efficient Fine-Tuning of Language Models", 2025) were available, and no
code was found.

Choices made here, where the abstracts leave something open: The aggregate token is the first token of a text, which is
[CLS] in BERT. The score of a layer is the mean cosine similarity of its output to the output of each other layer, as a
mean over the probe's examples; the output of the embeddings is left out. The layers are divided into K blocks of
consecutive layers, of sizes that differ by at most one, and the highest-scoring layer of each block trains. With equal
scores, the upper layer trains.

Cost: a forward pass for each batch of the probe (`--probe-rows`); labels are not used.

When it does not help: the first token stands for the whole text only in architectures that aggregate there. In a model
with causal attention it sees no other token. The similarity is that of the pretrained model, in which outputs of
neighbouring layers are alike; the middle of each block then has an advantage for every task. See `selector` for what
applies to all selectors.
"""

from __future__ import annotations

import itertools
from typing import Any

from alue_bench import Choice, EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import Selector, selector_family, training_only


class Prism(Selector):
    """A selector by the similarity of a layer's output to those of the other layers."""

    prefix = "prism"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return the cost of a forward pass."""
        return ProbeCost(forward_passes=1)

    def choose(self, probe: Probe) -> Choice:
        """Return the choice of the layer with the highest score in each of K blocks of consecutive layers."""
        scores, layers = self.scores(probe), probe.shape.layers
        bounds = [layers * block // self.count for block in range(self.count + 1)]
        blocks = [range(start, end) for start, end in itertools.pairwise(bounds)]
        best = [max(block, key=lambda layer: (scores[layer], layer)) for block in blocks]
        return Choice(training_only(probe.shape, best), tuple(scores))

    def scores(self, probe: Probe) -> list[float]:
        """Return the mean cosine similarity of each layer's first token to that of the other layers."""
        import torch

        layers, total, examples = probe.shape.layers, torch.zeros(probe.shape.layers, dtype=torch.float64), 0
        for batch in probe.batches:
            with torch.no_grad():
                tokens = first_tokens(probe.hidden_states(batch)[1:], batch.attention_mask)  # [layers, batch, hidden]
            similarity = torch.einsum("lbh,mbh->lm", tokens, tokens)
            total += ((similarity.sum(1) - similarity.diagonal()) / (layers - 1)).cpu()
            examples += len(batch.input_ids)
        return [float(score) for score in total / examples]


def first_tokens(states: tuple[Any, ...], attention_mask: Any) -> Any:
    """Return the outputs for the first token that is not padding, with length 1: float64 [layers, batch, hidden].

    Args:
        states: The output of each layer, a tensor [batch, tokens, hidden].
        attention_mask: 1 for each token that is not padding, int64 [batch, tokens].
    """
    import torch

    first = attention_mask.argmax(dim=1)  # the first of equal values
    rows = torch.arange(len(first), device=first.device)
    stacked = torch.stack([state[rows, first] for state in states]).double()
    return torch.nn.functional.normalize(stacked, dim=-1)


FAMILIES = (
    selector_family(
        Prism,
        "The K layers train whose outputs are most similar to those of the other layers, one in each block of layers",
        "Biswas et al. 2026, PRiSM: Partial Ranking via Inter-layer Semantic Measurement, LREC 2026",
    ),
)
