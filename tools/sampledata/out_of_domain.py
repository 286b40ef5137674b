"""The samples of the tasks on MLMA, QADI and ArSarcasm, which test models of other tasks out of domain.

The texts are drawn from the same sentence frames as the samples of those other tasks (OSACT4, MADAR and IDAT), with
different random numbers.
"""

from __future__ import annotations

import random
from functools import partial

from tools.sampledata import dialects, irony, offence
from tools.sampledata.compose import distinct
from tools.sampledata.orthography import skeleton
from tools.sampledata.write import comma_separated, tsv

_POSTS = 90
_AMBIGUOUS = 6
"""The number of posts that are labelled both as normal and as offensive; the real file has such posts too."""
_SARCASM_SIZES = {"training": 176, "testing": 80}
_SCENES_PER_COUNTRY = 3
# For each country of QADI, the city of MADAR whose dialect its posts have. Three countries (AE, BH, KW) have no city in
# MADAR; they get a city of a nearby country.
_CITIES = {
    "AE": "DOH", "BH": "DOH", "DZ": "ALG", "EG": "CAI", "IQ": "BAG", "JO": "AMM", "KW": "BAS", "LB": "BEI",
    "LY": "TRI", "MA": "RAB", "MSA": "MSA", "OM": "MUS", "PL": "JER", "QA": "DOH", "SA": "RIY", "SD": "KHA",
    "SY": "DAM", "TN": "TUN", "YE": "SAN",
}  # fmt: skip


def files() -> dict[str, bytes]:
    """Return the contents of the files, by path."""
    return {**_mlma(), **_arsarcasm(), **_qadi()}


def _mlma() -> dict[str, bytes]:
    rng = random.Random("mlma")
    drawn = distinct(lambda: offence.labelled(rng, 0.0), lambda row: skeleton(row[0]), _POSTS, set())
    rows = []
    for number, (text, offensive, hateful) in enumerate(drawn):
        kinds = [*["offensive"] * (offensive == "OFF"), *["hateful"] * (hateful == "HS")] or ["normal"]
        if number < _AMBIGUOUS:
            kinds = ["offensive", "normal"]
        rows.append((str(number), text, "_".join(kinds), "direct", "indifference", "origin", "other"))
    header = ("HITId", "tweet", "sentiment", "directness", "annotator_sentiment", "target", "group")
    return {"mlma/ar_dataset.csv": comma_separated([header, *rows])}


def _arsarcasm() -> dict[str, bytes]:
    seen: set[str] = set()
    written = {}
    for split, size in _SARCASM_SIZES.items():
        rng = random.Random(f"arsarcasm {split}")
        held_out = irony.HELD_OUT if split == "training" else 0.0
        drawn = distinct(lambda: irony.labelled(rng, held_out), lambda row: skeleton(row[0]), size, seen)  # noqa: B023
        rows = [(text, "TRUE" if label else "FALSE", "NEG" if label else "NEU", "gulf") for text, label in drawn]
        written[f"arsarcasm-v2/{split}_data.csv"] = comma_separated(
            [("tweet", "sarcasm", "sentiment", "dialect"), *rows]
        )
    return written


def _qadi() -> dict[str, bytes]:
    rng = random.Random("qadi")
    seen: set[str] = set()
    rows = []
    for number in range(_SCENES_PER_COUNTRY):
        for country, city in _CITIES.items():
            scene = dialects.scene(number)
            [text] = distinct(partial(dialects.tell_anew, scene, city, rng), str, 1, seen)
            rows.append((text, country))
    return {"qadi/QADI_test.txt": tsv(rows)}
