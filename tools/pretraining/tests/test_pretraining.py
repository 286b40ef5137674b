"""Tests of pre-training with made-up text and tiny models: ``pytest tools/pretraining/tests``."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForPreTraining,
)

from tools.pretraining import checkpoint as checkpoints
from tools.pretraining import recipe as recipes
from tools.pretraining import tokenization
from tools.pretraining.corpus import Counts, Overlap, clean, with_mentions
from tools.pretraining.export import export
from tools.pretraining.initialise import split, transplant
from tools.pretraining.masking import mask_words
from tools.pretraining.model import LeanModel, SequenceHeads, new_model, stacked
from tools.pretraining.prepare import HELD_OUT_PIECES, continues, encode, held_out_start
from tools.pretraining.recipe import Recipe, Stage, annealing, ending
from tools.pretraining.relations import Relation, related, retold
from tools.pretraining.sampling import NO_LABEL, Batch, Stream, pair
from tools.pretraining.train import Run, Text

TEXT = """
كتب الولد رسالة طويلة الى صديقه في المدينة البعيدة قبل سفره
ثم عاد ليقرا كتابا جديدا عن البحر والسماء
"""
WORDS = TEXT.split()


def make_lines(count: int) -> list[str]:
    """Return `count` lines of random words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(5, 20))) for _ in range(count)]


@pytest.fixture(scope="module")
def text() -> Text:
    """Return a prepared text with four small sources."""
    lines = make_lines(400)
    tokenizer = tokenization.learn(lines, 120)
    streams = {name: encode(tokenizer, lines) for name in ("books", "news", "posts", "dialect")}
    return Text(tokenizer, streams, {"books": streams["books"][:1000]}, continues(tokenizer))


@pytest.fixture
def recipe() -> Recipe:
    """Return a recipe that trains two layers for two steps, and four layers afterwards."""
    stages = (Stage(2, 256), Stage(4, 1e9, {32: 0.5, 64: 0.5}))
    return Recipe(stages, hidden=64, batch_tokens=128, warmup_tokens=256)


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("مُحَمَّـــد", "محمد"),
        ("إلى آسف أهلا", "الي اسف اهلا"),
        ("ههههههه!!!! 1000", "هه!! 1000"),
        ("٢٠١٦ ۱۲", "2016 12"),
        ("@USER: @someone_1", "user : user"),
        ("URL https://t.co/xyz www.a.b/c", "url url url"),
        ("سطر<LF>سطر", "سطر سطر"),
        ("👍🏻 ❤️", "👍 ❤"),
        ("ﻻ", "لا"),
        ("CURL", "curl"),
    ],
)
def test_normalisation(raw: str, normal: str) -> None:
    assert " ".join(tokenization.normaliser().normalize_str(raw).split()) == normal


def test_each_emoji_is_a_word_of_its_own() -> None:
    pieces = tokenization.untrained().pre_tokenizer.pre_tokenize_str("😂😂حب😍")
    assert [piece for piece, _ in pieces] == ["😂", "😂", "حب", "😍"]


