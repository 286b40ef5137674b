"""The specification of a run (`RunSpec`), which is one fine-tuning with its test, and its results (`RunResult`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from alue_bench.contract.errors import UsageError
from alue_bench.contract.options import Group, option, options_of, problem_in
from alue_bench.contract.probe import LayerScore
from alue_bench.contract.strategy import Adapter, FreezePlan

# Increase this number when the meaning of a recorded result changes, so that older results are not reused.
RESULT_VERSION = 5


def digest_of(value: object) -> str:
    """Return a short, stable digest of JSON-like data: 32 hexadecimal digits."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class HyperParameters:
    """The training hyper-parameters of a run. The defaults are those of ALUE's own baselines (Seelawi et al. 2021).

    For developers: if all earlier runs were trained as if a new hyper-parameter had its default, declare it with
    `default_is_implied=True`. The fingerprints of these runs (a fingerprint is a digest of everything that determines
    the result) then stay the same.
    """

    epochs: int = option(
        10, help="Number of passes over the train split.", group=Group.TRAINING, at_least=1, is_axis=True
    )
    batch_size: int = option(16, help="Examples per training step.", group=Group.TRAINING, at_least=1, is_axis=True)
    lr: float = option(2e-5, help="Peak learning rate.", group=Group.TRAINING, above=0, is_axis=True)
    """The peak learning rate of AdamW; it decays linearly to zero."""
    llrd: float = option(
        1.0,
        help="Layer-wise learning-rate decay: rate of a layer divided by that of the layer above, such as 0.95; 1: "
        "off.",
        group=Group.TRAINING,
        above=0,
        at_most=1,
        remark="1 gives every layer the same rate",
    )
    """The layer-wise decay of the learning rate (Howard & Ruder 2018, section 3.2; Sun et al. 2019). The top layer, the
    pooler and the head are trained with the rate `lr`, and every other layer with `llrd` times the rate of the layer
    above it. The embeddings count as one more layer at the bottom."""
    warmup: float = option(
        0.0,
        help="Share of all steps over which the learning rate rises, 0 to 1.",
        group=Group.TRAINING,
        at_least=0,
        below=1,
        remark="a part of all steps",
    )
    """The share of all steps over which the learning rate rises linearly from zero."""
    weight_decay: float = option(
        0.0, help="Weight decay, applied to weight matrices.", group=Group.TRAINING, at_least=0
    )
    adam_beta2: float = option(
        0.999,
        help="Decay rate of AdamW's average of squared gradients.",
        group=Group.TRAINING,
        at_least=0,
        below=1,
        default_is_implied=True,
    )
    adam_eps: float = option(1e-8, help="Epsilon of AdamW.", group=Group.TRAINING, above=0)
    clip: float = option(
        1.0,
        help="Maximum gradient norm; 0 disables clipping.",
        group=Group.TRAINING,
        at_least=0,
        remark="0 turns clipping off",
    )
    clip_by: Literal["global", "component"] = option(
        "global",
        help="Norm to clip: global (all gradients together) or component (each parameter separately).",
        group=Group.TRAINING,
    )
    """The gradients whose norm is clipped: the gradients of all parameters together ("global"), or the gradient of each
    parameter separately ("component", Yang & Ma 2022)."""
    batch_order: Literal["length", "random"] = option(
        "length",
        help="Examples of a training batch: of similar length (fast), or drawn at random.",
        group=Group.TRAINING,
        default_is_implied=True,
    )
    """The way in which train examples are grouped into batches: examples of similar length together ("length"), which
    saves padding, or at random ("random"), as transformers' `Trainer` does by default. Without warm-up, tags of words
    are learnt less well from batches of similar length: see `docs/performance.md`."""
    max_length: int = option(
        256,
        help="Maximum number of tokens per example; longer ones are truncated.",
        group=Group.TRAINING,
        at_least=4,
        is_axis=True,
    )
    """The largest number of tokens of an example, special tokens included. The number of truncated examples is
    recorded."""
    select: Literal["best", "last"] = option(
        "best", help="Evaluation whose weights are tested: best (by dev score) or last.", group=Group.TRAINING
    )
    """The weights that are tested: those of the dev evaluation with the best score ("best"), or those of the last dev
    evaluation ("last"). There is a dev evaluation after each epoch, and more if `eval_every` is below 1."""
    class_weights: str = option(
        "none",
        help="Weights of the classes in the loss: balanced, or LABEL=WEIGHT,LABEL=WEIGHT (others 1); none: all equal.",
        group=Group.TRAINING,
        default_is_implied=True,
    )
    """The weights of the classes in the loss: "none", "balanced", or weights of single labels such as "joy=1,fear=4";
    see `alue_bench.training.class_weights`."""
    patience: int = option(
        0,
        help="Stop training after this many consecutive dev evaluations without a better dev score; 0: never.",
        group=Group.TRAINING,
        at_least=0,
        default_is_implied=True,
        remark="0 turns early stopping off",
    )
    """The number of consecutive dev evaluations without a better score after which training stops (Prechelt 1998); 0
    for no early stopping. The learning-rate schedule spans all epochs, even if training stops early."""
    eval_every: float = option(
        1.0,
        help="Epochs between two dev evaluations, such as 0.5; there is always one at the end of an epoch.",
        group=Group.TRAINING,
        above=0,
        at_most=1,
        default_is_implied=True,
        remark="a part of an epoch",
    )
    """The fraction of an epoch between two dev evaluations, such as 0.5. There is always an evaluation at the end of an
    epoch."""
    probe_rows: int = option(
        256,
        help="Number of train examples from which a strategy such as surgical-3 chooses its layers.",
        group=Group.TRAINING,
        at_least=1,
        default_is_implied=True,
    )
    """The number of train examples from which a strategy chooses the layers to train (`Strategy.choose`). In the runs
    of strategies that do not choose layers, it has the default value."""

    def __post_init__(self) -> None:
        """Raise ValueError for the first value that is out of its bounds."""
        if wrong := problem_in(self):
            declared, problem = wrong
            raise ValueError(f"{declared.name} {problem}")

    def identity(self) -> dict[str, Any]:
        """Return the hyper-parameters that are part of a run's fingerprint, by name.

        A hyper-parameter with `default_is_implied` is left out if it has its default value. All runs that were recorded
        before it existed were trained as if it had this value. Their fingerprints therefore stay valid.
        """
        default = HyperParameters()
        return {
            name: getattr(self, name)
            for name, declared in options_of(HyperParameters).items()
            if not (declared.default_is_implied and getattr(self, name) == getattr(default, name))
        }


