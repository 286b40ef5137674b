"""Held-out parts and limits: fixed, fair, and without a text on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alue_bench import DataError, DataFile, Delimited, Example, HeldOut, Labels, Splits, Task
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import TaskRows, hold_out, limit_rows, load_rows

READ = Delimited(columns=2, text=0, target=1)


def rows(number: int, texts: int, labels: int = 2, seed: int = 0) -> list[Example]:
    """Examples whose texts repeat, as premises and retweets do."""
    rng = np.random.default_rng(seed)
    return [
        Example(str(n), f"text {rng.integers(texts)}", f"pair {n}", f"label {rng.integers(labels)}", n + 1)
        for n in range(number)
    ]


def task_in(folder: Path, *, dev: DataFile | HeldOut, test: DataFile | HeldOut, number: int = 400) -> Task:
    """A task whose files lie in `folder`, with distinct texts and two labels."""
    for split, size in (("train", number), ("dev", 40), ("test", 40)):
        lines = [f"{split} text {n}\t{'AB'[n % 3 == 0]}\n" for n in range(size)]
        (folder / f"{split}.tsv").write_text("".join(lines))
    return Task(
        name="made",
        title="Made for a test",
        languages=("ar",),
        labels=Labels.binary("A", "B"),
        splits=Splits(train=DataFile("train.tsv", READ), dev=dev, test=test),
        source="-",
        licence="-",
        citation="-",
    )


def load(task: Task, folder: Path, limit_train: int | None = None, limit_eval: int | None = None) -> TaskRows:
    return load_rows(task, DataFolder(folder, "real"), drop_bad=False, limit_train=limit_train, limit_eval=limit_eval)


def ids(examples: object) -> list[str]:
    return [example.id for example in examples]  # type: ignore[attr-defined]


class TestHeldOut:
    def test_the_draw_is_fixed(self) -> None:
        examples = rows(300, texts=200)
        assert hold_out(examples, HeldOut(0.1), "t") == hold_out(list(examples), HeldOut(0.1), "t")

    def test_another_seed_draws_others(self) -> None:
        examples = rows(300, texts=200)
        assert hold_out(examples, HeldOut(0.1), "t")[1] != hold_out(examples, HeldOut(0.1, seed=7), "t")[1]

    def test_the_global_random_state_neither_matters_nor_changes(self) -> None:
        examples = rows(300, texts=200)
        np.random.seed(1)
        first, state = hold_out(examples, HeldOut(0.1), "t"), np.random.get_state()[1]
        np.random.seed(2)
        assert hold_out(examples, HeldOut(0.1), "t") == first
        np.random.seed(1)
        assert (np.random.get_state()[1] == state).all()

    @settings(max_examples=25)
    @given(
        number=st.integers(60, 300),
        texts=st.integers(30, 300),
        fraction=st.sampled_from([0.1, 0.2, 0.5]),
        seed=st.integers(0, 5),
    )
    def test_every_row_is_on_one_side_and_no_text_on_both(
        self, number: int, texts: int, fraction: float, seed: int
    ) -> None:
        examples = rows(number, texts, seed=seed)
        remaining, held = hold_out(examples, HeldOut(fraction), "t")
        assert sorted(ids(remaining) + ids(held), key=int) == ids(examples)
        assert not {e.text for e in remaining} & {e.text for e in held}

    def test_labels_keep_their_shares(self) -> None:
        examples = [Example(str(n), f"text {n}", None, "rare" if n % 20 == 0 else "common", n) for n in range(2000)]
        remaining, held = hold_out(examples, HeldOut(0.1), "t")
        assert Counter(e.target for e in held) == {"rare": 10, "common": 190}
        assert Counter(e.target for e in remaining) == {"rare": 90, "common": 1710}

    def test_both_sides_stay_in_file_order(self) -> None:
        remaining, held = hold_out(rows(200, texts=200), HeldOut(0.2), "t")
        assert ids(remaining) == sorted(ids(remaining), key=int)
        assert ids(held) == sorted(ids(held), key=int)

    @pytest.mark.parametrize("target", [0.5, ("joy", "fear")])
    def test_numbers_and_several_labels_are_held_out_too(self, target: object) -> None:
        examples = [Example(str(n), f"text {n}", None, target, n) for n in range(100)]  # type: ignore[arg-type]
        assert len(hold_out(examples, HeldOut(0.1), "t")[1]) == 10

    @pytest.mark.parametrize("number", [1, 4])
    def test_too_few_rows_is_a_sentence(self, number: int) -> None:
        examples = [Example(str(n), f"text {n}", None, "AB"[n % 2], n) for n in range(number)]
        with pytest.raises(DataError, match=f"task 't': {number} train rows are too few to hold out 10% of them"):
            hold_out(examples, HeldOut(0.1), "t")

    def test_the_test_part_does_not_depend_on_the_dev_part(self, tmp_path: Path) -> None:
        official = task_in(tmp_path, dev=DataFile("dev.tsv", READ), test=HeldOut(0.2))
        drawn = task_in(tmp_path, dev=HeldOut(0.1), test=HeldOut(0.2))
        first, second = load(official, tmp_path), load(drawn, tmp_path)
        assert first.splits["test"] == second.splits["test"]
        assert set(ids(second.splits["train"].examples)) < set(ids(first.splits["train"].examples))

    def test_splits_are_disjoint(self, tmp_path: Path) -> None:
        loaded = load(task_in(tmp_path, dev=HeldOut(0.1), test=HeldOut(0.2)), tmp_path)
        parts = [set(ids(split.examples)) for split in loaded.splits.values()]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 400


class TestLimits:
    @given(st.integers(1, 60), st.integers(1, 60))
    def test_a_smaller_limit_keeps_a_part_of_what_a_larger_one_keeps(self, one: int, other: int) -> None:
        examples = rows(50, texts=50)
        fewer, more = (set(ids(limit_rows(examples, limit))) for limit in sorted((one, other)))
        assert fewer <= more

    @given(st.integers(1, 60))
    def test_as_many_as_asked_for_in_file_order(self, limit: int) -> None:
        kept = ids(limit_rows(rows(50, texts=50), limit))
        assert len(kept) == min(limit, 50)
        assert kept == sorted(kept, key=int)

    def test_they_are_not_simply_the_first_rows(self) -> None:
        assert ids(limit_rows(rows(1000, texts=1000), 100)) != [str(n) for n in range(100)]

    def test_each_split_has_its_limit_and_the_digest_follows_the_rows(self, tmp_path: Path) -> None:
        task = task_in(tmp_path, dev=DataFile("dev.tsv", READ), test=DataFile("test.tsv", READ))
        whole, limited = load(task, tmp_path), load(task, tmp_path, limit_train=30, limit_eval=20)
        assert {name: len(split.examples) for name, split in limited.splits.items()} == {
            "train": 30,
            "dev": 20,
            "test": 20,
        }
        assert all(whole.splits[name].digest != limited.splits[name].digest for name in whole.splits)
        assert load(task, tmp_path, limit_train=400).splits["train"] == whole.splits["train"]

    def test_held_out_parts_are_drawn_before_the_limit(self, tmp_path: Path) -> None:
        task = task_in(tmp_path, dev=HeldOut(0.1), test=HeldOut(0.2))
        whole, limited = load(task, tmp_path), load(task, tmp_path, limit_train=30)
        assert limited.splits["test"] == whole.splits["test"]


class TestDigest:
    @pytest.mark.parametrize(("old", "new"), [("text 7\t", "text 7!\t"), ("text 7\tA", "text 7\tB")])
    def test_it_changes_with_a_text_and_with_a_label(self, tmp_path: Path, old: str, new: str) -> None:
        task = task_in(tmp_path, dev=DataFile("dev.tsv", READ), test=DataFile("test.tsv", READ))
        before = load(task, tmp_path)
        changed = (tmp_path / "train.tsv").read_text().replace(old, new)
        (tmp_path / "train.tsv").write_text(changed)
        after = load(task, tmp_path)
        assert before.splits["train"].digest != after.splits["train"].digest
        assert before.splits["test"].digest == after.splits["test"].digest

    def test_it_does_not_change_with_the_folder(self, tmp_path: Path) -> None:
        digests = []
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
            task = task_in(tmp_path / name, dev=HeldOut(0.1), test=HeldOut(0.2))
            digests.append([split.digest for split in load(task, tmp_path / name).splits.values()])
        assert digests[0] == digests[1]
