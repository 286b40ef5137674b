"""Computation of a model's logits for all examples of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import NonFiniteLossError
from alue_bench.data.batches import Padding, batches, evaluation_order
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.data.words import IGNORED
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.device.errors import collect_and_release, is_out_of_memory
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.forward import Forward
from alue_bench.training.prefix.frozen_prefix import Examples

if TYPE_CHECKING:
    import numpy as np


def predict_logits(
    stack: EncoderStack, forward: Forward, examples: Examples, *, device: Device, padding: Padding
) -> np.ndarray[Any, Any]:
    """Return the logits of all examples of a split: fp32 [examples, outputs], in the order of the split.

    In a task that tags words, the result contains the logits of all words, [words, outputs]; see
    `WordPositions.logits_of_all`. In span extraction, it contains the logits of the tokens that may begin or end an
    answer (tokens whose target is not `IGNORED`), [tokens, outputs].

    Texts of similar length are batched together to save padding. If memory is exhausted, the computation is repeated
    with smaller batches. The model is left in eval mode.

    Args:
        stack: The model.
        forward: The implementation of its forward pass.
        examples: The split, with the stored outputs of the frozen lower layers if they are available.
        device: The device and the number format.
        padding: The padding token id and the padded side.

    Raises:
        NonFiniteLossError: A logit is not finite: training diverged, or the number format is too narrow.
        RuntimeError: The memory is too small for a single example.
    """
    import numpy as np

    stack.model.eval()
    tokens = device.tokens_per_inference_batch
    while True:
        order = evaluation_order(examples.split.lengths, tokens)
        try:
            logits = _in_order(order, forward, examples, device, padding)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(order) == len(examples.split):
                raise
        tokens //= 2
        collect_and_release(device.name)
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits)).any(1).sum())
        raise NonFiniteLossError(
            f"the model's outputs are not finite for {bad} of {len(logits)} "
            f"{'tokens' if examples.split.token_targets else 'texts'}; try a smaller --lr"
        )
    result = np.empty_like(logits)
    result[_prediction_indices(examples.split, np.concatenate(order))] = logits
    return result if examples.split.words is None else examples.split.words.logits_of_all(result)


def _prediction_indices(split: TokenizedSplit, order: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the indices with which predictions, computed in another order, are put into the order of the split.

    A prediction is made for each example, or for each token whose target is not `IGNORED`.

    Args:
        split: The split.
        order: The indices of the examples in the order in which they are computed, int64 [examples].

    Returns:
        For each computed prediction, its index in the order of the split: int64 [predictions].
    """
    import numpy as np

    if not split.token_targets:
        return order
    known = np.concatenate([[0], np.cumsum((split.targets != IGNORED).numpy())])
    bounds = known[split.offsets.numpy()]
    return np.concatenate([np.arange(bounds[index], bounds[index + 1]) for index in order])


def _in_order(
    order: list[np.ndarray[Any, Any]], forward: Forward, examples: Examples, device: Device, padding: Padding
) -> np.ndarray[Any, Any]:
    """Compute the logits of batches in the given order, and return them concatenated.

    The result is fp32 [examples, outputs]. If the targets belong to tokens, it is [tokens, outputs], with a row for
    each token whose target is not `IGNORED`.

    Args:
        order: For each batch, the indices of its examples in the split.
        forward: The implementation of the forward pass.
        examples: The split, with the stored outputs of the frozen lower layers if they are available.
        device: The device and the number format.
        padding: The padding token id and the padded side.
    """
    import torch

    parts = []
    with torch.no_grad(), autocast(device):
        for batch in batches(examples.split, order, padding, round_lengths=device.rounds_lengths):
            logits_of_batch = examples.logits(forward, batch.to(device.name, pinned=device.pins_memory)).float()
            if batch.token_targets:  # indices from the host's targets, so that nothing waits for the device
                chosen = (batch.targets.flatten() != IGNORED).nonzero()[:, 0]
                logits_of_batch = logits_of_batch.flatten(0, 1).index_select(0, device.copied_from_host(chosen))
            parts.append(logits_of_batch)
    logits: np.ndarray[Any, Any] = torch.cat(parts).cpu().numpy()
    return logits
