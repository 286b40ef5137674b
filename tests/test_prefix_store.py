"""The store of frozen prefixes' outputs: what is read is what was written, or it is said why not."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import CommandLine
from torch import Tensor

from alue_bench.contract.byte_sizes import parse_size
from alue_bench.contract.errors import UsageError
from alue_bench.training.prefix.store import Draft, PrefixStore, StoredStates

TOKENS, WIDTH = 50, 8
SIZE = TOKENS * WIDTH * 4  # bytes of what `array` makes
ABOUT = {"model": "tiny", "task": "anger", "split": "train", "depth": "3"}


def array(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same_bits(left: Tensor, right: Tensor) -> bool:
    alike = left.dtype == right.dtype and left.shape == right.shape
    return alike and torch.equal(left.view(torch.uint8), right.view(torch.uint8))


class Folder:
    """A folder of entries, and what was said of them. Every store over it is what a new process would see."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []

    def store(self, limit: int = 100 * SIZE) -> PrefixStore:
        return PrefixStore(self.path, limit, self.problems.append)

    def keep(self, key: str, states: Tensor | None = None, store: PrefixStore | None = None) -> StoredStates:
        states = array() if states is None else states
        tokens, width = states.shape
        draft = (store or self.store()).create(key, tokens, width, states.dtype)
        assert draft is not None, self.problems
        with draft:
            draft.states[:] = states
            return draft.commit(1.5, ABOUT)

    def keys(self) -> list[str]:
        return [entry.key for entry in self.store().entries()]

    def scratch(self) -> list[str]:
        return [path.name for path in self.path.glob(".scratch*")]

    @property
    def complaint(self) -> str:
        """The one problem that was reported; it is one sentence, for people."""
        (problem,) = self.problems
        assert "\n" not in problem
        assert "Errno" not in problem
        return problem


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "cache" / "prefixes")


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_gives_back_every_bit(self, folder: Folder, dtype: torch.dtype) -> None:
        states = array(dtype=dtype)
        states[0, :3] = torch.tensor([float("nan"), float("-inf"), -0.0])
        assert same_bits(folder.keep("a", states).states, states)
        entry = folder.store().open("a")
        assert entry is not None
        assert same_bits(entry.states, states)
        assert 1.5 < entry.build_s < 2.5, "with the time of the checksum"
        assert folder.problems == []

    def test_survives_the_process(self, folder: Folder) -> None:
        code = (
            "import sys, torch; from pathlib import Path; from alue_bench.training.prefix.store import PrefixStore\n"
            "store = PrefixStore(Path(sys.argv[1]), 10**6, print)\n"
            "draft = store.create('a', 3, 2, torch.float32)\n"
            "with draft:\n"
            "    draft.states[:] = torch.arange(6.0).view(3, 2)\n"
            "    draft.commit(0.25, {})\n"
        )
        subprocess.run([sys.executable, "-c", code, str(folder.path)], check=True)
        entry = folder.store().open("a")
        assert entry is not None
        assert entry.states.tolist() == [[0, 1], [2, 3], [4, 5]]

    def test_there_is_nothing_before_it_is_committed(self, folder: Folder) -> None:
        store = folder.store()
        assert store.open("a") is None
        draft = store.create("a", TOKENS, WIDTH, torch.float32)
        assert draft is not None
        with draft:
            assert store.open("a") is None
            assert store.entries() == []
            draft.commit(1.0, {})
        assert store.open("a") is not None
        assert folder.problems == []

    def test_what_a_reader_writes_stays_with_it(self, folder: Folder) -> None:
        folder.keep("a").states.zero_()
        opened = folder.store().open("a")
        assert opened is not None
        opened.states.zero_()
        again = folder.store().open("a")
        assert again is not None
        assert same_bits(again.states, array())
        assert folder.problems == []

    def test_without_fallocate_zeros_are_written(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "posix_fallocate")
        assert same_bits(folder.keep("a").states, array())

    def test_is_listed_with_what_people_want_to_know(self, folder: Folder) -> None:
        folder.keep("a")
        (listed,) = folder.store().entries()
        assert (listed.key, listed.bytes, listed.description) == ("a", SIZE, ABOUT)
        assert listed.created is not None
        assert listed.created <= listed.last_used


