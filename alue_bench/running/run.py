"""One RunSpec → RunResult: the story of a run, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from alue_bench.contract.errors import NonFiniteLossError
from alue_bench.contract.model import Model
from alue_bench.contract.spec import HyperParameters, Predictions, RunResult, RunSpec
from alue_bench.contract.strategy import FreezePlan, Strategy
from alue_bench.contract.task import Labels, TargetKind, Task
from alue_bench.contract.transfer import told, transferred_logits, transferred_targets
from alue_bench.data.splits import TaskRows
from alue_bench.data.tokenisation import TokenCache, TokenisedSplit, encode_targets, unread_notes
from alue_bench.data.verification import gaps
from alue_bench.evaluation.learning import Trivial, trivial
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import decide, predictions_table
from alue_bench.measure.best_effort import best_effort
from alue_bench.measure.energy import Energy
from alue_bench.measure.environment import environment
from alue_bench.measure.flops import Method, method_of, prefix_flops, step_flops, training_flops
from alue_bench.measure.memory import PeakMemory
from alue_bench.measure.peak import attainable_flops_per_s
from alue_bench.training.architecture.encoder_stack import EncoderStack, check_ids, view_as_stack
from alue_bench.training.architecture.trial import Trial
from alue_bench.training.checkpointing import CheckpointFile, Checkpointing
from alue_bench.training.device.errors import release
from alue_bench.training.device.precision import Device
from alue_bench.training.forward import Forward, choose_forward, reads_first_only
from alue_bench.training.freezing import ParameterCounts, apply_plan, check_frozen, count_parameters, frozen_weights
from alue_bench.training.loop import Training, fine_tune, predict_logits
from alue_bench.training.prefix.frozen_prefix import Examples, FrozenPrefix, PlannedDepths
from alue_bench.training.prefix.growing import GrowingPrefix
from alue_bench.training.prefix.store import PrefixStore
from alue_bench.training.pretrained.loading import Checkpoint
from alue_bench.training.pretrained.model_cache import ModelCache
from alue_bench.training.schedule import FreezeSchedule
from alue_bench.training.surgery import operate, seeded


@dataclass(frozen=True)
class RunInputs:
    """What a spec's names stand for, loaded once for a plan."""

    task: Task
    rows: TaskRows
    train_task: Task
    train_rows: TaskRows
    model: Model
    strategy: Strategy
    checkpoint: Checkpoint
    trial: Trial
    """What the model can do with its tokenizer."""
    tokens: TokenCache
    prefixes: PrefixStore
    models: ModelCache = field(default_factory=ModelCache)
    checkpointing: Checkpointing | None = None
    """Whether trainings can be cut off and go on."""
    depths: PlannedDepths = field(default_factory=PlannedDepths)
    """Of the frozen prefixes of all runs that share this model and this training data."""


@dataclass(frozen=True)
class Trained:
    """A model after fine-tuning, with what the training cost: all that scoring it on another test set needs."""

    key: str
    file: CheckpointFile | None
    stack: EncoderStack
    forward: Forward
    device: Device
    tokenizer: Any
    training: Training
    dev_predictions: Predictions
    """Of the selected epoch."""
    prefix: FrozenPrefix
    prefixes: dict[str, Examples]
    """Train and dev split."""
    memory: PeakMemory
    energy: Energy
    parameters: ParameterCounts
    flops: float
    flops_full: float
    flops_method: Method
    prepare_s: float
    """Seconds that went into prefixes for all runs of the plan, this one's among them."""
    notes: tuple[str, ...]


Progress = Callable[[int, int], None]


