"""The figure that each run carries: what was predicted for what."""

from __future__ import annotations

from pathlib import Path

from alue_bench.spec import Predictions
from alue_bench.task import Labels, TargetKind


def draw_predictions(path: Path, predictions: Predictions, labels: Labels, *, title: str) -> None:
    """A confusion matrix; for several labels at once how often each was right, missed or invented; for a regression
    predicted against gold numbers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 4.5 if labels.outputs <= 12 else 9.0
    figure = Figure(figsize=(size + 1.5, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=9)
    if labels.kind is TargetKind.REGRESSION:
        axes.scatter(predictions.gold, predictions.predicted, s=8, alpha=0.6)
        axes.axline((0, 0), slope=1, color="grey", linewidth=0.8)
        axes.set(xlabel="gold", ylabel="predicted")
    elif labels.kind is TargetKind.MULTILABEL:
        _draw_hits(axes, predictions, labels)
    else:
        from sklearn.metrics import ConfusionMatrixDisplay

        ConfusionMatrixDisplay.from_predictions(
            predictions.gold,
            predictions.predicted,
            labels=list(labels.names),
            include_values=labels.outputs <= 12,
            xticks_rotation="vertical" if labels.outputs > 3 else "horizontal",
            cmap="cividis",  # readable without colour vision, and in print
            ax=axes,
        )
    figure.savefig(path, dpi=110)


def _draw_hits(axes: object, predictions: Predictions, labels: Labels) -> None:
    gold = [set(names.split()) for names in predictions.gold]
    predicted = [set(names.split()) for names in predictions.predicted]
    counts = {
        "right": [sum(n in g and n in p for g, p in zip(gold, predicted, strict=True)) for n in labels.names],
        "missed": [sum(n in g and n not in p for g, p in zip(gold, predicted, strict=True)) for n in labels.names],
        "invented": [sum(n not in g and n in p for g, p in zip(gold, predicted, strict=True)) for n in labels.names],
    }
    left = [0] * len(labels.names)
    for (kind, values), colour, hatch in zip(
        counts.items(), ("#0072B2", "#E69F00", "#999999"), ("", "//", ".."), strict=True
    ):
        axes.barh(labels.names, values, left=left, label=kind, color=colour, hatch=hatch)  # type: ignore[attr-defined]
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.legend(fontsize=8)  # type: ignore[attr-defined]
    axes.set(xlabel="examples")  # type: ignore[attr-defined]
