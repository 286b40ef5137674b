"""The bundled model normalises Arabic inside its tokenizer: it is given raw text, and needs no network."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alue_bench_models import mini

FOLDER = Path(mini.MODEL.checkpoint)


@pytest.fixture(scope="module")
def no_network() -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was attempted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="module")
def tokenizer(no_network: None) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("مَدْرَسَةٌ كبيرةٌ", "مدرسة كبيرة", id="diacritics"),
        pytest.param("هٰذا", "هذا", id="superscript alef"),
        pytest.param("مـــرحـــبا", "مرحبا", id="tatweel"),
        pytest.param("أحمد إلى آخر ٱلطريق", "احمد الى اخر الطريق", id="alef"),
        pytest.param("على مدى", "علي مدي", id="alef maqsura"),
        pytest.param("ههههههههههه", "هه", id="a long laugh"),
        pytest.param("رااااااائع!!!!!!", "راائع!!", id="letters and marks three times or more"),
        pytest.param("مـمـمَم", "مم", id="repeats that tatweel and vowel signs part"),
        pytest.param("😂😂😂😂😂", "😂😂", id="emoji"),
        pytest.param("@someone_1 أهلا", "@USER أهلا", id="mention"),
        pytest.param("شكرا @فلان_2.", "شكرا USER .", id="Arabic mention"),
        pytest.param("انظر https://example.org/a?b=1#c", "انظر URL", id="link"),
        pytest.param("انظر http://example.org هنا", "انظر URL هنا", id="link inside"),
        pytest.param("١٢ و۳۴", "12 و34", id="digits"),
        pytest.param("Hello", "hello", id="case"),
        pytest.param("  نص \t\n نص ", "نص نص", id="white space"),
    ],
)
def test_alike(tokenizer: Any, one: str, other: str) -> None:
    assert tokenizer(one).input_ids == tokenizer(other).input_ids


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("رائع", "راائع", id="twice is not once"),
        pytest.param("مدرسه", "مدرسة", id="ta marbuta"),
        pytest.param("سؤال", "سوال", id="hamza on waw"),
    ],
)
def test_not_alike(tokenizer: Any, one: str, other: str) -> None:
    assert tokenizer(one).input_ids != tokenizer(other).input_ids


def test_a_text_stands_between_cls_and_sep(tokenizer: Any) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("سلام").input_ids)
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")


def test_a_pair_is_told_apart_by_its_token_types(tokenizer: Any) -> None:
    encoded = tokenizer("سلام", "عليكم")
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids)
    second = tokens.index("[SEP]") + 1
    assert encoded.token_type_ids == [0] * second + [1] * (len(tokens) - second)
    assert tokens.count("[SEP]") == 2


def test_ordinary_words_are_not_unknown(tokenizer: Any) -> None:
    assert tokenizer.unk_token_id not in tokenizer("ذهب الولد إلى المدرسة صباحا، وين رايح اليوم؟").input_ids


def test_the_model_fits_its_tokenizer_and_loads_offline(tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=3)
    assert model.dtype == torch.float32  # on disk it is float16
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.max_position_embeddings >= tokenizer.model_max_length
    with torch.inference_mode():
        logits = model.eval()(**tokenizer(["نص", "نص أطول قليلا"], padding=True, return_tensors="pt")).logits
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


def test_the_card_and_the_weights_lie_together() -> None:
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in FOLDER.iterdir()
    }
    assert json.loads((FOLDER / "config.json").read_text())["dtype"] == "float32"