def flip_a_bit(entry: Path) -> None:
    content = bytearray((entry / "states.bin").read_bytes())
    content[SIZE // 2] ^= 1
    (entry / "states.bin").write_bytes(content)


def edit(**changes: object) -> Callable[[Path], object]:
    def change(entry: Path) -> None:
        header = json.loads((entry / "entry.json").read_text())
        (entry / "entry.json").write_text(json.dumps(header | changes))

    return change


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip_a_bit, "checksum"),
    "a truncated array": (lambda entry: os.truncate(entry / "states.bin", SIZE - 4), f"{SIZE - 4} bytes"),
    "a longer array": (lambda entry: os.truncate(entry / "states.bin", SIZE + 4), f"{SIZE + 4} bytes"),
    "no array": (lambda entry: (entry / "states.bin").unlink(), "states.bin is missing"),
    "no json": (lambda entry: (entry / "entry.json").unlink(), "entry.json is missing"),
    "empty json": (lambda entry: os.truncate(entry / "entry.json", 0), "entry.json"),
    "half of the json": (lambda entry: os.truncate(entry / "entry.json", 40), "entry.json"),
    "bytes that are no text": (lambda entry: (entry / "entry.json").write_bytes(b"\xff\x00"), "entry.json"),
    "another format version": (edit(format=99), "format 99"),
    "another shape": (edit(shape=[TOKENS, WIDTH + 1]), "bytes instead of"),
    "an unknown dtype": (edit(dtype="nn"), "'nn'"),
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_is_reported_and_the_entry_removed(self, folder: Folder, damage: str) -> None:
        folder.keep("a")
        break_it, said = DAMAGES[damage]
        break_it(folder.path / "a")
        store = folder.store()
        assert store.open("a") is None
        assert str(folder.path / "a") in folder.complaint
        assert said in folder.complaint
        assert folder.keys() == folder.scratch() == []

        assert store.open("a") is None
        assert len(folder.problems) == 1  # said once: now there just is none
        assert same_bits(folder.keep("a").states, array())

    def test_is_seen_by_a_store_that_has_verified_the_entry_before(self, folder: Folder) -> None:
        folder.keep("a")
        store = folder.store()
        assert store.open("a") is not None
        flip_a_bit(folder.path / "a")
        os.utime(folder.path / "a" / "states.bin", (1, 1))  # a clock of files may be too coarse for a test
        assert store.open("a") is None
        assert "checksum" in folder.complaint

    def test_of_one_entry_leaves_the_others(self, folder: Folder) -> None:
        folder.keep("a")
        folder.keep("b")
        flip_a_bit(folder.path / "a")
        store = folder.store()
        assert store.open("a") is None
        assert store.open("b") is not None

    def test_does_not_keep_an_entry_from_being_listed_evicted_and_cleared(self, folder: Folder) -> None:
        folder.keep("a")
        (folder.path / "a" / "entry.json").write_text("{")
        (listed,) = folder.store().entries()
        assert (listed.bytes, listed.created, listed.description) == (SIZE, None, {})
        folder.keep("b", store=folder.store(SIZE))
        assert folder.keys() == ["b"]
        assert folder.problems == []


class TestLimit:
    def test_the_least_recently_used_leave_first(self, folder: Folder) -> None:
        for key in "abc":
            folder.keep(key)
        folder.store().open("a")
        assert folder.keys() == ["b", "c", "a"]
        folder.keep("d", store=folder.store(3 * SIZE))
        assert folder.keys() == ["c", "a", "d"]
        assert folder.problems == []

    def test_no_more_leave_than_must(self, folder: Folder) -> None:
        for key in "abcd":
            folder.keep(key)
        folder.keep("twice", torch.cat([array(), array()]), store=folder.store(4 * SIZE))
        assert folder.keys() == ["c", "d", "twice"]

    def test_what_is_in_use_stays(self, folder: Folder) -> None:
        folder.keep("a")
        folder.keep("b")
        store = folder.store(2 * SIZE)
        opened = store.open("a")
        store.open("b")  # used after a, but nobody holds it
        folder.keep("c", store=store)
        assert folder.keys() == ["a", "c"]
        assert opened is not None
        assert same_bits(opened.states, array())

    def test_nothing_leaves_where_too_much_is_in_use(self, folder: Folder) -> None:
        folder.keep("a")
        folder.keep("b")
        store = folder.store(2 * SIZE)
        opened = store.open("b")
        assert store.create("c", 2 * TOKENS, WIDTH, torch.float32) is None
        assert "in use" in folder.complaint
        assert folder.keys() == ["a", "b"]
        del opened
        assert store.create("c", 2 * TOKENS, WIDTH, torch.float32) is not None

    def test_drafts_count(self, folder: Folder) -> None:
        store = folder.store(2 * SIZE)
        drafts = [store.create(key, TOKENS, WIDTH, torch.float32) for key in "abc"]
        assert [draft is not None for draft in drafts] == [True, True, False]
        assert "in use" in folder.complaint

    def test_larger_than_the_limit(self, folder: Folder) -> None:
        folder.keep("a")
        assert folder.store(SIZE).create("b", TOKENS + 1, WIDTH, torch.float32) is None
        assert "1.6 kB" in folder.complaint
        assert "--cache-size" in folder.complaint
        assert folder.keys() == ["a"]

    def test_zero_is_off_without_a_word(self, folder: Folder) -> None:
        folder.keep("a")
        off = folder.store(0)
        assert off.open("a") is None
        assert off.create("b", TOKENS, WIDTH, torch.float32) is None
        assert folder.problems == []
        assert folder.keys() == ["a"]


