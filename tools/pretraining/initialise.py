"""Initial weights for pre-training: from an older model with another vocabulary, or from statistics of the text.

- `transplant`: word pieces that both vocabularies contain keep their embedding. Any other piece gets the mean embedding
  of the pieces into which the old vocabulary splits it (Gee et al. 2022, EMNLP, "Fast Vocabulary Transfer for Language
  Model Compression").
- `from_statistics`: the output bias is set to the log frequencies of the pieces, and the embeddings to a truncated SVD
  of the positive pointwise mutual information of pieces (PPMI; Levy & Goldberg 2014, NeurIPS). A small model with
  random weights spends its first millions of tokens on learning these statistics.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import BertForPreTraining

from tools.pretraining.model import new_model
from tools.pretraining.tokenization import SPECIAL

Floats = NDArray[np.float64]


def log_unigrams(streams: dict[str, NDArray[np.uint16]], weights: dict[str, float], vocabulary: int) -> Floats:
    """Return the log frequency of each word piece in the training text, a weighted mixture of the sources.

    Args:
        streams: The word pieces of each source, `[pieces]`.
        weights: The sampling weight of each source.
        vocabulary: The number of pieces in the vocabulary.

    Returns:
        The log frequencies, `[vocabulary]`.
    """
    shares = np.zeros(vocabulary)
    for name, stream in streams.items():
        counts = np.bincount(stream, minlength=vocabulary) + 0.5
        shares += weights[name] * counts / counts.sum()
    logs: Floats = np.log(shares / shares.sum())
    return logs


def transplant(folder: Path, tokenizer: Tokenizer, unigrams: Floats, seed: int) -> BertForPreTraining:
    """Load an exported model and adapt it to another vocabulary.

    If the vocabularies are equal, the weights stay unchanged. Otherwise the exported model is assumed to be the first
    version of `mini`, which was trained only on the first 64 positions. The embeddings of these positions are therefore
    repeated for all positions. Both token types get the same embedding, so that at first the model does not distinguish
    two segments.

    Args:
        folder: The exported model: config.json, model.safetensors, tokenizer.json.
        tokenizer: The tokenizer with the new vocabulary.
        unigrams: The log frequency of each piece of the new vocabulary, `[vocabulary]`; from them, pieces that the old
            vocabulary does not contain get their output bias.
        seed: The seed of the random weights for parameters that the exported model does not have.

    Raises:
        SystemExit: The vocabularies are equal, but the exported model does not have all weights.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    old_vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    old = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    model = new_model(tokenizer.get_vocab_size(), config["num_hidden_layers"], config["hidden_size"], seed)
    if old_vocab == tokenizer.get_vocab():
        loading = model.load_state_dict(old, strict=False)
        model.tie_weights()
        if lacking := set(loading.missing_keys) - {f"cls.predictions.decoder.{name}" for name in ("weight", "bias")}:
            raise SystemExit(f"{folder} lacks weights: {', '.join(sorted(lacking))}")
        return model
    table = old["bert.embeddings.word_embeddings.weight"]
    bias = old["cls.predictions.bias"]

    vocabulary = tokenizer.get_vocab_size()
    embeddings = torch.empty(vocabulary, table.shape[1])
    biases = torch.from_numpy(unigrams).float()
    known = []
    for piece, number in tokenizer.get_vocab().items():
        parts = split(piece, old_vocab)
        embeddings[number] = table[parts].mean(0)
        if piece in old_vocab:
            known.append((number, old_vocab[piece]))
    new_rows, old_rows = (torch.tensor(rows) for rows in zip(*known, strict=True))
    biases += (bias[old_rows] - biases[new_rows]).mean()
    biases[new_rows] = bias[old_rows]

    state = model.state_dict()
    state.update({name: tensor for name, tensor in old.items() if name in state})
    positions = old["bert.embeddings.position_embeddings.weight"]
    state["bert.embeddings.position_embeddings.weight"] = positions[:64].repeat(4, 1)
    types = old["bert.embeddings.token_type_embeddings.weight"]
    state["bert.embeddings.token_type_embeddings.weight"] = types[:1].repeat(2, 1)
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"):
        state[name] = embeddings
    for name in ("cls.predictions.bias", "cls.predictions.decoder.bias"):
        state[name] = biases
    model.load_state_dict(state)
    model.tie_weights()
    print(f"transplanted {len(known)} of {vocabulary} pieces, the rest from their parts")
    return model


