"""The sizes that determine the cost of a training: models, texts, batches. Weights, token ids and labels are random.

Times depend on shapes and not on values, so that neither checkpoints nor data files are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

VOCABULARIES = {"arabertv02": 64_000, "camelbert": 30_000, "qarib": 64_000, "marbert": 100_000}
"""The number of token embeddings of each model in Betka et al., from the configuration that the model's authors
publish. In all other sizes, the models equal BERT-base (`alue_bench_models.shapes.BERT_BASE`)."""
MODEL = "arabertv02"
MAX_LENGTH = 128
"""The number of tokens to which texts are truncated, and to which `trainer-glue` pads them. This number, `BATCH_SIZE`
and `LEARNING_RATE` are from the README of transformers' example for GLUE."""
BATCH_SIZE = 32
LEARNING_RATE = 2e-5
WHOLE_EPOCHS = 10
"""The number of epochs in the measurement of a whole training: the default of ALUE (Seelawi et al. 2021)."""


@dataclass(frozen=True)
class TaskSize:
    """The sizes of a task's train split: rows, labels and text lengths."""

    rows: int
    """The number of train rows, without rows that are held out as the dev split."""
    labels: int
    lengths_at: tuple[int, ...]
    """The lengths in tokens, special tokens included, at equidistant quantiles of the texts, from the shortest text to
    the longest. The texts were tokenized by the tokenizer of `mini`, whose vocabulary has 14,000 tokens. With the
    larger vocabularies of `VOCABULARIES` the same texts have fewer tokens."""

    def lengths(self, count: int, seed: int = 0) -> np.ndarray[Any, Any]:
        """Return the lengths of `count` texts with the distribution of the task, in random order, int64 [count]."""
        import numpy as np

        positions = (np.arange(count) + 0.5) / count * (len(self.lengths_at) - 1)
        lengths = np.interp(positions, np.arange(len(self.lengths_at)), self.lengths_at).round().astype(np.int64)
        return np.random.default_rng(seed).permutation(np.minimum(lengths, MAX_LENGTH))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


TASKS: Mapping[str, TaskSize] = {
    "oold": TaskSize(
        rows=6_300,
        labels=2,
        lengths_at=_numbers(
            "8 10 10 11 11 11 12 12 12 13 13 13 13 14 14 14 14 15 15 15 15 16 16 16 16 17 17 17 17 18 18 18 19 19 "
            "19 20 20 20 21 21 22 22 22 23 23 23 24 24 25 25 26 26 26 27 27 28 28 29 30 30 31 32 32 33 34 34 35 "
            "36 37 37 38 38 39 40 40 41 41 42 43 43 44 45 45 46 48 49 51 52 55 57 60 62 64 67 69 72 74 77 80 85 "
            "121"
        ),
    ),
    "mdd": TaskSize(
        rows=41_600,
        labels=26,
        lengths_at=_numbers(
            "4 5 5 6 6 6 6 6 6 7 7 7 7 7 7 7 7 7 8 8 8 8 8 8 8 8 8 8 9 9 9 9 9 9 9 9 9 9 9 10 10 10 10 10 10 10 "
            "10 10 10 11 11 11 11 11 11 11 11 11 11 12 12 12 12 12 12 12 12 12 13 13 13 13 13 13 13 14 14 14 14 "
            "14 15 15 15 15 16 16 16 16 17 17 18 18 19 19 20 21 23 24 27 33 61"
        ),
    ),
    "xnli": TaskSize(
        rows=4_509,
        labels=3,
        lengths_at=_numbers(
            "10 15 16 17 18 19 20 21 21 22 22 23 24 24 25 25 26 26 27 27 27 28 28 29 29 30 30 30 31 31 32 32 32 "
            "33 33 34 34 34 35 35 36 36 36 37 37 38 38 38 39 39 39 40 40 41 41 42 42 43 43 43 44 44 45 45 46 46 "
            "47 47 47 48 48 49 49 50 50 51 52 52 53 53 54 54 55 55 56 57 58 58 59 60 61 62 63 64 65 67 68 70 73 "
            "77 115"
        ),
    ),
}
"""The sizes of the train splits of three tasks, from the official files of OSACT4, MADAR Corpus-26 and XNLI. The train
split of the task on XNLI is XNLI's test file."""


@dataclass(frozen=True)
class Scale:
    """The size of the model that is timed, and the number of steps and repetitions of its training runs."""

    hidden: int
    heads: int
    vocabulary: int | None
    """The number of token embeddings; None means the number that `VOCABULARIES` gives for the model of an `Arm`."""
    batch_size: int | None
    """The number of examples in a batch; None means the batch size of an `Arm`."""
    steps: Mapping[str, int]
    """The number of timed steps, by the name of the way of training or by the name's part before the hyphen."""
    whole_rows: int | None
    """The number of rows in the measurement of a whole training; None means all rows of the task."""
    whole_epochs: int
    repetitions: int
    """The largest number of repetitions of a measurement."""
    layers: int = 12

    def steps_of(self, way: str) -> int:
        """Return the number of timed steps for a way of training."""
        return self.steps.get(way) or self.steps[way.partition("-")[0]]


BASE = Scale(
    hidden=768,
    heads=12,
    vocabulary=None,
    batch_size=None,
    steps={"engine": 200, "trainer": 75, "trainer-glue": 30, "loop": 75, "loop-glue": 30},
    whole_rows=None,
    whole_epochs=WHOLE_EPOCHS,
    repetitions=5,
)
"""The size of BERT-base, for real measurements. The timed steps of a training take one or two seconds on an H200."""
TINY = Scale(
    hidden=16,
    heads=2,
    vocabulary=100,
    batch_size=4,
    steps={"engine": 2, "trainer": 2, "loop": 2},
    whole_rows=8,
    whole_epochs=2,
    repetitions=1,
)
"""A tiny size for trying the benchmark itself; the times mean nothing."""
