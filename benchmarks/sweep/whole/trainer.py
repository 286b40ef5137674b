"""The training of cells of the sweep by transformers' `Trainer`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.sweep.whole.cells import tokens_of

if TYPE_CHECKING:
    from alue_bench.planning.build import PlannedRun


class CellTrainer:
    """A trainer of planned runs by transformers' `Trainer`, in this process; it tokenizes once for all runs."""

    def __init__(self, planned: PlannedRun) -> None:
        """Tokenize the splits, which are the same for all runs, and train one step of `planned` as a warm-up."""
        from benchmarks.timing.features import features

        tokenizer = planned.inputs.models.tokenizer(planned.inputs.checkpoint)
        pad_id = tokenizer.pad_token_id
        self._tokenizer = tokenizer
        self._splits = {name: features(tokens_of(planned, name), pad_id, None) for name in ("train", "dev", "test")}
        warm_up = self._splits["train"][: planned.spec.hyper.batch_size]
        self._trained(planned, warm_up, max_steps=1)

    def fit(self, planned: PlannedRun) -> dict[str, float]:
        """Train one planned run and return its times in seconds, its numbers of steps and tokens, and its test score.

        `train_s` is the time of training alone; `whole_s` is the time that a user would wait: for loading, training,
        scoring the dev split once for each epoch, and scoring the test split once.
        """
        started = time.perf_counter()
        trainer, train_s = self._trained(planned, self._splits["train"])
        scoring = time.perf_counter()
        for _ in range(planned.spec.hyper.epochs):  # scoring takes the same time with any weights
            trainer.predict(self._splits["dev"])
        logits = trainer.predict(self._splits["test"]).predictions
        ended = time.perf_counter()
        return {
            "train_s": train_s,
            "score_s": ended - scoring,
            "whole_s": ended - started,
            "steps": len(trainer.losses),
            "padded_tokens": trainer.padded_tokens,
            "test_score": self._score(planned, logits),
        }

    def _trained(self, planned: PlannedRun, examples: Any, **more: Any) -> tuple[Any, float]:
        """Train a planned run on examples; return the `Trainer` and the seconds of training.

        Args:
            planned: The run.
            examples: The examples, in the form that `Trainer` expects.
            **more: Further arguments of `TrainingArguments`.
        """
        import tempfile

        from alue_bench.training.architecture.encoder_stack import view_as_stack
        from alue_bench.training.device.precision import Device
        from alue_bench.training.freezing import apply_plan
        from alue_bench.training.pretrained.loading import load_model
        from benchmarks.timing import trainer_baseline

        spec, task = planned.spec, planned.inputs.train_task
        model = load_model(planned.inputs.checkpoint, task.labels, init_seed=spec.init_seed)
        apply_plan(view_as_stack(model), spec.freeze_plan)
        with tempfile.TemporaryDirectory() as folder:
            arguments = trainer_baseline.training_arguments(
                folder,
                "trainer",
                spec.hyper,
                spec.data_seed,
                Device("cpu", "fp32"),
                per_device_eval_batch_size=spec.hyper.batch_size,
                warmup_steps=round(spec.hyper.warmup * -(-len(examples) // spec.hyper.batch_size) * spec.hyper.epochs),
                **more,
            )
            trainer = trainer_baseline.build_trainer(model, examples, "trainer", self._tokenizer, arguments)
            clock = trainer_baseline.Clock()
            trainer.add_callback(clock)
            trainer.train()
            return trainer, time.perf_counter() - clock.began

    def _score(self, planned: PlannedRun, logits: Any) -> float:
        import torch

        from alue_bench.evaluation.metrics import metrics
        from alue_bench.evaluation.predictions import decide

        labels = planned.inputs.task.labels
        gold = torch.tensor([example["labels"] for example in self._splits["test"]]).numpy()
        return float(metrics(gold, decide(logits, labels), labels)[planned.inputs.task.primary])
