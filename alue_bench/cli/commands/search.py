"""`alue-bench search`: find the cheapest freezing setting that keeps the score, without running the whole grid."""

from __future__ import annotations

import typer

from alue_bench.cli.arguments import Given, with_command_options
from alue_bench.cli.stopping import stoppable
from alue_bench.contract.options import build_options
from alue_bench.studies.options import OutputOptions
from alue_bench.studies.settings import study_of
from alue_bench.views.standard_output import reserve_stdout_for_documents

NO_ANSWER = 3
"""The exit code of a finished search that recommends no setting, because the trained models learnt nothing."""


@with_command_options("search")
def search(context: typer.Context, given: Given) -> None:
    """Find the cheapest layers to freeze that keep the score, without running the whole grid.

    Each run is chosen from the results so far. Settings are chosen by dev score; test scores are only reported.
    Finished runs, also those of a sweep, are not repeated, but count towards the budget. With --jobs, the searches of
    several tasks and models run in parallel, and so do the low-fidelity runs of each search. The answers do not change.

    `alue-bench search -t oold -m mini --tolerance 1%`

    `alue-bench search -t mdd -m UBC-NLP/MARBERT --budget 15% --grid bottom=0..12,top=0..4`
    """
    output = build_options(OutputOptions, given)
    reserve_stdout_for_documents(output.json)
    study = study_of("search", given, context.obj)
    with stoppable():
        from alue_bench.cli.dry_run import show_search_costs
        from alue_bench.cli.ending import show_results
        from alue_bench.studies.search import do_search, planned_search
        from alue_bench.views.streams import Streams

        streams = Streams.of_command(as_json=output.json)
        streams.warn_of_plugins(study.registry)
        if output.dry_run:
            raise typer.Exit(show_search_costs(planned_search(study, streams), streams))
        results = do_search(study, streams)
        code = show_results(results, streams)
        raise typer.Exit(code or (NO_ANSWER if results.is_unanswered else 0))
