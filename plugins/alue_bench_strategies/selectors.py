"""Selectors: strategies that train the K layers with the highest scores in one look at the model, and freeze the rest.

The embeddings are frozen, and the pooler and the head train. The trained layers need not be adjacent. `random-K` draws
the layers and is the control: a selector that is not better than it has chosen by chance.

- `surgical-K`: the diagonal of the empirical Fisher information. Source: Lodha et al. 2023, "On Surgical Fine-tuning
  for Language Encoders", arXiv 2310.17041. The score of a layer is the mean over examples of the squared gradient of
  the example's loss, summed over the layer's parameters. The loss is that of the gold labels, with the new head. The
  sum (and not the mean) over parameters, and the loss of tasks other than classification, are choices made here: the
  text of the paper beyond its abstract was not available.
- `rgn-K`: the norm of the gradient of the mean loss, divided by the norm of the weights. Source: Lee et al. 2022,
  "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts", arXiv 2210.11466, where the ratio (RGN) scales the
  learning rate of each layer (Auto-RGN). Training only the K layers with the highest ratio is a choice made here.
- `spectrum-K`: the signal-to-noise ratio of the weights. Source: Hartford et al. 2024, "Spectrum: Targeted Training on
  Signal to Noise Ratio", arXiv 2406.06623. For each weight matrix with singular values s, the noise is estimated as
  sigma = IQR(s) / 1.349, the edge of the Marchenko-Pastur law as sigma (1 + sqrt(beta)) with beta the ratio of the
  shorter to the longer side, and the score is the sum of the s above the edge, divided by the sum of the others and by
  the largest s. The source ranks matrices of each kind separately; the mean over a layer's matrices is a choice made
  here. It needs no examples.

Cost: `surgical-K` costs a forward and a backward pass for each example of the probe (`--probe-rows`), one at a time;
`rgn-K` the same in batches. `spectrum-K` costs the singular values of all matrices, which `flops/probe` does not count
(`runtime/probe_s` does). All copy the model for the time of the choice. A training in which layer 0 is chosen
back-propagates through all layers, and saves only the gradients of the frozen weights.

When it does not help: the gradients are those of a new head with random weights, and may say more about this head than
about the task. The Fisher information and the gradient grow or shrink with depth for reasons other than the task, such
as the position of layer norms; then every task gets the same layers. Compare with `random-K` and with the contiguous
top layers (`bottom<N>`) at equal FLOPs before relying on a selector.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from alue_bench import Choice, DoesNotFit, EncoderShape, FreezePlan, Probe, Strategy, StrategyFamily, UsageError

IQR_OF_NORMAL = 1.349
"""The interquartile range of a normal distribution with standard deviation 1."""


@dataclass(frozen=True)
class Selector(Strategy):
    """A strategy that trains the layers with the highest scores."""

    count: int
    """The number of layers that train."""
    prefix = ""
    """The text before the number in the strategy's name."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "surgical-3"."""
        return f"{self.prefix}-{self.count}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return the costliest choice, the lowest layers: gradients then pass through all layers.

        Raises:
            DoesNotFit: The model has no more layers than are to train.
        """
        if self.count >= shape.layers:
            raise DoesNotFit(
                f"{self.name} chooses {self.count} layers to train, but the model has only {shape.layers}; choose "
                f"fewer than {shape.layers}"
            )
        return FreezePlan(shape, frozenset(range(self.count, shape.layers)), embeddings=True)

    def choose(self, probe: Probe) -> Choice:
        """Return the choice of the layers with the highest scores."""
        return Choice.highest(probe.shape, self.scores(probe), self.count)

    @abstractmethod
    def scores(self, probe: Probe) -> list[float]:
        """Return the score of each layer, from layer 0 upwards."""


class Surgical(Selector):
    """A selector by the diagonal of the empirical Fisher information."""

    prefix = "surgical"

    def scores(self, probe: Probe) -> list[float]:
        """Return the mean over examples of each layer's sum of squared gradients."""
        total, examples = [0.0] * probe.shape.layers, 0
        for example in probe.examples():
            examples += 1
            for layer, gradients in enumerate(probe.gradients(example)):
                total[layer] += sum(float(gradient.double().square().sum()) for gradient in gradients)
        return [value / examples for value in total]


