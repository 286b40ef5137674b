"""Batches: every example once an epoch, as many steps as plain shuffling, less padding, no place of its own."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alue_bench.data.batches import (
    JITTER,
    LEAST_JITTER,
    WINDOW,
    Padding,
    batches,
    collate,
    evaluation_order,
    round_up_length,
    steps_per_epoch,
    training_order,
)
from alue_bench.data.tokenization import TokenizedSplit

sizes = st.integers(1, 40)
some_lengths = st.lists(st.integers(1, 200), min_size=1, max_size=400).map(np.array)


def split_of(lengths: list[int], *, pairs: bool = False) -> TokenizedSplit:
    """Example i consists of the token 100 + i, so that it can be recognised; its target is i."""
    ids = torch.tensor([100 + i for i, length in enumerate(lengths) for _ in range(length)])
    return TokenizedSplit(
        input_ids=ids,
        token_type_ids=torch.ones_like(ids) if pairs else None,
        offsets=torch.tensor([0, *np.cumsum(lengths)]),
        targets=torch.arange(len(lengths)),
        ids=[str(i) for i in range(len(lengths))],
        truncated=0,
    )


def random_lengths(number: int, seed: int = 0) -> Any:
    """Skewed, as the lengths of texts are."""
    return np.random.default_rng(seed).lognormal(3, 0.7, number).astype(int) + 3


def padding(lengths: Any, order: list[Any]) -> int:
    return sum(int(lengths[batch].max() * len(batch) - lengths[batch].sum()) for batch in order)


class TestTrainingOrder:
    @given(lengths=some_lengths, batch_size=sizes, seed=st.integers(0, 9))
    def test_every_example_once_an_epoch(self, lengths: Any, batch_size: int, seed: int) -> None:
        order = training_order(lengths, batch_size, np.random.default_rng(seed))
        assert sorted(np.concatenate(order).tolist()) == list(range(len(lengths)))

    @given(lengths=some_lengths, batch_size=sizes)
    def test_steps_and_batch_sizes_are_those_of_plain_shuffling(self, lengths: Any, batch_size: int) -> None:
        sizes = sorted(len(batch) for batch in training_order(lengths, batch_size, np.random.default_rng(0)))
        full, rest = divmod(len(lengths), batch_size)
        assert sizes == sorted([batch_size] * full + [rest] * (rest > 0))
        assert len(sizes) == steps_per_epoch(len(lengths), batch_size)

    @given(lengths=some_lengths, batch_size=sizes, seed=st.integers(0, 9))
    def test_batches_may_ignore_the_lengths(self, lengths: Any, batch_size: int, seed: int) -> None:
        order = training_order(lengths, batch_size, np.random.default_rng(seed), by_length=False)
        assert np.concatenate(order).tolist() == np.random.default_rng(seed).permutation(len(lengths)).tolist()
        assert len(order) == steps_per_epoch(len(lengths), batch_size)
        assert {len(batch) for batch in order[:-1]} <= {batch_size}

    def test_more_than_a_window(self) -> None:
        lengths = random_lengths(WINDOW * 8 * 3 + 5)
        order = training_order(lengths, 8, np.random.default_rng(0))
        assert sorted(np.concatenate(order).tolist()) == list(range(len(lengths)))
        assert sorted(map(len, order))[0] == 5

    def test_the_seed_decides(self) -> None:
        lengths = random_lengths(300)

        def drawn(seed: int) -> list[list[int]]:
            return [batch.tolist() for batch in training_order(lengths, 16, np.random.default_rng(seed))]

        assert drawn(1) == drawn(1)
        assert drawn(1) != drawn(2)

    def test_two_epochs_differ(self) -> None:
        rng = np.random.default_rng(1)
        first, second = (training_order(random_lengths(300), 16, rng) for _ in range(2))
        assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]

    def test_padding_is_a_small_part_of_that_of_plain_shuffling(self) -> None:
        lengths, rng = random_lengths(4000), np.random.default_rng(3)
        plain = np.array_split(rng.permutation(len(lengths)), steps_per_epoch(len(lengths), 16))
        assert padding(lengths, training_order(lengths, 16, rng)) < 0.15 * padding(lengths, plain)

    @settings(max_examples=20)
    @given(seed=st.integers(0, 100))
    def test_padding_is_hardly_more_in_a_window_than_sorting_leaves(self, seed: int) -> None:
        lengths = random_lengths(160, seed)
        ordered = np.argsort(lengths)
        sorted_batches = [ordered[start : start + 16] for start in range(0, 160, 16)]
        order = training_order(lengths, 16, np.random.default_rng(seed))
        noise = np.maximum(LEAST_JITTER, JITTER * lengths).sum()
        assert padding(lengths, order) <= padding(lengths, sorted_batches) + noise

    def test_a_small_data_set_has_other_batches_in_every_epoch(self) -> None:
        lengths, rng = random_lengths(160), np.random.default_rng(7)  # ten full batches, all in one window
        epochs = [{frozenset(batch.tolist()) for batch in training_order(lengths, 16, rng)} for _ in range(30)]
        repeated = [len(epoch & following) / len(epoch) for epoch, following in pairwise(epochs)]
        assert np.mean(repeated) < 0.2


class TestNoPlaceOfItsOwn:
    """Over many epochs an example's length says nothing about when it is seen, or in which company."""

    EPOCHS, NUMBER, SIZE = 2000, 130, 16  # eight batches of 16 and one of 2
    LENGTHS = np.sort(random_lengths(NUMBER, seed=5))  # so that index is rank of length

    @pytest.fixture(scope="class")
    def epochs(self) -> list[list[Any]]:
        rng = np.random.default_rng(11)
        return [training_order(self.LENGTHS, self.SIZE, rng) for _ in range(self.EPOCHS)]

    def test_long_examples_come_as_early_as_short_ones(self, epochs: list[list[Any]]) -> None:
        mean_place = np.zeros(self.NUMBER)
        for order in epochs:
            for place, batch in enumerate(order):
                mean_place[batch] += place / self.EPOCHS
        # Nine places have a standard deviation of 2.6; over 2000 epochs the mean's is 0.06.
        assert np.abs(mean_place - 4).max() < 5 * 2.6 / np.sqrt(self.EPOCHS)

    def test_the_first_batch_holds_every_example_equally_often(self, epochs: list[list[Any]]) -> None:
        counts = np.bincount(np.concatenate([order[0] for order in epochs]), minlength=self.NUMBER)
        expected = self.EPOCHS / 9  # one of nine batches, whichever an example is in
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)

    def test_the_small_batch_holds_every_example_equally_often(self, epochs: list[list[Any]]) -> None:
        small = np.concatenate([batch for order in epochs for batch in order if len(batch) == 2])
        counts = np.bincount(small, minlength=self.NUMBER)
        expected = len(small) / self.NUMBER
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)

    def test_the_small_batch_comes_at_every_place(self, epochs: list[list[Any]]) -> None:
        places = np.bincount([[len(batch) for batch in order].index(2) for order in epochs], minlength=9)
        assert places.min() > 0.7 * self.EPOCHS / 9


