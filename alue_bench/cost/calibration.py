"""The training speed of this machine for a model of a given shape, measured over a few training steps.

The speed is used only to estimate the time of planned runs. The times that a run reports are measured in that run.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import FreezePlan
from alue_bench.data.batches import Padding
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.measure.flops import training_flops
from alue_bench.training.architecture.encoder_stack import view_as_stack
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.precision import Device, number_format
from alue_bench.training.forward import choose_forward
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.prefix.growing import FixedData
from alue_bench.training.pretrained.loading import BINARY, random_model
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.session import TrainingSession, fine_tune

if TYPE_CHECKING:
    import numpy as np

STEPS, STEPS_ON_ACCELERATOR = 4, 20
"""The number of training steps that are timed, on a CPU and on an accelerator; an untimed warm-up precedes them."""
MAX_EXAMPLES = 64
"""The largest batch size with which the training speed is measured. Larger batches are hardly faster per example, but
measuring them takes memory and time."""
TIMED_LAYERS = 2
"""The number of layers that are timed for a large model. All layers are alike, so that a few suffice."""
TIME_ALL_LAYERS_BELOW = 256
"""The largest hidden size for which all layers of a model are timed. The training steps of such a small model are
short, and overheads are a large part of them."""
VOCABULARY = 1000
"""The largest vocabulary size of the model whose training is timed. Embeddings are looked up, so that this size has
little effect on the speed."""


def shape_key(config: Any) -> tuple[object, ...]:
    """Return a key for a model configuration (a `PretrainedConfig`).

    The layers of configurations with the same key cost the same FLOPs.
    """
    size = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    reach = ("layer_types", "local_attention", "sliding_window")
    names = ("model_type", *size, *reach)
    return tuple(repr(getattr(config, name, None)) for name in names)


_measured_speeds: dict[tuple[object, ...], float] = {}
"""The training speeds that were measured in this process, in FLOPs per second; the key holds the shape of the layers
and the device."""


def speed_of(config: Any, lengths: np.ndarray[Any, Any], hyper: HyperParameters, device: Device) -> float:
    """Return this machine's training speed for a model with this configuration; for the arguments, see `measure_speed`.

    The speed, in FLOPs per second, is measured once per process for each shape of layers, device and number format.
    """
    key = (*shape_key(config), device, device.number)
    if key not in _measured_speeds:
        with number_format(device):
            _measured_speeds[key] = measure_speed(config, lengths, hyper, device)
    return _measured_speeds[key]


def measure_speed(config: Any, lengths: np.ndarray[Any, Any], hyper: HyperParameters, device: Device) -> float:
    """Measure the training speed of a model with this configuration.

    A model with random weights is trained for a few steps on random tokens; all its layers train. This takes seconds
    for a model of base size on a CPU. torch's global random state is left unchanged. If planned runs may replay their
    steps as CUDA graphs, this training does so too; the time for capturing the graphs is not counted.

    Args:
        config: The model's configuration, a transformers `PretrainedConfig`.
        lengths: The lengths of the examples in tokens, int64 [examples]; the timed examples are drawn from them.
        hyper: The training hyper-parameters. The batch size is limited to MAX_EXAMPLES.
        device: The device and number format, and whether steps are captured as CUDA graphs.

    Returns:
        The FLOPs per second. The FLOPs are counted as in `measure.flops`; the time is that of whole training steps,
        with the optimiser, the assembly of batches and overheads.
    """
    import numpy as np
    import torch

    generator = np.random.default_rng(0)
    batch_size = min(hyper.batch_size, MAX_EXAMPLES)
    wanted = (STEPS_ON_ACCELERATOR if device.accelerated else STEPS) * batch_size
    chosen = generator.choice(lengths, size=wanted, replace=len(lengths) < wanted)
    with torch.random.fork_rng(devices=[device.number] if device.name == "cuda" else []):
        small = _reduced_config(config)
        stack = view_as_stack(random_model(small, BINARY, seed=0).to(device.name))
        forward = choose_forward(stack, device.compute)
        data = FixedData(
            train=Examples(_random_split(chosen, small.vocab_size, generator)),
            dev=Examples(_random_split(chosen[:1], small.vocab_size, generator)),
        )
        short = replace(hyper, epochs=1, batch_size=batch_size, select="last", patience=0, eval_every=1.0)
        config = TrainingConfig(BINARY, short, data_seed=0, device=device, padding=Padding(0))
        plan = FreezePlan(stack.shape)
        schedule = FreezeSchedule(stack, plan)
        training = fine_tune(
            TrainingSession(stack, forward, schedule, data, config, score=lambda logits: {"score": 0.0})
        )
    return training_flops(stack, plan, chosen, 1, last_layer=forward.last_layer) / training.loop_s


def _reduced_config(config: Any) -> Any:
    """Return a copy of a model configuration with a small vocabulary and, if the model is large, with few layers.

    All layers remain if the configuration gives the type of each layer, because the types may differ in speed.
    """
    small = copy.deepcopy(config)
    small.vocab_size = min(int(getattr(small, "vocab_size", VOCABULARY)), VOCABULARY)
    small.pad_token_id = 0
    if int(getattr(small, "hidden_size", 0)) > TIME_ALL_LAYERS_BELOW and not getattr(small, "layer_types", None):
        small.num_hidden_layers = min(small.num_hidden_layers, TIMED_LAYERS)
    return small


def _random_split(lengths: np.ndarray[Any, Any], vocabulary: int, generator: np.random.Generator) -> TokenizedSplit:
    """Return a split of random tokens, with examples of the given lengths and target 0, without special tokens."""
    import numpy as np
    import torch

    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(vocabulary // 2, vocabulary, size=int(offsets[-1]))  # above all special tokens
    return TokenizedSplit(
        input_ids=torch.from_numpy(ids),
        token_type_ids=None,
        offsets=torch.from_numpy(offsets),
        targets=torch.zeros(len(lengths), dtype=torch.long),
        ids=[str(number) for number in range(len(lengths))],
        truncated=0,
    )