def execute(
    spec: RunSpec,
    inputs: RunInputs,
    *,
    before: Trained | None = None,
    on_step: Progress = lambda done, total: None,
) -> tuple[RunResult, Trained]:
    """Do one run. `before` is a model that an earlier run of the plan trained; it is used again where this run's
    training would be the same to the last bit, as for a diagnostic set of a task."""
    started = time.perf_counter()
    reused = before is not None and before.key == spec.training_key
    trained = before if before is not None and reused else train(spec, inputs, on_step=on_step)

    notes = list(trained.notes)
    if (mapped := told(inputs.task, inputs.train_task)) is not None:
        notes.append(mapped)
    inputs.prefixes.on_problem = notes.append
    labels, device, padding = inputs.task.labels, trained.device, inputs.trial.padding
    test = _known_to(trained.stack, inputs.rows, "test", spec, inputs, trained.tokenizer)
    examples = trained.prefix.examples(test, padding, _description(spec, "test"))
    test_started = time.perf_counter()
    logits = predict_logits(trained.stack, trained.forward, examples, device=device, padding=padding)
    logits = transferred_logits(logits, inputs.task, inputs.train_task)
    test_s = time.perf_counter() - test_started + _build_s(examples)

    gold = test.targets.numpy()
    found = metrics(gold, decide(logits, labels), labels)
    train_targets = encode_targets(inputs.train_rows.splits["train"], inputs.train_task.labels).numpy()
    problems = [*trained.memory.problems, *trained.energy.problems]
    known_targets = transferred_targets(train_targets, inputs.task, inputs.train_task)
    trivially = {
        "test": best_effort(
            "no test/trivial_score",
            lambda: trivial(known_targets, gold, decide(logits, labels), labels, inputs.task.primary),
            problems.append,
        ),
        "selection": best_effort(
            "no selection/trivial_score",
            lambda: _trivial_on_dev(inputs, train_targets, trained.training),
            problems.append,
        ),
    }
    training = trained.training
    prefix_s = _build_s(trained.prefixes["train"])
    train_s = training.loop_s + prefix_s
    attainable = best_effort(
        "no throughput/flops_utilisation, for want of the hardware's own speed",
        lambda: attainable_flops_per_s(spec.device, device.compute),
        problems.append,
    )
    result: dict[str, float] = {
        **{f"test/{name}": value for name, value in found.items()},
        "test/score": found[inputs.task.primary],
        "selection/dev_score": training.dev_scores[training.selected_epoch - 1],
        "selection/epoch": training.selected_epoch,
        "data/train_steps": training.steps,
        "runtime/train_s": train_s,
        "runtime/loop_s": training.loop_s,
        "runtime/prefix_s": prefix_s,
        "runtime/prefix_reused": float(_reused(trained.prefixes["train"])),
        "runtime/prepare_s": trained.prepare_s,
        "runtime/dev_s": training.dev_s + _build_s(trained.prefixes["dev"]),
        "runtime/test_s": test_s,
        "runtime/total_s": time.perf_counter() - started + (0.0 if reused else training.earlier_s),
        "runtime/train_reused": float(reused),
        "throughput/train_samples_per_s": training.samples / train_s,
        "throughput/train_tokens_per_s": training.tokens / train_s,
        "throughput/train_flops_per_s": trained.flops / train_s,
        "throughput/padding_share": 1 - training.tokens / training.padded_tokens,
        "throughput/test_samples_per_s": len(test) / test_s,
        "flops/train": trained.flops,
        "flops/train_vs_full": trained.flops / trained.flops_full,
        "params/total": trained.parameters.total,
        "params/trainable": trained.parameters.trainable,
        "params/trainable_share": trained.parameters.trainable / trained.parameters.total,
        "data/train_rows": training.samples // spec.hyper.epochs,
        "data/dev_rows": len(trained.prefixes["dev"].split),
        "data/test_rows": len(test),
        "data/dropped_rows": inputs.rows.dropped
        + (0 if inputs.task is inputs.train_task else inputs.train_rows.dropped),
    }
    for name, found_trivially in trivially.items():
        if found_trivially is not None:
            result[f"{name}/trivial_score"] = found_trivially.score
            if math.isfinite(found_trivially.error):
                result[f"{name}/above_trivial_error"] = found_trivially.error
    result |= {f"energy/{part}_j": joules for part, joules in trained.energy.joules.items()}
    notes += [*_gaps(inputs), *unread_notes(test, "test")]
    optional = {
        "throughput/flops_utilisation": trained.flops / train_s / attainable if attainable else None,
        "memory/process_peak_mib": trained.memory.process_mib,
        "memory/device_peak_mib": trained.memory.device_mib,
    }
    result |= {name: value for name, value in optional.items() if value is not None}
    if test.truncated:
        notes.append(f"{test.truncated} of {len(test)} test texts cut to {spec.hyper.max_length} tokens")
    if not math.isfinite(result["test/score"]):
        notes.append(f"test/{inputs.task.primary} is undefined: {_why_undefined(labels)}")
    submission_predictions = _of_submission(spec, inputs, trained, notes, problems)
    circumstances = best_effort(
        "no description of the hardware and libraries", lambda: environment(spec.device), problems.append
    )
    return (
        RunResult(
            metrics=result,
            curves=tuple(training.curves),
            predictions=predictions_table(test.ids, gold, logits, labels),
            dev_predictions=trained.dev_predictions,
            submission_predictions=submission_predictions,
            environment=(circumstances or {})
            | {
                "engine": {
                    "forward": trained.forward.name,
                    "precision": device.precision,
                    "prefix_layers_cached": trained.prefixes["train"].depth,
                    "micro_batch": training.micro_batch,
                    "recorded_shapes": training.recorded_shapes,
                    "attainable_flops_per_s": attainable,
                    "flops_by": trained.flops_method.name,
                }
            },
            freezing=tuple(_course(training).events),
            notes=tuple(dict.fromkeys([*notes, *problems])),
            problems=tuple(dict.fromkeys(problems)),
        ),
        trained,
    )


