"""`alue-bench run`: fine-tune every combination of tasks, models, strategies and seeds."""

from __future__ import annotations

import typer

from alue_bench.cli.arguments import Given, with_command_options
from alue_bench.cli.stopping import stoppable
from alue_bench.contract.options import build_options
from alue_bench.studies.options import OutputOptions
from alue_bench.studies.settings import study_of
from alue_bench.views.standard_output import reserve_stdout_for_documents


@with_command_options("run")
def run(context: typer.Context, given: Given) -> None:
    """Fine-tune every combination of tasks, models, strategies and seeds, and record it in MLflow.

    Shows the plan first, then progress, then a table of scores with the change relative to full fine-tuning and, from
    three seeds on, a verdict on each strategy. Finished runs are not repeated: to continue an interrupted plan, run the
    same command again.

    `alue-bench run --strategy bottom3top4`  (everything available, offline)

    `alue-bench run -t mdd -m UBC-NLP/MARBERT -s full -s bottom3top4 --seeds 5 --data-dir DIR`
    """
    output = build_options(OutputOptions, given)
    reserve_stdout_for_documents(output.json)
    study = study_of("run", given, context.obj)
    with stoppable():
        from alue_bench.cli.dry_run import show_plan
        from alue_bench.cli.ending import confirmation_prompt, show_results
        from alue_bench.studies.run import do_run, planned_run
        from alue_bench.views.streams import Streams

        streams = Streams.of_command(as_json=output.json)
        streams.warn_of_plugins(study.registry)
        if output.dry_run:
            from alue_bench.studies.number_of_seeds import describe_seeds, seeds_for_plan

            margins = study.margins
            # With --skip-missing, models that are not on this machine are not downloaded for a dry run.
            invocation, plan = planned_run(study, streams, fetch=False)
            advice = seeds_for_plan((run.spec for run in plan.runs), invocation.store, margins)
            more = {"margin": str(margins), "seeds_within_margin": [one.as_dict() for one in advice]}
            raise typer.Exit(show_plan(invocation, plan, more, describe_seeds(advice, margins)))
        results = do_run(study, streams, confirmation_prompt(streams, yes=output.yes))
        raise typer.Exit(show_results(results, streams))
