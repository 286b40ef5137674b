"""Tags of words: files, subwords and windows, the head for every token, entity F1, and a run from end to end."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CommandLine
from gallery import gallery_config
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import save_tiny_model, save_tokenizer, tiny_config

from alue_bench import BadRow, Example, FreezePlan, Labels, TaggedColumns, TaggedJson
from alue_bench.contract.errors import DataError, DoesNotFit, UsageError
from alue_bench.contract.strategy import EncoderShape
from alue_bench.contract.task_file import read_task_file
from alue_bench.data.batches import Padding, collate
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import load_rows
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.data.words import (
    IGNORED,
    as_rows,
    encoded_words,
    places_of_words,
    targets_of_tokens,
    windows,
)
from alue_bench.deployment.kept_model import KeptModel
from alue_bench.deployment.model_folder import FinishedRun, write_model_folder
from alue_bench.deployment.predicting import PredictionRequest, predict_file
from alue_bench.evaluation.additive import additive
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import predictions_table, targets_of
from alue_bench.evaluation.tagging import most_frequent_tags
from alue_bench.measure.flops import training_flops
from alue_bench.planning.build import Plan
from alue_bench.running.run import execute
from alue_bench.testing import check_task
from alue_bench.tracking.prediction_files import write_predictions
from alue_bench.training.architecture.capabilities import check_tagging
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.device.precision import Device
from alue_bench.training.device.resident import ResidentSplit
from alue_bench.training.forward import LibraryForward, choose_forward
from alue_bench.training.freezing import apply_plan, training_mode
from alue_bench.training.inference import predict_logits
from alue_bench.training.optimizer import loss_function
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.pretrained.loading import empty_model, random_model

ENTITIES = Labels.tokens("O", "B-PER", "I-PER", "B-LOC", "I-LOC", scheme="IOB2")
PLAIN = Labels.tokens("NOUN", "VERB", "PUNCT")
CPU = Device("cpu", "fp32")


@lru_cache
def tokenizer_of(architecture: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    if architecture == "bytes":  # as RoBERTa's: a word behind a space has tokens of its own
        from tokenizers import Tokenizer, models, pre_tokenizers

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        pairs = [("Ġ", letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
        vocab = {piece: place for place, piece in enumerate(["<s>", *letters, *map("".join, pairs)])}
        made = Tokenizer(models.BPE(vocab, pairs))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<s>", eos_token="<s>")
    with TemporaryDirectory() as folder:
        save_tokenizer(Path(folder), architecture)
        return PreTrainedTokenizerFast.from_pretrained(folder)


def sentence(words: str, tags: str = "", number: int = 0) -> Example:
    parts = tuple(words.split(" "))
    return Example(str(number), words, None, tuple(tags.split()) if tags else ("O",) * len(parts), 1, parts)


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "read"),
        {
            "spaces, further columns, a document": (
                "-DOCSTART- -X- O\n\nAli B-PER\nwent O x y\n\n\nto O\nOslo B-LOC B-X\n", TaggedColumns(),
            ),
            "tabs, comments, CRLF, no last line end": (
                "# text\r\n1\tAli\tB-PER\r\n2\twent\tO\r\n\r\n# text\r\n1\tto\tO\r\n2\tOslo\tB-LOC",
                TaggedColumns(separator="\t", word=1, tag=-1, comment="# "),
            ),
            "JSON": (
                '{"tokens": ["Ali", "went"], "tags": [1, 0]}\n{"tokens": ["to", "Oslo"], "tags": [0, 3]}\n',
                TaggedJson(decode={"0": "O", "1": "B-PER", "3": "B-LOC"}),
            ),
        }.values(),
    )  # fmt: skip
    def test_hold_sentences(self, content: str, read: Any, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(content.encode())
        rows = list(read(tmp_path / "x"))
        assert [(row.id, row.text, row.words, row.target) for row in rows] == [
            ("0", "Ali went", ("Ali", "went"), ("B-PER", "O")),
            ("1", "to Oslo", ("to", "Oslo"), ("O", "B-LOC")),
        ]

    @pytest.mark.parametrize(
        ("content", "read", "line", "reason"),
        [
            ("a O\nb\nc O\n", TaggedColumns(), 2, "no tag: column 1"),
            ("a O\nb B-X\nc Y\n", TaggedColumns(labels=("O", "B-PER")), 2, "word 'b': unknown label 'B-X'"),
            ("a O\n\ud800 O\n", TaggedColumns(), 2, "not valid UTF-8"),
            ('{"tokens": ["a"], "tags": []}\n', TaggedJson(), 1, "1 words, but 0 tags"),
            ('{"tokens": ["a"]}\n', TaggedJson(), 1, "'tags' is missing"),
            ("[\n", TaggedJson(), 1, "not valid JSON"),
            ('{"tokens": [" "], "tags": ["O"]}\n', TaggedJson(), 1, "a word is empty"),
        ],
    )
    def test_with_a_bad_line_lose_its_sentence(
        self, content: str, read: Any, line: int, reason: str, tmp_path: Path
    ) -> None:
        after = '{"tokens": ["z"], "tags": ["O"]}\n' if isinstance(read, TaggedJson) else "\nz O\n"
        (tmp_path / "x").write_bytes((content + after).encode(errors="surrogatepass"))
        bad, good = read(tmp_path / "x")
        assert isinstance(bad, BadRow)
        assert bad.line == line
        assert reason in bad.reason
        assert good.words == ("z",)

    def test_without_sentences_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("-DOCSTART- O\n")
        with pytest.raises(DataError, match="no sentences"):
            list(TaggedColumns()(tmp_path / "x"))


class TestWindows:
    @given(lengths=st.lists(st.integers(0, 6), max_size=40), room=st.integers(6, 12))
    def test_predict_each_word_once_where_most_of_the_sentence_is_seen(self, lengths: list[int], room: int) -> None:
        parts = windows(lengths, room)
        total = [0, *np.cumsum(lengths)]
        assert [word for part in parts for word in range(part.first, part.last)] == list(range(len(lengths)))
        assert len(parts) == 1 or total[-1] > room

        def seen(part: Any, word: int) -> int:
            """The subwords on the side of the word on which the window shows fewer, if it shows the word at all."""
            inside = part.start <= word < part.end
            return min(total[word] - total[part.start], total[part.end] - total[word + 1]) if inside else -1

        for part in parts:
            assert total[part.end] - total[part.start] <= room
            assert part.start <= part.first <= part.last <= part.end
            for word in range(part.first, part.last):
                assert seen(part, word) == max(seen(other, word) for other in parts)
        for one, other in pairwise(parts):
            assert one.start < other.start <= one.end < other.end

    @pytest.mark.parametrize("architecture", ["bert", "roberta"])
    def test_hold_the_tokens_that_the_tokenizer_gives_for_words(self, architecture: str) -> None:
        tokenizer = tokenizer_of(architecture)
        words = ["ali", "went", "to", "oslo", "!"]
        made = encoded_words([words], tokenizer, 60)
        whole = tokenizer(words, is_split_into_words=True)
        assert made["input_ids"] == [whole["input_ids"]]
        assert made.get("token_type_ids") == ([whole["token_type_ids"]] if "token_type_ids" in whole else None)
        assert made["firsts"] == [[whole.word_to_tokens(place).start for place in range(len(words))]]

    def test_hold_words_as_they_are_inside_a_text(self) -> None:
        tokenizer = tokenizer_of("bytes")
        (made,) = encoded_words([["ali", "went", "to", "oslo"]], tokenizer, 60)["input_ids"]
        assert made == tokenizer(" ali went to oslo")["input_ids"]
        assert encoded_words([[""]], tokenizer, 60)["input_ids"] == [[tokenizer.eos_token_id]]

    def test_leave_out_no_word_silently(self) -> None:
        rows = [sentence("ab \u200f abcdefghijkl c d e f g h i j k", "B-PER I-PER B-LOC O O O O O O O O O")]
        tokenizer = tokenizer_of("bert")
        words = [["" if word == "\u200f" else word for word in rows[0].words or ()]]
        columns = encoded_words(words, tokenizer, 10)
        places = places_of_words(rows, columns, ENTITIES)
        assert (places.unread, places.windowed, places.cut) == (1, 1, 1)
        assert max(map(len, columns["input_ids"])) <= 10
        logits = np.zeros((11, 5), dtype="float32")
        logits[:, 3] = 5.0
        tags = places.logits_of_all(logits).argmax(axis=1)
        assert tags.tolist() == [3, 0, *[3] * 10]  # the word without a token is outside


def tokenized(rows: list[Example], labels: Labels, architecture: str = "bert", most: int = 24) -> TokenizedSplit:
    columns = encoded_words([list(row.words or ()) for row in rows], tokenizer_of(architecture), most)
    ids = columns["input_ids"]
    offsets = torch.tensor([0, *np.cumsum([len(one) for one in ids])])
    types = columns.get("token_type_ids")
    return TokenizedSplit(
        input_ids=torch.tensor([token for one in ids for token in one]),
        token_type_ids=None if types is None else torch.tensor([kind for one in types for kind in one]),
        offsets=offsets,
        targets=targets_of_tokens(rows, labels, columns, offsets),
        ids=[row.id for row in rows],
        truncated=0,
        words=places_of_words(rows, columns, labels),
    )


ROWS = [
    sentence("ali went to new york .", "B-PER O O B-LOC I-LOC O", 0),
    sentence("oslo", "B-LOC", 1),
    sentence("the old man and the sea , and ali baba and the forty thieves", "O " * 8 + "B-PER I-PER O O O O", 2),
    sentence("no names here", "", 3),
]


def model_of(architecture: str, **options: Any) -> EncoderStack:
    config = tiny_config(architecture, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options)
    return view_as_stack(random_model(config, ENTITIES, seed=1))


class TestHead:
    @pytest.mark.parametrize(("architecture", "frozen"), [("bert", 0), ("xlm-roberta", 2), ("electra", 4)])
    def test_of_the_lean_layers_equals_the_librarys(self, architecture: str, frozen: int) -> None:
        split = tokenized(ROWS, ENTITIES, architecture)
        plan = FreezePlan(EncoderShape(4), frozenset(range(frozen)), embeddings=frozen > 0)
        outcomes = []
        for way in (LibraryForward, lambda stack: choose_forward(stack, torch.float32)):
            stack = model_of(architecture)
            apply_plan(stack, plan)
            training_mode(stack, plan)
            batch = collate(split, np.arange(len(split)), Padding(int(stack.model.config.pad_token_id)))  # type: ignore[arg-type,union-attr]
            forward = way(stack)
            loss = loss_function(ENTITIES)(forward.logits(batch), batch.targets)
            loss.backward()
            outcomes.append(
                (loss.detach(), {n: p.grad for n, p in stack.model.named_parameters() if p.grad is not None})
            )
        assert forward.name == "lean"
        (loss, expected), (lean_loss, lean) = outcomes
        torch.testing.assert_close(lean_loss, loss)
        assert lean.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(lean[name], gradient, atol=1e-6, rtol=1e-3, msg=name)

    @pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 2.0, 1.0, 1.0])])
    def test_loses_the_same_in_one_batch_and_in_parts(self, weights: Any) -> None:
        split, stack = tokenized(ROWS, ENTITIES), model_of("bert")
        stack.model.eval()
        forward, loss_of = choose_forward(stack, torch.float32), loss_function(ENTITIES, weights)
        whole = collate(split, np.arange(len(split)), Padding(0))
        resident = ResidentSplit(split, Padding(0), CPU)
        draw = resident.ungathered_batch(torch.arange(len(split)))
        assert draw.predictions == whole.predictions == int((split.targets != IGNORED).sum())
        gathered = draw.to("cpu")
        assert torch.equal(gathered.targets[:, : whole.width], whole.targets)
        loss = loss_of(forward.logits(whole), whole.targets)
        for together in (whole, draw):
            parts = [together.rows(slice(start, start + 2)) for start in range(0, len(split), 2)]
            losses = [
                loss_of(forward.logits(part.to("cpu")), part.to("cpu").targets)
                * part.predictions
                / together.predictions
                for part in parts
            ]
            torch.testing.assert_close(sum(losses), loss)
        # A single-label loss over the labelled tokens alone, by hand.
        known = whole.targets != IGNORED
        each = torch.nn.functional.cross_entropy(
            forward.logits(whole)[known], whole.targets[known], weight=weights, reduction="none"
        )
        torch.testing.assert_close(each.mean(), loss)

    def test_predicts_words_in_their_order_alone_and_in_batches(self) -> None:
        split, stack = tokenized(ROWS * 5, ENTITIES, most=12), model_of("bert")
        assert split.words is not None
        assert split.words.windowed
        stack.model.eval()
        forward = choose_forward(stack, torch.float32)
        logits = predict_logits(stack, forward, Examples(split), device=CPU, padding=Padding(0))
        alone = []
        with torch.no_grad():
            for place in range(len(split)):
                batch = collate(split, np.array([place]), Padding(0))
                alone.append(forward.logits(batch)[batch.targets != IGNORED])
        np.testing.assert_allclose(logits, torch.cat(alone).numpy(), atol=1e-5)

    @pytest.mark.parametrize(("architecture", "frozen"), [("bert", 3), ("modernbert", 0)])
    def test_costs_what_torch_counts(self, architecture: str, frozen: int) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        stack = view_as_stack(
            random_model(tiny_config(architecture, attn_implementation="eager"), ENTITIES, seed=0).eval()
        )
        plan = FreezePlan(EncoderShape(4), frozenset(range(frozen)), embeddings=frozen > 0)
        apply_plan(stack, plan)
        ids = torch.randint(10, 60, (4, 24))
        with FlopCounterMode(display=False) as counter:
            logits = LibraryForward(stack).stack.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            logits.sum().backward()
        empty = view_as_stack(empty_model(tiny_config(architecture), ENTITIES))
        counted = training_flops(empty, plan, np.full(4, 24), epochs=1, batch_size=4)
        assert counted == pytest.approx(counter.get_total_flops(), rel=1e-9 if architecture == "bert" else 0.02)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("bert", ""),
            ("deberta-v2", ""),
            ("gpt2", "decoder"),
            ("qwen2", "decoder"),
            ("fnet", "padding"),
        ],
    )
    def test_is_refused_for_models_that_cannot_tag(self, name: str, reason: str) -> None:
        config = gallery_config(name)
        padding = Padding(getattr(config, "pad_token_id", None) or 0)
        if not reason:
            check_tagging(config, padding)
        else:
            with pytest.raises(DoesNotFit, match=reason):
                check_tagging(config, padding)


tags = st.sampled_from(ENTITIES.names)
sequences = st.lists(
    st.lists(st.tuples(tags, tags), min_size=1, max_size=8), min_size=1, max_size=6
)  # gold and predicted tag of each word of each sentence


def rows_of(names: list[list[str]], labels: Labels) -> Any:
    flat = np.array([labels.names.index(name) for one in names for name in one], dtype="int64")
    return as_rows(flat, np.array([len(one) for one in names]))


class TestMetrics:
    @given(pairs=sequences)
    def test_of_entities_are_those_of_seqeval(self, pairs: list[list[tuple[str, str]]]) -> None:
        from seqeval.metrics import classification_report, f1_score

        gold, predicted = ([[pair[side] for pair in one] for one in pairs] for side in (0, 1))
        rows = rows_of(gold, ENTITIES), rows_of(predicted, ENTITIES)
        values = metrics(*rows, ENTITIES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = classification_report(gold, predicted, output_dict=True, zero_division=0)
            micro, macro = (f1_score(gold, predicted, average=kind, zero_division=0) for kind in ("micro", "macro"))
        types = {name for name in report if "avg" not in name}
        assert {name.removeprefix("f1_class_") for name in values if name.startswith("f1_class_")} == types
        for name in types:
            assert values[f"f1_class_{name}"] == pytest.approx(report[name]["f1-score"])
        if types:  # of no entity at all, F1 is undefined here
            assert values["f1_micro"] == pytest.approx(micro)
            assert values["f1_macro"] == pytest.approx(macro)
        assert values["accuracy"] == pytest.approx(np.mean([g == p for one in pairs for g, p in one]))

    @pytest.mark.parametrize("labels", [ENTITIES, PLAIN], ids=["entities", "plain"])
    def test_are_sums_over_sentences(self, labels: Labels, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        counts = generator.integers(1, 9, 30)
        gold = as_rows(generator.integers(0, len(labels.names), counts.sum()), counts)
        predicted = np.where(generator.random(gold.shape) < 0.4, gold, np.roll(gold, 1, axis=0))
        predicted = np.where(gold < 0, -1, np.maximum(predicted, 0))
        kept = np.delete(np.arange(30), 7)
        for name in metrics(gold, predicted, labels):
            system = additive(name, gold, predicted, labels)
            assert system is not None
            left_out = float(system.value(system.parts.sum(axis=0) - system.parts[7]))
            assert left_out == pytest.approx(metrics(gold[kept], predicted[kept], labels)[name])
            assert system.pseudo_values().mean() == pytest.approx(system.score, abs=0.05)
        # The recorded table gives the same tags back.
        logits = np.eye(len(labels.names))[predicted[predicted >= 0]]
        table = predictions_table([str(n) for n in range(30)], gold, logits, labels, counts)
        write_predictions(tmp_path / "predictions.csv", table)
        again = targets_of(pd.read_csv(tmp_path / "predictions.csv", dtype={"id": "str"}))
        assert again.labels == labels
        assert np.array_equal(again.gold, gold)
        assert np.array_equal(again.predicted, predicted)

    def test_of_plain_tags_are_scikit_learns(self) -> None:
        from sklearn.metrics import f1_score

        gold, predicted = [["NOUN", "VERB"], ["PUNCT"]], [["NOUN", "NOUN"], ["PUNCT"]]
        values = metrics(rows_of(gold, PLAIN), rows_of(predicted, PLAIN), PLAIN)
        assert PLAIN.main_metric == "accuracy"
        assert values["accuracy"] == pytest.approx(2 / 3)
        assert values["f1_macro"] == pytest.approx(
            f1_score(["NOUN", "VERB", "PUNCT"], ["NOUN", "NOUN", "PUNCT"], average="macro")
        )

    def test_of_the_trivial_baseline_know_words_of_train_only(self) -> None:
        train = [sentence("oslo oslo is big", "B-LOC B-LOC O O"), sentence("oslo is", "B-PER O")]
        predicted = most_frequent_tags(train, [sentence("big oslo"), sentence("where is it")], ENTITIES)
        assert predicted.tolist() == [[0, 3, -1], [0, 0, 0]]


def check_stored_outputs(plan_runs: Callable[..., Plan], architecture: str, strategy: str) -> None:
    """Check that a run has the same losses and predictions with stored outputs of frozen layers and without them."""
    outcomes = []
    for size in ("1GB", "0"):
        (planned,) = plan_runs(strategy, architecture=architecture, cache_size=size).runs
        result, trained = execute(planned.spec, planned.inputs)
        losses = [point.value for point in result.curves if point.metric == "train/loss"]
        outcomes.append((losses, result.predictions.predicted, trained.prefixes["train"].depth))
    (cached, predicted, depth), (computed, again, none) = outcomes
    assert (depth, none) == ({"bottom2": 2, "head-only": 4}[strategy], 0)
    np.testing.assert_allclose(cached, computed, rtol=2e-4)
    assert predicted == again


@pytest.fixture
def plan_runs(plan_sample: Callable[..., Plan]) -> Callable[..., Plan]:
    return partial(plan_sample, "arabicner", max_length=40)


class TestRuns:
    @pytest.mark.parametrize(("architecture", "strategy"), [("modernbert", "bottom2"), ("bert", "head-only")])
    def test_are_the_same_with_stored_outputs_of_frozen_layers(
        self, architecture: str, strategy: str, plan_runs: Any
    ) -> None:
        check_stored_outputs(plan_runs, architecture, strategy)

    def test_with_random_batches_are_runs_of_their_own(self, plan_runs: Any) -> None:
        orders: tuple[dict[str, Any], ...] = ({}, {"batch_order": "length"}, {"batch_order": "random"})
        (default,), (by_length,), (random,) = (plan_runs("head-only", hyper=one).runs for one in orders)
        assert default.spec.fingerprint == by_length.spec.fingerprint != random.spec.fingerprint
        results = [execute(run.spec, run.inputs)[0] for run in (default, random, random)]
        losses = [[point.value for point in one.curves if point.metric == "train/loss"] for one in results]
        assert losses[0] != losses[1] == losses[2]
        assert results[0].metrics["data/train_steps"] == results[1].metrics["data/train_steps"]

    def test_of_folds_share_stored_outputs_and_windows_are_noted(self, plan_runs: Any) -> None:
        plan = plan_runs("bottom2", folds=2, hyper={"max_length": 16})
        results = [execute(run.spec, run.inputs)[0] for run in plan.runs]
        assert sum(result.metrics["data/test_rows"] for result in results) == 24
        for result in results:
            assert any("were divided into overlapping windows" in note for note in result.notes)

    def test_from_end_to_end(self, alue_bench: CommandLine, tiny_bert: Path, own_store: str) -> None:
        place = ("--tracking-uri", own_store, "--experiment", "ner")
        run = ("run", "-t", "arabicner", "--sample", "-m", tiny_bert, *place, "-s", "full")
        settings = ("--epochs", "1", "--limit-train", "40", "--limit-eval", "30", "--batch-size", "8")
        ended = alue_bench(
            *run, *settings, "-s", "bottom1", "--seeds", "2", "--class-weights", "balanced", "--keep", "best"
        )
        assert ended.code == 0, ended.everything
        assert "f1_micro" in ended.out
        assert "task arabicner: no score of TF-IDF" in " ".join(ended.everything.split())
        kept = " ".join(ended.everything.split())
        assert "alue-bench predict" in kept
        assert "not kept" not in kept
        compared = alue_bench("compare", *place, "--metric", "f1_class_PERS")
        assert compared.code == 0, compared.everything
        page = alue_bench("report", *place, "-o", "page.html")
        assert page.code == 0, page.everything
        assert "entity type" in Path("page.html").read_text()

    def test_tune_a_learning_rate(self, alue_bench: CommandLine, tiny_bert: Path, own_store: str) -> None:
        run = ("run", "-t", "arabicner", "--sample", "-m", tiny_bert, "--tracking-uri", own_store, "-s", "head-only")
        small = ("--epochs", "1", "--limit-train", "24", "--limit-eval", "16", "--tune", "lr=1e-3,3e-3")
        ended = alue_bench(*run, *small)
        assert ended.code == 0, ended.everything
        assert "Chosen on dev" in ended.everything
        assert "Test scores of tuned strategies" in ended.everything


class TestKeptModel:
    @pytest.mark.parametrize("architecture", ["bert", "roberta"])
    def test_predicts_what_its_run_predicted(self, architecture: str, plan_runs: Any, tmp_path: Path) -> None:
        import mlflow

        save_tiny_model(architecture, tmp_path / "lively", initializer_range=0.3)  # else all words get one tag
        (planned,) = plan_runs("bottom1", model=tmp_path / "lively", hyper={"max_length": 16, "lr": 1e-4}).runs
        result, trained = execute(planned.spec, planned.inputs)
        folder = tmp_path / "kept"
        write_model_folder(folder, FinishedRun("0" * 32, planned.spec, planned.inputs, trained, result))
        rows, recorded = planned.inputs.rows.splits["test"].examples, result.predictions.predicted
        texts = [row.text for row in rows]
        model = KeptModel(folder, device="cpu")
        assert len({tag for cell in recorded for tag in str(cell).split()}) > 1  # else any constant would do
        assert [" ".join(tags) for tags in model.predict(texts)] == recorded
        assert model.scores(texts).shape == (sum(len(row.words or ()) for row in rows), len(model.labels))
        served = mlflow.pyfunc.load_model(str(folder)).predict(pd.DataFrame({"text": texts}))
        assert served["prediction"].tolist() == recorded
        assert list(served) == ["prediction"]

        pd.DataFrame({"n": range(len(texts)), "s": texts}).to_csv(tmp_path / "in.csv", index=False)
        (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in texts))
        lines = ["\n".join(f"{word}\t_" for word in row.words or ()) for row in rows]
        (tmp_path / "in.conll").write_text("-DOCSTART- _\n\n" + "\n\n\n".join(lines))
        tagged = "".join(
            "".join(f"{word} {tag}\n" for word, tag in zip(row.words or (), str(cell).split(" "), strict=True)) + "\n"
            for row, cell in zip(rows, recorded, strict=True)
        )
        for source, text in (("in.csv", "s"), ("in.txt", None), ("in.conll", None)):
            for kind in ("csv", "txt", "conll"):
                out = tmp_path / f"out.{kind}"
                request = PredictionRequest(source=tmp_path / source, output=str(out), text=text, overwrite=True)
                predict_file(model, request)
                if kind == "csv":
                    assert pd.read_csv(out)["prediction"].tolist() == recorded
                else:
                    assert out.read_text() == (tagged if kind == "conll" else "".join(f"{c}\n" for c in recorded))
        refused = PredictionRequest(source=tmp_path / "in.txt", output=str(tmp_path / "x.csv"), scores=True)
        with pytest.raises(UsageError, match="leave --scores out"):
            predict_file(model, refused)


DOCS = Path(__file__).parents[1] / "docs"


def block(page: str, language: str, words: str) -> str:
    """The one code block of a page that contains the words."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    (one,) = (content for content in found if words in content)
    return str(one)


