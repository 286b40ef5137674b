"""Span extraction: windows, targets, the loss, decoding, recorded answers, and runs from end to end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import alue_bench_tasks
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CommandLine
from hypothesis import given
from hypothesis import strategies as st
from test_resumption import assert_same, cut_off_at
from test_tagging import block, check_stored_outputs, tokenizer_of
from tiny_models import tiny_config

from alue_bench import Answers, Example, FreezePlan, Labels
from alue_bench.contract.errors import UsageError
from alue_bench.contract.strategy import EncoderShape
from alue_bench.contract.task_file import read_task_file
from alue_bench.data.batches import Padding, collate
from alue_bench.data.location import DataFolder
from alue_bench.data.spans import (
    ENDS,
    MAY_END,
    MAY_START,
    STARTS,
    as_targets,
    encoded_questions,
    gold_answers,
    normalised_questions,
    word_spans,
)
from alue_bench.data.splits import load_rows
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.data.words import IGNORED
from alue_bench.deployment.kept_model import KeptModel
from alue_bench.deployment.model_folder import FinishedRun, write_model_folder
from alue_bench.deployment.predicting import PredictionRequest, predict_file
from alue_bench.evaluation.predictions import decide, predictions_table, targets_of
from alue_bench.evaluation.spans import MAX_WORDS, best_answers, first_words, score_of_answer
from alue_bench.measure.flops import training_flops
from alue_bench.planning.build import Plan
from alue_bench.running.run import execute
from alue_bench.running.short_training import mean_loss
from alue_bench.tracking.prediction_files import write_predictions
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.class_weights import check_class_weights
from alue_bench.training.device.precision import Device
from alue_bench.training.device.resident import ResidentSplit
from alue_bench.training.forward import LibraryForward, choose_forward
from alue_bench.training.freezing import apply_plan, training_mode
from alue_bench.training.inference import predict_logits
from alue_bench.training.optimizer import loss_function
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.pretrained.loading import empty_model, random_model

SPAN, SPAN_OR_NONE = Labels.span(), Labels.span(no_answer=True)
CPU = Device("cpu", "fp32")
CONTEXT = "salma lives in cairo, and omar in oslo (the town). omar is old."


def question(text: str, answer: str | None, context: str = CONTEXT, number: int = 0) -> Example:
    start = context.find(answer) if answer else 0
    target = Answers((answer,), (start,), (start + len(answer),)) if answer else Answers()
    return Example(str(number), context, text, target, 1)


ROWS = [
    question("where is salma", "cairo"),
    question("who is old", "omar", number=1),
    question("where is ali", None, number=2),
    question("who", "the old man", "the old man and the sea and the forty thieves and the old town", 3),
]


def windows_of(rows: list[Example], architecture: str, most: int) -> dict[str, list[Any]]:
    made = encoded_questions(normalised_questions(rows, str), tokenizer_of(architecture), most)
    return dict(made.to_pydict())


def tokenized(rows: list[Example], architecture: str = "bert", most: int = 40) -> TokenizedSplit:
    table = encoded_questions(normalised_questions(rows, str), tokenizer_of(architecture), most)
    targets, places = as_targets(rows, table)
    ids, types = (table.to_pydict().get(name) for name in ("input_ids", "token_type_ids"))
    return TokenizedSplit(
        input_ids=torch.tensor([token for one in ids for token in one]),
        token_type_ids=None if types is None else torch.tensor([kind for one in types for kind in one]),
        offsets=torch.tensor([0, *accumulate(map(len, ids))]),
        targets=targets,
        ids=[row.id for row in rows],
        truncated=0,
        spans=places,
    )


def perfect_logits(split: TokenizedSplit) -> Any:
    """Logits that are highest at the gold answers, but in windows without the answer lower at every token."""
    marks = split.known_targets.numpy()
    logits = np.stack([(marks & mark > 0).astype("float32") for mark in (STARTS, ENDS)], axis=1)
    assert split.spans is not None
    logits[split.spans.nulls] *= 0.5
    return logits


class TestWords:
    def test_are_divided_at_white_space_and_punctuation(self) -> None:
        text = "«قال» (3.5٪)،  وَمَضَى\n«»"
        assert [text[b:e] for b, e in word_spans(text)] == [*"«", "قال", *"»(", "3", ".", "5", *"٪)،", "وَمَضَى", *"«»"]

    def test_keep_their_places_under_any_normalisation(self) -> None:
        def clean(text: str) -> str:
            return "[url]" if text.startswith("http://") else text.replace("-", "").replace(",", " , ").upper()

        context = "see http://x.y/z-1 or  non-stop, ok -- end"
        (places,) = normalised_questions([question("q", None, context)], clean)["places"]
        (whole,) = normalised_questions([question("q", None, context)], clean)["context"]
        pairs = [(whole[a:b], context[c:d]) for a, b, c, d in places]
        assert pairs == [
            ("SEE", "see"), ("[url]", "http://x.y/z-1"), ("OR", "or"), ("NON", "non"), ("STOP", "stop"), (",", ","),
            ("OK", "ok"), ("END", "end"),
        ]  # fmt: skip


class TestWindows:
    @pytest.mark.parametrize("architecture", ["bert", "roberta", "bytes"])
    def test_of_one_hold_the_tokens_of_the_pair(self, architecture: str) -> None:
        tokenizer = tokenizer_of(architecture)
        rows = [question("who is old", "omar")]
        made = windows_of(rows, architecture, 500)
        whole = tokenizer("who is old", CONTEXT)
        assert made["input_ids"] == [whole["input_ids"]]
        assert made.get("token_type_ids") == ([whole["token_type_ids"]] if "token_type_ids" in whole else None)
        for first, last, begin, end in zip(
            *(made[name][0] for name in ("firsts", "lasts", "begins", "ends")), strict=True
        ):
            said = (
                tokenizer.decode(made["input_ids"][0][first : last + 1]).replace("##", "").replace(" ", "").strip("Ġ")
            )
            assert said in (CONTEXT[begin:end], tokenizer.unk_token)

    @given(words=st.lists(st.sampled_from(["ab", "omar", "old", ",", "abcdefg"]), min_size=1, max_size=40),
           most=st.integers(12, 30))  # fmt: skip
    def test_show_every_answer_that_fits_and_count_the_rest(self, words: list[str], most: int) -> None:
        context = " ".join(words)
        rows = [question("who is it", None, context)]
        columns = windows_of(rows, "bert", most)
        assert max(map(len, columns["input_ids"])) <= most
        shown = {pair for begins, ends in zip(columns["begins"], columns["ends"], strict=True)
                 for pair in zip(begins, ends, strict=True)}  # fmt: skip
        assert len(word_spans(context)) - len(shown) == sum(columns["unread"])
        for begins in columns["begins"]:
            assert begins == sorted(begins)
        if len(columns["input_ids"]) > 1:
            assert {len(ids) for ids in columns["input_ids"]} == {most}

    def test_cut_no_more_than_half_for_a_question(self) -> None:
        rows = [question("who is old and where is omar and who lives in the town", "omar")]
        split = tokenized(rows, most=20)
        assert split.spans is not None
        assert (split.spans.cut, split.spans.windowed, split.spans.unlearnt) == (1, 1, 0)
        assert max(split.lengths) <= 20

    def test_point_at_the_answer_or_at_the_null_candidate(self) -> None:
        split = tokenized(ROWS, most=22)
        spans = split.spans
        assert spans is not None
        assert spans.windowed
        assert spans.unlearnt == 0
        marks = split.known_targets.numpy()
        for window in range(len(split)):
            inside = split.targets[split.offsets[window] : split.offsets[window + 1]]
            known = inside[inside != IGNORED]
            assert [int((known & mark > 0).sum()) for mark in (STARTS, ENDS)] == [1, 1]
            assert not ((known & STARTS > 0) & (known & MAY_START == 0)).any()
            assert not ((known & ENDS > 0) & (known & MAY_END == 0)).any()
        answers = best_answers(perfect_logits(split), spans, no_answer=True)
        assert answers.tolist() == ["cairo", "omar", "", "the old man"]
        assert (marks[spans.nulls] & (MAY_START | MAY_END) == MAY_START | MAY_END).all()


def decided_by_hand(logits: Any, split: TokenizedSplit, *, no_answer: bool) -> list[str]:
    """The best span by comparing all pairs of words in all windows, one after the other."""
    spans = split.spans
    assert spans is not None
    answers = []
    for number, context in enumerate(spans.contexts):
        best, answer, null = -np.inf, "", np.inf
        for window in np.nonzero(spans.questions == number)[0]:
            words = np.nonzero(spans.windows == window)[0]
            null = min(null, logits[spans.nulls[window]].sum())
            for place, first in enumerate(words):
                for last in words[place : place + MAX_WORDS]:
                    score = logits[spans.firsts[first], 0] + logits[spans.lasts[last], 1]
                    if score > best:
                        best, answer = score, context[spans.begins[first] : spans.ends[last]]
        answers.append("" if no_answer and null > best else answer)
    return answers


class TestAnswers:
    @given(seed=st.integers(0, 100), no_answer=st.booleans(), most=st.sampled_from([22, 60]))
    def test_are_the_best_of_all_spans(self, seed: int, no_answer: bool, most: int) -> None:
        split = tokenized([*ROWS, question("q", None, "a " * 50 + "b", 4)], most=most)
        assert split.spans is not None
        logits = np.random.default_rng(seed).normal(size=(len(split.known_targets), 2)).astype("float32")
        answers = best_answers(logits, split.spans, no_answer=no_answer)
        assert answers.tolist() == decided_by_hand(logits, split, no_answer=no_answer)
        assert all(len(word_spans(answer)) <= MAX_WORDS for answer in answers)
        for number, answer in enumerate(answers):
            assert answer in split.spans.contexts[number]
            scores = [score_of_answer(logits, split.spans, number, text) for text in (answer, "old", "nowhere")]
            assert scores[0] >= scores[1] or answer == ""
            assert scores[2] == -np.inf

    def test_are_recorded_with_their_scores_and_read_again(self, tmp_path: Path) -> None:
        split = tokenized(ROWS)
        logits = perfect_logits(split)
        gold = gold_answers(ROWS)
        assert [one.context for one in gold] == [0, 0, 0, 1]
        table = predictions_table(split.ids, gold, logits, SPAN_OR_NONE, split.decoding)
        write_predictions(tmp_path / "predictions.csv", table)
        header, first = (tmp_path / "predictions.csv").read_text().splitlines()[:2]
        assert header == (
            "id,gold,prediction,answer_f1,answer_exact_match,answer_f1_arabic,answer_exact_match_arabic,answer_context"
        )
        assert first == '0,"[""cairo""]",cairo,1,1,1,1,0'
        frame = pd.read_csv(tmp_path / "predictions.csv", dtype={"id": "str"}, keep_default_na=False)
        again = targets_of(frame)
        assert again.labels == SPAN_OR_NONE
        assert again.gold.tolist() == gold.tolist()
        assert again.predicted.tolist() == decide(logits, SPAN_OR_NONE, split.decoding).tolist()

    def test_of_the_trivial_baseline_are_the_first_words(self) -> None:
        train = [question("q", one, "a b, c d e") for one in ("a", "b, c", "c d", None)]
        assert first_words(train, [question("q", "z", "  x (y) z")]).tolist() == ["x"]
        assert first_words(train[1:3], [question("q", "z", "  x (y) z")]).tolist() == ["x ("]
        assert first_words(train[3:], ROWS[:1]).tolist() == [""]


def model_of(architecture: str, **options: Any) -> EncoderStack:
    config = tiny_config(architecture, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options)
    return view_as_stack(random_model(config, SPAN, seed=1))


class TestHead:
    @pytest.mark.parametrize(("architecture", "frozen"), [("bert", 0), ("xlm-roberta", 2), ("electra", 4)])
    def test_of_the_lean_layers_equals_the_librarys(self, architecture: str, frozen: int) -> None:
        split = tokenized(ROWS, architecture)
        plan = FreezePlan(EncoderShape(4), frozenset(range(frozen)), embeddings=frozen > 0)
        outcomes = []
        for way in (LibraryForward, lambda stack: choose_forward(stack, torch.float32)):
            stack = model_of(architecture)
            apply_plan(stack, plan)
            training_mode(stack, plan)
            batch = collate(split, np.arange(len(split)), Padding(int(stack.model.config.pad_token_id)))  # type: ignore[arg-type,union-attr]
            forward = way(stack)
            loss = loss_function(SPAN)(forward.logits(batch), batch.targets)
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

    def test_loses_the_same_in_one_batch_and_in_parts(self) -> None:
        split, stack = tokenized(ROWS, most=22), model_of("bert")
        stack.model.eval()
        forward, loss_of = choose_forward(stack, torch.float32), loss_function(SPAN)
        whole = collate(split, np.arange(len(split)), Padding(0))
        draw = ResidentSplit(split, Padding(0), CPU).ungathered_batch(torch.arange(len(split)))
        assert draw.predictions == whole.predictions == len(split) > len(ROWS)
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
        # Two cross-entropies among the candidates of each window, by hand.
        by_hand = []
        for place in range(len(split)):
            batch = collate(split, np.array([place]), Padding(0))
            for output, (may, gold) in enumerate(((MAY_START, STARTS), (MAY_END, ENDS))):
                marks = batch.targets[0].clamp(min=0)
                among = forward.logits(batch)[0, :, output][marks & may > 0]
                right = int((marks[marks & may > 0] & gold > 0).nonzero())
                by_hand.append(torch.nn.functional.cross_entropy(among, torch.tensor(right)))
        torch.testing.assert_close(torch.stack(by_hand).mean(), loss)
        logits = predict_logits(stack, forward, Examples(split), device=CPU, padding=Padding(0))
        assert mean_loss(logits, split, SPAN) == pytest.approx(loss.item(), rel=1e-5)

    def test_answers_alone_and_in_batches(self) -> None:
        split, stack = tokenized(ROWS * 5, most=22), model_of("bert")
        stack.model.eval()
        forward = choose_forward(stack, torch.float32)
        logits = predict_logits(stack, forward, Examples(split), device=CPU, padding=Padding(0))
        alone = []
        with torch.no_grad():
            for place in range(len(split)):
                batch = collate(split, np.array([place]), Padding(0))
                alone.append(forward.logits(batch)[batch.targets != IGNORED])
        np.testing.assert_allclose(logits, torch.cat(alone).numpy(), atol=1e-5)

    def test_learns_to_answer(self) -> None:
        split, stack = tokenized(ROWS, most=22), model_of("bert", layers=2)
        stack.model.train()
        forward, loss_of = choose_forward(stack, torch.float32), loss_function(SPAN_OR_NONE)
        optimiser = torch.optim.AdamW(stack.model.parameters(), lr=3e-3)
        batch = collate(split, np.arange(len(split)), Padding(0))
        for _ in range(200):
            optimiser.zero_grad()
            loss_of(forward.logits(batch), batch.targets).backward()
            optimiser.step()
        logits = predict_logits(stack, forward, Examples(split), device=CPU, padding=Padding(0))
        assert decide(logits, SPAN_OR_NONE, split.decoding).tolist() == ["cairo", "omar", "", "the old man"]

    def test_costs_what_torch_counts(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        stack = view_as_stack(random_model(tiny_config("bert", attn_implementation="eager"), SPAN, seed=0).eval())
        plan = FreezePlan(EncoderShape(4), frozenset(range(3)), embeddings=True)
        apply_plan(stack, plan)
        ids = torch.randint(10, 60, (4, 24))
        with FlopCounterMode(display=False) as counter:
            stack.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
        empty = view_as_stack(empty_model(tiny_config("bert"), SPAN))
        counted = training_flops(empty, plan, np.full(4, 24), epochs=1, batch_size=4)
        assert counted == pytest.approx(counter.get_total_flops(), rel=1e-9)


@pytest.fixture
def plan_runs(plan_sample: Callable[..., Plan]) -> Callable[..., Plan]:
    return partial(plan_sample, "arcd", max_length=60)


class TestRuns:
    @pytest.mark.parametrize(("architecture", "strategy"), [("modernbert", "bottom2"), ("bert", "head-only")])
    def test_are_the_same_with_stored_outputs_of_frozen_layers(
        self, architecture: str, strategy: str, plan_runs: Any
    ) -> None:
        check_stored_outputs(plan_runs, architecture, strategy)

    def test_choose_layers_by_short_training_runs(self, plan_runs: Any) -> None:
        (planned,) = plan_runs("subtuning-1", hyper={"max_length": 40, "probe_rows": 10}).runs
        result, _ = execute(planned.spec, planned.inputs)
        assert [one.frozen for one in result.layer_scores].count(False) == 1

    def test_end_the_same_after_an_interruption(self, plan_runs: Any) -> None:
        (planned,) = plan_runs("bottom2", hyper={"epochs": 2, "max_length": 40}).runs
        alone = execute(planned.spec, planned.inputs)
        resumed = cut_off_at(planned, 2, alone[1].training.steps - 1)
        assert_same(resumed, alone)
        assert resumed[0].predictions.predicted == alone[0].predictions.predicted
        assert any("continued from step" in note for note in resumed[0].notes)

    def test_of_folds_keep_questions_about_a_text_together_and_note_windows(self, plan_runs: Any) -> None:
        plan = plan_runs("bottom2", folds=2, hyper={"max_length": 40})
        results = [execute(run.spec, run.inputs)[0] for run in plan.runs]
        assert sum(result.metrics["data/test_rows"] for result in results) == 24
        for run, result in zip(plan.runs, results, strict=True):
            assert any("were divided into overlapping windows" in note for note in result.notes)
            texts = [{row.text for row in run.inputs.rows.splits[name].examples} for name in ("train", "dev", "test")]
            assert len(set().union(*texts)) == sum(map(len, texts))

    def test_from_end_to_end(self, alue_bench: CommandLine, tiny_bert: Path, own_store: str) -> None:
        place = ("--tracking-uri", own_store, "--experiment", "rc")
        run = ("run", "-t", "arcd", "--sample", "-m", tiny_bert, *place, "-s", "full")
        settings = ("--epochs", "1", "--limit-train", "24", "--limit-eval", "20", "--batch-size", "8")
        refused = alue_bench(*run, *settings, "--class-weights", "balanced")
        assert refused.code == 2
        assert "extracts spans, which have no classes to weigh" in " ".join(refused.everything.split())
        ended = alue_bench(*run, *settings, "-s", "bottom1", "--seeds", "2", "--keep", "best")
        assert ended.code == 0, ended.everything
        said = " ".join(ended.everything.split())
        assert "arcd: f1" in said
        assert "which predicts no tags or spans" in said
        assert "alue-bench predict" in said
        assert "not kept" not in said
        compared = alue_bench("compare", *place, "--metric", "exact_match_arabic")
        assert compared.code == 0, compared.everything
        page = alue_bench("report", *place, "-o", "page.html")
        assert page.code == 0, page.everything
        assert "some words in common" in Path("page.html").read_text()
        elsewhere = alue_bench(*run, *settings, "--also-test", "oold")
        assert "task 'arcd' extracts spans; choose tasks with one" in " ".join(elsewhere.everything.split())


class TestKeptModel:
    def test_predicts_what_its_run_predicted(self, plan_runs: Any, tmp_path: Path) -> None:
        import mlflow

        (planned,) = plan_runs("bottom1", hyper={"max_length": 40}).runs
        result, trained = execute(planned.spec, planned.inputs)
        folder = tmp_path / "kept"
        write_model_folder(folder, FinishedRun("0" * 32, planned.spec, planned.inputs, trained, result))
        rows, recorded = planned.inputs.rows.splits["test"].examples, result.predictions.predicted
        texts, asked = [row.text for row in rows], [row.text_pair or "" for row in rows]
        assert "Answers a question (the second text) by a part" in (folder / "README.md").read_text()
        model = KeptModel(folder, device="cpu")
        assert len(set(recorded)) > 5  # else any constant would do
        assert all(answer in text for answer, text in zip(recorded, texts, strict=True))
        assert model.predict(texts, asked) == recorded
        with pytest.raises(UsageError, match="call predict"):
            model.scores(texts, asked)
        served = mlflow.pyfunc.load_model(str(folder)).predict(pd.DataFrame({"text": texts, "pair": asked}))
        assert served["prediction"].tolist() == recorded
        assert list(served) == ["prediction"]
        pd.DataFrame({"context": texts, "question": asked}).to_csv(tmp_path / "in.csv", index=False)
        request = PredictionRequest(
            source=tmp_path / "in.csv", output=str(tmp_path / "out.csv"), text="context", pair="question"
        )
        predict_file(model, request)
        assert pd.read_csv(tmp_path / "out.csv")["prediction"].tolist() == recorded


class TestRefusals:
    def test_of_class_weights_name_the_task(self) -> None:
        check_class_weights("none", SPAN, "q")
        with pytest.raises(UsageError, match=r"task 'q' extracts spans.*leave --class-weights out"):
            check_class_weights("start=2", SPAN, "q")

    def test_of_a_tokenizer_without_offsets_is_a_reason_in_the_plan(
        self, plan_runs: Any, tiny_bert: Path, tmp_path: Path
    ) -> None:
        from transformers import CanineTokenizer

        shutil.copytree(tiny_bert, tmp_path / "slow", ignore=shutil.ignore_patterns("*token*", "vocab*"))
        CanineTokenizer().save_pretrained(tmp_path / "slow")
        plan = plan_runs("full", model=tmp_path / "slow")
        assert not plan.runs
        assert "CanineTokenizer gives no character offsets" in plan.skipped[0].reason


class TestGuide:
    def test_has_a_task_file(self, tmp_path: Path) -> None:
        file = tmp_path / "town.task.toml"
        file.write_text(block("your-own-data.md", "toml", 'kind = "span"'))
        sample = Path(alue_bench_tasks.__file__).parent / "sample" / "arcd"
        shutil.copy(sample / "arcd-train.json", tmp_path / "questions.json")
        shutil.copy(sample / "arcd-test.json", tmp_path / "questions-2024.json")
        task = read_task_file(file)
        assert task.labels == SPAN_OR_NONE
        rows = load_rows(task, DataFolder(tmp_path, "real"), drop_bad=False, limit_train=None, limit_eval=None).splits
        assert {name: len(part.examples) for name, part in rows.items()} == {"train": 96, "dev": 24, "test": 72}
        for line, reason in {
            'labels = ["a", "b"]': "has no labels",
            "columns = { text = 0 }": "text says nothing about a file",
            'scheme = "IOB2"': "leave scheme out",
        }.items():
            file.write_text(line + "\n" + block("your-own-data.md", "toml", 'kind = "span"'))
            with pytest.raises(UsageError, match=reason):
                read_task_file(file)
        file.write_text(block("your-own-data.md", "toml", 'kind = "span"').replace(".json", ".csv"))
        with pytest.raises(UsageError, match=r"SQuAD's JSON \(.json\); convert it"):
            read_task_file(file)
        file.write_text(
            block("your-own-data.md", "toml", 'kind = "tokens"').replace("kind =", "no_answer = true\nkind =")
        )
        with pytest.raises(UsageError, match="leave no_answer out"):
            read_task_file(file)
