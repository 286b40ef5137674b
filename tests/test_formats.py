"""The reader of TSV and CSV files names every row it cannot use, and changes nothing in those it can."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alue_bench import BadRow, DataError, Delimited, Example

TEXT_AND_LABEL = Delimited(columns=2, text=0, target=1)
PAIRS = Delimited(header=True, delimiter=",", quoted=True, text="a", text_pair="b", target="label")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.txt"


def read(reader: Delimited, path: Path, content: str | bytes) -> list[Example | BadRow]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(reader(path))


def texts(rows: list[Example | BadRow]) -> list[str]:
    return [row.text for row in rows if isinstance(row, Example)]


def targets(rows: list[Example | BadRow]) -> list[object]:
    return [row.target for row in rows if isinstance(row, Example)]


class TestGoodRows:
    def test_columns_by_position(self, path: Path) -> None:
        assert read(TEXT_AND_LABEL, path, "نص أول\tA\nنص ثان\tB\n") == [
            Example("0", "نص أول", None, "A", line=1),
            Example("1", "نص ثان", None, "B", line=2),
        ]

    def test_columns_by_name_in_any_order(self, path: Path) -> None:
        reader = Delimited(header=True, id="ID", text="Text", target="Label")
        assert read(reader, path, "Label\tText\tID\nA\tنص\tx7\n") == [Example("x7", "نص", None, "A", line=2)]

    def test_a_pair_of_texts(self, path: Path) -> None:
        assert read(PAIRS, path, "a,b,label\nسؤال,سؤال آخر,0\n") == [Example("0", "سؤال", "سؤال آخر", "0", line=2)]

    def test_a_file_without_gold_labels(self, path: Path) -> None:
        assert read(Delimited(columns=1, text=0), path, "نص\n") == [Example("0", "نص", None, None, line=1)]

    def test_labels_are_renamed(self, path: Path) -> None:
        reader = Delimited(columns=2, text=0, target=1, decode={"0": "no", "1": "yes"})
        assert targets(read(reader, path, "نص\t1\nنص\t0\n")) == ["yes", "no"]

    def test_several_labels_or_none(self, path: Path) -> None:
        reader = Delimited(header=True, text="t", target=("joy", "fear"))
        rows = read(reader, path, "t\tjoy\tfear\nنص\t1\t1\nنص\t0\t0\n")
        assert targets(rows) == [("joy", "fear"), ()]

    def test_a_number(self, path: Path) -> None:
        reader = Delimited(columns=2, text=0, target=1, number=(0, 1))
        assert targets(read(reader, path, "نص\t0.25\n")) == [0.25]

    def test_rows_of_another_task_are_left_out_without_complaint(self, path: Path) -> None:
        reader = Delimited(columns=2, text=0, target=1, labels=("A",), ignore=frozenset({"B"}))
        assert read(reader, path, "نص\tB\nنص\tA\n") == [Example("1", "نص", None, "A", line=2)]


class TestBadRows:
    @pytest.mark.parametrize(
        ("reader", "content", "bad"),
        [
            pytest.param(TEXT_AND_LABEL, "نص\tA\nنص\n", BadRow(2, "1 columns instead of 2"), id="column missing"),
            pytest.param(TEXT_AND_LABEL, "نص\tA\tB\n", BadRow(1, "3 columns instead of 2"), id="column too many"),
            pytest.param(TEXT_AND_LABEL, "نص\tA\n\nنص\tA\n", BadRow(2, "empty line"), id="empty line"),
            pytest.param(TEXT_AND_LABEL, "  \tA\n", BadRow(1, "empty text"), id="empty text"),
            pytest.param(PAIRS, 'a,b,label\nنص,"",0\n', BadRow(2, "empty text"), id="empty second text"),
            pytest.param(PAIRS, "a,b,label\n\nنص,نص,0\n", BadRow(2, "empty line"), id="empty line, quoted"),
            pytest.param(
                Delimited(columns=2, text=0, target=1, labels=("A", "B")),
                "نص\tC\n",
                BadRow(1, "unknown label 'C' (expected A, B)"),
                id="label",
            ),
            pytest.param(
                Delimited(columns=2, text=0, target=1, labels=tuple("ABCDEFGH")),
                "نص\t؟\n",
                BadRow(1, "unknown label '؟' (expected A, B, C, D, E, F or 2 more)"),
                id="label of many",
            ),
            pytest.param(
                Delimited(columns=2, text=0, target=1, decode={"0": "no", "1": "yes"}),
                "نص\tyes\n",
                BadRow(1, "unknown label 'yes' (expected 0 for no, 1 for yes)"),
                id="label already renamed",
            ),
            pytest.param(
                Delimited(columns=2, text=0, target=1, decode={"0": "no", "1": "yse"}, labels=("no", "yes")),
                "نص\t1\n",
                BadRow(
                    1,
                    "label '1' is read as 'yse', which is not one of the labels no, yes; correct decode in the task's "
                    "declaration",
                ),
                id="label misspelt in decode",
            ),
            pytest.param(
                Delimited(header=True, text="t", target=("joy", "fear")),
                "t\tjoy\tfear\nنص\t1\t2\n",
                BadRow(2, "column 'fear' holds '2' instead of 0 or 1"),
                id="mark",
            ),
            pytest.param(
                Delimited(columns=2, text=0, target=1, number=(0, 1)),
                "نص\thigh\n",
                BadRow(1, "'high' is not a number"),
                id="not a number",
            ),
            pytest.param(
                Delimited(columns=2, text=0, target=1, number=(0, 1)),
                "نص\t1.5\n",
                BadRow(1, "1.5 is not within 0 to 1"),
                id="number out of range",
            ),
            pytest.param(
                Delimited(columns=2, text=0, target=1, number=(0, 1)),
                "نص\tnan\n",
                BadRow(1, "nan is not within 0 to 1"),
                id="nan",
            ),
        ],
    )
    def test_reason_and_line(self, path: Path, reader: Delimited, content: str, bad: BadRow) -> None:
        assert [row for row in read(reader, path, content) if isinstance(row, BadRow)] == [bad]

    def test_the_rows_around_a_bad_one_are_read(self, path: Path) -> None:
        assert texts(read(TEXT_AND_LABEL, path, "أ\tA\nب\nج\tA\n")) == ["أ", "ج"]

    def test_a_row_that_is_not_utf8_names_the_byte(self, path: Path) -> None:
        content = "نص\tA\nنص\tA\n".encode() + b"abc\xe4\tA\n"
        assert read(TEXT_AND_LABEL, path, content)[2] == BadRow(3, "not valid UTF-8 (byte 4 of line 3)")

    def test_a_quoted_row_that_is_not_utf8_on_its_second_line(self, path: Path) -> None:
        content = "a,b,label\nنص,نص,0\n".encode() + b'"one\ntwo \xff",b,0\n' + "نص,نص,0\n".encode()
        rows = read(PAIRS, path, content)
        assert rows[1] == BadRow(3, "not valid UTF-8 (byte 5 of line 4)")
        assert texts(rows) == ["نص", "نص"]

    def test_text_after_a_closing_quotation_mark(self, path: Path) -> None:
        rows = read(PAIRS, path, 'a,b,label\n"نص"نص,نص,0\nنص,نص,0\n')
        assert isinstance(rows[0], BadRow)
        assert (rows[0].line, rows[0].reason.split(" (")[0]) == (2, "quotation marks do not match")
        assert texts(rows) == ["نص"]

    def test_a_quotation_mark_that_is_never_closed(self, path: Path) -> None:
        rows = read(PAIRS, path, 'a,b,label\nنص,نص,0\n"نص,نص,0\n')
        assert isinstance(rows[-1], BadRow)
        assert rows[-1].line == 3


class TestQuotationMarksThatAreNotClosed:
    """One swallows all up to the next: the row where it stands is named, and no row after it is lost or made up."""

    GOOD = "سؤال {n},نص,0\n"

    def rows(self, path: Path, *lines: str) -> tuple[list[str], dict[int, str]]:
        reader = Delimited(
            header=True, delimiter=",", quoted=True, text="a", text_pair="b", target="label", labels=("0", "1")
        )
        rows = read(reader, path, "a,b,label\n" + "\n".join(lines) + "\n")
        return texts(rows), {row.line: row.reason for row in rows if isinstance(row, BadRow)}

    def test_and_no_other_mark_follows(self, path: Path) -> None:
        good, bad = self.rows(path, "أ,ب,0", '"ج,د,0', "ه,و,1", "ز,ح,1")
        assert good == ["أ", "ه", "ز"]
        assert bad == {
            3: "a quotation mark is opened on this line and not closed, so that everything up to line 5 would be one "
            "cell"
        }

    def test_and_a_quoted_cell_follows(self, path: Path) -> None:
        good, bad = self.rows(path, '"أ,ب,0', "ه,و,1", '"ز، ز",ح,1', "ط,ي,0")
        assert good == ["ه", "ز، ز", "ط"]
        assert list(bad) == [2]
        assert "everything up to line 4 would be one cell" in bad[2]

    def test_and_a_row_of_the_right_width_comes_of_it(self, path: Path) -> None:
        good, bad = self.rows(path, 'أ,"ب,0', 'ه,و",1', "ط,ي,0")  # by the rules: one row, أ | ب,0 ⏎ ه,و | 1
        assert good == ["ط"]
        assert "everything up to line 3 would be one cell" in bad[2]
        assert bad[3] == "its quotation marks do not match those of an earlier line"

    def test_in_a_text_of_several_lines_whose_later_line_is_not_taken_for_a_row(self, path: Path) -> None:
        good, bad = self.rows(path, '"سطر', 'وسطر"س,نص,0', "ط,ي,0")
        assert good == ["ط"]
        assert list(bad) == [2, 3]

    def test_and_each_line_has_one(self, path: Path) -> None:
        good, bad = self.rows(path, *['"أ,ب,0'] * 50)
        assert not good
        assert list(bad) == [*range(2, 52)]

    @given(
        lines=st.lists(
            st.sampled_from(["أ,ب,0", '"أ",ب,1', '"أ,ب,0', 'أ,"ب,0', 'أ,ب",1', '"أ\nأ",ب,1', '"أ ""أ""",ب,0', "", '"']),
            min_size=1,
        )
    )
    def test_every_line_is_read_once_or_named(self, lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
        written = "\n".join(lines).split("\n")
        with contextlib.suppress(DataError):
            good, _ = self.rows(tmp_path_factory.getbasetemp() / "marks.csv", *lines)
            # A row is one that was written; none is made of parts of several.
            assert set(good) <= {"أ", "أ\nأ", 'أ "أ"', 'أ"'}
            whole = sum(line in ("أ,ب,0", '"أ",ب,1', '"أ ""أ""",ب,0') for line in written)
            assert len(good) >= whole


class TestUnusableFiles:
    @pytest.mark.parametrize("content", ["", "\n", " \r\n \r\n", "\ufeff"])
    def test_empty(self, path: Path, content: str) -> None:
        with pytest.raises(DataError, match="the file is empty"):
            read(TEXT_AND_LABEL, path, content)

    def test_header_only(self, path: Path) -> None:
        with pytest.raises(DataError, match="the file has no rows"):
            read(PAIRS, path, "a,b,label\n")

    def test_missing(self, path: Path) -> None:
        with pytest.raises(DataError, match="cannot be read: No such file"):
            list(TEXT_AND_LABEL(path))

    def test_missing_column(self, path: Path) -> None:
        with pytest.raises(DataError, match=r":1: column 'label' is missing; the header has a, b, c"):
            read(PAIRS, path, "a,b,c\nنص,نص,0\n")

    def test_missing_column_by_position(self, path: Path) -> None:
        reader = Delimited(header=True, text=1, target=3)
        with pytest.raises(DataError, match=r":1: column 4 is missing; the header has a, b, c"):
            read(reader, path, "a\tb\tc\nنص\tنص\tنص\n")

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
    def test_utf16(self, path: Path, encoding: str) -> None:
        mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
        with pytest.raises(DataError, match="UTF-16; save it as UTF-8"):
            read(TEXT_AND_LABEL, path, mark + "نص\tA\n".encode(encoding))

    def test_cp1256(self, path: Path) -> None:
        with pytest.raises(DataError, match=r"not UTF-8 text; convert it.*iconv -f CP1256"):
            read(TEXT_AND_LABEL, path, ("نص عربي\tA\n" * 20).encode("cp1256"))

    def test_utf16_without_its_mark(self, path: Path) -> None:
        with pytest.raises(DataError, match="UTF-16 or not text; save it as UTF-8"):
            read(TEXT_AND_LABEL, path, ("نص عربي\tA\n" * 20).encode("utf-16-le"))

    def test_line_ends_of_old(self, path: Path) -> None:
        with pytest.raises(DataError, match="carriage returns only"):
            read(TEXT_AND_LABEL, path, "نص\tA\rنص\tB\r")

    def test_two_columns_of_one_name(self, path: Path) -> None:
        with pytest.raises(DataError, match=r":1: the header has 2 columns of the name 'a'"):
            read(PAIRS, path, "a,b,label,a\nنص,نص,0,نص\n")

    def test_no_header_where_columns_go_by_position(self, path: Path) -> None:
        reader = Delimited(header=True, text=0, target=1, labels=("A", "B"))
        with pytest.raises(DataError, match=r":1: the first line is a row and not a header"):
            read(reader, path, "نص\tA\nنص\tB\n")
        assert targets(read(reader, path, "text\tlabel\nنص\tB\n")) == ["B"]

    def test_a_long_header_is_not_printed_whole(self, path: Path) -> None:
        with pytest.raises(DataError) as refused:
            read(PAIRS, path, "ن" * 10**6 + ",b\nنص,نص\n")
        assert len(str(refused.value)) < 1000


class TestTextAsPeopleWriteIt:
    """Invisible characters, and those of several code points, are text: they come out as they went in."""

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("\u202bقال \u202aOK\u202c نعم\u202c", id="embedded directions"),
            pytest.param("\u2067عربي \u2066Latin\u2069\u2069", id="isolated directions"),
            pytest.param("\u200fنص\u200e\u061c", id="direction marks"),
            pytest.param("می\u200cخواهم ل\u200dا", id="joiners"),
            pytest.param("👨\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 👍🏽 🇸🇦", id="emoji sequences"),
            pytest.param("نصّ كَتَبَهُ ـــ ٣٫٥٪ ﷽ ﻻ", id="vowels, tatweel, digits, ligatures"),
            pytest.param("a\u0301é \U0010ffff\ufffe", id="combining, the last code points"),
            pytest.param("نص\ufeffنص", id="a byte-order mark inside"),
        ],
    )
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_is_unchanged(self, path: Path, text: str, end: str) -> None:
        quoted = Delimited(columns=2, text=0, target=1, quoted=True)
        assert texts(read(TEXT_AND_LABEL, path, f"{text}\tA{end}س\tB\n")) == [text, "س"]
        assert texts(read(quoted, path, f'"{text}"\tA{end}س\tB\n')) == [text, "س"]

    def test_a_label_with_an_invisible_mark_is_another_label_and_the_mark_is_shown(self, path: Path) -> None:
        reader = Delimited(columns=2, text=0, target=1, labels=("OFF", "NOT_OFF"))
        assert read(reader, path, "نص\tOFF\u200f\n") == [
            BadRow(1, "unknown label 'OFF\\u200f' (expected NOT_OFF, OFF)")
        ]

    @pytest.mark.parametrize("half", [b"\xed\xa0\xbd", b"\xed\xb8\x80"])
    def test_half_a_surrogate_pair_is_no_utf8(self, path: Path, half: bytes) -> None:
        rows = read(TEXT_AND_LABEL, path, "نص\tA\nنص".encode() + half + b"\tA\n")
        assert rows[1] == BadRow(2, "not valid UTF-8 (byte 5 of line 2)")

    def test_a_nul_is_no_text(self, path: Path) -> None:
        rows = read(TEXT_AND_LABEL, path, "نص\tA\nن\0ص\tA\n")
        assert rows[1] == BadRow(2, "holds a NUL character: the file is damaged, or not UTF-8 text")

    @pytest.mark.parametrize("written", ["1_0", "inf", "-inf", "1e999", "0,5", "٠٫٥", "0x1", ""])
    def test_what_is_no_number_to_the_publishers_is_none_here(self, path: Path, written: str) -> None:
        reader = Delimited(columns=2, text=0, target=1, number=(-math.inf, math.inf))
        (row,) = read(reader, path, f"نص\t{written}\n")
        assert isinstance(row, BadRow)


