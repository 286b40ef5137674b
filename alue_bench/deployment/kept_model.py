"""Loading a kept model (the saved model of a run), and predicting lists of texts with it.

model = load("complaints-model")            # a folder, a run's id, or models:/NAME/VERSION
model.predict(["The parcel never came."])   # ["delivery"]
model.scores(["The parcel never came."])    # array([[0.02, 0.97, 0.01]], dtype=float32)

A model that tags words reads sentences, whose words are separated by spaces, and predicts a list of tags for each.
A model that extracts spans reads a text and, as the second text, a question about it, and predicts the answer.

Batches and forward pass are the same as in the evaluation of a run, so that the recorded predictions are reproduced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.formats import Example
from alue_bench.contract.task import TargetKind
from alue_bench.data.spans import as_targets, encoded_questions, normalised_questions
from alue_bench.data.tokenization import TokenizedSplit, token_ids
from alue_bench.data.words import encoded_words, places_of_words, targets_of_tokens, words_of
from alue_bench.deployment.description import ADAPTER, BASE, Description, read_description
from alue_bench.deployment.normalisation import normalise_of
from alue_bench.evaluation.predictions import decide, probabilities
from alue_bench.training.architecture.encoder_stack import EncoderStack, check_ids, view_as_stack
from alue_bench.training.device.hardware import Hardware, Precision
from alue_bench.training.device.precision import Device, number_format
from alue_bench.training.device.selection import resolve_device, resolve_precision
from alue_bench.training.forward import Forward, choose_forward
from alue_bench.training.inference import predict_logits
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.pretrained.loading import Checkpoint, load_config, load_model_with_report
from alue_bench.training.pretrained.tokenizer import read_tokenizer

if TYPE_CHECKING:
    import numpy as np

TOKENS = ("input_ids", "token_type_ids")
"""The columns that the model reads from the table that `encoded_questions` returns: token ids and token type ids."""
CHUNK = 8192
"""The number of texts that are tokenized and sorted by length together. A larger number would save less than 1 % of all
padding."""


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts as token ids, in the form that the model needs."""

    split: TokenizedSplit
    truncated: int
    """The number of texts that were truncated to the model's largest number of tokens. For a model that tags words, it
    is the number of words that were truncated, because they have more tokens than a window. For a model that extracts
    spans, it is the number of questions that were truncated, because they have more tokens than half a window."""


