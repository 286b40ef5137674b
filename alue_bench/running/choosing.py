"""A strategy's choice of the layers to train, without the training that follows in a run.

The strategy chooses by a probe: it examines the loaded model and some train examples.
"""

from __future__ import annotations

from alue_bench.contract.spec import RunSpec
from alue_bench.running.inputs import RunInputs, tokenized_for
from alue_bench.running.probing import Probed, probe
from alue_bench.training.architecture.encoder_stack import view_as_stack
from alue_bench.training.device.precision import Device


def choice_of(spec: RunSpec, inputs: RunInputs) -> Probed:
    """Load a run's model, and ask the run's strategy which layers to train, without training them.

    Args:
        spec: The run; its strategy must choose by a probe.
        inputs: The run's inputs.

    Raises:
        TrainingError: The choice is invalid.
    """
    tokenizer = inputs.models.tokenizer(inputs.checkpoint)
    stack = view_as_stack(inputs.models.model(inputs.checkpoint, inputs.train_task.labels, init_seed=spec.init_seed))
    split = tokenized_for(stack, inputs.train_rows, "train", spec, inputs, tokenizer)
    stack.model.to(spec.device)
    return probe(spec, inputs, stack, split, Device(spec.device, spec.precision, spec.cuda_graphs))
