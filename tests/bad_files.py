"""Data files and task files of a user that cannot be used, each with what the sentence about it must hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

LABELS = ("billing", "delivery")
GOOD = [{"text": f"complaint number {n}", "label": LABELS[n % 2]} for n in range(40)]


@dataclass(frozen=True)
class BadFile:
    arguments: tuple[str, ...]
    said: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def csv(rows: Iterable[object] = (), header: str = "text,label", good: int = 40) -> Callable[[Path], object]:
    """`bad.csv` with good rows, and these at its end: from line 42 on, if all 40 good ones stand before them."""
    lines = [header, *(f"{row['text']},{row['label']}" for row in GOOD[:good]), *map(str, rows)]
    return text("bad.csv", "".join(f"{line}\n" for line in lines))


def labelled(labels: Iterable[object]) -> Callable[[Path], object]:
    return csv([f"complaint {n},{label}" for n, label in enumerate(labels)], good=0)


def lines(*rows: object) -> Callable[[Path], object]:
    """`bad.jsonl` with forty good rows and these."""
    return text("bad.jsonl", "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in (*GOOD, *rows)))


def parquet(folder: Path, **columns: object) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = columns or {name: [row[name] for row in GOOD] for name in ("text", "label")}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "bad.parquet")


def truncated_parquet(folder: Path) -> None:
    parquet(folder)
    content = (folder / "bad.parquet").read_bytes()
    (folder / "bad.parquet").write_bytes(content[: len(content) // 2])


def xlsx(*sheets: tuple[str, list[list[object]]]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        import openpyxl

        book = openpyxl.Workbook()
        book.remove(book.active)
        for name, rows in sheets:
            sheet = book.create_sheet(name)
            for row in rows:
                sheet.append(row)
        book.save(folder / "bad.xlsx")

    return write


def both(*prepare: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [one(folder) for one in prepare]


SHEET: list[list[object]] = [["text", "label"], *([row["text"], row["label"]] for row in GOOD)]
GOOD_CSV = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in GOOD)
TASK = 'kind = "binary"\nlabels = ["billing", "delivery"]\n[files]\ntrain = "good.csv"\n'
HELD = 'dev = { holdout = "20%" }\ntest = { holdout = "20%" }\n[columns]\ntext = "text"\nlabel = "label"\n'


def file(name: str, *more: str) -> tuple[str, ...]:
    return ("run", "--file", name, "-m", "mini", "-s", "full", *more)


CSV, JSONL, PARQUET, XLSX = (file(f"bad.{ending}") for ending in ("csv", "jsonl", "parquet", "xlsx"))
TOML = ("run", "--task", "./bad.task.toml", "-m", "mini", "-s", "full")


def toml(content: str) -> Callable[[Path], object]:
    return both(text("bad.task.toml", content), text("good.csv", GOOD_CSV))


BAD_FILES = {
    # The file as a whole
    "no such file": BadFile(
        file("complains.csv"),
        ("--file complains.csv: there is no such file (did you mean 'complaints.csv'?)",),
        text("complaints.csv", GOOD_CSV),
    ),
    "a home of nobody": BadFile(
        file("~nobody-of-this-name/bad.csv"), ("--file ~nobody-of-this-name/bad.csv: there is no such file",), csv()
    ),
    "a sheet of a text file": BadFile(
        file("bad.csv", "--sheet", "May"), ("--sheet May: no data file is an XLSX file; leave it out",), csv()
    ),
    "unknown ending": BadFile(
        file("bad.docx"), ("has the ending .docx, which is not known; use .csv, .tsv",), text("bad.docx", "x")
    ),
    "compressed": BadFile(file("bad.csv.gz"), ("'bad.csv.gz' is compressed; unpack it",), text("bad.csv.gz", "x")),
    "old Excel": BadFile(file("bad.xls"), ("the format .xls", "save it as XLSX"), text("bad.xls", "x")),
    "empty": BadFile(CSV, ("bad.csv: the file is empty",), text("bad.csv", "")),
    "empty JSON lines": BadFile(JSONL, ("bad.jsonl: the file is empty",), text("bad.jsonl", "")),
    "header alone": BadFile(CSV, ("bad.csv: the file has no rows",), csv(good=0)),
    "wrong encoding": BadFile(
        CSV,
        ("bad.csv: the file is not UTF-8 text", "iconv -f CP1256"),
        text("bad.csv", "نص,فئة\n".encode("cp1256") * 9),
    ),
    "JSON lines in UTF-16": BadFile(
        JSONL,
        ("bad.jsonl:1: the file is UTF-16; save it as UTF-8",),
        text("bad.jsonl", json.dumps(GOOD[0]).encode("utf-16")),
    ),
    "JSON that is no list": BadFile(
        file("bad.json"), ("bad.json: the file is not a list of objects", "orient='records'"), text("bad.json", "{}")
    ),
    "JSON that breaks off": BadFile(
        file("bad.json"), ("bad.json:2: not valid JSON",), text("bad.json", '[{"text": "a", "label": "b"},\n{"text": ')
    ),
    "Parquet that breaks off": BadFile(
        PARQUET, ("bad.parquet: cannot be read as Parquet", "write the file again"), truncated_parquet
    ),
    "XLSX with a password": BadFile(
        XLSX, ("bad.xlsx: the file has a password",), text("bad.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 99)
    ),
    "XLSX that is none": BadFile(XLSX, ("bad.xlsx: cannot be read as XLSX",), text("bad.xlsx", "text,label\n")),
    "several sheets": BadFile(
        XLSX, ("bad.xlsx: the sheets May, June hold rows", "--sheet"), xlsx(("May", SHEET), ("June", SHEET))
    ),
    "no such sheet": BadFile(
        file("bad.xlsx", "--sheet", "July"), ("the file has no sheet 'July', but May",), xlsx(("May", SHEET))
    ),
    "a folder of something else": BadFile(
        file("."), ("the folder was not written by save_to_disk of the datasets library",)
    ),
    "hub data set without an owner": BadFile(
        file("hub:imdb"), ("hub:imdb: a hub data set is written hub:owner/name[@revision][/config]",)
    ),
    # Columns
    "no text column": BadFile(
        CSV,
        ("no column has a usual name for the text", "--text COLUMN, one of words, label"),
        csv(header="words,label"),
    ),
    "two text columns": BadFile(
        CSV, ("several columns may hold the text: text, comment", "--text"), csv(["a,b,c"], "text,comment,label", 0)
    ),
    "no label column": BadFile(CSV, ("no column has a usual name for the label", "--label"), csv(header="text,colour")),
    "misspelt column": BadFile(
        file("bad.csv", "--text", "complain"),
        ("column 'complain' is missing (did you mean 'complaint'?); the columns are complaint, label",),
        csv(header="complaint,label"),
    ),
    "one column for two purposes": BadFile(
        file("bad.csv", "--text", "text", "--pair", "text"), ("column 'text' cannot be two of text, text_pair",), csv()
    ),
    "two columns of one name": BadFile(
        CSV, ("bad.csv:1: the header has 2 columns of the name 'text'",), csv(["a,b,c"], "text,text,label", 0)
    ),
    "two columns of one name in a sheet": BadFile(
        XLSX,
        ("bad.xlsx: the file has 2 columns of the name 'text'",),
        xlsx(("May", [["text", "text", "label"], ["a", "b", "c"]])),
    ),
    "identifier of two rows": BadFile(
        file("bad.csv", "--id", "number"),
        ("bad.csv:3: the identifier '7' in column 'number' is used in bad.csv:2 too",),
        csv(["7,a,x", "7,b,y"], "number,text,label", 0),
    ),
    # Rows
    "null text": BadFile(
        JSONL,
        ("bad.jsonl:41: no text in column 'text' (null)", "--drop-bad"),
        lines({"text": None, "label": "billing"}),
    ),
    "null label": BadFile(
        JSONL, ("bad.jsonl:41: no label in column 'label' (null)",), lines({"text": "a", "label": None})
    ),
    "no label in a CSV": BadFile(CSV, ("bad.csv:42: no label (expected billing, delivery)",), csv(["late again,"])),
    "empty text": BadFile(CSV, ("bad.csv:42: empty text",), csv([" ,billing"])),
    "a column too many": BadFile(CSV, ("bad.csv:42: 3 columns instead of 2",), csv(["late, again,billing"])),
    "open quotation mark": BadFile(
        CSV, ("bad.csv:42: a quotation mark is opened",), csv(['"late,billing', "a,billing"])
    ),
    "number instead of a text": BadFile(
        JSONL,
        ("bad.jsonl:41: column 'text' holds the number 7 instead of a text",),
        lines({"text": 7, "label": "billing"}),
    ),
    "nested text": BadFile(
        JSONL, ("bad.jsonl:41: column 'text' holds a nested value",), lines({"text": {"ar": "x"}, "label": "billing"})
    ),
    "line that is no JSON": BadFile(JSONL, ("bad.jsonl:41: not valid JSON",), lines('{"text": "a", "label": ')),
    "line that is no object": BadFile(
        JSONL, ('bad.jsonl:41: ["a", "billing"] is not an object',), lines(["a", "billing"])
    ),
    "a name given twice": BadFile(
        JSONL,
        ("bad.jsonl:41: not valid JSON: 'text' is given twice",),
        lines('{"text": "a", "text": "b", "label": "c"}'),
    ),
    "null in a sheet": BadFile(
        XLSX, ("bad.xlsx, row 42: no text in column 'text' (null)",), xlsx(("May", [*SHEET, [None, "billing"]]))
    ),
    "no usable row": BadFile(CSV, ("bad.csv:2: empty text; bad.csv:3: empty text",), csv([" ,a", " ,b"], good=0)),
    # Labels
    "one class": BadFile(
        CSV, ("bad.csv: all 30 rows have the label 'late'", "nothing to learn"), labelled(["late"] * 30)
    ),
    "too few rows of a class": BadFile(
        CSV,
        (
            "bad.csv:42: the label 'rare' has 1 different text, too few for 3 parts",
            "give --dev and --test",
            "--ignore 'rare'",
        ),
        csv(["never seen,rare"]),
    ),
    "numbers with many values": BadFile(
        CSV,
        ("column 'label' holds 30 different numbers", "--target regression", "--target multiclass"),
        labelled(range(30)),
    ),
    "numbers with fractions": BadFile(
        CSV, ("column 'label' holds numbers such as 0.5; say --target regression",), labelled([0.5, 1, 2] * 9)
    ),
    "1 and 1.0": BadFile(
        CSV,
        ("bad.csv:4: the label is written '1.0' here and '1' at bad.csv:2", "in one way"),
        labelled(["1", "0", "1.0"] * 9),
    ),
    "labels that differ by case": BadFile(
        CSV,
        ("bad.csv:3: the label 'Late ' differs from 'late' at bad.csv:2 by case or white space",),
        labelled(["late", "Late ", "x"] * 9),
    ),
    "texts for labels": BadFile(
        CSV,
        ("column 'label' has 30 different values in 30 rows, too many for labels",),
        labelled(f"word{n}" for n in range(30)),
    ),
    "lists in some rows": BadFile(
        JSONL,
        ("bad.jsonl:41: column 'label' holds a list of labels in some rows",),
        lines({"text": "a", "label": ["billing"]}),
    ),
    "object for a label": BadFile(
        JSONL,
        ("bad.jsonl:41: column 'label' holds an object instead of one label",),
        lines({"text": "a", "label": {"x": 1}}),
    ),
    "three classes said to be two": BadFile(
        file("bad.csv", "--target", "binary"),
        ("column 'label' has 3 labels, which is not binary",),
        labelled("abc" * 9),
    ),
    "words said to be numbers": BadFile(
        file("bad.csv", "--target", "regression"), ("bad.csv:2: 'billing' in column 'label' is not a number",), csv()
    ),
    "one number": BadFile(
        file("bad.csv", "--target", "regression"), ("all 9 rows have the number 3",), labelled([3] * 9)
    ),
    "column of 2": BadFile(
        file("bad.csv", "--label", "a", "--label", "b"),
        ("bad.csv:3: column 'a' holds '2' instead of 0 or 1",),
        csv(["x,1,0", "y,2,0", "z,0,1", "v,1,0"], "text,a,b", 0),
    ),
    "a label of the test file alone": BadFile(
        file("bad.csv", "--test", "test.csv"),
        ("test.csv:3: unknown label 'quality' (expected billing, delivery)",),
        both(csv(), text("test.csv", "text,label\na,billing\nb,quality\n")),
    ),
    # Splits
    "no test file": BadFile(file("bad.csv", "--test", "tset.csv"), ("--test tset.csv: there is no such file",), csv()),
    "test file without the column": BadFile(
        file("bad.csv", "--test", "test.csv"),
        ("test.csv: column 'label' is missing", "unlike bad.csv"),
        both(csv(), text("test.csv", "text,gold\na,billing\n")),
    ),
    "one file twice": BadFile(
        file("bad.csv", "--test", "./bad.csv"), ("--test ./bad.csv is the train file too",), csv()
    ),
    "holdout beyond its bounds": BadFile(
        file("bad.csv", "--holdout", "60%"), ("--holdout is 60%; it must be above 0 and at most 50%",), csv()
    ),
    "holdout that is no share": BadFile(
        file("bad.csv", "--holdout", "some"), ("--holdout is 'some'; write it as 20%",)
    ),
    "holdout of nothing": BadFile(
        file("bad.csv", "--holdout", "20%", "--dev", "d.csv", "--test", "t.csv"),
        ("nothing is left to hold out",),
        csv(),
    ),
    "too few rows to hold any out": BadFile(
        file("bad.csv", "--holdout", "1%"), ("40 train rows are too few to hold out 1% of them",), csv()
    ),
    # Options and names
    "a column without a file": BadFile(
        ("run", "-t", "anger", "--text", "x"), ("--text describes a data file; name the file with --file",)
    ),
    "a data file for a task": BadFile(
        ("run", "-t", "bad.csv"), ("--task bad.csv is a data file; name it with --file",), csv()
    ),
    "the name of another task": BadFile(
        file("anger.csv"),
        ("anger.csv: the task would be called 'anger'", "rename the file"),
        text("anger.csv", GOOD_CSV),
    ),
    "two files of one name": BadFile(
        (*file("good.csv"), "--task", "good.task.toml"),
        ("good.task.toml and good.csv both give a task 'good'",),
        both(text("good.csv", GOOD_CSV), text("good.task.toml", TASK + HELD)),
    ),
    # Task files
    "no task file": BadFile(("run", "-t", "./no.toml"), ("task file no.toml cannot be read",)),
    "task file that is no TOML": BadFile(
        TOML, ("bad.task.toml:2: not valid TOML",), toml("kind = 'binary'\nlabels = = 1\n")
    ),
    "unknown key": BadFile(
        TOML, ("bad.task.toml:1: unknown key 'kinds'; known are name, title",), toml("kinds = 'binary'\n")
    ),
    "unknown key of a table": BadFile(
        TOML,
        ("bad.task.toml:8: unknown key 'txt'; known are text, pair",),
        toml((TASK + HELD).replace("text =", "txt =")),
    ),
    "unknown kind": BadFile(
        TOML,
        ("bad.task.toml:1: kind is 'ternary'; it must be binary, multiclass",),
        toml((TASK + HELD).replace("binary", "ternary")),
    ),
    "no labels": BadFile(
        TOML,
        ("a binary task needs at least two different label names",),
        toml("kind = 'binary'\n" + TASK[TASK.index("[files]") :] + HELD),
    ),
    "no test": BadFile(
        TOML, ("bad.task.toml: files has no test", "holdout"), toml(TASK + "[columns]\ntext = 'text'\n")
    ),
    "file and holdout": BadFile(
        TOML,
        ("bad.task.toml:5: test needs either a path or a holdout",),
        toml(TASK + "test = { path = 'x', holdout = 0.2 }\n"),
    ),
    "holdout of a task file": BadFile(
        TOML, ("bad.task.toml:5: holdout is 70%; it must be above 0",), toml((TASK + HELD).replace("20%", "70%", 1))
    ),
    "metric of another kind": BadFile(
        TOML, ("primary metric 'pearson' is not one of f1_macro",), toml("metric = 'pearson'\n" + TASK + HELD)
    ),
    "missing file of a task file": BadFile(
        TOML, ("gone.csv: the file is missing",), toml((TASK + HELD).replace("good.csv", "gone.csv"))
    ),
    "task file that exists": BadFile(
        ("new-task", "good.csv"),
        ("good.task.toml exists; choose another file with --output",),
        both(text("good.csv", GOOD_CSV), text("good.task.toml", "")),
    ),
}