@dataclass(frozen=True)
class ResolvedHyperParameters:
    """The training hyper-parameters of a run, and where each value comes from, such as a study file or an option."""

    values: HyperParameters
    origins: Mapping[str, str]
    """The origin of each value in words, such as "default", by hyper-parameter name."""


def resolve_hyper_parameters(layers: Iterable[tuple[str, Mapping[str, object]]]) -> ResolvedHyperParameters:
    """Override the default hyper-parameters with values from several origins, such as a task and the command line.

    Args:
        layers: For each origin a pair: a description of the origin in words, and its values by hyper-parameter name. A
            value overrides those of earlier pairs; None overrides nothing.

    Returns:
        The hyper-parameters, with the origin of each value.

    Raises:
        UsageError: A hyper-parameter is unknown, or a value has a wrong type or is out of bounds. The message names the
            origin.
    """
    known = options_of(HyperParameters)
    values: dict[str, Any] = {}
    origins = dict.fromkeys(known, "default")
    for origin, given in layers:
        for name, value in given.items():
            if value is None:
                continue
            if name not in known:
                raise UsageError(f"{origin}: unknown hyper-parameter {name!r}; known are {', '.join(known)}")
            if problem := known[name].problem(value):
                raise UsageError(f"{origin}: {name} {problem}")
            values[name] = known[name].converted(value)
            origins[name] = origin
    return ResolvedHyperParameters(HyperParameters(**values), origins)


@dataclass(frozen=True, kw_only=True)
class DataDigests:
    """Digests of the rows with which a run trains and is tested, and the origin of these rows."""

    source: Literal["real", "sample"]
    """The source of the rows: "real" for the official files, "sample" for the small sample in the task's plugin."""
    protocol: str
    """A sentence on where the splits come from, such as "official train, dev and test files"."""
    train: str
    """A digest of the train and dev rows that are used, and of how dev is scored. Rows beyond a limit (`limit_train`,
    `limit_eval`) and bad rows are not used."""
    test: str
    """A digest of the test rows that are used, and of how they are scored."""


