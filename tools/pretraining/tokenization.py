"""The WordPiece tokenizer. It takes raw text, because the normalisation of Arabic is part of ``tokenizer.json``.

The steps of the normalisation, in order:

- compatibility forms are composed (NFKC), and Latin letters are lowercased;
- links become ``url``, mentions (including ``@USER``) become ``user``, the ``<LF>`` of OSACT4 becomes a space;
- diacritics, tatweel, joiners, direction marks, variation selectors and skin tones are removed;
- alef variants become bare alef, alef maqsura becomes ya; Persian and Urdu forms of kaf, ya and ha become the Arabic
  ones;
- Arabic-Indic and Persian digits become 0-9;
- three or more equal characters in a row become two, except digits;
- punctuation is split off, and each emoji is a word of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
LARGEST = 65_536
"""The largest vocabulary size: piece numbers are stored in two bytes."""

_REMOVED = (
    r"[\x{0610}-\x{061A}\x{0640}\x{064B}-\x{065F}\x{0670}\x{06D6}-\x{06DC}\x{06DF}-\x{06E8}\x{06EA}-\x{06ED}"
    r"\x{00AD}\x{0300}-\x{036F}\x{200B}-\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2069}"
    r"\x{FE00}-\x{FE0F}\x{FEFF}\x{1F3FB}-\x{1F3FF}]"
)
_EMOJI = r"[\x{2190}-\x{2BFF}\x{3030}\x{303D}\x{1F000}-\x{1FAFF}]"
_DIGITS = ("٠۰", "١۱", "٢۲", "٣۳", "٤۴", "٥۵", "٦۶", "٧۷", "٨۸", "٩۹")
_LETTERS = {"[إأآٱٲٳ]": "ا", "[ىیېے]": "ي", "[کڪګ]": "ك", "[ھہەۀۂ]": "ه", "[۔]": "."}


def normaliser() -> normalizers.Normalizer:
    """Return the text normalisation that the docstring of this module describes."""
    steps: list[normalizers.Normalizer] = [
        normalizers.NFKC(),
        normalizers.Replace("<LF>", " "),
        normalizers.Replace(Regex(r"(?:https?://|www\.)\S+|\bURL\b"), " url "),
        normalizers.Replace(Regex(r"@\w+"), " user "),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(_REMOVED), ""),
    ]
    steps += [normalizers.Replace(Regex(letters), letter) for letters, letter in _LETTERS.items()]
    steps += [normalizers.Replace(Regex(f"[{forms}]"), str(digit)) for digit, forms in enumerate(_DIGITS)]
    # Three or more equal characters become two: each character that is followed by two equal ones is removed. (The text
    # that replaces a match cannot contain back-references.)
    steps.append(normalizers.Replace(Regex(r"([^\d])(?=\1\1)"), ""))
    steps.append(normalizers.BertNormalizer(clean_text=True, strip_accents=False, lowercase=False))
    return normalizers.Sequence(steps)


def untrained(model: models.WordPiece | None = None) -> Tokenizer:
    """Return a WordPiece tokenizer with all settings except the vocabulary.

    It normalises and splits the text, and adds the special pieces: ``[CLS] a [SEP] b [SEP]``.

    Args:
        model: The WordPiece model with the vocabulary; None creates one with an empty vocabulary.
    """
    tokenizer = Tokenizer(model or models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normaliser()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(_EMOJI), "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer


def learn(lines: Iterable[str], vocabulary: int, alphabet: int = 850) -> Tokenizer:
    """Learn a vocabulary of word pieces from texts, and return the tokenizer.

    Args:
        lines: The texts.
        vocabulary: The number of pieces.
        alphabet: The number of characters that become pieces of their own, the most frequent ones first.
    """
    tokenizer = untrained()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        min_frequency=3,
        limit_alphabet=alphabet,
        special_tokens=list(SPECIAL),
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def load(path: Path) -> Tokenizer:
    """Load a tokenizer that `learn` returned from its file, tokenizer.json.

    Raises:
        SystemExit: The tokenizer does not have the pieces `SPECIAL` first, or has more than `LARGEST` pieces.
    """
    tokenizer = Tokenizer.from_file(str(path))
    numbers = tuple(tokenizer.token_to_id(piece) for piece in SPECIAL)
    if numbers != tuple(range(len(SPECIAL))) or tokenizer.get_vocab_size() > LARGEST:
        raise SystemExit(
            f"{path}: a tokenizer for this recipe has the pieces {' '.join(SPECIAL)} first and at most {LARGEST} in all"
        )
    return tokenizer


def repeated(lines: list[str], weight: float) -> Iterator[str]:
    """Yield every line `weight` times; with a weight below 1, yield only this share of the lines, evenly spread."""
    if weight < 1:
        stride = 1 / weight
        yield from (lines[int(i * stride)] for i in range(int(len(lines) * weight)))
    else:
        for _ in range(int(weight)):
            yield from lines
