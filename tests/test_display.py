"""Texts from outside are shown as they are written, wherever they are shown; what cannot be, is escaped."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from alue_bench.contract.task import Labels
from alue_bench.evaluation.predictions import predictions_table
from alue_bench.messages.display import LATEX, file_name, latex, markdown, one_line, visible
from alue_bench.messages.figure_text import shorten_names
from alue_bench.reporting.charts import Point, averages, learning_curves, pareto
from alue_bench.tracking.figures import draw_predictions

SIGNS = "\\`*_{}[]()<>#+-.!|~&$^:;=%@?\"'/, 0123abc\n\t\x1b\u202e\u200d😀🏽ليس−–Δ"
TEXTS = st.text(st.sampled_from(SIGNS), max_size=24) | st.text(max_size=24)


class TestATerminal:
    @given(TEXTS)
    def test_is_steered_by_no_text(self, text: str) -> None:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", visible(text))
        assert "\n" not in one_line(text)

    @pytest.mark.parametrize("text", ["👩‍👧 می‌خواهم é\u00a0€", "line\nline", "[red]:joy: $x_1$ C:\\new", "ليسَ ساخرا"])
    def test_shows_letters_of_all_scripts_as_they_are(self, text: str) -> None:
        assert visible(text) == text


class TestAFileName:
    @given(st.lists(st.text(max_size=300) | st.text(st.sampled_from("aab/ق😀"), min_size=150), min_size=2, unique=True))
    def test_fits_every_file_system_and_keeps_names_apart(self, stems: list[str]) -> None:
        names = [file_name(stem, "-score.png") for stem in stems]
        assert all(len(name.encode()) <= 200 and name.endswith("-score.png") for name in names)
        assert not any("/" in name or "\0" in name for name in names)
        assert len(set(names)) == len(names)

    def test_is_the_name_itself_where_that_fits(self) -> None:
        assert file_name("mdd-قط [x] 50%", ".png") == "mdd-قط [x] 50%.png"


TEXT_NODES = ("text", "text_special", "softbreak")
BLOCKS = ("root", "paragraph", "heading", "bullet_list", "list_item", "table", "thead", "tbody", "tr", "th", "td")


def text_of(node: SyntaxTreeNode) -> str:
    """Return the visible text of rendered Markdown, which may have blocks and strong texts and no other nodes."""
    if node.type in TEXT_NODES:
        return node.content
    assert node.type in (*BLOCKS, "inline", "strong"), node.type
    return (" " if node.type in BLOCKS else "").join(map(text_of, node.children))


class TestMarkdown:
    PLACES = ("a\n\n{}\n\nz", "a\n\n# {}\n\nz", "- a\n- {}\n- z", "| a |\n| --- |\n| {} |\n\nz", "a\n\n- **x{}x** z")

    @given(TEXTS)
    @example("1. x")
    @example("123456789) x")
    @example("---")
    @example("- [ ] x")
    @example(":joy:")
    @example("a\\|b\\")
    @example("<img src=x>&amp;")
    def test_shows_any_text_as_it_is_wherever_it_stands(self, text: str) -> None:
        parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
        wanted = " ".join(visible(text).split())
        for place in self.PLACES:
            shown = text_of(SyntaxTreeNode(parser.parse(place.format(markdown(text)))))
            framed = f"a x{wanted}x z" if "**" in place else f"a {wanted} z"
            assert shown.split() == framed.split(), place

    @given(TEXTS)
    def test_leaves_nothing_to_processors_of_mathematics_and_emoji(self, text: str) -> None:
        assert not re.search(r"(?<!\\)(?:\\\\)*\$", markdown(text))
        assert not re.search(r"(?<!\\)(?:\\\\)*:[\w+-]+:", markdown(text))


COMMANDS = {written: sign for sign, written in LATEX.items() if sign != "\n"}


def read_latex(source: str) -> str:
    """Return the text that LaTeX would set: without commands and groups, with ligatures."""
    tokens = re.findall(r"\\symbol\{34\}|\\[a-zA-Z]+\{\}|\\.|\$[^$]*\$|\{[\[\]*]\}|---?|,,|\{\}|.", source, re.DOTALL)
    set_as = {**COMMANDS, "--": "–", "---": "—", ",,": "„", "{}": ""}
    assert not [token for token in tokens if token in LATEX]
    return "".join(set_as.get(token, token) for token in tokens)


@given(TEXTS)
@example("a---b,,c")
@example("[b] & *x* \\\\ \"q\" 'q' `q` –-")
def test_latex_sets_any_text_as_it_is(text: str) -> None:
    assert read_latex(latex(text)) == visible(text).replace("\n", " ")
    assert not re.match(r"\s*[\[*]", latex(text)), "the end of a row would take it for an option"


HOSTILE = ["$\\frac{1$_{^", "_hidden", "$a$", "[red]x[/]", "😀 ليس", ' id="x"', "#1b1f24", "xlink:href", "x" * 260]


class TestFigures:
    def test_of_the_report_show_names_as_they_are(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            drawn = [
                pareto(
                    [Point(n, 0.5, 2.0 + i) for i, n in enumerate(HOSTILE)],
                    HOSTILE,
                    name="a",
                    metric="$m$",
                    figure_title="$",
                ),
                averages([(name, 0.5) for name in HOSTILE], name="b", figure_title="$t$", unit="$u$", digits=2),
                learning_curves(
                    {n: [[(1, 0.1), (2, 0.3)]] for n in HOSTILE}, name="c", metric="$m$", figure_title="$t$"
                ),
            ]
        for picture in drawn:
            for svg in (picture.svg, picture.inline):
                texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
                assert {name for name in HOSTILE if len(name) < 28} - {"xlink:href"} <= {*texts}, picture.name
                assert "xlink:href" in texts
                assert any(text.startswith("xxxx") and len(text) == 28 for text in texts)

    @pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
    def test_of_a_run_are_drawn_of_any_labels(self, kind: str, tmp_path: Path) -> None:
        names = tuple(HOSTILE)
        labels = Labels.regression(0, 1) if kind == "regression" else getattr(Labels, kind)(*names)
        logits = np.random.default_rng(0).normal(size=(20, labels.outputs))
        gold = {
            "multiclass": np.arange(20) % len(names),
            "multilabel": logits > 0.5,
            "regression": logits[:, 0],
        }
        predictions = predictions_table(list(map(str, range(20))), gold[kind], logits, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            draw_predictions(tmp_path / "x.png", predictions, labels, title=" ".join(HOSTILE))
        assert (tmp_path / "x.png").stat().st_size > 1000


def test_names_that_are_alike_when_cut_are_told_apart() -> None:
    names = ["a" * 40 + "b", "a" * 40 + "c", "full"]
    shown = shorten_names(names)
    assert len(set(shown)) == 3
    assert shown[2] == "full"
    assert max(map(len, shown)) == 28
