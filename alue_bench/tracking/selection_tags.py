"""The tag of the runs by which a sweep or a search chose the setting that it recommends.

A setting is chosen among many partly because its runs were lucky. With the seeds by which it was chosen, its score is
therefore too high on average, and a comparison of these runs with full fine-tuning is biased. Reports leave them out of
differences, intervals and verdicts, and use runs with other seeds. The runs of all other settings are not tagged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alue_bench.tracking.recording import Recorder

CHOSEN_IN = "selection.chosen_in"
"""The tag of a run by which the recommended setting was chosen. Its value is the id of the MLflow parent run of the
sweep or search; if several have chosen the setting by this run, of the last one."""


def tag_selection_runs(recorder: Recorder, runs: Mapping[str, str], parent_id: str) -> None:
    """Tag the runs by which a recommended setting was chosen.

    If the store does not answer, the tags are kept on this machine and written to the store later, like results.

    Args:
        recorder: The recorder of the command.
        runs: The fingerprint of each run of the recommended setting with a seed that took part in the choice, by the
            run's id. The runs of full fine-tuning and of the settings that were not chosen must not be among them.
        parent_id: The id of the MLflow parent run of the sweep or search.
    """
    for run_id, fingerprint in runs.items():
        recorder.tag_run(run_id, {CHOSEN_IN: parent_id}, fingerprint=fingerprint)
