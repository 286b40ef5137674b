"""The training FLOPs of planned runs, computed from model shapes and example lengths without loading weights.

See `measure.empty_models` for what the computation assumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alue_bench.contract.strategy import Outline
from alue_bench.cost.probe import probe_flops
from alue_bench.measure.empty_models import EmptyModels
from alue_bench.planning.build import PlannedRun
from alue_bench.planning.matched_compute import trained_share
from alue_bench.running.inputs import tokenized
from alue_bench.training.pretrained.loading import load_config

if TYPE_CHECKING:
    import numpy as np


def forecast_flops(runs: Sequence[PlannedRun]) -> list[float]:
    """Return the training FLOPs of each run of a plan, as the run will record them under `flops/train`.

    Texts are tokenized for this, unless their token ids are in the cache.
    """
    keeps = all(run.inputs.prefixes.limit_bytes > 0 for run in runs)
    models = EmptyModels(keeps_prefixes=keeps, device=runs[0].spec.device if runs else "cpu")
    configs: dict[str, Any] = {}
    lengths: dict[tuple[str, ...], np.ndarray[Any, Any]] = {}
    flops = []
    for run in runs:
        spec, inputs = run.spec, run.inputs
        if spec.model_digest not in configs:
            configs[spec.model_digest] = load_config(inputs.checkpoint)
        rows = (spec.model, spec.model_digest, spec.data.train, str(spec.hyper.max_length))
        if rows not in lengths:
            tokenizer = inputs.models.tokenizer(inputs.checkpoint)
            lengths[rows] = tokenized(inputs.train_rows, "train", spec, inputs, tokenizer).lengths
        outline = Outline(spec.freeze_plan, spec.kept_layers, spec.adapter)
        model = models.of(configs[spec.model_digest], inputs.train_task.labels, inputs.strategy, outline)
        share = trained_share(spec.steps, len(lengths[rows]), spec.hyper)
        chosen = probe_flops(inputs.strategy, model, lengths[rows], spec.hyper)
        flops.append(share * model.training(lengths[rows], spec.hyper.epochs, spec.hyper.batch_size) + chosen)
    return flops
