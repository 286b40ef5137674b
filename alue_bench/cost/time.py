"""The estimated cost of a plan on this machine before it runs: counted FLOPs and estimated seconds.

The FLOPs are the ones that the runs will record, computed from the models' shapes and the real lengths of the examples.
The seconds are these FLOPs divided by the speed of a few training steps, which is measured at the time of the estimate.
The scoring of the dev and test splits is included. So is the computation of frozen prefixes (the embeddings and lowest
layers, if they are frozen), which runs of a plan share. The estimate ignores loading times, concurrent runs, finished
or cached results, and the changes that adaptive strategies make to the frozen parts during training.

Runs whose model is not on this machine are included if the plugin declares the model's architecture. The lengths of
their examples are then taken from another model's tokenizer.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import AlueBenchError
from alue_bench.contract.formats import Answers
from alue_bench.contract.model import Model
from alue_bench.contract.registry import Registry
from alue_bench.contract.spec import RunSpec
from alue_bench.contract.strategy import Outline
from alue_bench.cost.calibration import shape_key, speed_of
from alue_bench.cost.probe import probe_flops
from alue_bench.data.batches import steps_per_epoch
from alue_bench.data.spans import encoded_questions, normalised_questions
from alue_bench.data.splits import TaskRows
from alue_bench.data.words import encoded_words
from alue_bench.evaluation.yardstick import expected_seconds
from alue_bench.measure.empty_models import EmptyModels
from alue_bench.measure.environment import hardware_fingerprint
from alue_bench.messages.display import first_line
from alue_bench.planning.build import AbsentRun, Plan
from alue_bench.planning.matched_compute import trained_share
from alue_bench.planning.variation import settings_of, varied_names
from alue_bench.running.inputs import tokenized
from alue_bench.training.device.precision import Device, resolve_graphs
from alue_bench.training.pretrained.loading import declared_config, load_config, load_tokenizer, locate_checkpoint
from alue_bench.training.selection import evaluation_points

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """The estimated cost of one run."""

    task: str
    model: str
    strategy: str
    seed: int
    settings: Mapping[str, object]
    """The run's values of the hyper-parameters that vary within the plan, by name."""
    here: bool
    """True if the run's model and data are on this machine."""
    flops: float | None
    """The training FLOPs, as `flops/train` will record them; None if unknown."""
    seconds: float | None
    """The seconds for training and scoring; None if unknown. The seconds for computing the frozen lowest layers, whose
    outputs runs share, are not included: see `CostEstimate.shared_s`."""


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """The estimated cost of a plan."""

    runs: tuple[RunEstimate, ...]
    shared_s: Mapping[bool, float]
    """The seconds for computing the outputs of frozen prefixes (embeddings and lowest layers), once for all runs. The
    key True is for the runs that can be executed on this machine, False for all others."""
    without_data: int
    """The number of runs that the estimate omits, because their task has no data on this machine."""
    hardware: str
    """The short name of this machine's hardware, from `hardware_fingerprint`."""
    speeds: tuple[float, ...]
    """The measured training speeds in FLOPs per second, one for each shape of model."""
    lengths_of: str | None
    """The name of the model whose tokenizer gave the example lengths for models that are not on this machine; None if
    no such tokenizer was needed or found."""
    problems: tuple[str, ...] = ()
    """Sentences that say why the cost of a run is unknown."""
    yardstick_s: float = 0.0
    """The seconds for fitting the linear models on TF-IDF features with which the runs are compared
    (`RunInputs.yardstick`), on the assumption that the cache has no results for them. The method `seconds` does not
    include this time."""
    upper_bound: bool = False
    """True if early stopping may end runs before their last epoch, so that the cost is an upper bound."""

    def flops(self, *, here: bool) -> float | None:
        """Return the total training FLOPs of the plan's runs; None if the FLOPs of a run are unknown.

        Args:
            here: True to sum over the runs that this machine can execute, False to sum over the remaining runs.
        """
        return _sum(run.flops for run in self.runs if run.here == here)

    def seconds(self, *, here: bool, part: Callable[[RunEstimate], float] = lambda run: 1.0) -> float | None:
        """Return the total seconds of the plan's runs, including `shared_s`; None if the seconds of a run are unknown.

        Args:
            here: True to sum over the runs that this machine can execute, False to sum over the remaining runs.
            part: A function that returns the fraction of a run's seconds to include. The seconds in `shared_s` are
                always included in full.
        """
        runs = [run for run in self.runs if run.here == here]
        total = _sum(None if run.seconds is None else part(run) * run.seconds for run in runs)
        return None if total is None else total + self.shared_s.get(here, 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as values that can be written as JSON, for the option `--json`."""

        def part(here: bool) -> dict[str, Any]:
            runs = [run for run in self.runs if run.here == here]
            return {"runs": len(runs), "flops": self.flops(here=here), "seconds": self.seconds(here=here)}

        return {
            "note": "an estimate from a few training steps taken now; nothing was run",
            "upper_bound": self.upper_bound,
            "hardware": self.hardware,
            "speeds_flops_per_s": list(self.speeds),
            "yardstick_seconds": self.yardstick_s,
            "here": part(True),
            "model_missing": part(False) | {"lengths_by_tokenizer_of": self.lengths_of},
            "data_missing": {"runs": self.without_data},
            "problems": list(self.problems),
            "runs": [vars(run) for run in self.runs],
        }


@dataclass
class _RunToEstimate:
    """A planned run, with the values from which its cost is estimated."""

    run: AbsentRun
    key: str
    """A key that is equal for runs that test the same trained model, which is therefore trained only once."""
    start: tuple[object, ...]
    """A key that is equal for runs with the same initial model and data, which share the outputs of frozen layers."""
    here: bool
    """True if the run's model and data are on this machine."""
    config: Any
    """The configuration of the run's model, a transformers `PretrainedConfig`."""
    lengths: dict[str, np.ndarray[Any, Any]]
    """The lengths of the examples in tokens, int64 [examples], of the splits train, dev and test."""


@dataclass
class _Estimator:
    """The data shared by the estimates of a plan's runs: models without weights, measured speeds, and problems."""

    models: EmptyModels
    device: Device
    problems: dict[str, None] = field(default_factory=dict)
    """Sentences that say why a cost is unknown, as the keys of a dictionary, without duplicates."""
    speeds: dict[tuple[object, ...], float | None] = field(default_factory=dict)
    """The training speed in FLOPs per second for each shape of model, by `shape_key`; None if the measurement
    failed."""

    def speed(self, work: list[_RunToEstimate], item: _RunToEstimate) -> float | None:
        """Return the training speed of a run's model, measured once for each model shape.

        Args:
            work: All runs. The measurement uses the lengths of the train examples of all runs that have a model of this
                shape.
            item: The run for whose model the speed is returned.

        Returns:
            FLOPs per second, or None if the measurement failed; `problems` then says why.
        """
        import numpy as np

        key = shape_key(item.config)
        if key not in self.speeds:
            alike = [w for w in work if shape_key(w.config) == key]
            lengths = np.concatenate([w.lengths["train"] for w in {id(w.lengths): w for w in alike}.values()])
            try:
                self.speeds[key] = speed_of(item.config, lengths, item.run.hyper, self.device)
            except Exception as error:  # an architecture that cannot be timed must not prevent the other estimates
                self.speeds[key] = None
                cause = first_line(error)
                self.problems[f"no time estimate for models like {item.run.model.name}: {cause:.200}"] = None
        return self.speeds[key]


def estimate_plan(plan: Plan, registry: Registry) -> CostEstimate:
    """Return the estimated cost of a plan.

    Args:
        plan: The plan, with at least one run in `runs` or `absent`.
        registry: The declarations of the plugins. Their models are searched for a tokenizer to use for runs whose own
            model is not on this machine.
    """
    first = plan.runs[0].spec if plan.runs else plan.absent[0]
    graphs = first.cuda_graphs if isinstance(first, RunSpec) else resolve_graphs("auto", first.device)
    device = Device(first.device, first.precision, graphs)
    estimator = _Estimator(EmptyModels(keeps_prefixes=plan.keeps_prefixes, device=first.device), device)
    work, lengths_of = _local_runs(plan, estimator), None
    if plan.absent:
        absent, lengths_of = _absent_runs(plan, registry, estimator)
        work += absent
    names = varied_names((item.run.task.name, item.run.model.name, item.run.hyper) for item in work)
    runs, trained = [], set[str]()
    depths: defaultdict[tuple[bool, tuple[object, ...]], dict[int, float]] = defaultdict(dict)
    for item in work:
        speed = estimator.speed(work, item)
        counted = _count(item, estimator, speed, shares_training=item.key in trained)
        trained.add(item.key)
        depths[item.here, item.start][counted.depth] = counted.prefix_s
        run = item.run
        runs.append(
            RunEstimate(
                task=run.task.name, model=run.model.name, strategy=run.strategy.name, seed=run.seed,
                settings=dict(settings_of(run.hyper, names)), here=item.here, flops=counted.flops,
                seconds=counted.seconds,
            )
        )  # fmt: skip
    shared: defaultdict[bool, float] = defaultdict(float)
    for (here, _), by_depth in depths.items():
        shared[here] += by_depth[max(by_depth)]  # computing the deepest prefix gives all shallower ones too
    return CostEstimate(
        runs=tuple(runs),
        shared_s=dict(shared),
        without_data=plan.without_data,
        hardware=hardware_fingerprint(device.name),
        speeds=tuple(speed for speed in estimator.speeds.values() if speed),
        lengths_of=lengths_of,
        problems=tuple(estimator.problems),
        yardstick_s=_yardstick_seconds(plan),
        upper_bound=any(item.run.hyper.patience for item in work),
    )


def _yardstick_seconds(plan: Plan) -> float:
    """Return the estimated seconds for the linear models on TF-IDF features, a model for each train and test split."""
    fits = {(run.spec.data.train, run.spec.data.test): run.inputs for run in plan.runs if run.inputs.yardstick}
    return math.fsum(expected_seconds(inputs.train_task, inputs.train_rows) for inputs in fits.values())


@dataclass(frozen=True)
class _EstimatedRun:
    """The estimated cost of one run.

    The seconds for computing the frozen lowest layers are in `prefix_s`, not `seconds`.
    """

    flops: float
    seconds: float | None
    """The seconds for training and scoring; None if the training speed is unknown."""
    depth: int
    """The number of frozen lowest layers whose outputs are cached; 0 if the training speed is unknown."""
    prefix_s: float


def _count(item: _RunToEstimate, estimator: _Estimator, speed: float | None, *, shares_training: bool) -> _EstimatedRun:
    """Estimate the FLOPs that a run will record, and its seconds.

    Args:
        item: The run.
        estimator: The data shared by the estimates of all runs.
        speed: The training speed in FLOPs per second; None if unknown.
        shares_training: Whether an earlier run trains the same model, so that only the scoring takes time.
    """
    run, train = item.run, item.lengths["train"]
    model, epochs = estimator.models.of(item.config, run.train_task.labels, run.strategy, run.outline), run.hyper.epochs
    size = run.hyper.batch_size
    share = trained_share(run.steps, len(train), run.hyper)
    chosen = probe_flops(run.strategy, model, train, run.hyper)
    flops, depth = share * model.training(train, epochs, size) + chosen, model.kept_layers
    if speed is None:
        return _EstimatedRun(flops, None, 0, 0.0)
    each_epoch = model.training(train, 2, size) - model.training(train, 1, size)
    forward = {name: model.scoring(lengths) for name, lengths in item.lengths.items()}
    below = depth / model.plan.shape.layers
    evaluations = len(evaluation_points(steps_per_epoch(len(train), size), run.hyper.eval_every))
    steps = 0.0 if shares_training else (each_epoch + (1 - below) * forward["dev"] * evaluations) * epochs
    steps = steps * share + (0.0 if shares_training else chosen)
    prefix = below * sum(forward.values())
    return _EstimatedRun(flops, (steps + (1 - below) * forward["test"]) / speed, depth, prefix / speed)


def _local_runs(plan: Plan, estimator: _Estimator) -> list[_RunToEstimate]:
    """Return the plan's runs that can be executed on this machine, with the lengths of their tokenized examples."""
    configs: dict[str, Any] = {}
    work = []
    for planned in plan.runs:
        spec, inputs = planned.spec, planned.inputs
        if spec.model_digest not in configs:
            configs[spec.model_digest] = load_config(inputs.checkpoint)
        run = AbsentRun(
            task=inputs.task, train_task=inputs.train_task, rows=inputs.rows, train_rows=inputs.train_rows,
            model=inputs.model, strategy=inputs.strategy,
            outline=Outline(spec.freeze_plan, spec.kept_layers, spec.adapter), seed=spec.seed, hyper=spec.hyper,
            device=spec.device, precision=spec.precision, steps=spec.steps,
        )  # fmt: skip
        try:
            tokenizer = inputs.models.tokenizer(inputs.checkpoint)
            lengths = {name: tokenized(rows, name, spec, inputs, tokenizer).lengths for name, rows in _splits(run)}
        except AlueBenchError as error:
            estimator.problems[str(error)] = None
            continue
        work.append(
            _RunToEstimate(
                run,
                spec.training_key,
                _start_key(run.train_rows.folds_digest or spec.data.train, spec.model_digest, run),
                True,
                configs[spec.model_digest],
                lengths,
            )
        )
    return work


def _absent_runs(plan: Plan, registry: Registry, estimator: _Estimator) -> tuple[list[_RunToEstimate], str | None]:
    """Return the plan's runs whose model is not on this machine, with example lengths from another model's tokenizer.

    Returns:
        The runs, and the name of the model whose tokenizer gave the lengths. If no model on this machine has a
        tokenizer, an empty list and None.
    """
    stand_in = _substitute_tokenizer(plan, registry)
    if stand_in is None:
        estimator.problems["no model on this machine has a tokenizer, so text lengths are unknown"] = None
        return [], None
    name, normalise, tokenizer = stand_in
    kept: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
    work = []
    for run in plan.absent:
        config = declared_config(run.model)
        lengths = {}
        for split, rows in _splits(run):
            key = (rows.splits[split].digest, run.hyper.max_length)
            if key not in kept:
                kept[key] = _lengths(rows.splits[split].examples, normalise, tokenizer, run.hyper.max_length)
            lengths[split] = kept[key]
        data = run.train_rows.splits["train"].digest
        key_of_training = repr((data, run.model.name, run.strategy.name, run.seed, run.hyper))
        start = _start_key(run.train_rows.folds_digest or data, run.model.name, run)
        work.append(_RunToEstimate(run, key_of_training, start, False, config, lengths))
    return work, name


def _start_key(data: str, model: str, run: AbsentRun) -> tuple[object, ...]:
    """Return a key that is equal for runs with the same initial model and data; see `_RunToEstimate.start`."""
    return data, model, run.outline.kept_layers, run.outline.adapter and run.strategy.name


def _splits(run: AbsentRun) -> tuple[tuple[str, TaskRows], ...]:
    """Return the name of each split of a run, with the rows of the task from which the split is taken."""
    return ("train", run.train_rows), ("dev", run.train_rows), ("test", run.rows)


def _substitute_tokenizer(plan: Plan, registry: Registry) -> tuple[str, Any, Any] | None:
    """Return a local tokenizer for models that are not on this machine; None if none is found.

    The result is a local model's name, normalisation function and tokenizer. A model of the plan is preferred, then a
    model that a plugin bundles, then a downloaded model.
    """
    models: list[Model] = [run.inputs.model for run in plan.runs[:1]]
    models += sorted(
        (declared.value for declared in registry.models.values()), key=lambda model: isinstance(model.checkpoint, str)
    )
    for model in models:
        try:
            tokenizer = load_tokenizer(locate_checkpoint(model, download=False))
        except AlueBenchError:
            continue
        return model.name, model.normalise or (lambda text: text), tokenizer
    return None


def _lengths(examples: Any, normalise: Any, tokenizer: Any, max_tokens: int) -> np.ndarray[Any, Any]:
    """Return the number of tokens of each example, at most `max_tokens`: int64 `[n]`.

    If the answers are parts of the text, a long text may be divided into windows; each window then counts as an
    example.
    """
    import numpy as np

    if isinstance(examples[0].target, Answers) and tokenizer.is_fast:
        windows = encoded_questions(normalised_questions(examples, normalise), tokenizer, max_tokens)
        return np.asarray(windows["input_ids"].combine_chunks().value_lengths(), dtype="int64")
    if examples[0].words is not None:
        words = [[normalise(word) for word in example.words] for example in examples]
        return np.array([len(ids) for ids in encoded_words(words, tokenizer, max_tokens)["input_ids"]], dtype="int64")
    texts = [normalise(example.text) for example in examples]
    pairs = None if examples[0].text_pair is None else [normalise(example.text_pair) for example in examples]
    ids = tokenizer(texts, pairs, truncation=True, max_length=max_tokens)["input_ids"]
    return np.array([len(token_ids) for token_ids in ids], dtype="int64")


def _sum(values: Any) -> float | None:
    """Return the sum of some values; None if one of them is None."""
    listed = list(values)
    return None if any(value is None for value in listed) else math.fsum(listed)
