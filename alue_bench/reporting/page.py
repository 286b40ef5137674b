"""The conversion of results from the MLflow store to a report page (`Page`) with its sections.

Runs with different data sources, hardware or numbers of folds are not comparable. Every section is therefore divided
into blocks, one for each data source, kind of hardware and number of folds, and no figure or average mixes two blocks.
Within a block, strategies are compared only if their runs have the same splits and hyper-parameters. A section without
suitable runs shows a command that produces such runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from alue_bench.contract.version import __version__
from alue_bench.evaluation.across_tasks import MIN_TASKS
from alue_bench.evaluation.margins import Margins
from alue_bench.evaluation.significance import MIN_SEEDS
from alue_bench.messages.suggestion import PROGRAM, command_line
from alue_bench.planning.grid import DEFAULT_TOLERANCE
from alue_bench.planning.tuning import EXAMPLE
from alue_bench.reporting import (
    across_section,
    findings,
    heat_maps,
    matched_compute,
    out_of_domain_table,
    overview,
    tuning,
)
from alue_bench.reporting.comparison import BASELINE, Comparison, compare
from alue_bench.reporting.conditions import conditions
from alue_bench.reporting.content import Block, Item, Missing, Page, Section
from alue_bench.reporting.fresh_runs import RecommendationRule
from alue_bench.reporting.numbers import number_with_noun
from alue_bench.reporting.out_of_domain import out_of_domain
from alue_bench.reporting.out_of_domain_table import COMMAND as OUT_OF_DOMAIN
from alue_bench.reporting.papers_tables import papers_tables
from alue_bench.reporting.recorded import MAX_TESTED_RUNS, limited_reader
from alue_bench.reporting.run_figures import FigureLimits, choices, confusion, learning
from alue_bench.reporting.subjects import ComparableRuns, arrange
from alue_bench.tracking.connection import where_options
from alue_bench.tracking.reading import Results, count_sentences, read_targets_elsewhere

TITLE = "Which layers should I train?"
MORE_SEEDS_COMMAND = "alue-bench run --strategy full --strategy bottom3top4 --strategy head-only --seeds 3"
"""A command that produces the runs that most sections of a report page need."""
CHOOSING_COMMAND = "alue-bench run --strategy full --strategy surgical-3 --strategy random-3 --seeds 3"
"""A command that produces runs whose strategies choose their layers by a probe."""
SAMPLE_NOTICE = (
    "Some of these results come from the embedded sample data, which was written for demonstration. Such scores say "
    "nothing about the real tasks."
)


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """The options of a report page."""

    metric: str | None = None
    """The metric for the comparison of strategies, such as "f1_micro"; None for each task's primary metric."""
    margins: Margins | None = None
    """The margin (largest acceptable loss of score) for each metric; None for the default."""
    tolerance: float = DEFAULT_TOLERANCE
    """The largest accepted loss of dev score of a recommended setting, as a share of full fine-tuning's dev score."""
    figure_limits: FigureLimits = field(default_factory=FigureLimits)
    """The largest numbers of subjects, strategies and seeds in sections that are long or slow to build, such as the
    learning curves."""


