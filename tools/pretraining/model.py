"""The model that is trained, and a lean way to run it.

The weights live in a standard ``BertForPreTraining``, so that what is exported is any BERT. The layers run as
the harness runs them (``alue_bench.training.bert.layer``): no attention mask, as sequences are full; query, key
and value in one product; forward and backward written out. What follows the last layer's attention is computed
for the predicted positions only. Same numbers as the standard forward, tested in ``tools/pretraining/tests``.

Beside the masked words, the pooled state of ``[CLS]`` is trained to know which words stand in the text and how two
segments relate (`SequenceHeads`), since that state is all that a classifier is given.

Shapes: b sequences, s positions, d hidden size, h heads, n predicted positions, v pieces.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertForPreTraining

from alue_bench.training.bert.dropout import DropoutMasks
from alue_bench.training.bert.layer import BatchShape, LayerWeights, encoder_layer
from tools.pretraining.relations import Relation


def new_model(vocabulary: int, layers: int, hidden: int, seed: int) -> BertForPreTraining:
    """A randomly initialised model: positions up to 256, no dropout (too few passes to overfit)."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForPreTraining(config).train()


class SequenceHeads(nn.Module):
    """What is asked of the pooled states [b, d] in pre-training only; not exported.

    The bag of words, as Ma et al. 2024 ("Drop your Decoder: Pre-training with Bag-of-Word Prediction for Dense Passage
    Retrieval") ask of the sequence's state so that it sums up the text; and the relation of the two segments
    (`tools.pretraining.relations`).
    """

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.bag = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden))  # as long as the masked words' states
        self.bag_bias = nn.Parameter(torch.zeros(vocabulary))
        self.relation = nn.Linear(hidden, len(Relation))

    def bag_loss(self, pooled: Tensor, decoder: nn.Linear, ids: Tensor, shares: Tensor) -> Tensor:
        """The mean cross-entropy between the pieces predicted, by a share of the whole vocabulary each, and the pieces
        that are there; `ids`, `shares` [b, s]: see `Batch.bags`.

        The decoder is that of the masked words. How often a word is missing differs from how often a text has it: so
        its bias is a start only.
        """
        logits = functional.linear(self.bag(pooled), decoder.weight, decoder.bias.detach() + self.bag_bias)
        logs = logits.float().log_softmax(-1)
        return -(logs.gather(1, ids) * shares).sum(1).mean()


class LeanModel:
    """A ``BertForPreTraining`` and its layers as products want them. Build it anew when the model is exchanged."""

    def __init__(self, model: BertForPreTraining, compute: torch.dtype) -> None:
        self.model = model
        self._compute = compute
        self._layers = [LayerWeights(layer, compute) for layer in cast(nn.ModuleList, model.bert.encoder.layer)]
        self._masks = DropoutMasks(0, model.device.type)  # never drawn from: nothing is dropped

    def forward(self, ids: Tensor, types: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, v] of the `wanted` positions of the flattened `ids` [b·s], and the pooled states [b, d]."""
        model = self.model
        shape = BatchShape(*ids.shape, padding=None)
        states = model.bert.embeddings(input_ids=ids, token_type_ids=types).flatten(0, 1)  # [b·s, d]
        *lower, last = self._layers
        for layer in lower:
            layer.refresh()
            states = encoder_layer(states, layer, shape, self._masks)
        first = torch.arange(0, ids.numel(), ids.shape[1], device=ids.device)
        rows = torch.cat([first, wanted])
        with torch.autocast(ids.device.type, self._compute, enabled=self._compute != torch.float32):
            attended = _attend(last.layer, states.view(*ids.shape, -1)).flatten(0, 1)
            final = _rest(last.layer, states[rows], attended[rows])  # [b + n, d]
            pooled = torch.tanh(model.bert.pooler.dense(final[: len(first)]))
            return model.cls.predictions(final[len(first) :]), pooled


def _attend(layer: Any, states: Tensor) -> Tensor:
    """Self-attention before its output projection: [b, s, d] to [b, s, d]."""
    attention = layer.attention.self
    parts = (attention.query, attention.key, attention.value)
    weight, bias = torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])
    batch, length, hidden = states.shape
    heads = attention.num_attention_heads
    mixed = functional.linear(states, weight, bias).view(batch, length, 3, heads, hidden // heads)
    query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)  # [b, h, s, d/h]
    out = functional.scaled_dot_product_attention(query, key, value)
    return out.transpose(1, 2).reshape(batch, length, hidden)


def _rest(layer: Any, states: Tensor, attended: Tensor) -> Tensor:
    """Output projection, feed-forward, both residuals: [..., d]."""
    output = layer.attention.output
    middle = output.LayerNorm(output.dense(attended) + states)
    inner = functional.gelu(layer.intermediate.dense(middle))
    return cast(Tensor, layer.output.LayerNorm(layer.output.dense(inner) + middle))


def stacked(model: BertForPreTraining, layers: int, seed: int) -> BertForPreTraining:
    """`model` made deeper by repeating its layers: progressive stacking (Gong et al. 2019, ICML, "Efficient
    Training of BERT by Progressively Stacking").
    """
    config = model.config
    deeper = new_model(config.vocab_size, layers, config.hidden_size, seed)
    old, new = model.state_dict(), deeper.state_dict()
    for name in new:
        prefix, found, rest = name.partition(".layer.")
        if found:
            number, tail = rest.split(".", 1)
            name_below = f"{prefix}.layer.{int(number) % config.num_hidden_layers}.{tail}"
            new[name] = old[name_below].clone()
        else:
            new[name] = old[name].clone()
    deeper.load_state_dict(new)
    deeper.tie_weights()
    return deeper
