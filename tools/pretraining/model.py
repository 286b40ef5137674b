"""The pre-trained model and a fast forward pass for it.

The weights have the names and shapes of a standard ``BertForPreTraining``, so that the exported model is an ordinary
BERT. The layers are computed by ``alue_bench.training.bert.layer``: query, key and value come from one matrix product,
and forward and backward pass are written by hand. There is no attention mask, since sequences have no padding. In the
last layer, everything after the attention is computed only for the predicted positions and ``[CLS]``. Tests in
``tools/pretraining/tests`` check that the results equal those of the standard forward pass.

A classifier that is fine-tuned later gets only the pooled state of ``[CLS]``. Besides predicting masked words, the
model therefore learns to predict from this state which words are in the text and how two segments are related
(`SequenceHeads`).

Notation for shapes: b sequences, s positions, d hidden size, h heads, n predicted positions, v pieces of the
vocabulary.
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
    """Return a randomly initialised model with 256 positions and without dropout, in training mode.

    Dropout is not needed, because there are too few passes over the text for overfitting.

    Args:
        vocabulary: The number of pieces in the vocabulary.
        layers: The number of layers.
        hidden: The hidden size, a multiple of 64, which is the size of an attention head.
        seed: The random seed of the weights, which is set in torch's global generator.
    """
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
    """Two prediction heads on the pooled state of ``[CLS]``, `[b, d]`, which are used in pre-training only.

    One predicts the bag of words, so that the state summarises the text (Ma et al. 2024, "Drop your Decoder:
    Pre-training with Bag-of-Word Prediction for Dense Passage Retrieval"). The other predicts the relation of the two
    segments (`tools.pretraining.relations`).
    """

    def __init__(self, hidden: int, vocabulary: int) -> None:
        """Create both heads, with random weights from torch's global generator."""
        super().__init__()
        # The layer norm is there because the masked-word head has one before the same output layer.
        self.bag = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden))
        self.bag_bias = nn.Parameter(torch.zeros(vocabulary))
        self.relation = nn.Linear(hidden, len(Relation))

    def bag_loss(self, pooled: Tensor, decoder: nn.Linear, ids: Tensor, shares: Tensor) -> Tensor:
        """Return the mean cross-entropy between the predicted distribution over pieces and each text's bag of words.

        A bag of words counts a piece once per text, so that pieces have other frequencies in it than among masked
        pieces. `bag_bias`, which is added to the decoder's bias, learns the difference.

        Args:
            pooled: The pooled states, `[b, d]`.
            decoder: The output layer of the masked-word head, from d to v.
            ids: The pieces of the texts, int64 `[b, s]`.
            shares: The weight of each piece, `[b, s]`; see `Batch.bags`.
        """
        logits = functional.linear(self.bag(pooled), decoder.weight, decoder.bias.detach() + self.bag_bias)
        logs = logits.float().log_softmax(-1)
        return -(logs.gather(1, ids) * shares).sum(1).mean()


class LeanModel:
    """A fast forward pass for a ``BertForPreTraining``, whose weights it shares."""

    def __init__(self, model: BertForPreTraining, compute: torch.dtype) -> None:
        """Prepare the fast forward pass of a model.

        Args:
            model: The model; later changes of its weights are used too.
            compute: The number format of matrix products, such as `torch.bfloat16`.
        """
        self.model = model
        self._compute = compute
        self._layers = [LayerWeights(layer, compute) for layer in cast(nn.ModuleList, model.bert.encoder.layer)]
        self._masks = DropoutMasks(0)  # never used: the model has no dropout

    def forward(self, ids: Tensor, types: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits at the wanted positions, and the pooled state of each sequence.

        Args:
            ids: The word pieces, int64 `[b, s]`.
            types: The token types, int64 `[b, s]`.
            wanted: The positions to predict, as indices into the flattened `ids`, int64 `[n]`.

        Returns:
            The logits, `[n, v]`, and the pooled states, `[b, d]`.
        """
        model = self.model
        examples, tokens = ids.shape
        shape = BatchShape(examples, tokens, padding=None)
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
    """Compute a layer's self-attention without its output projection. Input (`states`) and result are `[b, s, d]`."""
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
    """Compute the rest of a layer, from the attention's output projection on, for some positions.

    Args:
        layer: The layer.
        states: The layer's input at these positions, `[positions, d]`.
        attended: The result of self-attention at these positions, `[positions, d]`.
    """
    output = layer.attention.output
    middle = output.LayerNorm(output.dense(attended) + states)
    inner = functional.gelu(layer.intermediate.dense(middle))
    return cast(Tensor, layer.output.LayerNorm(layer.output.dense(inner) + middle))


def stacked(model: BertForPreTraining, layers: int, seed: int) -> BertForPreTraining:
    """Return a deeper model in which the layers of the given model are repeated.

    This is progressive stacking (Gong et al. 2019, ICML, "Efficient Training of BERT by Progressively Stacking").

    Args:
        model: The model.
        layers: The number of layers of the result.
        seed: The seed to set in torch's global generator. The result does not depend on it, because all random weights
            are replaced.
    """
    config = model.config
    deeper = new_model(config.vocab_size, layers, config.hidden_size, seed)
    old, new = model.state_dict(), deeper.state_dict()
    for name in new:
        prefix, separator, rest = name.partition(".layer.")
        if separator:
            number, tail = rest.split(".", 1)
            source = f"{prefix}.layer.{int(number) % config.num_hidden_layers}.{tail}"
            new[name] = old[source].clone()
        else:
            new[name] = old[name].clone()
    deeper.load_state_dict(new)
    deeper.tie_weights()
    return deeper