def build_page(
    results: Results,
    request: PageRequest | None = None,
    *,
    compared: Comparison | None = None,
    now: datetime | None = None,
) -> Page:
    """Build a report page on the results of runs.

    Args:
        results: The finished runs.
        request: The options; None for the defaults.
        compared: The comparison of the runs with the metric and margins of `request`, if it was computed before; None
            to compute it here.
        now: The time that is stated at the bottom of the page; None for the current time.

    Raises:
        UsageError: No run has the metric `request.metric`, or a metric that `request.margins` names.
    """
    request = request or PageRequest()
    runs = results.frame
    if compared is None:
        compared = compare(runs, limited_reader(results), metric=request.metric, margins=request.margins)
    blocks = arrange(compared, runs)
    return Page(
        title=TITLE,
        lead=_lead(results),
        notices=_notices(results, blocks),
        sections=[_with_store_options(make(results, blocks, request), results) for make in SECTIONS],
        footer=f"Written by alue-bench {__version__}, {now or datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )


def _lead(results: Results) -> str:
    runs = results.frame
    plan = f", plan {results.parent_id}" if results.parent_id else ""
    if runs.empty:
        return f"Experiment {results.connection.experiment}{plan}: no finished run."
    counted = (
        number_with_noun(len(runs), "finished run"),
        number_with_noun(runs["task"].nunique(), "task"),
        number_with_noun(runs["model"].nunique(), "model"),
        number_with_noun(runs["strategy"].nunique(), "strategy", "strategies"),
        number_with_noun(runs["seed"].nunique(), "seed"),
    )
    return f"Experiment {results.connection.experiment}{plan}: {', '.join(counted)}."


def _notices(results: Results, blocks: Sequence[ComparableRuns]) -> list[str]:
    """Return the warnings for the top of the page, for example that runs used the embedded sample data."""
    notices = []
    if (results.frame["data_source"] == "sample").any():
        notices.append(SAMPLE_NOTICE)
    if len(blocks) > 1:
        notices.append(
            f"These runs form {len(blocks)} groups that are not comparable, since {_differing_conditions(blocks)} "
            "differ. Every section shows each group separately; nothing is computed across groups."
        )
    if len(results.frame) > MAX_TESTED_RUNS:
        notices.append(
            f"Differences are tested with the predictions of at most {MAX_TESTED_RUNS} of "
            f"{number_with_noun(len(results.frame), 'run')}. alue-bench compare tests all; use --task, --model and "
            "--strategy to choose fewer."
        )
    seeds = max((row.replicates for b in blocks for s in b.subjects for row in s.compared.rows), default=0)
    unit = "fold" if any(subject.compared.folds for block in blocks for subject in block.subjects) else "seed"
    if 0 < seeds < MIN_SEEDS:
        notices.append(
            f"No strategy has more than {number_with_noun(seeds, unit)}: a difference may be due to chance, and there "
            f"is no verdict on any. A verdict needs at least --{unit}s {MIN_SEEDS}."
        )
    return notices + [f"{sentence}." for sentence in count_sentences(results.counts)]


def _differing_conditions(blocks: Sequence[ComparableRuns]) -> str:
    """Return a phrase with the conditions, such as hardware, in which the sets of comparable runs may differ."""
    folds = {subject.compared.folds for block in blocks for subject in block.subjects}
    return "data source, hardware or folds" if len(folds) > 1 else "data source or hardware"


# Sections ----------------------------------------------------------------------------------------------------------


def _with_store_options(section: Section, results: Results) -> Section:
    """Return the section with options added to the commands that it shows.

    With these options, the commands record runs in the MLflow store and experiment that the page is about.
    """
    where = where_options(results.connection.uri, results.connection.experiment)
    options = command_line(options=where).removeprefix(PROGRAM)

    def complete(item: Item) -> Item:
        return replace(item, command=item.command + options) if isinstance(item, Missing) and item.command else item

    blocks = [replace(block, items=[complete(item) for item in block.items]) for block in section.blocks]
    return replace(section, blocks=blocks)


def _each_block(
    blocks: Sequence[ComparableRuns], make: Callable[[ComparableRuns, str], Sequence[Item]], missing: Missing
) -> list[Block]:
    """Return the content of a section as blocks, one for each set of comparable runs that has content.

    Args:
        blocks: The sets of comparable runs.
        make: A function that returns the content for one set. It takes the set and a text that identifies the set, for
            the names of pictures.
        missing: The notice to show if no set has content.
    """
    made = [(block, make(block, str(number))) for number, block in enumerate(blocks, start=1)]
    return [Block(block.heading, items) for block, items in made if items] or [Block("", [missing])]


def _summary(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    rule = RecommendationRule(limited_reader(results), request.tolerance)
    return Section(
        "summary",
        "Summary",
        _each_block(
            blocks,
            lambda block, prefix: findings.sentences(block.subjects, rule),
            Missing("No run has finished yet. To produce some, run:", MORE_SEEDS_COMMAND),
        ),
    )


def _scores(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    return Section(
        "scores",
        "Scores and times",
        _each_block(
            blocks,
            lambda block, prefix: findings.score_table(block.subjects),
            Missing("No run has finished yet. To produce some, run:", MORE_SEEDS_COMMAND),
        ),
        intro="Means over seeds ± half-width of the 95 % interval. The tests treat seeds and test examples as "
        "random. Better and worse are corrected for the number of tests. Within the margin: the one-sided 95 % bound "
        "of the loss is below the margin. Inconclusive: a loss up to this bound, which is above the margin, is not "
        "excluded.",
    )


def _trades(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    return Section(
        "trade",
        "Score against time",
        _each_block(
            blocks,
            lambda block, prefix: [
                *overview.score_time_plots(block.subjects, request.figure_limits.subjects, f"trade-{prefix}"),
                *matched_compute.missing_run_notices(block.subjects, results, request.figure_limits.subjects),
            ],
            Missing(
                "No task has runs of two strategies under the same conditions. To produce some, run:",
                MORE_SEEDS_COMMAND,
            ),
        ),
        intro="Up and to the left is better. The dashed line is the Pareto front: strategies that no other one beats "
        "in both.",
    )


def _tuned(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    compared = tuning.tuned_blocks(results, limited_reader(results), BASELINE, request.margins)
    items = tuning.section_items(compared, request.figure_limits.subjects, "tuned")
    command = f"{MORE_SEEDS_COMMAND} --tune {EXAMPLE}"
    missing = Missing("No strategy was tuned: each table compares runs with one learning rate. To tune, run:", command)
    return Section(
        "tuned",
        "Tuned strategies",
        [Block("", items or [missing])],
        intro="Every strategy has the hyper-parameters that its dev scores chose, from the same number of trials, and "
        "was run again with fresh seeds. The figures show the best dev score to expect after a number of trials.",
    )


def _across(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    return Section(
        "across",
        "Across tasks",
        _each_block(
            blocks,
            lambda block, prefix: across_section.section_items(block, f"across-{prefix}"),
            Missing(
                f"No model has {MIN_TASKS} tasks on which full learnt something. To produce runs:", MORE_SEEDS_COMMAND
            ),
        ),
        intro=across_section.INTRO,
    )


def _out_of_domain(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    load = limited_reader(results)

    def items(block: ComparableRuns, prefix: str) -> Sequence[Item]:
        compared = [subject.compared for subject in block.subjects]
        return out_of_domain_table.section_items(
            out_of_domain(compared, block.runs, load, partial(read_targets_elsewhere, results))
        )

    return Section(
        "out-of-domain",
        "In domain and out of domain",
        _each_block(
            blocks,
            items,
            Missing("No model was scored on the test split of another task. To score some:", OUT_OF_DOMAIN),
        ),
        intro=out_of_domain_table.INTRO,
    )


def _grid(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    rule = RecommendationRule(limited_reader(results), request.tolerance)
    return Section(
        "grid",
        "Grid of frozen layers",
        _each_block(
            blocks,
            lambda block, prefix: heat_maps.heat_maps(block.subjects, f"grid-{prefix}", rule),
            Missing(
                "No sweep over frozen bottom and top layers is among these runs. To produce one, run:",
                heat_maps.COMMAND,
            ),
        ),
        intro="Test score (the paper's figure 1) and training time of each pair of frozen bottom and top layers. "
        "Settings are recommended by their dev score; the test score takes no part in the choice.",
    )


def _learning(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    return Section(
        "curves",
        "Learning curves",
        _each_block(
            blocks,
            lambda block, prefix: learning(results, block.subjects, request.figure_limits, f"curves-{prefix}"),
            Missing(
                "No run of more than one epoch is among these. To produce some, run:",
                f"{MORE_SEEDS_COMMAND} --epochs 3",
            ),
        ),
        intro="Dev score after each epoch. Thin lines are seeds, thick lines their mean.",
    )


def _choices(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    return Section(
        "choices",
        "Layers chosen by a probe",
        _each_block(
            blocks,
            lambda block, prefix: choices(results, block.subjects, request.figure_limits, f"choices-{prefix}"),
            Missing("No strategy among these runs chooses its layers. To compare some, run:", CHOOSING_COMMAND),
        ),
        intro="The score that a strategy gave to each layer before training, in a unit of its own. Bars are means over "
        "seeds, dots are seeds, and a number says in how many runs the layer was chosen.",
    )


def _confusion(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    return Section(
        "confusion",
        "Confusion matrices and predictions",
        _each_block(
            blocks,
            lambda block, prefix: confusion(results, block.subjects, request.figure_limits, f"predicted-{prefix}"),
            Missing("No run with predictions is among these. To produce some, run:", MORE_SEEDS_COMMAND),
        ),
        intro="Test predictions of all seeds together. Rows are gold labels, columns are predictions; the darker a "
        "cell, the larger its share of the row.",
    )


def _costs(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    return Section(
        "costs",
        "Costs",
        _each_block(
            blocks,
            lambda block, prefix: findings.cost_table(block.subjects),
            Missing("No run has finished yet. To produce some, run:", MORE_SEEDS_COMMAND),
        ),
        intro="Few trainable parameters do not imply fast training: time depends on the depth of the backward pass.",
    )


def _paper(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    tables = [
        Block(
            block.heading,
            [
                *papers_tables(block.subjects, request.metric),
                *overview.figure_2(block.subjects, f"averages-{number}"),
            ],
        )
        for number, block in enumerate(blocks, start=1)
    ]
    return Section(
        "paper", "The paper's tables 1 to 7 and figure 2", tables or [Block("", papers_tables([], request.metric))]
    )


def _conditions(results: Results, blocks: Sequence[ComparableRuns], request: PageRequest) -> Section:
    return Section(
        "conditions",
        "Conditions",
        _each_block(
            blocks,
            lambda block, prefix: conditions(results, block.runs),
            Missing("No run has finished yet. To produce some, run:", MORE_SEEDS_COMMAND),
        ),
    )


SECTIONS = (
    _summary, _scores, _trades, _tuned, _across, _out_of_domain, _grid, _choices, _learning, _confusion, _costs, _paper,
    _conditions,
)  # fmt: skip