class TestNoRoom:
    def test_more_than_the_disk_has_left(self, folder: Folder) -> None:
        folder.keep("a")
        assert folder.store(10**18).create("b", 10**16, 1, torch.float32) is None
        assert "disk" in folder.complaint
        assert folder.keys() == ["a"]
        assert folder.scratch() == []

    @pytest.fixture
    def small_files_only(self) -> Iterator[None]:
        """The system refuses files above a megabyte, as a quota does."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    @pytest.mark.parametrize("fallocate", [True, False])
    @pytest.mark.usefixtures("small_files_only")
    def test_is_seen_before_anything_is_filled(
        self, folder: Folder, fallocate: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not fallocate:
            monkeypatch.delattr(os, "posix_fallocate")
        assert folder.store(1 << 30).create("a", 1 << 20, 1, torch.float32) is None
        assert "File too large" in folder.complaint
        assert folder.scratch() == []

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        folder = Folder(tmp_path / "file" / "prefixes")
        store = folder.store()
        assert store.open("a") is None
        assert store.entries() == []
        assert store.clear() == 0
        assert folder.problems == []
        assert store.create("a", TOKENS, WIDTH, torch.float32) is None
        assert "Not a directory" in folder.complaint

    def test_where_an_entry_cannot_be_placed_its_array_is_there_nevertheless(self, folder: Folder) -> None:
        folder.path.mkdir(parents=True)
        (folder.path / "a").touch()  # a file in the entry's place
        entry = folder.keep("a")
        assert "cannot be written" in folder.complaint
        assert same_bits(entry.states, array())
        assert folder.scratch() == []


WRITER = """
import sys, torch
from pathlib import Path
from alue_bench.training.prefix.store import PrefixStore

with PrefixStore(Path(sys.argv[1]), 10**6, print).create("theirs", 50, 8, torch.float32) as draft:
    draft.states[:25] = 1
    print("half", flush=True)
    sys.stdin.readline()
    draft.states[25:] = 1
    draft.commit(1.0, {})