class TestBytesThatStayOrGo:
    def test_byte_order_mark_is_not_text(self, path: Path) -> None:
        assert texts(read(TEXT_AND_LABEL, path, "\ufeffنص\tA\n")) == ["نص"]

    def test_byte_order_mark_before_a_header(self, path: Path) -> None:
        assert texts(read(PAIRS, path, "\ufeffa,b,label\nنص,نص,0\n")) == ["نص"]

    def test_windows_line_ends_are_not_text(self, path: Path) -> None:
        assert targets(read(TEXT_AND_LABEL, path, "نص\tA\r\nنص\tB\r\n")) == ["A", "B"]

    def test_last_line_without_an_end(self, path: Path) -> None:
        assert targets(read(TEXT_AND_LABEL, path, "نص\tA\nنص\tB")) == ["A", "B"]

    @pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "\r"])
    @pytest.mark.parametrize("reader", [TEXT_AND_LABEL, Delimited(columns=2, text=0, target=1, quoted=True)])
    def test_only_line_feeds_end_a_line(self, path: Path, reader: Delimited, mark: str) -> None:
        text = f"سطر{mark}وسطر"
        written = f'"{text}"\tA\n' if reader.quoted else f"{text}\tA\n"
        assert texts(read(reader, path, written)) == [text]

    def test_quotation_marks_are_text_where_the_format_has_no_quoting(self, path: Path) -> None:
        assert texts(read(TEXT_AND_LABEL, path, '"قال\tA\nقال "نعم"\tA\n')) == ['"قال', 'قال "نعم"']

    def test_line_feeds_inside_quotation_marks(self, path: Path) -> None:
        rows = read(PAIRS, path, 'a,b,label\n"سطر\nوسطر",نص,0\nتال,نص,0\n')
        assert texts(rows) == ["سطر\nوسطر", "تال"]
        assert [row.line for row in rows] == [2, 4]

    @pytest.mark.parametrize("reader", [TEXT_AND_LABEL, Delimited(columns=2, text=0, target=1, quoted=True)])
    def test_a_line_of_a_megabyte(self, path: Path, reader: Delimited) -> None:
        text = "ن" * 500_000
        assert texts(read(reader, path, f"{text}\tA\n")) == [text]