def _trivial_on_dev(inputs: RunInputs, train_targets: Any, training: Training) -> Trivial:
    """Score the trivial predictor on the dev split, beside the predictions of the selected epoch."""
    task = inputs.train_task
    gold = encode_targets(inputs.train_rows.splits["dev"], task.labels).numpy()
    predicted = decide(training.dev_logits[training.selected_epoch - 1], task.labels)
    return trivial(train_targets, gold, predicted, task.labels, task.primary)


def _gaps(inputs: RunInputs) -> list[str]:
    """Labels that the rows, as used, cannot teach or test."""
    parts = [(split, inputs.train_rows, inputs.train_task) for split in ("train", "dev")]
    parts.append(("test", inputs.rows, inputs.task))
    return [
        sentence
        for split, rows, task in parts
        for sentence in gaps(split, [example.target for example in rows.splits[split].examples], task.labels)
    ]


def _why_undefined(labels: Labels) -> str:
    if labels.kind is TargetKind.REGRESSION:
        return "the predictions or the gold values are constant"
    return "no test row has a label, and none is predicted"


def _of_submission(
    spec: RunSpec, inputs: RunInputs, trained: Trained, notes: list[str], problems: list[str]
) -> Predictions | None:
    """What the model says of the rows that a leaderboard wants, where they are at hand. Not timed: nothing that is
    measured depends on it, and should it fail the run goes on."""
    notes.extend(inputs.rows.notes)
    if "submission" not in inputs.rows.splits:
        return None
    padding = inputs.trial.padding

    def predictions() -> Predictions:
        split = _known_to(trained.stack, inputs.rows, "submission", spec, inputs, trained.tokenizer)
        logits = predict_logits(trained.stack, trained.forward, Examples(split), device=trained.device, padding=padding)
        logits = transferred_logits(logits, inputs.task, inputs.train_task)
        return predictions_table(split.ids, None, logits, inputs.task.labels)

    return best_effort("no predictions for a submission", predictions, problems.append)


def train(spec: RunSpec, inputs: RunInputs, *, on_step: Progress = lambda done, total: None) -> Trained:
    """Load, freeze, fine-tune, select the epoch. A loss that is not finite in a narrow number format gets a second
    chance in fp32."""
    try:
        return _train(spec, inputs, Device(spec.device, spec.precision, spec.cuda_graphs), on_step)
    except NonFiniteLossError as error:
        if spec.precision == "fp32":
            raise
        failure = str(error)
    release(spec.device)  # outside the handler, whose traceback holds the first model
    trained = _train(spec, inputs, Device(spec.device, "fp32", spec.cuda_graphs), on_step)
    return replace(trained, notes=(f"trained in fp32, after {spec.precision} failed: {failure}", *trained.notes))


