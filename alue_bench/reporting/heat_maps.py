"""Heat maps of score and training time, by the numbers of frozen bottom and top layers.

The map of scores corresponds to figure 1 of the paper by Betka et al.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from alue_bench.contract.cells import cell_of
from alue_bench.reporting import grid
from alue_bench.reporting.confirmation import confirmation_in
from alue_bench.reporting.content import Gallery, Item, Paragraph
from alue_bench.reporting.drawing import Picture, style, to_svg
from alue_bench.reporting.fresh_runs import RecommendationRule, how_to_confirm
from alue_bench.reporting.subjects import Subject

MIN_CELLS = 6
"""The smallest number of freezing settings (pairs of numbers of frozen bottom and top layers) for which a map is drawn.
Fewer settings, or settings in only one row or column of the map, are better shown as a table."""
MAX_MAPS = 8
"""The largest number of grids (sets of freezing settings for one task and model) that are drawn. If there are more, the
page says so."""
COMMAND = "alue-bench sweep -t mdd --grid bottom-top"
"""A command that produces the runs for a heat map, with many numbers of frozen bottom and top layers."""


def heat_maps(subjects: Sequence[Subject], prefix: str, rule: RecommendationRule) -> list[Item]:
    """Return heat maps of score and training time for each subject with runs of enough freezing settings.

    A freezing setting is a number of frozen bottom layers and a number of frozen top layers. Below the maps, a sentence
    states the recommended setting, or why there is none. The result is empty if no subject has enough settings.

    Args:
        subjects: The subjects to show. A subject is the comparison of strategies for one task and model under one set
            of conditions, with its runs.
        prefix: The text with which the names of the pictures begin; it makes the names unique on the page.
        rule: The rule by which one of the settings is recommended, and its loss is measured.
    """
    groups = [(subject, group) for subject in subjects for group in _groups(subject) if _is_map(group)]
    items: list[Item] = []
    for number, (subject, group) in enumerate(groups[:MAX_MAPS]):
        recommended = _recommended(subject, group, rule)
        with style(grid=False):
            drawn = [
                Picture(
                    name=f"{prefix}-{number + 1}-{kind}",
                    svg=to_svg(draw(group, recommended), f"{prefix}-{number + 1}-{kind}"),
                    alt=f"Heat map of {what} by frozen bottom layers (upwards) and frozen top layers (to the right) "
                    f"for {group.title}, {len(group.cells)} settings. {_extremes(group, column)}",
                    wide=True,
                    themed=False,
                )
                for kind, draw, what, column in (
                    ("score", grid.score_map, f"test {group.metric}", "test_score"),
                    ("time", grid.runtime_map, "training time in seconds", "train_s"),
                )
            ]
        items.append(Gallery(drawn))
        if recommended is not None:
            sentences = _sentences(recommended, subject)
            items.append(Paragraph(f"Recommended for {group.title}: {' '.join(sentences)}"))
        elif (why := grid.nothing_learnt(group.cells)) is not None:
            items.append(Paragraph(f"No recommendation for {group.title}: {why.sentence()}.", warning=True))
    if len(groups) > MAX_MAPS:
        items.append(
            Paragraph(
                f"Shown: {MAX_MAPS} of {len(groups)} grids. Use --task and --model to choose others.", warning=True
            )
        )
    return items


def _groups(subject: Subject) -> list[grid.GridResults]:
    """Return the results of the subject's grid as a list with one element; empty if no strategy is a freezing setting.

    A grid is the set of freezing settings for one task, model and combination of hyper-parameters. All runs of a
    subject have the same hyper-parameters, so that there is only one grid.
    """
    # Strategies that freeze other sets of layers do not fit on a map. Removing them first saves time.
    placed = subject.runs[subject.runs["strategy"].map(lambda name: cell_of(str(name)) is not None)]
    return [replace(group, conditions=subject.conditions) for group in grid.grids_of(grid.choosing_runs(placed))]


def _recommended(subject: Subject, group: grid.GridResults, rule: RecommendationRule) -> grid.Recommendation | None:
    """Return the recommended setting of a grid; None if there is none.

    If the setting has runs with fresh seeds, the result includes the loss in these runs.
    """
    recommended = grid.recommend(group.cells, rule.tolerance)
    if recommended is None or recommended.is_reference or recommended.reference != subject.compared.baseline:
        return recommended
    fresh = rule.fresh(subject, recommended.strategy)
    return (
        recommended
        if fresh is None
        else replace(recommended, confirmation=confirmation_in(fresh, recommended.strategy))
    )


def _sentences(recommended: grid.Recommendation, subject: Subject) -> list[str]:
    """Return sentences on the recommended setting and its loss.

    If the loss is not known, a sentence states the command to measure it.
    """
    if recommended.is_reference or recommended.confirmation is not None:
        return [f"{sentence}." for sentence in recommended.sentences()]
    sentences = [
        f"{sentence}." for sentence in (recommended.sentence(), recommended.alternatives_sentence()) if sentence
    ]
    return [*sentences, how_to_confirm(subject, recommended.strategy)]


def _is_map(group: grid.GridResults) -> bool:
    placed = group.cells[group.cells["bottom"].notna()]
    return len(placed) >= MIN_CELLS and placed["bottom"].nunique() > 1 and placed["top"].nunique() > 1


def _extremes(group: grid.GridResults, column: str) -> str:
    placed = group.cells[group.cells["bottom"].notna() & group.cells[column].notna()]
    if placed.empty:
        return ""
    high, low = placed.loc[placed[column].idxmax()], placed.loc[placed[column].idxmin()]
    return f"Highest: {high['strategy']} {high[column]:.3f}; lowest: {low['strategy']} {low[column]:.3f}."
