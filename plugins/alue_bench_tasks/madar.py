"""The MADAR Corpus-26: travel phrases in the Arabic of 25 cities and in Modern Standard Arabic."""

from collections.abc import Set

from alue_bench import DataFile, Delimited, Splits

SOURCE = "MADAR shared task 2019, subtask 1 (Corpus-26), on request from its authors"
LICENCE = "granted by the authors on request; the files may not be passed on"
CITATION = (
    "Houda Bouamor, Sabit Hassan and Nizar Habash. 2019. The MADAR Shared Task on Arabic Fine-Grained "
    "Dialect Identification. In Proceedings of the Fourth Arabic Natural Language Processing Workshop, pages "
    "199-207."
)
OFFICIAL_METRIC = "macro-averaged F1"

# For each label, the city (or Modern Standard Arabic) that it stands for, and the BCP 47 code of the country's Arabic.
VARIETIES = {
    "ALE": ("Aleppo", "ar-SY"),
    "ALG": ("Algiers", "ar-DZ"),
    "ALX": ("Alexandria", "ar-EG"),
    "AMM": ("Amman", "ar-JO"),
    "ASW": ("Aswan", "ar-EG"),
    "BAG": ("Baghdad", "ar-IQ"),
    "BAS": ("Basra", "ar-IQ"),
    "BEI": ("Beirut", "ar-LB"),
    "BEN": ("Benghazi", "ar-LY"),
    "CAI": ("Cairo", "ar-EG"),
    "DAM": ("Damascus", "ar-SY"),
    "DOH": ("Doha", "ar-QA"),
    "FES": ("Fes", "ar-MA"),
    "JED": ("Jeddah", "ar-SA"),
    "JER": ("Jerusalem", "ar-PS"),
    "KHA": ("Khartoum", "ar-SD"),
    "MOS": ("Mosul", "ar-IQ"),
    "MSA": ("Modern Standard Arabic", "arb"),
    "MUS": ("Muscat", "ar-OM"),
    "RAB": ("Rabat", "ar-MA"),
    "RIY": ("Riyadh", "ar-SA"),
    "SAL": ("Salt", "ar-JO"),
    "SAN": ("Sanaa", "ar-YE"),
    "SFX": ("Sfax", "ar-TN"),
    "TRI": ("Tripoli", "ar-LY"),
    "TUN": ("Tunis", "ar-TN"),
}


# For each label of a city, the label of its country in the task QADI, which writes PL for Palestine.
COUNTRIES = {
    label: "MSA" if code == "arb" else "PL" if code == "ar-PS" else code.removeprefix("ar-")
    for label, (_, code) in VARIETIES.items()
}


def languages(*labels: str) -> tuple[str, ...]:
    """Return the BCP 47 codes of the Arabic varieties of some labels (keys of `VARIETIES`), without duplicates."""
    return tuple(sorted({VARIETIES[label][1] for label in labels}))


def splits(*, ignore: Set[str] = frozenset(), protocol: str = "official train, dev and test files") -> Splits:
    """Return the declaration of a task's splits: the official files for train, dev and test.

    Args:
        ignore: The labels whose rows are left out.
        protocol: The sentence about the origin of the splits, which is recorded with each run.
    """
    read = Delimited(columns=2, text=0, target=1, ignore=frozenset(ignore))
    return Splits(
        train=DataFile("madar/MADAR-Corpus-26-train.tsv", read),
        dev=DataFile("madar/MADAR-Corpus-26-dev.tsv", read),
        test=DataFile("madar/MADAR-Corpus-26-test.tsv", read),
        protocol=protocol,
    )