def test_normalisation_survives_saving(text: Text, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    text.tokenizer.save(str(path))
    loaded = Tokenizer.from_file(str(path))
    assert loaded.encode("كَتَبَ الولد", "رسالة").ids == text.tokenizer.encode("كتب الولد", "رسالة").ids
    assert set(loaded.encode("كتب", "رسالة").type_ids) == {0, 1}


def test_lines_that_overlap_a_task_are_dropped() -> None:
    lines = ["هذا نص من المهمة!", " ".join(WORDS), "سطر اخر لا يشبه شيئا", "سطر آخر لا يشبه شيئا", "قصير"]
    counts = Counts()
    overlap = Overlap(["هذا نص من المهمة", "مقدمة " + " ".join(WORDS[3:11]) + " خاتمة"])
    assert list(clean(lines, overlap, counts)) == ["سطر اخر لا يشبه شيئا"]
    assert counts == Counts(read=5, short=1, repeated=1, overlapping=2, kept=1)


def test_mentions_and_links_are_put_back_around_lines() -> None:
    lines = list(with_mentions(["نص"] * 1000))
    assert lines == list(with_mentions(["نص"] * 1000))
    assert all("نص" in line for line in lines)
    assert 200 < sum("@USER" in line for line in lines) < 300
    assert 120 < sum(line.endswith(" URL") for line in lines) < 210


def test_held_out_lines_are_the_last_that_fit(text: Text) -> None:
    lines = make_lines(3000)
    first = held_out_start(text.tokenizer, lines)
    assert len(encode(text.tokenizer, lines[first:])) <= HELD_OUT_PIECES
    assert len(encode(text.tokenizer, lines[first - 1 :])) > HELD_OUT_PIECES


def test_words_are_masked_whole_and_special_pieces_never() -> None:
    flags = np.array([False] * 10 + [True] * 10)
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 20, (200, 32))
    ids[:, 0] = tokenization.CLS
    _, chosen = mask_words(ids, flags, 0.2, rng)
    assert not chosen[:, 0].any()
    assert 0.15 < chosen[:, 1:].mean() < 0.25
    inside = flags[ids[:, 2:]]
    assert (chosen[:, 2:] == chosen[:, 1:-1])[inside & (ids[:, 1:-1] >= 5)].all()


def test_batches_are_full_and_a_function_of_the_step(text: Text, recipe: Recipe) -> None:
    first, again = (text.sampler(recipe).batch(7, 32, 64) for _ in range(2))
    assert np.array_equal(first.ids, again.ids)
    assert (first.targets[:, 0] == tokenization.CLS).all()
    assert (first.targets[:, -1] == tokenization.SEP).all()
    paired = first.relations != NO_LABEL
    assert 0 < paired.sum() < 32
    assert (first.types.max(1) == paired).all()
    for row, types in zip(first.targets[paired], first.types[paired], strict=True):
        assert row[np.argmax(types) - 1] == tokenization.SEP


def test_the_lean_forward_equals_the_standard_one() -> None:
    model = new_model(50, 3, 64, seed=0).eval()
    ids = torch.randint(5, 50, (4, 16))
    types = torch.randint(0, 2, (4, 16))
    wanted = torch.tensor([3, 17, 40, 63])
    words, pooled = LeanModel(model, torch.float32).forward(ids, types, wanted)
    standard = model(input_ids=ids, token_type_ids=types)
    assert torch.allclose(words, standard.prediction_logits.flatten(0, 1)[wanted], atol=1e-5)
    assert torch.allclose(model.cls.seq_relationship(pooled), standard.seq_relationship_logits, atol=1e-5)


def test_a_bag_shares_one_among_the_different_pieces_of_a_row() -> None:
    targets = np.array([[tokenization.CLS, 7, 9, 7, tokenization.SEP], [tokenization.CLS, 8, 8, 8, tokenization.SEP]])
    batch = Batch(targets, targets * 0, targets, targets > 5, np.zeros(2, np.int64))
    assert batch.bags().tolist() == [[0, 0.5, 0.5, 0, 0], [0, 1, 0, 0, 0]]


def test_the_bag_loss_is_least_where_the_pooled_state_tells_the_text() -> None:
    torch.manual_seed(0)
    heads, decoder = SequenceHeads(8, 20), torch.nn.Linear(8, 20)
    pooled = torch.randn(3, 8)
    ids, shares = torch.tensor([[2, 7, 9, 3], [2, 5, 5, 3], [2, 11, 12, 3]]), torch.zeros(3, 4)
    shares[:, 1] = shares[:, 2] = 0.5
    optimiser = torch.optim.Adam([*heads.parameters(), decoder.weight], lr=0.05)
    for _ in range(300):
        loss = heads.bag_loss(pooled, decoder, ids, shares)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    # The least possible loss is log 2 for the two rows with two pieces, and 0 for the row with one.
    assert float(loss.detach()) == pytest.approx(2 / 3 * np.log(2), abs=0.05)
    assert float(heads.bag_loss(pooled.flip(0), decoder, ids, shares).detach()) > 3
    assert decoder.bias.grad is None  # it is trained only by the masked-word loss