def _train(spec: RunSpec, inputs: RunInputs, device: Device, on_step: Progress) -> Trained:
    notes = [*inputs.models.notes(inputs.checkpoint), *inputs.trial.notes]
    inputs.prefixes.on_problem = notes.append
    file = None
    if inputs.checkpointing is not None:
        file = inputs.checkpointing.of(f"{spec.training_key}-{device.precision}", notes.append)
    task = inputs.train_task
    tokenizer = inputs.models.tokenizer(inputs.checkpoint)
    stack = view_as_stack(inputs.models.model(inputs.checkpoint, task.labels, init_seed=spec.init_seed))
    splits = {name: _known_to(stack, inputs.train_rows, name, spec, inputs, tokenizer) for name in ("train", "dev")}
    lengths = splits["train"].lengths
    flops_full = training_flops(
        stack,
        FreezePlan(stack.shape),
        lengths,
        spec.hyper.epochs,
        head_reads_first=reads_first_only(stack),
        batch_size=spec.hyper.batch_size,
    )
    method = method_of(stack)
    if method.problem:
        notes.append(f"FLOPs by formulas that could not be compared with torch's counter: {method.problem}")
    with seeded(spec.init_seed):
        stack = operate(stack, spec.kept_layers, spec.adapter)
    stack.model.to(spec.device)
    apply_plan(stack, spec.freeze_plan)
    forward = choose_forward(stack, device.compute, recorded=device.graphs)
    if device.graphs and not forward.recordable:
        device = replace(device, graphs=False)
        notes.append("trained without CUDA graphs: only layers of the BERT family can be recorded")
    # Stored states of an architecture whose texts are not independent would be of other batches than those of training.
    keeps_prefix = inputs.strategy.keeps_prefix and inputs.trial.independent

    def behind(depth: int | None) -> FrozenPrefix:
        return FrozenPrefix(stack, forward, depth if keeps_prefix else None, store=inputs.prefixes, device=device)

    def states_of(prefix: FrozenPrefix, name: str, split: TokenisedSplit) -> Examples:
        return prefix.examples(split, inputs.trial.padding, _description(spec, name))

    prefix = behind(spec.freeze_plan.prefix_layers)
    prepare_s = 0.0
    if len(inputs.depths.depths) > 1:  # before the clock: every run is charged what its own prefix costs alone
        all_splits = splits | {"test": _known_to(stack, inputs.rows, "test", spec, inputs, tokenizer)}
        described = {name: _description(spec, name) for name in all_splits}
        began = time.perf_counter()
        prefix.prepare(all_splits, inputs.trial.padding, described, inputs.depths)
        prepare_s = time.perf_counter() - began
    dev_targets = splits["dev"].targets.numpy()
    frozen = frozen_weights(stack, spec.freeze_plan)

    def score(logits: Any) -> dict[str, float]:
        found = metrics(dev_targets, decide(logits, task.labels), task.labels)
        return {**found, "score": found[task.primary]}

    with PeakMemory(spec.device, inputs.models.kept_bytes) as memory, Energy(spec.device) as energy:
        growing = GrowingPrefix(prefix, spec.freeze_plan, splits, behind, states_of)
        training = fine_tune(
            stack,
            spec.freeze_plan,
            forward,
            growing.examples("train"),
            growing.examples("dev"),
            labels=task.labels,
            hyper=spec.hyper,
            data_seed=spec.data_seed,
            device=device,
            padding=inputs.trial.padding,
            score=score,
            on_step=on_step,
            strategy=inputs.strategy,
            growing=growing,
            file=file,
        )
    check_frozen(stack, frozen, (segment.plan for segment in _course(training).segments))
    if file is not None and file.resumed_at is not None:
        notes.append(
            f"the training was cut off and went on from step {file.resumed_at}: energy and peak memory count from there"
        )
    notes += [note for name, split in splits.items() for note in unread_notes(split, name)]
    notes += [
        f"{split.truncated} of {len(split)} {name} texts cut to {spec.hyper.max_length} tokens"
        for name, split in splits.items()
        if split.truncated
    ]
    if device.graphs and not training.recorded_shapes:
        notes.append("trained without CUDA graphs: no step was recorded, for want of memory or of a second one like it")
    if training.skipped_updates:
        notes.append(f"{training.skipped_updates} of {training.steps} updates were skipped: gradients overflowed")
    if training.micro_batch < spec.hyper.batch_size:
        notes.append(
            f"the memory did not hold a batch of {spec.hyper.batch_size}: gradients were added up over parts of "
            f"{training.micro_batch}"
        )
    if inputs.checkpoint.pickled:
        notes.append("the checkpoint has pickled weights only (read without running code from them)")
    return Trained(
        key=spec.training_key,
        file=file,
        stack=stack,
        forward=forward,
        device=device,
        tokenizer=tokenizer,
        training=training,
        dev_predictions=predictions_table(
            splits["dev"].ids, dev_targets, training.dev_logits[training.selected_epoch - 1], task.labels
        ),
        # The selected epoch's weights may be of a time when less was frozen: no stored states for the test split then.
        prefix=prefix if inputs.strategy.revisions() is None else behind(None),
        prefixes={name: growing.examples(name) for name in splits},
        memory=memory,
        energy=energy,
        parameters=_most_parameters(training, stack),
        flops=_flops(training, stack, lengths, spec.hyper, head_reads_first=forward.head_reads_first),
        flops_full=flops_full,
        flops_method=method,
        prepare_s=prepare_s,
        notes=tuple(notes),
    )