def split(piece: str, vocabulary: dict[str, int]) -> list[int]:
    """Split a word piece into pieces of another vocabulary, greedily taking the longest match first.

    Args:
        piece: The piece; one that continues a word begins with "##".
        vocabulary: The id of each piece of the other vocabulary.

    Returns:
        The ids of the parts, or only the id of the unknown token if the other vocabulary cannot spell the piece.
    """
    prefix, rest = ("##", piece[2:]) if piece.startswith("##") and len(piece) > 2 else ("", piece)
    parts: list[int] = []
    while rest:
        size = next((n for n in range(len(rest), 0, -1) if prefix + rest[:n] in vocabulary), None)
        if size is None:
            return [vocabulary[SPECIAL[1]]]
        parts.append(vocabulary[prefix + rest[:size]])
        prefix, rest = "##", rest[size:]
    return parts


def from_statistics(
    model: BertForPreTraining, streams: dict[str, NDArray[np.uint16]], weights: dict[str, float], seed: int
) -> None:
    """Set the output bias and the embeddings of a new model from unigram and co-occurrence counts.

    Args:
        model: The model, which is changed in place.
        streams: The word pieces of each source, `[pieces]`.
        weights: The sampling weight of each source.
        seed: The seed of the randomised SVD.
    """
    vocabulary, hidden = model.config.vocab_size, model.config.hidden_size
    sample = np.concatenate([_resampled(stream, weights[name]) for name, stream in streams.items()])
    embeddings = ppmi_embeddings(sample, vocabulary, hidden, seed)
    with torch.no_grad():
        model.cls.predictions.bias.copy_(torch.from_numpy(log_unigrams(streams, weights, vocabulary)))
        model.bert.embeddings.word_embeddings.weight.copy_(torch.from_numpy(embeddings))


def _resampled(stream: NDArray[np.uint16], weight: float, pieces: float = 20e6) -> NDArray[np.uint16]:
    """Return a stream of word pieces repeated or cut to a length of `weight * pieces`."""
    wanted = int(weight * pieces)
    return np.tile(stream, -(-wanted // len(stream)))[:wanted]


def ppmi_embeddings(sample: NDArray[np.uint16], vocabulary: int, hidden: int, seed: int) -> NDArray[np.float32]:
    """Return word-piece embeddings: a truncated SVD of the PPMI of pieces.

    Two pieces co-occur if they are at most four positions apart; a co-occurrence at distance n counts 1 / n. Context
    frequencies are raised to the power of 0.75 (Levy et al. 2015, TACL).

    Args:
        sample: The word pieces of the text, `[pieces]`.
        vocabulary: The number of pieces in the vocabulary.
        hidden: The dimension of the embeddings.
        seed: The seed of the randomised SVD.

    Returns:
        The embeddings, `[vocabulary, hidden]`, with mean 0 per dimension, scaled to a standard deviation of 0.05.
    """
    import scipy.sparse as sparse
    from sklearn.utils.extmath import randomized_svd

    counts = sparse.csr_matrix((vocabulary, vocabulary), dtype=np.float32)
    for distance in (1, 2, 3, 4):
        left, right = sample[:-distance].astype(np.int64), sample[distance:].astype(np.int64)
        share = np.full(len(left), 1 / distance, np.float32)
        near = sparse.coo_matrix((share, (left, right)), shape=(vocabulary, vocabulary)).tocsr()
        counts = counts + near + near.T
    rows = np.asarray(counts.sum(1)).ravel()
    contexts = rows**0.75 / (rows**0.75).sum()
    pairs = counts.tocoo()
    information = np.log(pairs.data / (rows[pairs.row] * contexts[pairs.col]))
    positive = information > 0
    ppmi = sparse.csr_matrix(
        (information[positive], (pairs.row[positive], pairs.col[positive])), shape=(vocabulary, vocabulary)
    )
    left_vectors, scale, _ = randomized_svd(ppmi, n_components=hidden, n_iter=3, random_state=seed)
    vectors = left_vectors * np.sqrt(scale)
    vectors -= vectors.mean(0)
    return np.asarray(vectors / vectors.std() * 0.05, np.float32)