COUNTING = np.arange(5, 5005, dtype=np.uint16)
WHOLE = np.zeros(5005, bool)


def elsewhere(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return distinct random pieces from 4000 to 4999, which do not occur at the start of `COUNTING`."""
    return rng.choice(np.arange(4000, 5000, dtype=np.uint16), size, replace=False)


@pytest.mark.parametrize(("size", "parts"), [(30, 1), (15, 2)])
def test_a_segment_is_made_of_the_words_its_relation_says(size: int, parts: int) -> None:
    rng = np.random.default_rng(0)
    shares: dict[Relation, list[float]] = {relation: [] for relation in Relation}
    for _ in range(200):
        text = COUNTING[: size * parts]
        for relation in Relation:
            segment = related(text, size, relation, elsewhere, WHOLE, rng)
            assert len(segment) == size
            shares[relation].append(float(np.isin(segment, text).mean()))
    assert set(shares[Relation.SAME]) == {1.0}
    assert set(shares[Relation.OTHER]) == {0.0}
    assert 0.3 <= min(shares[Relation.ALTERED]) < 0.4
    assert 0.6 < max(shares[Relation.ALTERED]) <= 0.7


def test_words_stay_whole_where_a_text_is_told_again() -> None:
    words = [np.array(word, np.uint16) for word in ([5, 60, 61], [6, 70], [7], [8, 80], [9])]
    rng = np.random.default_rng(0)
    orders = set()
    for _ in range(100):
        kept = retold(words, 6, rng)
        assert sum(map(len, kept)) <= 6
        assert {tuple(word) for word in kept} < {tuple(word) for word in words}
        orders.add(tuple(word[0] for word in kept) == tuple(sorted(word[0] for word in kept)))
    assert orders == {True, False}


@pytest.mark.parametrize("relation", Relation)
def test_pairs_are_full_and_in_the_relation_asked_for(relation: Relation) -> None:
    pieces = COUNTING.copy()
    pieces[20::20] = tokenization.SEP
    stream = Stream(pieces, WHOLE)
    rng = np.random.default_rng(0)
    longer, shares = set(), []
    for _ in range(100):
        ids, types = pair(stream, 64, relation, rng)
        middle = int(np.argmax(types))
        assert len(ids) == len(types) == 64
        assert np.flatnonzero(ids == tokenization.SEP).tolist() == [middle - 1, 63]
        first, second = ids[1 : middle - 1], ids[middle:-1]
        longer.add(len(first) > len(second))
        shares.append(np.isin(min(first, second, key=len), max(first, second, key=len)).mean())
    assert longer == {True, False}
    low, high = {Relation.SAME: (0.99, 1), Relation.ALTERED: (0.4, 0.6), Relation.OTHER: (0, 0.1)}[relation]
    assert low <= np.mean(shares) <= high


def exported_run(text: Text, recipe: Recipe, folder: Path) -> Run:
    """Train one step, export the model to the subfolder `out`, and return the run."""
    run = Run(text, recipe, folder, "cpu")
    run.start(None)
    run.advance()
    run.checkpoint(None).save(folder)
    text.tokenizer.save(str(folder / "tokenizer.json"))
    export(folder, folder / "out")
    return run


def test_a_checkpoint_with_the_same_pieces_is_taken_whole(text: Text, recipe: Recipe, tmp_path: Path) -> None:
    run = exported_run(text, recipe, tmp_path)
    again = transplant(tmp_path / "out", text.tokenizer, np.zeros(text.tokenizer.get_vocab_size()), seed=1)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, run.average[name].half().float()), name


def test_stacking_repeats_the_layers() -> None:
    model = new_model(50, 2, 64, seed=0)
    deeper = stacked(model, 4, seed=1)
    below, above = deeper.bert.encoder.layer[1], deeper.bert.encoder.layer[3]
    for one, other in itertools.pairwise([model.bert.encoder.layer[1], below, above]):
        assert torch.equal(one.output.dense.weight, other.output.dense.weight)


def test_a_resumed_run_ends_with_the_same_weights(text: Text, recipe: Recipe, tmp_path: Path) -> None:
    whole = Run(text, recipe, tmp_path, "cpu")
    whole.start(None)
    parts = Run(text, recipe, tmp_path, "cpu")
    parts.start(None)
    for _ in range(6):
        whole.advance()
    for _ in range(2):
        for _ in range(3):
            parts.advance()
        saved = checkpoints.load(parts.checkpoint(None).save(tmp_path))
        parts = Run(text, Recipe.from_dict(saved.recipe), tmp_path, "cpu")
        parts.resume(saved)
    assert whole.model.config.num_hidden_layers == parts.model.config.num_hidden_layers == 4
    for states in (
        (whole.model.state_dict(), parts.model.state_dict()),
        (whole.heads.state_dict(), parts.heads.state_dict()),
        (whole.average, parts.average),
    ):
        for one, other in zip(*(state.values() for state in states), strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_a_checkpoint_of_another_version_says_so(tmp_path: Path) -> None:
    torch.save({"step": 1, "model": {}}, tmp_path / "checkpoint-00000001.pt")
    with pytest.raises(SystemExit, match="another version of the recipe"):
        checkpoints.load(tmp_path / "checkpoint-00000001.pt")


def test_a_tokenizer_of_another_kind_is_not_taken(text: Text, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    text.tokenizer.save(str(path))
    assert tokenization.load(path).get_vocab() == text.tokenizer.get_vocab()
    path.write_text(path.read_text(encoding="utf-8").replace("[MASK]", "<mask>"), encoding="utf-8")
    with pytest.raises(SystemExit, match="has the pieces"):
        tokenization.load(path)


def test_what_is_exported_loads_offline(text: Text, recipe: Recipe, tmp_path: Path) -> None:
    exported_run(text, recipe, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("كَتَبَ", "الى")["input_ids"] == text.tokenizer.encode("كتب", "الي").ids
    encoded = tokenizer("كتب الولد", "رسالة", return_tensors="pt")
    kept = BertForPreTraining.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert torch.allclose(model(**encoded).logits, kept(**encoded).prediction_logits, atol=1e-4)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", num_labels=3)
    assert torch.equal(classifier.bert.pooler.dense.weight.float(), kept.bert.pooler.dense.weight)


def test_the_schedule_is_constant_until_it_falls() -> None:
    base = Recipe((Stage(2, 100), Stage(4, 1000)), warmup_tokens=10)
    assert base.lr(0, 5) == pytest.approx(base.peak_lr / 2)
    assert base.lr(900, 800) == base.peak_lr
    last = annealing(base, 500, 200)
    assert last.tokens == 700
    assert last.lr(500, 400) == base.peak_lr
    assert last.lr(700, 600) == 0
    assert last.lr(550, 450) > last.lr(650, 550) > 0


@pytest.mark.parametrize("tokens", [50, 100, 500, 5000])
def test_a_run_can_be_ended_anywhere(tokens: float) -> None:
    assert ending(Recipe((Stage(2, 100), Stage(4, 1000))), tokens).tokens == tokens


def test_pieces_are_split_by_the_longest_match() -> None:
    vocabulary = {piece: number for number, piece in enumerate(["[PAD]", "[UNK]", "ab", "a", "##b", "##c", "##cc"])}
    assert split("abcc", vocabulary) == [2, 6]
    assert split("##bc", vocabulary) == [4, 5]
    assert split("xyz", vocabulary) == [1]


@pytest.mark.parametrize("chosen", [recipes.WARM, recipes.FRESH])
def test_recipes_survive_saving(chosen: Recipe) -> None:
    assert Recipe.from_dict(chosen.as_dict()) == chosen
