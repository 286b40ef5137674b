"""`alue-bench sweep`: run every setting of a grid of frozen layers, and recommend one."""

from __future__ import annotations

import typer

from alue_bench.cli.arguments import Given, with_command_options
from alue_bench.cli.stopping import stoppable
from alue_bench.contract.options import build_options
from alue_bench.studies.options import OutputOptions
from alue_bench.studies.settings import study_of
from alue_bench.views.standard_output import reserve_stdout_for_documents


@with_command_options("sweep")
def sweep(context: typer.Context, given: Given) -> None:
    """Fine-tune every setting of a grid of frozen layers, and recommend one.

    Draws heat maps of score and training time and the Pareto front of the two, and names the fastest setting whose
    score on the dev split is within the tolerance of full fine-tuning. Runs with fresh seeds then show how much score
    it loses on the test split (--confirm). Finished runs are not repeated: to continue an interrupted plan, run the
    same command again.

    `alue-bench sweep -t mdd -m mini`  (every pair of bottom and top layers: 91 runs)

    `alue-bench sweep -t mdd -m mini --grid bottom=0..12/3,top=0..4 --grid lr=2e-5,5e-5 --seeds 3`
    """
    output = build_options(OutputOptions, given)
    reserve_stdout_for_documents(output.json)
    study = study_of("sweep", given, context.obj)
    with stoppable():
        from alue_bench.cli.dry_run import show_plan
        from alue_bench.cli.ending import confirmation_prompt, show_results
        from alue_bench.studies.sweep import do_sweep, planned_sweep
        from alue_bench.views.streams import Streams

        streams = Streams.of_command(as_json=output.json)
        streams.warn_of_plugins(study.registry)
        if output.dry_run:
            planned = planned_sweep(study, streams, fetch=False)
            more = planned.json_document()
            raise typer.Exit(show_plan(planned.invocation, planned.plan, more, confirming=planned.confirming))
        results = do_sweep(study, streams, confirmation_prompt(streams, yes=output.yes))
        raise typer.Exit(show_results(results, streams))