class TestEvaluationOrder:
    @given(lengths=some_lengths, tokens=st.integers(1, 5000))
    def test_all_examples_within_the_budget(self, lengths: Any, tokens: int) -> None:
        order = evaluation_order(lengths, tokens)
        assert sorted(np.concatenate(order).tolist()) == list(range(len(lengths)))
        assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= tokens for batch in order)

    @given(some_lengths)
    def test_from_short_to_long(self, lengths: Any) -> None:
        placed = lengths[np.concatenate(evaluation_order(lengths, 500))]
        assert (np.diff(placed) >= 0).all()


class TestCollate:
    @given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=12), data=st.data(), pairs=st.booleans())
    def test_padded_to_the_longest_and_nothing_else_changed(self, lengths: list[int], data: Any, pairs: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True))
        batch = collate(split_of(lengths, pairs=pairs), np.array(chosen), padding=Padding(9))
        longest = max(lengths[i] for i in chosen)
        rows = [[100 + i] * lengths[i] + [9] * (longest - lengths[i]) for i in chosen]
        masks = [[1] * lengths[i] + [0] * (longest - lengths[i]) for i in chosen]
        assert batch.input_ids.tolist() == rows
        assert batch.attention_mask.tolist() == masks
        assert batch.targets.tolist() == batch.indices.tolist() == chosen
        assert batch.tokens == sum(lengths[i] for i in chosen)
        if pairs:
            assert batch.token_type_ids is not None
            assert batch.token_type_ids.tolist() == masks  # ones in the text, zeros in the padding
        else:
            assert batch.token_type_ids is None

    def test_batches_follow_the_order(self) -> None:
        order = [np.array([2, 0]), np.array([1])]
        indices = [batch.indices.tolist() for batch in batches(split_of([3, 1, 2]), order, padding=Padding(0))]
        assert indices == [[2, 0], [1]]


class TestFewLengths:
    """Batches are padded a little further, to lengths that recur, if each new shape has a price."""

    @given(length=st.integers(1, 5000))
    def test_a_little_longer_never_shorter(self, length: int) -> None:
        padded = round_up_length(length)
        assert length <= padded <= max(length + 3, length * 1.125)
        assert round_up_length(padded) == padded

    def test_a_few_dozen_lengths_for_all_that_texts_have(self) -> None:
        assert len({round_up_length(length) for length in range(1, 513)}) <= 50

    @given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=12))
    def test_no_further_than_the_longest_text_and_with_the_same_content(self, lengths: list[int]) -> None:
        split, indices = split_of(lengths), np.arange(len(lengths))[:3]
        plain, padded = (collate(split, indices, Padding(0), round_lengths=few) for few in (False, True))
        width = plain.input_ids.shape[1]
        assert width <= padded.input_ids.shape[1] <= max(lengths)
        assert torch.equal(padded.input_ids[:, :width], plain.input_ids)
        assert not padded.attention_mask[:, width:].any()
        assert padded.tokens == plain.tokens
