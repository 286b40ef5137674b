"""The tag of the runs that a sweep or a search used to choose the setting that it recommends.

A setting is chosen among many partly because its runs were lucky. With the seeds that were used to choose it, its score
is therefore too high on average, and a comparison of these runs with full fine-tuning is biased. Reports leave these
runs out of differences, intervals and verdicts, and use runs with other seeds. The runs of all other settings are not
tagged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alue_bench.tracking.recording import Recorder

CHOSEN_IN = "selection.chosen_in"
"""The name of the tag of a run that was used to choose the recommended setting. Its value is the id of the MLflow
parent run of the sweep or search that used the run. If several sweeps or searches used the run, it is the id of the
last of them."""


def tag_selection_runs(recorder: Recorder, runs: Mapping[str, str], parent_id: str) -> None:
    """Tag the runs that were used to choose a recommended setting.

    If the store does not answer, the tags are kept on this machine and written to the store later, like results.

    Args:
        recorder: The recorder of the command.
        runs: The runs of the recommended setting that were used to choose it: fingerprints by run id. Runs of full
            fine-tuning and of the settings that were not chosen must not be among them.
        parent_id: The id of the MLflow parent run of the sweep or search.
    """
    for run_id, fingerprint in runs.items():
        recorder.tag_run(run_id, {CHOSEN_IN: parent_id}, fingerprint=fingerprint)