@dataclass(frozen=True, order=True)
class Fold:
    """A fold of a cross-validation: the part of a task's rows that is the test split of a run."""

    folds: int
    """The number of folds into which the rows are divided."""
    repeat: int
    """The number, from 1, of the repetition of the cross-validation. In each repetition, the rows are divided anew at
    random."""
    number: int
    """The number of the fold within its repetition, from 1."""

    @property
    def label(self) -> str:
        """The name of the fold in messages, such as "fold2of5", or "repeat3fold2of5" in the third repetition."""
        return (f"repeat{self.repeat}" if self.repeat > 1 else "") + f"fold{self.number}of{self.folds}"


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """The specification of a run: its task, model, strategy, seed, hyper-parameters and all other settings.

    Its fingerprint is a digest of everything that determines the result: runs with equal fingerprints have equal
    results.
    """

    task: str
    """The name of the task on whose test split the run is scored."""
    train_task: str
    """The name of the task that trains the model. It differs from `task` only if `task` has no train split
    (`Task.trained_on`)."""
    model: str
    model_digest: str
    """A digest of the checkpoint's weights, configuration and tokenizer, or its commit on the hub."""
    strategy: str
    freeze_plan: FreezePlan
    """The frozen parts at the beginning of training. For a strategy that chooses its layers (`Strategy.choose`), it is
    the costliest plan that may be chosen; the chosen one is in `RunResult.chosen_plan`."""
    seed: int
    """The seed that the user gives; `init_seed` and `data_seed` have the same value unless they are set separately."""
    init_seed: int
    """The random seed of the initial weights that the checkpoint lacks, such as those of a new head or of adapters."""
    data_seed: int
    """The random seed of the order of the train examples and of dropout."""
    hyper: HyperParameters
    data: DataDigests
    device: str
    """The kind of device: "cpu", "cuda", "mps" or "xpu". The exact device is recorded with the result."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    """The number format of the computation."""
    cuda_graphs: Literal["auto", "on", "off"] = "off"
    """The use of CUDA graphs for training steps; "auto" uses them if a replayed step is faster. They do not change the
    results, and are not part of the fingerprint."""
    limit_train: int | None = None
    """The largest number of train rows; None for all."""
    limit_eval: int | None = None
    """The largest number of dev rows and of test rows; None for all."""
    drop_bad: bool = False
    """True if rows that cannot be used (`BadRow`) are left out; otherwise, such a row is an error."""
    kept_layers: tuple[int, ...] | None = None
    """The indices of the layers of the pre-trained model that are kept; None for all. The layer indices in
    `freeze_plan` refer to the model that consists of the kept layers."""
    adapter: Adapter | None = None
    """The adapter that is inserted into the model and trained instead of its weights; None if there is none."""
    fold: Fold | None = None
    """The fold of a cross-validation; None for the task's own splits."""
    steps: int | None = None
    """The number of training steps, if a limit on the FLOPs (`Strategy.compute_limit`) permits fewer steps than there
    are in all epochs; None otherwise. The last epoch may be incomplete."""
    keep_head: bool = False
    """True if training starts with the checkpoint's fine-tuned head; False if it starts with a new head."""
    unusual: Mapping[str, str] = field(default_factory=dict)
    """Unusual properties of the model that affect training: "parts" (its modules are not registered in the order of
    their use), "padding" (padding is added on the left), "head" (the checkpoint has a fine-tuned head that is not
    used). Empty for most models."""
    providers: Mapping[str, str] = field(default_factory=dict)
    """The versions, by name, of the Python distributions that contain alue-bench, the training task, the model and the
    strategy."""
    test_providers: Mapping[str, str] = field(default_factory=dict)
    """The version, by name, of the Python distribution that contains `task`; empty if `providers` already has it. This
    distribution affects only the test, not the training."""
    scored_elsewhere: Mapping[str, str] = field(default_factory=dict)
    """A digest for each other task on whose test split the trained model is scored too (option `--also-test`), by the
    task's name. A digest is made from the rows and labels of its task. The digests are not part of the fingerprint,
    because these tasks affect neither the training nor the score on `task`."""

    @property
    def row_options(self) -> dict[str, object]:
        """The values of `limit_train`, `limit_eval` and `drop_bad` by name, without those that leave out no rows."""
        given = {"limit_train": self.limit_train, "limit_eval": self.limit_eval, "drop_bad": self.drop_bad or None}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def training_key(self) -> str:
        """A digest of everything that determines the trained weights: runs with equal digests have equal weights."""
        return digest_of(
            {
                "result_version": RESULT_VERSION,
                "task": self.train_task,
                "model": [self.model, self.model_digest],
                "strategy": self.strategy,
                "frozen": [
                    sorted(self.freeze_plan.frozen_layers),
                    self.freeze_plan.embeddings,
                    self.freeze_plan.pooler,
                    self.freeze_plan.trained,
                ],
                **({"parameters": single} if (single := self.freeze_plan.single_parameters()) else {}),
                "kept_layers": self.kept_layers,
                "adapter": asdict(self.adapter) if self.adapter else None,
                "seeds": [self.init_seed, self.data_seed],
                "hyper": self.hyper.identity(),
                "data": self.data.train,
                "device": self.device,
                "precision": self.precision,
                "cuda_graphs": False,  # kept so that fingerprints that include this entry stay valid
                "providers": dict(self.providers),
                **({"fold": [self.fold.folds, self.fold.repeat, self.fold.number]} if self.fold else {}),
                **({"steps": self.steps} if self.steps is not None else {}),
                **({"keep_head": True} if self.keep_head else {}),
                **({"unusual": dict(self.unusual)} if self.unusual else {}),
            }
        )

    @property
    def fingerprint(self) -> str:
        """A digest of everything that determines the result.

        By default, a run is not executed if the MLflow store already has a result with the same fingerprint.
        """
        test = [self.task, self.data.test, *([dict(self.test_providers)] if self.test_providers else [])]
        return digest_of([self.training_key, *test])

    @property
    def label(self) -> str:
        """The run's name in MLflow and in messages, such as "mdd/marbert/bottom3/seed42"."""
        fold = f"/{self.fold.label}" if self.fold else ""
        return f"{self.task}/{self.model}/{self.strategy}/seed{self.seed}{fold}"

    def as_dict(self) -> dict[str, Any]:
        """Return the specification as JSON-like data, which is stored in MLflow with the run."""
        content = asdict(self)
        content["freeze_plan"] = self.freeze_plan.as_dict()
        content |= {"fingerprint": self.fingerprint, "training_key": self.training_key}
        return content


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The value of a metric, such as the training loss, at one step of training."""

    metric: str
    value: float
    step: int
    """The number of training steps before the value was measured."""


@dataclass(frozen=True, slots=True)
class FreezeEvent:
    """The state of one block of the model (frozen or not) under an adaptive strategy, at one point during training.

    An adaptive strategy changes the frozen parts during training. The state of every block is recorded at the start of
    training and whenever the strategy decides (each call of `Strategy.revise`).
    """

    step: int
    """The number of parameter updates before this point."""
    epoch: int
    """The number of the epoch, from 1."""
    block: str
    """The block: "embeddings", "layer 0", "layer 1" and so on; or the name of a weight matrix, if the strategy uses the
    changes of the matrices' gradients (`Revisions.matrix_changes`)."""
    norm: float | None
    """The L2 norm of the sum of the block's gradients in all steps since the strategy's previous decision; for a weight
    matrix, the change of its gradient (`MatrixChanges`). None if it was not measured."""
    frozen: bool
    """True if the block is frozen from this step on."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The gold targets of the examples of a split, and the model's predictions for them."""

    ids: list[str]
    """The identifiers of the examples."""
    gold: list[Any]
    """The gold label or number of each example; the tags of the words, separated by spaces; or the answers as a JSON
    list. Empty strings if the examples have no gold targets."""
    predicted: list[Any]
    """The predicted label or number of each example, the predicted tags, or the predicted answer."""
    scores: Any
    """An array [examples, columns]: the probability of each label, or the predicted number; in a task that tags words,
    the number of words with each predicted tag; in span extraction, the metrics of each example and the number of its
    context."""
    columns: tuple[str, ...]
    """The names of the columns of `scores`."""
    prefix: str = "score_"
    """The text before the name of each column of `scores` in the recorded table of predictions."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The results of one run: scores, costs and predictions."""

    metrics: Mapping[str, float]
    """The final values by their names in MLflow: test/* (scores), also_test/TASK/* (scores on other tasks), runtime/*
    (seconds), memory/* (MiB), flops/*, params/* (numbers of parameters) and others."""
    curves: tuple[CurvePoint, ...]
    """The values of metrics in the course of training, such as losses and dev scores."""
    predictions: Predictions
    """The predictions on the test split."""
    dev_predictions: Predictions
    """The predictions on the dev split of the task that trained the model, made with the same weights as
    `predictions`."""
    predictions_elsewhere: Mapping[str, Predictions] = field(default_factory=dict)
    """The predictions on the test splits of other tasks (option `--also-test`), by task name."""
    submission_predictions: Predictions | None = None
    """The predictions for the official test rows without gold labels, for a leaderboard; None if there are no such
    rows."""
    environment: Mapping[str, Any]
    """The hardware and software of the run, as JSON-like data."""
    freezing: tuple[FreezeEvent, ...] = ()
    """The frozen parts in the course of training, for an adaptive strategy; empty for all other strategies."""
    layer_scores: tuple[LayerScore, ...] = ()
    """The score of each layer, for a strategy that chose its layers (`Strategy.choose`); empty for all others."""
    chosen_plan: FreezePlan | None = None
    """The freeze plan that the strategy chose (`Strategy.choose`); None for strategies that do not choose."""
    notes: tuple[str, ...] = ()
    """Remarks for readers of the result, such as how many texts were truncated."""
    problems: tuple[str, ...] = ()
    """Remarks on values that could not be measured; they are also shown at the end of the run."""
