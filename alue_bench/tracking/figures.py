"""The figure that is stored with each run and that compares the run's predictions with the gold labels."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import Predictions
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.evaluation.label_cells import split_labels
from alue_bench.evaluation.predictions import hits_of_tags
from alue_bench.messages.figure_text import literal_text, shorten, shorten_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
LONGEST_TITLE = 80
"""The largest number of characters of a title; a longer title is cut, so that it fits into the figure's width."""
F1 = "f1"
"""The column of `Predictions.scores` whose distribution is drawn for span extraction: the F1 of each answer."""
LONGEST_HORIZONTAL_NAME = 12
"""The largest number of characters of a label name that is written horizontally. The names on the horizontal axis of a
confusion matrix are written vertically if one of them is longer, or if there are more than three names."""
FAST_PNG_OPTIONS: dict[str, Any] = {"compress_level": 2}
"""The options of Pillow for fast PNG compression. Compared with the default, files are twice as large and are written
in a fifth of the time."""


def draw_predictions(path: Path, predictions: Predictions, labels: Labels, *, title: str) -> None:
    """Draw a run's predictions as a PNG file.

    For single-label tasks the figure is a confusion matrix. For multi-label tasks it is a bar chart of the numbers of
    true positives, false negatives and false positives of each label. For tagged words it is a bar chart of the same
    numbers for each type of entity, or for each tag if the tags do not mark entities. For regressions it is a scatter
    plot of predicted against gold values, and for span extraction a histogram of the answers' F1.

    Args:
        path: The file to write.
        predictions: The gold and predicted values of a split.
        labels: The label space of the task, which determines the kind of figure.
        title: The figure's title; a long one is cut.
    """
    title = shorten(title, LONGEST_TITLE)
    with literal_text():
        if labels.kind in (TargetKind.BINARY, TargetKind.MULTICLASS):
            _matrix_of(labels).draw(path, predictions, title)
        else:
            _draw_others(path, predictions, labels, title)


def _draw_others(path: Path, predictions: Predictions, labels: Labels, title: str) -> None:
    figure = _figure(labels)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=9)
    if labels.kind is TargetKind.REGRESSION:
        axes.scatter(predictions.gold, predictions.predicted, s=8, alpha=0.6)
        axes.axline((0, 0), slope=1, color="grey", linewidth=0.8)
        axes.set(xlabel="gold", ylabel="predicted")
    elif labels.extracts_spans:
        axes.hist(predictions.scores[:, predictions.columns.index(F1)], bins=10, range=(0, 1), color="#0072B2")
        axes.set(xlabel="F1 of an answer", ylabel="questions")
    else:
        _draw_hits(axes, predictions, labels)
    figure.savefig(path, dpi=DPI, pil_kwargs=FAST_PNG_OPTIONS)


def _figure(labels: Labels) -> Figure:
    """Return a new, empty figure, which is larger if there are more than 12 labels.

    The figure is made without pyplot, which would keep it in memory until the process ends.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 4.5 if labels.outputs <= 12 else 9.0
    figure = Figure(figsize=(size + 1.5, size), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@lru_cache(maxsize=4)
def _matrix_of(labels: Labels) -> _Matrix:
    return _Matrix(labels)


class _Matrix:
    """A figure of a confusion matrix, whose axes and label names are drawn only once for all runs of a task.

    Axes and label names take longer to draw than the counts and the title, which differ from run to run.
    """

    def __init__(self, labels: Labels) -> None:
        """Draw the axes and the label names."""
        figure = _figure(labels)
        figure.set_dpi(DPI)
        self._names, self._with_counts = list(labels.names), labels.outputs <= 12
        self._axes = figure.add_subplot()
        self._title = self._axes.set_title("title", fontsize=9, animated=True)
        positions = range(len(self._names))
        shown = shorten_names(self._names)
        upright = len(shown) > 3 or max(map(len, shown)) > LONGEST_HORIZONTAL_NAME
        self._axes.set_xticks(positions, shown, rotation="vertical" if upright else "horizontal")
        self._axes.set_yticks(positions, shown)
        self._axes.set(xlabel="predicted", ylabel="gold")
        zeros = [[0.0] * len(self._names) for _ in self._names]
        # The colour map is readable without colour vision, and in print. Rows are normalised to 1, so that rare labels
        # are as visible as frequent ones.
        self._image = self._axes.imshow(zeros, cmap="cividis", vmin=0, vmax=1, animated=True)
        figure.colorbar(self._image, ax=self._axes, label="part of the gold label's examples", shrink=0.9)
        canvas: Any = figure.canvas
        canvas.draw()  # draws everything except the artists marked as animated
        self._canvas, self._background = canvas, canvas.copy_from_bbox(figure.bbox)

    def draw(self, path: Path, predictions: Predictions, title: str) -> None:
        """Write a PNG file with the confusion matrix of these predictions."""
        import numpy as np
        from PIL import Image
        from sklearn.metrics import confusion_matrix

        counts = confusion_matrix(predictions.gold, predictions.predicted, labels=self._names)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        self._image.set_data(shares)
        self._title.set_text(title)
        self._canvas.restore_region(self._background)
        for artist in (self._image, self._title, *self._axes.spines.values()):
            self._axes.draw_artist(artist)
        if self._with_counts:
            for (row, column), count in np.ndenumerate(counts):
                colour = "black" if shares[row, column] > 0.5 else "white"
                text = self._axes.text(column, row, str(count), ha="center", va="center", color=colour)
                self._axes.draw_artist(text)
                text.remove()
        Image.fromarray(np.asarray(self._canvas.buffer_rgba())).save(path, dpi=(DPI, DPI), **FAST_PNG_OPTIONS)


def _hits(predictions: Predictions, labels: Labels) -> dict[str, list[int]]:
    """Return the numbers of true positives, false negatives and false positives of each label of a multi-label task.

    Args:
        predictions: The gold and the predicted labels of each example, as two strings made by `join_labels`.
        labels: The label space.

    Returns:
        Three lists under the keys "right" (true positives), "missed" (false negatives) and "invented" (false
        positives). Each list contains one number for each label, in the order of `labels.names`.
    """
    gold = [set(split_labels(cell)) for cell in predictions.gold]
    predicted = [set(split_labels(cell)) for cell in predictions.predicted]
    return {
        "right": [sum(n in g and n in p for g, p in zip(gold, predicted, strict=True)) for n in labels.names],
        "missed": [sum(n in g and n not in p for g, p in zip(gold, predicted, strict=True)) for n in labels.names],
        "invented": [sum(n not in g and n in p for g, p in zip(gold, predicted, strict=True)) for n in labels.names],
    }


def _draw_hits(axes: object, predictions: Predictions, labels: Labels) -> None:
    if labels.tags_words:
        right, missed, invented = hits_of_tags(predictions.gold, predictions.predicted, labels)
        counts = {"right": right, "missed": missed, "invented": invented}
    else:
        counts = _hits(predictions, labels)
    left = [0] * len(labels.types)
    positions = range(len(labels.types))
    for (kind, values), colour, hatch in zip(
        counts.items(), ("#0072B2", "#E69F00", "#999999"), ("", "//", ".."), strict=True
    ):
        axes.barh(positions, values, left=left, label=kind, color=colour, hatch=hatch)  # type: ignore[attr-defined]
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_yticks(positions, shorten_names(labels.types))  # type: ignore[attr-defined]
    axes.legend(fontsize=8)  # type: ignore[attr-defined]
    counted = "examples" if not labels.tags_words else "entities" if labels.scheme else "words"
    axes.set(xlabel=counted)  # type: ignore[attr-defined]
