"""The accelerator memory that training needs, estimated from shapes, to decide how many runs fit on one GPU.

The estimate is meant to be too high rather than too low. If it is too low, a run divides its batches
(`training/update.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import Outline
from alue_bench.measure.empty_models import EmptyModel, EmptyModels
from alue_bench.planning.build import PlannedRun
from alue_bench.running.inputs import tokenized
from alue_bench.training.device.precision import Device
from alue_bench.training.freezing import count_parameters
from alue_bench.training.pretrained.loading import load_config

if TYPE_CHECKING:
    from torch import nn

FP32 = 4
"""The bytes of an fp32 number; weights, gradients and the optimiser's state are fp32."""
PROCESS_BYTES = 1 << 30
"""The bytes that a process takes on a GPU before it allocates a tensor: the context of CUDA or HIP, the loaded kernels,
and the workspaces of the BLAS libraries. This is an assumption; it was not measured."""
FRAGMENTATION = 1.1
"""The ratio of the memory that torch's allocator reserves to the memory that tensors take."""


def training_bytes(model: EmptyModel, hyper: HyperParameters, longest: int, device: Device) -> int:
    """Return an estimate of the accelerator memory that the training of a run needs, in bytes.

    With P parameters (T of them trained) and e bytes per number in matrix products (4, or 2 in bf16 and fp16):

        PROCESS_BYTES + 1.1 · (4 P  weights
                             + e P  copies of the weights in the number format of matrix products, if e < 4
                             + 4 T  gradients; 8 T if steps may be captured as CUDA graphs
                             + 8 T  AdamW's two averages
                             + 4 T  copy of the selected epoch's weights, unless the last epoch is selected
                             + activations of a batch in which all examples are as long as the longest one)

    The activations are the larger of two amounts. In a training step, they are those that the backward pass reads
    (`activation_bytes`), and those of one more layer, for the temporary tensors of the backward pass. In inference,
    they are those of one layer. If steps may be captured as CUDA graphs, the two amounts are added: CUDA graphs keep
    their memory, gradients included, while eager steps and evaluations take other memory. Cached outputs of frozen
    layers are not counted, because they are kept on the accelerator only if they fit.

    Args:
        model: The model without weights, with its freeze plan.
        hyper: The hyper-parameters: batch size and selection of the epoch.
        longest: The number of tokens of the longest train example.
        device: The device, the number format and the use of CUDA graphs.
    """
    counts = count_parameters(model.stack, model.plan)
    narrow = device.compute.itemsize * counts.total if device.is_16_bit else 0
    gradients = 2 * FP32 if device.captures_graphs else FP32
    state = (gradients + 2 * FP32 + (FP32 if hyper.select == "best" else 0)) * counts.trainable
    trained = activation_bytes(model, hyper.batch_size, longest, device)
    trained += _layer_bytes(model, hyper.batch_size, longest, device)
    scored = _layer_bytes(model, max(1, device.tokens_per_inference_batch // longest), longest, device)
    tensors = (
        FP32 * counts.total + narrow + state + (trained + scored if device.captures_graphs else max(trained, scored))
    )
    return PROCESS_BYTES + int(FRAGMENTATION * tensors)


def activation_bytes(model: EmptyModel, examples: int, tokens: int, device: Device) -> int:
    """Return an estimate of the bytes of activations that are kept for the backward pass of a batch.

    A layer keeps activations if it, or a part below it, has trainable parameters; see `_layer_bytes`. If the head reads
    only the first token, the last layer is computed for that token only, and keeps little more than its input. The
    embeddings, if they train, keep the input of their norm and a dropout mask.

    Args:
        model: The model without weights, with its freeze plan.
        examples: The number of examples of the batch.
        tokens: The number of tokens of each example, with padding.
        device: The device and the number format.
    """
    plan, layers = model.plan, range(len(model.stack.layers))
    trained = [layer not in plan.frozen_layers for layer in layers]
    lowest = 0 if not plan.embeddings else next((layer for layer in layers if trained[layer]), len(layers))
    first_only = model.last_layer != "whole"
    whole_layers = layers[lowest : len(layers) - first_only]
    layer_bytes = [_layer_bytes(model, examples, tokens, device, trains=trained[layer]) for layer in whole_layers]
    hidden_bytes = FP32 * examples * tokens * model.stack.shape.hidden_size
    return sum(layer_bytes) + (0 if plan.embeddings else 2 * hidden_bytes) + first_only * 2 * hidden_bytes


def _layer_bytes(model: EmptyModel, examples: int, tokens: int, device: Device, *, trains: bool = True) -> int:
    """Return the bytes of activations that one layer keeps for the backward pass of a batch.

    These are the tensors that `training/bert/layer.py` saves, with hidden size h, inner size f, and e bytes per number
    in matrix products:

    - for each token: query, key and value (3 e h), the inner vector before the activation function (e f), and the
      inputs of both layer norms (8 h); if the layer trains, also the inputs of its products (3 e h + e f) and two
      dropout masks (8 h), since frozen layers compute without dropout;
    - for each pair of tokens and each head: the attention probability in fp32 (4) and in the format of matrix products
      (e); if the layer trains, also the dropout mask of the probability (4).

    The layers of transformers keep about as much. With fused attention, they keep less, because nothing is kept for
    pairs of tokens. Korthikanti et al. 2022 (Reducing activation recomputation in large transformer models, section 4)
    count the same tensors with masks of one byte.
    """
    hidden, inner = model.stack.shape.hidden_size, _inner_size(model.stack.layers[0])
    heads = int(getattr(model.stack.model.config, "num_attention_heads", 1))
    size = device.compute.itemsize
    frozen_bytes = size * (3 * hidden + inner) + 2 * FP32 * hidden
    token_bytes = (1 + trains) * frozen_bytes
    pair_bytes = heads * (FP32 + (FP32 if trains else 0) + size)
    return examples * tokens * (token_bytes + tokens * pair_bytes)


def _inner_size(layer: nn.Module) -> int:
    """Return the width of a layer's widest matrix product, the inner size of its feed-forward network."""
    from torch import nn

    return max((module.out_features for module in layer.modules() if isinstance(module, nn.Linear)), default=0)


def largest_training(runs: Sequence[PlannedRun]) -> int:
    """Return the estimated accelerator memory, in bytes, of the planned run that needs most memory.

    Texts are tokenized for this, unless their token ids are in the cache.

    Args:
        runs: At least one run; all runs must have the same device.
    """
    keeps = all(run.inputs.prefixes.limit_bytes > 0 for run in runs)
    models = EmptyModels(keeps_prefixes=keeps, device=runs[0].spec.device)
    configs: dict[str, Any] = {}
    longest: dict[tuple[object, ...], int] = {}
    needs: dict[tuple[object, ...], int] = {}
    for run in runs:
        spec, inputs = run.spec, run.inputs
        rows = (spec.model, spec.model_digest, spec.data.train, spec.hyper.max_length)
        key = (*rows, spec.strategy, spec.hyper.batch_size, spec.hyper.select, spec.precision, spec.cuda_graphs)
        if key in needs:
            continue
        if rows not in longest:
            tokenizer = inputs.models.tokenizer(inputs.checkpoint)
            lengths = tokenized(inputs.train_rows, "train", spec, inputs, tokenizer).lengths
            longest[rows] = int(lengths.max())
        if spec.model_digest not in configs:
            configs[spec.model_digest] = load_config(inputs.checkpoint)
        outline = Outline(spec.freeze_plan, spec.kept_layers, spec.adapter)
        model = models.of(configs[spec.model_digest], inputs.train_task.labels, inputs.strategy, outline)
        device = Device(spec.device, spec.precision, spec.cuda_graphs)
        needs[key] = training_bytes(model, spec.hyper, longest[rows], device)
    return max(needs.values())
