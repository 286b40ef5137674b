"""The selector `prism-K`: it trains K layers whose outputs are similar to those of the other layers.

The layers are divided into K blocks. In each block, one layer trains: the one whose output is most similar to the
outputs of all other layers of the model.

Source: Biswas et al. 2026, "PRiSM: Partial Ranking via Inter-layer Semantic Measurement for Efficient Fine-tuning of
Language Models", LREC 2026. In a single forward pass before training, the method computes the cosine similarity between
the layers' representations of an aggregate token. It scores the layers by this similarity, divides them into blocks,
and trains the layer with the highest score in each block. Only the abstracts of the paper and of the thesis on which it
is based (A. K. Biswas, "Training-Free Layer Selection for Parameter-Efficient Fine-Tuning of Language Models", 2025)
were available, and no code was found.

Choices made here, where the abstracts leave something open: The aggregate token is the first token of a text, which is
[CLS] in BERT. The score of a layer is the cosine similarity between its output and that of another layer, averaged over
all other layers and over the examples of the probe (train examples, whose number `--probe-rows` sets); the output of
the embeddings is not used. There are K blocks of consecutive layers, whose sizes differ by at most one. If scores are
equal, the upper layer trains.

Cost: a forward pass for each batch of the probe. Labels are not used.

When it does not help: the first token represents the whole text only in architectures that aggregate the text there. In
a model with causal attention, the first token depends on no other token. The similarity is that of the pretrained
model, in which outputs of neighbouring layers are alike; the middle of each block then has an advantage for every task.
See `selector` for what applies to all selectors.
"""

from __future__ import annotations

import itertools
from typing import Any

from alue_bench import Choice, EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import Selector, selector_family, training_only


class Prism(Selector):
    """A selector that scores each layer by how similar its output is to the outputs of the other layers."""

    prefix = "prism"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return the cost of one forward pass over the probe's examples."""
        return ProbeCost(forward_passes=1)

    def choose(self, probe: Probe) -> Choice:
        """Return a plan that trains the layer with the highest score in each of K blocks, together with the scores."""
        scores, layers = self.scores(probe), probe.shape.layers
        bounds = [layers * block // self.count for block in range(self.count + 1)]
        blocks = [range(start, end) for start, end in itertools.pairwise(bounds)]
        best = [max(block, key=lambda layer: (scores[layer], layer)) for block in blocks]
        return Choice(training_only(probe.shape, best), tuple(scores))

    def scores(self, probe: Probe) -> list[float]:
        """Return the score of each layer: the mean cosine similarity of its output to those of the other layers.

        Only the output for the first token of each text is compared.
        """
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
    """Return the output of each layer for the first token of each text, scaled to unit length.

    Padding is skipped if it is on the left.

    Args:
        states: The output of each layer, a tensor [batch, tokens, hidden].
        attention_mask: 1 for each token that is not padding, int64 [batch, tokens].

    Returns:
        The scaled outputs, float64 [layers, batch, hidden].
    """
    import torch

    first = attention_mask.argmax(dim=1)  # argmax returns the first of equal values
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
