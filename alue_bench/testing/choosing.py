"""The conformance checks of strategies that choose their layers (`Strategy.choose`), made with a small random BERT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.probe import ProbeCost
from alue_bench.contract.strategy import EncoderShape, Outline, Strategy
from alue_bench.testing.violations import cause

if TYPE_CHECKING:
    from alue_bench.data.batches import Batch
    from alue_bench.running.short_training import ShortTrainings
    from alue_bench.training.architecture.encoder_stack import EncoderStack


def check_choosing(subject: str, strategy: Strategy, outlines: Mapping[int, Outline]) -> Iterator[str]:
    """Yield a violation if a strategy's `choose` fails, breaks its contract or is not deterministic.

    Nothing is yielded for a strategy that does not override `choose`.

    Args:
        subject: The beginning of a message about the strategy.
        strategy: The strategy.
        outlines: The changes that the strategy makes to an encoder, by the encoder's number of layers.
    """
    if not strategy.chooses or not outlines:
        return
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from alue_bench.data.batches import Batch
    from alue_bench.training.architecture.encoder_stack import view_as_stack
    from alue_bench.training.probing import checked_choice, probe_of

    layers = min(outlines)
    plan = outlines[layers].freeze_plan
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=plan.shape.layers, num_attention_heads=2,
            intermediate_size=32, num_labels=2,
        )  # fmt: skip
        stack = view_as_stack(BertForSequenceClassification(config))
        ids = torch.randint(1, 32, (4, 8))
        batch = Batch(ids, torch.ones_like(ids), None, torch.tensor([0, 1, 0, 1]), torch.arange(4), ids.numel())
        choices = []
        for _ in range(2):
            trainings = _short_trainings(stack, batch)
            probe = probe_of(stack, [batch], torch.nn.functional.cross_entropy, trainings, seed=0)
            bound = replace(plan, shape=probe.shape)
            try:
                choices.append(checked_choice(strategy, bound, probe))
            except TrainingError as error:
                yield f"{subject}: {error}"
                return
            except Exception as error:  # a plugin's method may raise anything
                yield f"{subject}: choose raises {cause(error)}; return a Choice"
                return
    yield from _check_cost(subject, strategy, plan.shape)
    if choices[0] != choices[1]:
        yield (
            f"{subject}: choose gives different choices for equal probes; draw random numbers from probe.generator only"
        )


def _check_cost(subject: str, strategy: Strategy, shape: EncoderShape) -> Iterator[str]:
    """Yield a violation if `probe_cost` fails, or returns neither a `ProbeCost` nor None."""
    try:
        cost = strategy.probe_cost(shape)
    except Exception as error:  # a plugin's method may raise anything
        yield f"{subject}: probe_cost raises {cause(error)}; return a ProbeCost, or None if the cost is unknown"
        return
    if not (cost is None or isinstance(cost, ProbeCost)):
        yield f"{subject}: probe_cost returns {cost!r:.80}; return a ProbeCost, or None if the cost is unknown"


def _short_trainings(stack: EncoderStack, batch: Batch) -> ShortTrainings:
    """Return the function `train_and_score` for the probe of the check.

    It trains a copy of the model for one epoch on a single batch, and scores it on the same batch.

    Args:
        stack: The model.
        batch: Examples of equal length, without padding.
    """
    import torch

    from alue_bench.contract.spec import HyperParameters
    from alue_bench.contract.task import Labels, TargetKind
    from alue_bench.data.batches import Padding
    from alue_bench.data.tokenization import TokenizedSplit
    from alue_bench.running.short_training import ShortTrainings
    from alue_bench.training.config import TrainingConfig
    from alue_bench.training.device.precision import Device

    texts, tokens = batch.input_ids.shape
    offsets = torch.arange(texts + 1) * tokens
    names = [str(text) for text in range(texts)]
    split = TokenizedSplit(batch.input_ids.flatten(), None, offsets, batch.targets, names, truncated=0)

    def score(logits: Any) -> dict[str, float]:
        return {"score": float((logits.argmax(1) == batch.targets.numpy()).mean())}

    labels = Labels(TargetKind.MULTICLASS, ("0", "1"))
    config = TrainingConfig(labels, HyperParameters(epochs=1), 0, Device("cpu", "fp32", "off"), Padding(0))
    return ShortTrainings(stack, split, split, score, config)