"""


class TestBrokenOff:
    @pytest.fixture
    def writer(self, folder: Folder) -> Iterator[subprocess.Popen[str]]:
        """A process that has filled half of an array, and goes on when it is sent a line."""
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        yield process
        process.kill()
        process.communicate()

    def test_by_an_exception(self, folder: Folder) -> None:
        store = folder.store()

        def fail(draft: Draft | None) -> None:
            assert draft is not None
            with draft:
                draft.states[:10] = 1
                raise ValueError("in the middle")

        with pytest.raises(ValueError, match="in the middle"):
            fail(store.create("a", TOKENS, WIDTH, torch.float32))
        assert store.open("a") is None
        assert folder.keys() == folder.scratch() == []
        assert same_bits(folder.keep("a", store=store).states, array())

    def test_by_a_kill(self, folder: Folder, writer: subprocess.Popen[str]) -> None:
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
        assert folder.store().open("theirs") is None
        assert folder.keys() == []
        assert len(folder.scratch()) == 1
        folder.keep("b", store=folder.store(SIZE))  # there is room for one only: what was left is gone
        assert folder.scratch() == []
        assert folder.problems == []

    def test_what_a_living_process_writes_is_left_alone(self, folder: Folder, writer: subprocess.Popen[str]) -> None:
        folder.keep("b")
        assert folder.store().clear() == SIZE
        assert len(folder.scratch()) == 1
        writer.communicate("go on\n", timeout=60)
        assert writer.returncode == 0
        entry = folder.store().open("theirs")
        assert entry is not None
        assert torch.equal(entry.states, torch.ones(TOKENS, WIDTH))
        assert folder.scratch() == []


class TestSeveralAtOnce:
    def test_two_writers_of_one_key(self, folder: Folder) -> None:
        drafts = [folder.store().create("a", TOKENS, WIDTH, torch.float32) for _ in range(2)]
        entries = []
        for build_s, draft in enumerate(drafts):
            assert draft is not None
            with draft:
                draft.states[:] = array()
                entries.append(draft.commit(build_s, ABOUT))
        assert all(same_bits(entry.states, array()) for entry in entries)
        assert all(entry.build_s < 1 for entry in entries)  # the second was dropped, the first opened
        assert folder.keys() == ["a"]
        assert folder.scratch() == folder.problems == []

    def test_the_slower_of_two_takes_the_place_of_a_damaged_one(self, folder: Folder) -> None:
        draft = folder.store().create("a", TOKENS, WIDTH, torch.float32)
        assert draft is not None
        with draft:
            draft.states[:] = array()
            folder.keep("a")
            flip_a_bit(folder.path / "a")
            draft.commit(1.0, ABOUT)
        assert "checksum" in folder.complaint
        entry = folder.store().open("a")
        assert entry is not None
        assert same_bits(entry.states, array())

    def test_an_entry_evicted_by_another_can_be_read_on(self, folder: Folder) -> None:
        entry = folder.keep("a")
        folder.keep("b", array(1), store=folder.store(SIZE))
        assert folder.keys() == ["b"]
        assert same_bits(entry.states, array())


def test_clear_removes_everything_and_says_how_much(folder: Folder) -> None:
    folder.keep("a")
    folder.keep("b", array(dtype=torch.float16))
    store = folder.store()
    assert store.clear() == SIZE + SIZE // 2
    assert store.entries() == []
    assert store.open("a") is None
    assert store.clear() == 0
    assert folder.problems == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("0GB", 0),
        ("7B", 7),
        ("3KB", 3_000),
        ("5 mb", 5_000_000),
        ("20GB", 20_000_000_000),
        ("1.5TB", 1_500_000_000_000),
        ("1KiB", 1 << 10),
        ("512MiB", 512 << 20),
        (" 2 gib ", 2 << 30),
        ("0.5TiB", 1 << 39),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "20", "GB", "-5GB", "1,5GB", "20GB or so", "5 apples", "10bit", "1e3KB", "nan", "٢GB"]
)
def test_what_is_no_size_is_named_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_size(text)
    assert repr(text) in str(raised.value)
    assert "20GB" in str(raised.value)


class TestCommands:
    @pytest.fixture
    def filled(self, folder: Folder) -> Folder:
        """Lies where the command line of the same test looks."""
        folder.keep("a")
        tokens = folder.path.parent / "tokens" / "digest"
        tokens.mkdir(parents=True)
        (tokens / "data.arrow").write_bytes(bytes(2_500))
        return folder

    def test_status(self, alue_bench: CommandLine, filled: Folder) -> None:
        done = alue_bench("cache", "status")
        assert done.code == 0, done.err
        row = next(line for line in done.out.splitlines() if "tiny, anger" in line)
        assert [cell.strip() for cell in row.strip("│").split("│")][:4] == ["tiny, anger", "3", "train", "1.6 kB"]
        assert "1.6 kB, entries: 1" in done.out
        assert "20GB" in done.out
        assert "Token ids: 2.5 kB" in done.out
        assert str(filled.path.parent) in done.out

    def test_status_of_nothing(self, alue_bench: CommandLine, folder: Folder) -> None:
        done = alue_bench("cache", "status")
        assert done.code == 0, done.err
        assert "0 bytes, entries: 0" in done.out
        assert not folder.path.exists()

    def test_status_shows_what_cannot_be_read(self, alue_bench: CommandLine, filled: Folder) -> None:
        (filled.path / "a" / "entry.json").write_text("{")
        assert "unreadable" in alue_bench("cache", "status").out

    def test_clear_leaves_the_token_ids(self, alue_bench: CommandLine, filled: Folder) -> None:
        done = alue_bench("cache", "clear")
        assert (done.code, done.out) == (0, "Freed 1.6 kB\n")
        assert filled.keys() == []
        assert (filled.path.parent / "tokens" / "digest" / "data.arrow").is_file()

    def test_clear_all(self, alue_bench: CommandLine, filled: Folder) -> None:
        done = alue_bench("cache", "clear", "--all")
        assert (done.code, done.out) == (0, "Freed 4.1 kB\n")
        assert not (filled.path.parent / "tokens").exists()
        assert alue_bench("cache", "clear", "--all").out == "Freed 0 bytes\n"