class RelativeGradient(Selector):
    """A selector by the norm of the gradient, divided by the norm of the weights."""

    prefix = "rgn"

    def scores(self, probe: Probe) -> list[float]:
        """Return the relative norm of the gradient of each layer; the gradient is of the mean loss of all examples."""
        sums: list[list[Any]] = []
        examples = sum(len(batch.input_ids) for batch in probe.batches)
        for batch in probe.batches:
            share = len(batch.input_ids) / examples
            parts = [[gradient * share for gradient in layer] for layer in probe.gradients(batch)]
            sums = (
                [list(map(sum, zip(*pair, strict=True))) for pair in zip(sums, parts, strict=True)] if sums else parts
            )
        weights = [[p.detach() for p in layer.parameters() if p.requires_grad] for layer in probe.layers]
        return [_norm(gradients) / _norm(of_layer) for gradients, of_layer in zip(sums, weights, strict=True)]


class Spectrum(Selector):
    """A selector by the signal-to-noise ratio of the singular values of the weights."""

    prefix = "spectrum"

    def scores(self, probe: Probe) -> list[float]:
        """Return the mean signal-to-noise ratio of each layer's weight matrices."""
        ratios = [[signal_to_noise(p.detach()) for p in layer.parameters() if p.ndim == 2] for layer in probe.layers]
        return [sum(of_layer) / len(of_layer) for of_layer in ratios]


class Random(Selector):
    """A selector by random scores: the control of the others."""

    prefix = "random"

    def scores(self, probe: Probe) -> list[float]:
        """Return a random number for each layer, drawn by the run's data seed."""
        return [float(score) for score in probe.generator.random(probe.shape.layers)]


def signal_to_noise(weight: Any) -> float:
    """Return the signal-to-noise ratio of a weight matrix, a tensor [rows, columns]; see the module's description."""
    import torch

    values = torch.linalg.svdvals(weight.double().cpu())
    quartiles = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype))
    sigma = float(quartiles[1] - quartiles[0]) / IQR_OF_NORMAL
    edge = sigma * (1 + (min(weight.shape) / max(weight.shape)) ** 0.5)
    signal, noise = float(values[values > edge].sum()), float(values[values <= edge].sum())
    # Without any value below the edge, the smallest one stands for the noise, so that the ratio stays finite.
    noise = noise or float(values[-1]) or float(torch.finfo(values.dtype).tiny)
    return signal / noise / (float(values[0]) or 1.0)


def _norm(tensors: list[Any]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _family(kind: type[Selector], title: str, source: str) -> StrategyFamily:
    def parse(name: str) -> Selector | None:
        match = re.fullmatch(rf"{kind.prefix}-(\d{{1,4}})", name, re.ASCII)
        if match is None:
            return None
        strategy = kind(int(match[1]))
        if strategy.count < 1:
            raise UsageError(f"strategy {name!r}: the number of layers that train must be at least 1")
        if strategy.name != name:
            raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
        return strategy

    return StrategyFamily(
        grammar=f"{kind.prefix}-<K>",
        title=title,
        source=source,
        examples=(f"{kind.prefix}-1", f"{kind.prefix}-3"),
        parse=parse,
    )


FAMILIES = (
    _family(
        Surgical,
        "The K layers with the highest Fisher information train, chosen by a look at the loaded model",
        "Lodha et al. 2023, On Surgical Fine-tuning for Language Encoders, arXiv 2310.17041",
    ),
    _family(
        RelativeGradient,
        "The K layers whose gradients are largest relative to their weights train",
        "Lee et al. 2022, Surgical Fine-Tuning Improves Adaptation to Distribution Shifts, arXiv 2210.11466",
    ),
    _family(
        Spectrum,
        "The K layers whose weights have the highest signal-to-noise ratio train",
        "Hartford et al. 2024, Spectrum: Targeted Training on Signal to Noise Ratio, arXiv 2406.06623",
    ),
    _family(Random, "K random layers train: the control of strategies that choose", "a control; no publication"),
)