@pytest.mark.skipif(shutil.which("iconv") is None, reason="needs iconv")
@pytest.mark.parametrize(("encoding", "line_end"), [("utf-16", "\n"), ("cp1256", "\n"), ("utf-8", "\r")])
def test_the_command_that_converts_a_file_makes_one_that_can_be_read(
    tmp_path: Path, encoding: str, line_end: str
) -> None:
    path = tmp_path / "a file.tsv"
    path.write_bytes((f"نص عربي\tA{line_end}" * 9).encode(encoding))
    with pytest.raises(DataError) as told:
        list(TEXT_AND_LABEL(path))
    subprocess.run(str(told.value).rpartition(": ")[2], shell=True, check=True)
    rows = list(TEXT_AND_LABEL(tmp_path / "a file.tsv.utf8"))
    assert [(row.text, row.target) for row in rows if isinstance(row, Example)] == [("نص عربي", "A")] * 9


class TestMistakesInADeclaration:
    def test_no_header_and_no_number_of_columns(self) -> None:
        with pytest.raises(ValueError, match="needs columns="):
            Delimited(text=0)

    def test_no_header_but_a_name(self) -> None:
        with pytest.raises(ValueError, match="columns by position, not 'label'"):
            Delimited(columns=2, text=0, target="label")

    def test_no_such_column(self) -> None:
        with pytest.raises(ValueError, match="column 2 "):
            Delimited(columns=2, text=0, target=2)


# Surrogates have no UTF-8, and no text has a NUL. The reader takes a carriage return before a line feed for a part of
# the line's end.
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda cell: cell.strip() and "\r\n" not in cell
)


@given(rows=st.lists(st.tuples(cells, cells, cells), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
def test_what_csv_writes_is_read_back_equal(
    rows: list[tuple[str, str, str]], end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("a", "b", "label"), *rows])
    examples = read(PAIRS, tmp_path_factory.getbasetemp() / "written.csv", text.getvalue())
    assert [(row.text, row.text_pair, row.target) for row in examples if isinstance(row, Example)] == rows
    assert len(examples) == len(rows)


@given(content=st.binary())
def test_whatever_the_bytes_each_row_is_read_or_named_or_the_file_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.tsv"
    for reader in (TEXT_AND_LABEL, PAIRS):
        with contextlib.suppress(DataError):
            assert read(reader, path, content)
