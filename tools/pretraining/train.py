"""The training loop of pre-training.

    while tokens < recipe.tokens and no signal to stop was received:
        deepen the model if a new stage has more layers
        batch = sampler.batch(step)             # a function of (seed, step)
        loss = masked-word loss + weighted losses of the heads on the pooled state
        AdamW step with recipe.lr(tokens), update of the weight average
        every few hundred steps: held-out evaluation, checkpoint

A run can be resumed from every checkpoint and ends with the same weights as without interruption. After SIGTERM or
SIGINT the process writes a checkpoint and ends. SIGSTOP and SIGCONT pause and continue it without changing the weights,
because nothing depends on the clock.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import BertForPreTraining

from alue_bench.training.device.hardware import Hardware
from tools.pretraining import checkpoint as checkpoints
from tools.pretraining.checkpoint import Checkpoint
from tools.pretraining.corpus import SOURCES
from tools.pretraining.evaluate import evaluate
from tools.pretraining.initialise import from_statistics, log_unigrams, transplant
from tools.pretraining.model import LeanModel, SequenceHeads, new_model, stacked
from tools.pretraining.prepare import continues
from tools.pretraining.recipe import Recipe
from tools.pretraining.sampling import NO_LABEL, Batch, Sampler, Stream, load_streams
from tools.pretraining.tracking import Tracker

PREDICTED_STEP = 64
"""The number of predicted positions in a step is padded to a multiple of this number."""
AVERAGE_EVERY, LOG_EVERY, EVALUATE_EVERY, CHECKPOINT_EVERY = 4, 20, 100, 200  # steps


@dataclass(frozen=True)
class Text:
    """The text that the step `prepare` wrote, with its tokenizer."""

    tokenizer: Tokenizer
    train: dict[str, NDArray[np.uint16]]
    """The training text of each source as word pieces, `[pieces]`."""
    held_out: dict[str, NDArray[np.uint16]]
    """The held-out text of each source as word pieces, `[pieces]`."""
    continues: NDArray[np.bool_]
    """True for each piece of the vocabulary that continues a word, `[vocabulary]`."""

    @staticmethod
    def load(folder: Path) -> Text:
        """Read the prepared text from the folder that `prepare` wrote."""
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        streams = load_streams(folder / "train.npz"), load_streams(folder / "held_out.npz")
        return Text(tokenizer, *streams, continues(tokenizer))

    def sampler(self, recipe: Recipe) -> Sampler:
        """Return a sampler that draws training batches from this text, with the settings of a recipe."""
        return Sampler(
            {name: Stream(pieces, self.continues) for name, pieces in self.train.items()},
            {source.name: source.weight for source in SOURCES},
            self.continues,
            mask_rate=recipe.mask_rate,
            pair_rate=recipe.pair_rate,
            relations=recipe.relations,
            seed=recipe.seed,
        )


class Run:
    """A pre-training run: model, weight average, optimiser and counters."""

    def __init__(self, text: Text, recipe: Recipe, folder: Path, device: str) -> None:
        """Set up a run; call `start` or `resume` before `advance`.

        Args:
            text: The prepared text.
            recipe: The recipe.
            folder: The folder of the run, for checkpoints.
            device: The device, "cpu" or "cuda".
        """
        self.text = text
        self.recipe = recipe
        self.folder = folder
        self.device = torch.device(device)
        self.bf16 = Hardware(self.device.type).has_fast_bf16
        self.sampler = text.sampler(recipe)
        torch.manual_seed(recipe.seed)
        self.heads = SequenceHeads(recipe.hidden, text.tokenizer.get_vocab_size()).to(self.device)
        self.step = self.tokens = self.changed_at = 0
        self.stopping = False

    def start(self, warm_start: Path | None) -> None:
        """Initialise the model of a new run.

        Args:
            warm_start: The folder of an exported model whose weights are used; None initialises the model from
                statistics of the text.
        """
        weights = {source.name: source.weight for source in SOURCES}
        vocabulary = self.text.tokenizer.get_vocab_size()
        if warm_start:
            unigrams = log_unigrams(self.text.train, weights, vocabulary)
            model = transplant(warm_start, self.text.tokenizer, unigrams, self.recipe.seed)
        else:
            model = new_model(vocabulary, self.recipe.stages[0].layers, self.recipe.hidden, self.recipe.seed)
            from_statistics(model, self.text.train, weights, self.recipe.seed)
        self._adopt(model)

    def resume(self, saved: Checkpoint) -> None:
        """Restore the state of the run from a checkpoint."""
        layers = 1 + max(int(name.split(".layer.")[1].split(".")[0]) for name in saved.model if ".layer." in name)
        model = new_model(self.text.tokenizer.get_vocab_size(), layers, self.recipe.hidden, self.recipe.seed)
        model.load_state_dict(saved.model)
        self.heads.load_state_dict(saved.heads)
        self._adopt(model)
        self.average = {name: tensor.to(self.device) for name, tensor in saved.average.items()}
        self.optimiser.load_state_dict(saved.optimiser)
        self.step, self.tokens, self.changed_at = saved.step, saved.tokens, saved.changed_at

    def checkpoint(self, tracking_run: str | None) -> Checkpoint:
        """Return the current state of the run as a checkpoint; `tracking_run` is the id of the MLflow run, if any."""
        return Checkpoint(
            self.step,
            self.tokens,
            self.changed_at,
            self.recipe.as_dict(),
            self.model.state_dict(),
            self.heads.state_dict(),
            self.average,
            self.optimiser.state_dict(),
            tracking_run,
        )

    def advance(self) -> dict[str, Tensor]:
        """Train one step, and return its losses by name, as scalar tensors on the device."""
        stage = self.recipe.stages[self.recipe.stage_at(self.tokens)[0]]
        if stage.layers > self.model.config.num_hidden_layers:
            self._adopt(stacked(self.model, stage.layers, self.recipe.seed))
            self.changed_at = self.tokens
        lengths = list(stage.lengths)
        rng = np.random.default_rng([self.recipe.seed, self.step, 1])
        length = int(rng.choice(lengths, p=list(stage.lengths.values())))
        batch = self.sampler.batch(self.step, self.recipe.batch_tokens // length, length)
        done = self.tokens + self.recipe.batch_tokens
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr(self.tokens, done - self.changed_at)
        losses = self._losses(batch)
        loss = (
            losses["train/masked_loss"]
            + self.recipe.relation_loss * losses["train/relation_loss"]
            + self.recipe.bag_loss * losses["train/bag_loss"]
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters(), self.recipe.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens = done
        if self.step % AVERAGE_EVERY == 0:
            self._average()
        return {name: loss.detach() for name, loss in losses.items()}

    def averaged(self) -> BertForPreTraining:
        """Return a copy of the model with the averaged weights, in eval mode."""
        config = self.model.config
        model = new_model(config.vocab_size, config.num_hidden_layers, config.hidden_size, self.recipe.seed)
        model.load_state_dict(self.average)
        return model.to(self.device).eval()

    def _adopt(self, model: BertForPreTraining) -> None:
        """Train this model from now on, with a new optimiser and a new weight average."""
        self.model = model.to(self.device).train()
        self.lean = LeanModel(self.model, torch.bfloat16 if self.bf16 else torch.float32)
        self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        matrices = [p for p in self._parameters() if p.ndim > 1]
        vectors = [p for p in self._parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.recipe.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            betas=self.recipe.betas,
            fused=True,
        )

    def _parameters(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.heads.parameters()]

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch by name (masked words, segment relation, bag of words), as scalar tensors."""
        ids, types, targets, relations, shares = (
            torch.from_numpy(part).to(self.device, non_blocking=True)
            for part in (batch.ids, batch.types, batch.targets, batch.relations, batch.bags())
        )
        positions = np.flatnonzero(batch.chosen)
        # The number of positions is padded, because the library for bf16 products prepares and caches each new shape.
        padding = -len(positions) % PREDICTED_STEP
        wanted = torch.from_numpy(np.pad(positions, (0, padding))).to(self.device, non_blocking=True)
        words, pooled = self.lean.forward(ids, types, wanted)
        expected = targets.flatten()[wanted]
        expected[len(positions) :] = NO_LABEL
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            related = self.heads.relation(pooled)
            bag = self.heads.bag_loss(pooled, self.model.cls.predictions.decoder, targets, shares)
        relation = functional.cross_entropy(related.float(), relations, ignore_index=NO_LABEL, reduction="sum")
        return {
            "train/masked_loss": functional.cross_entropy(words.float(), expected, ignore_index=NO_LABEL),
            "train/relation_loss": relation / (relations != NO_LABEL).sum().clamp(min=1),
            "train/bag_loss": bag,
        }

    @torch.no_grad()
    def _average(self) -> None:
        """Update the exponential moving average of the weights, with a smaller decay during the first steps."""
        age = (self.tokens - self.changed_at) / self.recipe.batch_tokens
        keep = min(self.recipe.average, (1 + age) / (10 + age)) ** AVERAGE_EVERY
        state = self.model.state_dict()
        names = [name for name, tensor in state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in names], [state[n] for n in names], 1 - keep)