class KeptModel:
    """A trained model with its tokenizer, normalisation and labels."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        precision: str | None = None,
        normalise: Callable[[str], str] | None = None,
    ) -> None:
        """Load a model from its folder.

        Args:
            folder: The folder that `write_model_folder` wrote.
            device: "auto", "cpu", "gpu", "cuda", "cuda:1", "mps" or "xpu".
            precision: "fp32", "tf32", "bf16", "fp16", or "auto" for a fast format of the device. None selects the run's
                number format if `device` is of the same type as in the run and fast in this format, otherwise fp32.
            normalise: A function that normalises a text; None uses the model's normalisation from the installed
                plugins.

        Raises:
            UsageError: The folder holds no model that alue-bench saved, or the device or number format is not
                available.
            UnavailableError: A file is damaged, or a package that the model needs is missing.
        """
        self.description = read_description(folder)
        self.folder = folder
        name = resolve_device(device)
        self.device = Device(name, _precision(self.description, name, precision))
        self._normalise = normalise or normalise_of(self.description.normalisation)
        self._stack, self._tokenizer = _loaded(folder, self.description)
        self._stack.model.to(name).eval()
        self._stack.model.requires_grad_(False)
        self._forward: Forward = choose_forward(self._stack, self.device.compute)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the outputs: the labels; ("value",) for a regression; ("start", "end") for span extraction."""
        return self.description.columns

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Any]:
        """Return the prediction for each text.

        A prediction is a label, a list of labels (multi-label), a number (regression), a list with a tag for each word,
        or the answer to a question: a part of the text, or "" if the text does not answer it.

        Args:
            texts: The texts. For a model that tags words, sentences whose words are separated by spaces.
            pairs: The second texts, for a model that reads pairs; the questions, for a model that extracts spans.

        Raises:
            UsageError: A value is not a string, a sentence to tag has no words, `pairs` is missing or has another
                length than `texts`, or `pairs` is given to a model that reads single texts.
        """
        return [
            one
            for part in self.chunks(texts, pairs)
            for one in self.predictions_of_logits(self.logits_of(part), part.split)
        ]

    def scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray[Any, Any]:
        """Return the probability of each label, fp32 [texts, labels]; for a regression, the predictions, [texts, 1].

        For a model that tags words, return the probability of each tag for the words of all texts in order,
        [words, tags].

        Args:
            texts: The texts.
            pairs: The second texts, for a model that reads pairs.

        Raises:
            UsageError: The texts are invalid, as in `predict`; or the model extracts spans, which have no probabilities
                of labels.
        """
        if self.description.labels.extracts_spans:
            raise UsageError("the model extracts spans, and has no probabilities of labels; call predict")
        return probabilities(self.logits(texts, pairs), self.description.labels)

    def predictions_of_logits(self, logits: np.ndarray[Any, Any], split: TokenizedSplit) -> list[Any]:
        """Convert logits to predictions, in the form that `predict` returns.

        Args:
            logits: The logits, as `logits_of` returns them.
            split: The tokenized texts for which the logits were computed.
        """
        labels = self.description.labels
        decisions = decide(logits, labels, split.decoding)
        if labels.extracts_spans:
            return [str(text) for text in decisions]
        if labels.tags_words:
            return [[labels.names[tag] for tag in row if tag >= 0] for row in decisions]
        if labels.kind is TargetKind.REGRESSION:
            return [float(value) for value in decisions]
        if labels.kind is TargetKind.MULTILABEL:
            return [[name for name, mark in zip(labels.names, row, strict=True) if mark] for row in decisions]
        return [labels.names[int(place)] for place in decisions]

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray[Any, Any]:
        """Return the model's logits for texts, or pairs of texts: fp32 [texts, outputs].

        For a model that tags words, the rows are the words of all texts in order, [words, tags]; for a model that
        extracts spans, the tokens at which an answer may begin or end, [tokens, 2].

        Args:
            texts: The texts.
            pairs: The second texts, for a model that reads pairs.
        """
        import numpy as np

        parts = [self.logits_of(part) for part in self.chunks(texts, pairs)]
        return np.concatenate(parts) if parts else np.zeros((0, self.description.labels.outputs), dtype="float32")

    def chunks(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Iterator[TokenizedTexts]:
        """Check texts (see `checked`), and yield them tokenized, `CHUNK` texts at a time (see `tokenized`)."""
        texts, pairs = self.checked(texts, pairs)
        for start in range(0, len(texts), CHUNK):
            part = slice(start, start + CHUNK)
            yield self.tokenized(texts[part], None if pairs is None else pairs[part])

    def checked(self, texts: Sequence[str], pairs: Sequence[str] | None) -> tuple[list[str], list[str] | None]:
        """Check texts and second texts, and return them as lists.

        Raises:
            UsageError: A value is not a string, a sentence to tag has no words, second texts are missing or not as many
                as the texts, or second texts are given to a model that reads single texts.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            raise UsageError("predict takes a list of texts; put the one text into a list: [text]")
        if self.description.is_pair and pairs is None:
            raise UsageError("the model reads pairs of texts; give the second texts as pairs=")
        if not self.description.is_pair and pairs is not None:
            raise UsageError("the model reads single texts; leave pairs out")
        listed, others = list(texts), None if pairs is None else list(pairs)
        if others is not None and len(others) != len(listed):
            raise UsageError(f"there are {len(listed)} texts and {len(others)} second texts; give one for each")
        for name, column in (("text", listed), ("second text", others or [])):
            wrong = next((place for place, text in enumerate(column) if not isinstance(text, str)), None)
            if wrong is not None:
                raise UsageError(f"{name} {wrong} is {column[wrong]!r:.60}; it must be a string")
        if self.description.labels.tags_words:
            empty = next((place for place, text in enumerate(listed) if not words_of(text)), None)
            if empty is not None:
                raise UsageError(f"text {empty} has no words; leave it out")
        return listed, others

    def tokenized(self, texts: list[str], pairs: list[str] | None) -> TokenizedTexts:
        """Normalise and tokenize texts in the same way as the run that trained the model.

        Args:
            texts: The texts, at least one.
            pairs: The second texts; None for single texts.
        """
        import numpy as np
        import torch

        if self.description.labels.tags_words:
            return self.tokenized_words([words_of(text) for text in texts])
        if self.description.labels.extracts_spans:
            return self._tokenized_questions(texts, pairs or [])
        clean = self._normalise
        if clean is not None:
            texts = [clean(text) for text in texts]
            pairs = None if pairs is None else [clean(text) for text in pairs]
        longest = self.description.max_length
        encoded = token_ids(texts, pairs, self._tokenizer, longest)
        ids = encoded["input_ids"]
        offsets = np.zeros(len(ids) + 1, dtype="int64")
        np.cumsum([len(one) for one in ids], out=offsets[1:])
        full = [place for place, one in enumerate(ids) if len(one) >= longest]
        cut = 0
        if full:
            whole = self._tokenizer(
                [texts[place] for place in full], None if pairs is None else [pairs[place] for place in full]
            )["input_ids"]
            cut = sum(len(one) > longest for one in whole)
        types = encoded.get("token_type_ids")
        split = TokenizedSplit(
            input_ids=_flat(ids, int(offsets[-1])),
            token_type_ids=None if types is None else _flat(types, int(offsets[-1])),
            offsets=torch.from_numpy(offsets),
            targets=torch.zeros(len(ids), dtype=torch.long),
            ids=[""] * len(ids),
            truncated=cut,
        )
        check_ids(self._stack, split, "the texts")
        return TokenizedTexts(split, cut)

    def tokenized_words(self, sentences: Sequence[Sequence[str]]) -> TokenizedTexts:
        """Normalise and tokenize the words of sentences, for a model that tags words.

        Args:
            sentences: The words of each sentence; at least one sentence.
        """
        labels, clean = self.description.labels, self._normalise or (lambda word: word)
        # The tags are placeholders: they only mark the tokens from which a tag is predicted.
        rows = [
            Example(str(place), " ".join(words), None, (labels.names[0],) * len(words), place, tuple(words))
            for place, words in enumerate(sentences)
        ]
        normalised = [[clean(word) for word in words] for words in sentences]
        columns = encoded_words(normalised, self._tokenizer, self.description.max_length)
        places = places_of_words(rows, columns, labels)
        split = _windows(rows, columns, partial(targets_of_tokens, rows, labels, columns))
        check_ids(self._stack, split, "the texts")
        return TokenizedTexts(replace(split, words=places), places.cut)

    def _tokenized_questions(self, contexts: Sequence[str], questions: Sequence[str]) -> TokenizedTexts:
        """Normalise and tokenize questions and the texts (contexts) they are about, for a model that extracts spans."""
        rows = [
            Example(str(place), context, question, None, place)
            for place, (context, question) in enumerate(zip(contexts, questions, strict=True))
        ]
        normalised = normalised_questions(rows, self._normalise or (lambda text: text))
        table = encoded_questions(normalised, self._tokenizer, self.description.max_length)
        targets, places = as_targets(rows, table)
        tokens = {name: table[name].to_pylist() for name in TOKENS if name in table.column_names}
        split = _windows(rows, tokens, lambda offsets: targets)
        check_ids(self._stack, split, "the texts")
        return TokenizedTexts(replace(split, spans=places), places.cut)

    def logits_of(self, texts: TokenizedTexts) -> np.ndarray[Any, Any]:
        """Return the model's logits for tokenized texts, in the shape that `logits` documents."""
        examples = Examples(texts.split)
        with number_format(self.device):
            return predict_logits(
                self._stack, self._forward, examples, device=self.device, padding=self.description.padding
            )


def load(
    model: str | Path, *, device: str = "auto", precision: str | None = None, tracking_uri: str | None = None
) -> KeptModel:
    """Load a kept model, that is, the saved model of a run.

    Args:
        model: The model's folder; the id of the run that trained it; a name in the model registry, as
            `models:/NAME/VERSION` or `models:/NAME@ALIAS`; or the model's id in MLflow, as `models:/MODEL_ID`.
        device: "auto", "cpu", "gpu", "cuda", "cuda:1", "mps" or "xpu". A process computes on one GPU only: "cuda:1"
            makes this GPU torch's current device, also for models that are already loaded.
        precision: "fp32", "tf32", "bf16", "fp16", or "auto" for a fast format of the device. None selects the run's
            number format if the device is of the same type as in the run and fast in this format, otherwise fp32.
        tracking_uri: The MLflow store that holds the run or the registry; None for the default store.

    Raises:
        UsageError: There is no such model, or the device or number format is not available.
        UnavailableError: The store does not answer, a file is damaged, or a needed package is missing.
    """
    from alue_bench.deployment.logged_models import folder_of

    return KeptModel(folder_of(model, tracking_uri), device=device, precision=precision)


def _windows(rows: Sequence[Example], columns: dict[str, list[Any]], targets: Callable[[Any], Any]) -> TokenizedSplit:
    """Return sentences or questions, tokenized in windows of limited length, as a `TokenizedSplit`.

    The caller adds the positions of the words or spans to the result.

    Args:
        rows: The sentences; or the questions, each with the text that it is about.
        columns: The columns "input_ids" and, if the tokenizer returns them, "token_type_ids" of the windows.
        targets: A function that returns the targets of all tokens, given the offset of each window in the flat list of
            tokens.
    """
    import torch

    ids, types = columns["input_ids"], columns.get("token_type_ids")
    offsets = torch.tensor([0, *accumulate(map(len, ids))])
    return TokenizedSplit(
        input_ids=_flat(ids, int(offsets[-1])),
        token_type_ids=None if types is None else _flat(types, int(offsets[-1])),
        offsets=offsets,
        targets=targets(offsets),
        ids=[row.id for row in rows],
        truncated=0,
    )


def _flat(lists: Sequence[Sequence[int]], length: int) -> Any:
    """Concatenate lists of integers into one tensor, int64 [length]; `length` is their total length."""
    from itertools import chain

    import numpy as np
    import torch

    return torch.from_numpy(np.fromiter(chain.from_iterable(lists), dtype="int64", count=length))


def _precision(description: Description, device: str, wanted: str | None) -> Precision:
    if wanted is not None:
        return resolve_precision(wanted, device)
    own = description.precision
    return own if device == description.device and Hardware(device).is_fast_in(own) else "fp32"


def _loaded(folder: Path, description: Description) -> tuple[EncoderStack, Any]:
    """Load a saved model, with its adapter if there is one, and its tokenizer from the model's folder.

    Raises:
        UnavailableError: Weights or tokenizer are missing or damaged.
    """
    place = folder / BASE if description.adapter is not None else folder
    checkpoint = Checkpoint(place, "", pickled=False, keep_head=True)
    tokenizer, _ = read_tokenizer(folder, load_config(checkpoint))
    model, drawn = load_model_with_report(
        checkpoint, description.labels, init_seed=0, pad_id=int(tokenizer.pad_token_id)
    )
    if drawn:
        raise UnavailableError(f"{place} has no weights for {sorted(drawn)[0]}; copy the whole folder again")
    stack = view_as_stack(model)
    if description.adapter is not None:
        from alue_bench.deployment.adapters import with_adapter

        stack = with_adapter(stack, description.adapter, folder / ADAPTER)
    return stack, tokenizer