class TestGuide:
    def test_declares_a_task_in_less_than_twenty_lines_of_code(self, tmp_path: Path) -> None:
        code, sample = block("plugins.md", "python", "TaggedColumns("), block("plugins.md", "text", "Salma B-PER")
        assert len([line for line in code.splitlines() if line]) < 20
        (tmp_path / "sample" / "travel").mkdir(parents=True)
        for name, towns in (("train", ("New York", "Old Cairo", "El Jadida")), ("test", ("San Juan",))):
            written = [sample.replace("New B", f"{a} B").replace("York I", f"{b} I") for a, b in map(str.split, towns)]
            written += [f"Abu B-PER\nSaid I-PER\nslept O\nin O\n{name} O\n"]
            (tmp_path / "sample" / "travel" / f"{name}.txt").write_text("\n".join(written))
        namespace: dict[str, Any] = {"__file__": str(tmp_path / "task.py")}
        exec(code, namespace)
        check_task(namespace["TASK"])

    def test_has_a_task_file(self, tmp_path: Path) -> None:
        file = tmp_path / "travel.task.toml"
        file.write_text(block("your-own-data.md", "toml", 'kind = "tokens"'))
        (tmp_path / "travel.txt").write_text("-DOCSTART- O\n\nAli B-PER\n\nOslo B-LOC\n\nno O\n\nyes O\n\nwhy O\n")
        (tmp_path / "travel-2024.jsonl").write_text('{"tokens": ["New", "York"], "ner_tags": [3, 4]}\n')
        rows = load_rows(
            read_task_file(file), DataFolder(tmp_path, "real"), drop_bad=False, limit_train=None, limit_eval=None
        ).splits
        assert {name: len(part.examples) for name, part in rows.items()} == {"train": 4, "dev": 1, "test": 1}
        assert rows["test"].examples[0].target == ("B-LOC", "I-LOC")
        file.write_text(file.read_text().replace('document = "-DOCSTART-"', "header = true"))
        with pytest.raises(UsageError, match="header says nothing"):
            read_task_file(file)
        file.write_text(block("your-own-data.md", "toml", 'kind = "tokens"').replace("IOB2", "IOB3"))
        with pytest.raises(UsageError, match="IOB3"):
            read_task_file(file)