def train(
    prepared: Path,
    folder: Path,
    recipe: Recipe,
    *,
    warm_start: Path | None,
    tracking_uri: str | None,
    device: str,
) -> None:
    """Train a model until the end of the recipe, or until SIGTERM or SIGINT is received.

    Args:
        prepared: The folder that `prepare` wrote.
        folder: The folder of the run. Its newest checkpoint, if any, is resumed with the recipe saved there.
        recipe: The recipe of a new run.
        warm_start: The folder of an exported model from which a new run starts; None starts from scratch.
        tracking_uri: The URI of the MLflow tracking store; None writes only metrics.jsonl.
        device: The device, "cpu" or "cuda".
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = Text.load(prepared)
    newest = checkpoints.newest(folder)
    saved = checkpoints.load(newest) if newest else None
    if saved:
        recipe = Recipe.from_dict(saved.recipe)
    run = Run(text, recipe, folder, device)
    if saved:
        run.resume(saved)
    else:
        run.start(warm_start)
    (folder / "tokenizer.json").write_bytes((prepared / "tokenizer.json").read_bytes())
    params = {
        "hidden": recipe.hidden,
        "batch_tokens": recipe.batch_tokens,
        "lr": recipe.peak_lr,
        "seed": recipe.seed,
        "precision": "bf16" if run.bf16 else "fp32",
    }
    tracker = Tracker(folder, tracking_uri, saved.tracking_run if saved else None, params)
    tracker.resume()

    def ask_to_stop(signal_number: int, frame: FrameType | None) -> None:
        run.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    loop(run, tracker)


def loop(run: Run, tracker: Tracker) -> None:
    """Train until the end of the recipe or a signal; log, evaluate and write checkpoints at regular intervals."""
    if run.step == 0:
        report(run, tracker)
    wall, processor, tokens = time.perf_counter(), time.process_time(), run.tokens
    while run.tokens < run.recipe.tokens and not run.stopping:
        losses = run.advance()
        if run.step % LOG_EVERY == 0:
            tracker.log({name: float(loss) for name, loss in losses.items()}, run.step)
        if run.step % EVALUATE_EVERY == 0:
            done, busy = run.tokens - tokens, time.process_time() - processor
            tracker.log(
                {
                    "throughput/tokens_per_s": done / (time.perf_counter() - wall),
                    "throughput/tokens_per_cpu_s": done / busy,
                },
                run.step,
            )
            report(run, tracker)
            wall, processor, tokens = time.perf_counter(), time.process_time(), run.tokens
        if run.step % CHECKPOINT_EVERY == 0:
            run.checkpoint(tracker.run_id).save(run.folder)
    run.checkpoint(tracker.run_id).save(run.folder)
    report(run, tracker)
    tracker.finish("KILLED" if run.stopping else "FINISHED")
    print("stopped" if run.stopping else "finished", "at step", run.step, flush=True)


def report(run: Run, tracker: Tracker) -> None:
    """Evaluate the model with averaged weights on the held-out text, and log and print the results."""
    results = evaluate(run.averaged(), run.text.held_out, run.text.continues)
    metrics = {"tokens": float(run.tokens), "lr": run.optimiser.param_groups[0]["lr"]}
    for name, result in results.items():
        metrics[f"held_out/{name}_loss"] = result.loss
        metrics[f"held_out/{name}_accuracy"] = result.accuracy
    metrics["held_out/loss"] = float(np.mean([result.loss for result in results.values()]))
    tracker.log(metrics, run.step)
    tracker.flush()
    figures = "  ".join(f"{name} {r.loss:.3f} ({r.accuracy:.1%})" for name, r in results.items())
    print(
        f"{time.strftime('%H:%M:%S')} step {run.step} {run.tokens / 1e6:.2f} M tokens"
        f"  mean {metrics['held_out/loss']:.3f}  {figures}",
        flush=True,
    )
