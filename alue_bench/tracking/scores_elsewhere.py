"""The tag of a run that lists the other tasks on which its trained model was scored (option `--also-test`).

The option is not part of a run's fingerprint, because it does not change what is trained. A finished run is therefore
reused for a later request only if this tag shows that the run has all the scores that the request asks for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

ALSO_TEST = "also_test"
"""The name of the tag. Its value is a JSON object with a digest for each task, by the task's name. A digest covers the
scored rows, the labels and their mapping (`Companion.digest`)."""


def predictions_file(task: str) -> str:
    """Return the name of the artifact with a run's predictions on the test split of another task."""
    return f"also_test_{task}.csv"


def tags_of_scores(digests: Mapping[str, str]) -> dict[str, str]:
    """Return the tag for a run whose model is scored on other tasks; empty if there are no other tasks.

    Args:
        digests: The digest of each scored task's rows and labels, by task name: `RunSpec.scored_elsewhere`.
    """
    return {ALSO_TEST: json.dumps(dict(sorted(digests.items())))} if digests else {}


def digests_in(tag: object) -> dict[str, str]:
    """Return the digest for each scored task, read from the value of the tag `ALSO_TEST`.

    The result is empty if the value is missing or unreadable.
    """
    try:
        value = json.loads(tag) if isinstance(tag, str) else {}
    except ValueError:
        return {}
    return {str(task): str(digest) for task, digest in value.items()} if isinstance(value, dict) else {}


def has_scores(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return whether a run has scores on all wanted tasks, with the wanted rows and labels.

    Args:
        tags: The run's tags.
        wanted: The digest of the wanted rows and labels, for each wanted task by name.
    """
    return digests_in(tags.get(ALSO_TEST)).items() >= wanted.items()
