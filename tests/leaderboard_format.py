"""A check of ALUE's leaderboard formats without the program's own code: names, rows, order, labels.

Written from the notes on the leaderboard's formats, with a reader of its own for each official file.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

EMOTIONS = (
    "anger", "anticipation", "disgust", "fear", "joy", "love", "optimism", "pessimism", "sadness", "surprise", "trust",
)  # fmt: skip
DIALECTS = frozenset(
    re.findall(
        r"\w+",
        "ALE ALG ALX AMM ASW BAG BAS BEI BEN CAI DAM DOH FES JED JER KHA MOS MSA MUS RAB RIY SAL SAN SFX TRI TUN",
    )
)
RELATIONS = frozenset(("entailment", "neutral", "contradiction"))


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n") if line]


def ids_of(path: Path, *, column: str = "ID", delimiter: str = "\t") -> list[str]:
    header, *lines = lines_of(path)
    if delimiter == ",":
        return [row[column] for row in csv.DictReader(path.open(encoding="utf-8", newline=""))]
    return [line.split(delimiter)[header.split(delimiter).index(column)] for line in lines]


def counted(path: Path, *, header: bool) -> list[str]:
    """Numbers from 0 of a file's rows."""
    if path.suffix == ".csv":
        rows = list(csv.reader(path.open(encoding="utf-8", newline="")))
        return [str(number) for number in range(len(rows) - header)]
    return [str(number) for number in range(len(lines_of(path)) - header)]


OFFICIAL: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "q2q.tsv": ("mq2q/test.csv", lambda p: ids_of(p, column="QuestionPairID", delimiter=",")),
    "madar.tsv": ("madar/MADAR-Corpus-26-test.tsv", lambda p: counted(p, header=False)),
    "irony.tsv": ("idat/IDAT_test_text.csv", lambda p: counted(p, header=True)),
    "v_reg.tsv": ("semeval2018/2018-Valence-reg-Ar-test-gold.txt", ids_of),
    "E_c.tsv": ("semeval2018/2018-E-c-Ar-test-gold.txt", ids_of),
    "offensive.tsv": ("osact4/OSACT2020-sharedTask-test-tweets.txt", lambda p: counted(p, header=False)),
    "hate.tsv": ("osact4/OSACT2020-sharedTask-test-tweets.txt", lambda p: counted(p, header=False)),
    "xnli.tsv": ("xnli/dev-ar.tsv", lambda p: counted(p, header=False)),
    "diagnostic.tsv": ("diagnostic/diagnostic.tsv", lambda p: counted(p, header=True)),
}
"""For each file of the leaderboard, the official file whose rows it answers, and how their ids are read."""

HEADERS: dict[str, tuple[str, ...]] = {
    "q2q.tsv": ("QuestionPairID", "prediction"),
    "irony.tsv": ("id", "prediction"),
    "v_reg.tsv": ("ID", "prediction"),
    "E_c.tsv": ("ID", *EMOTIONS),
    "xnli.tsv": ("pairID", "prediction"),
    "diagnostic.tsv": ("pairID", "prediction"),
}


def is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", text) is not None and math.isfinite(float(text))


VALUES: dict[str, Callable[[str], bool]] = {
    "q2q.tsv": lambda text: text in ("0", "1"),
    "madar.tsv": lambda text: text in DIALECTS,
    "irony.tsv": lambda text: text in ("0", "1"),
    "v_reg.tsv": is_number,
    "E_c.tsv": lambda text: text in ("0", "1"),
    "offensive.tsv": lambda text: text in ("OFF", "NOT_OFF"),
    "hate.tsv": lambda text: text in ("HS", "NOT_HS"),
    "xnli.tsv": lambda text: text in RELATIONS,
    "diagnostic.tsv": lambda text: text in RELATIONS,
}


def problems(name: str, content: bytes, data: Path) -> list[str]:
    """Whatever is wrong with a file of this name; `data` holds the official files."""
    if name not in OFFICIAL:
        return [f"{name}: no file of the leaderboard"]
    text = content.decode("utf-8")
    messages = []
    if text.startswith("\ufeff") or "\r" in text or not text.endswith("\n") or "\n\n" in text:
        messages.append(f"{name}: byte-order mark, carriage return, blank line, or no end of line")
    rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    if name in HEADERS and (tuple(rows[0]) != HEADERS[name]):
        messages.append(f"{name}: header {rows[0]}")
    body: Sequence[list[str]] = rows[1:] if name in HEADERS else rows
    file, read_ids = OFFICIAL[name]
    expected = read_ids(data / file)
    if len(body) != len(expected):
        messages.append(f"{name}: {len(body)} rows instead of {len(expected)}")
    width = len(HEADERS.get(name, ("label",)))
    messages += [f"{name}: row {n} has {len(row)} columns" for n, row in enumerate(body) if len(row) != width]
    if name in HEADERS and [row[0] for row in body] != expected:
        messages.append(f"{name}: identifiers are not those of {file}, in its order")
    values = [value for row in body for value in (row[1:] if name in HEADERS else row)]
    messages += [f"{name}: {value!r} is no label" for value in values if not VALUES[name](value)]
    return messages