def _most_parameters(training: Training, stack: EncoderStack) -> ParameterCounts:
    """Where what trains changes: when the most did."""
    counts = [count_parameters(stack, segment.plan) for segment in _course(training).segments]
    return max(counts, key=lambda count: count.trainable)


def _flops(
    training: Training, stack: EncoderStack, lengths: Any, hyper: HyperParameters, *, head_reads_first: bool
) -> float:
    """Segment by segment where what is frozen, or kept, changed. Each layer of a growing prefix is computed once."""
    segments = _course(training).segments
    depth = max(segment.depth for segment in segments)
    counted = partial(step_flops, stack, head_reads_first=head_reads_first, batch_size=hyper.batch_size)
    if len(segments) == 1:
        steps = counted(segments[0].plan, lengths, start=depth) * hyper.epochs
    else:
        steps = sum(counted(part.plan, lengths[part.indices], start=part.depth) for part in segments)
    below = prefix_flops(stack, depth, lengths, head_reads_first=head_reads_first, batch_size=hyper.batch_size)
    return below + steps


def _course(training: Training) -> FreezeSchedule:
    assert training.schedule is not None
    return training.schedule


def _description(spec: RunSpec, split: str) -> dict[str, str]:
    """Of an entry in the cache, for people."""
    return {"task": spec.train_task, "split": split, "model": spec.model}


def _build_s(examples: Examples) -> float:
    """Seconds that a split's prefix took: computed, stored, and brought to the device."""
    return examples.prefix.entry.build_s + examples.prefix.placed_s if examples.prefix else 0.0


def _reused(examples: Examples) -> bool:
    return examples.prefix is not None and examples.prefix.reused


def _known_to(
    stack: EncoderStack, rows: TaskRows, split: str, spec: RunSpec, inputs: RunInputs, tokenizer: Any
) -> TokenisedSplit:
    """As `tokenised`, for a model at hand.

    Raises TrainingError where it has no embedding for what the tokeniser gives.
    """
    found = tokenised(rows, split, spec, inputs, tokenizer)
    check_ids(stack, found, f"model {spec.model!r}")
    return found


def tokenised(rows: TaskRows, split: str, spec: RunSpec, inputs: RunInputs, tokenizer: Any) -> TokenisedSplit:
    """A split of `inputs.rows`, or of `inputs.train_rows`, as the run's model reads it; computed once and kept."""
    task = inputs.task if rows is inputs.rows else inputs.train_task
    return inputs.tokens.tokenised(
        rows.splits[split],
        labels=task.labels,
        model=inputs.model,
        model_digest=spec.model_digest,
        tokenizer=tokenizer,
        max_length=spec.hyper.max_length,
    )
