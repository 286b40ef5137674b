"""The comparison of runs with a probe and runs without one, for each probe size.

Before training, a strategy may use a probe to choose its layers. The probe computes scores of the layers from some
train examples. Their number, `--probe-rows`, is the probe size. Runs with a probe record it among their
hyper-parameters. All other runs record the default size, whatever the command stated. Runs with different
hyper-parameters are never averaged or compared. A run without a probe, however, does not depend on the probe size. It
is therefore compared with the runs of every probe size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alue_bench.contract.spec import HyperParameters
from alue_bench.tracking.reproduction import other_settings, without_setting

if TYPE_CHECKING:
    import pandas as pd

ROWS = "probe_rows"


def with_copies_for_each_probe(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame of runs with copies of each run without a probe, one for each probe size but the default.

    A copy has the same `other_hyper` (a JSON text of hyper-parameters) as the runs with this probe size, so that
    `comparison.compare` compares it with them. A run is only copied for a probe size if it agrees with the runs of this
    size in all other hyper-parameters of the text. If no run with a probe of the default size agrees with a copied run
    in this way, the original is removed, and only its copies are returned.

    Args:
        frame: The finished runs, as in `tracking.reading.Results.frame`.
    """
    import pandas as pd

    texts = frame["other_hyper"].dropna().unique()
    without_rows = {text: other for text in texts if (other := without_setting(text, ROWS)) != text}
    if not without_rows:
        return frame
    probed = frame["flops/probe"].notna() if "flops/probe" in frame else pd.Series(False, frame.index)
    default = set(frame.loc[probed, "other_hyper"].dropna())
    copies = [
        frame[~probed & (frame["other_hyper"] == other).fillna(False)].assign(other_hyper=text)
        for text, other in without_rows.items()
    ]
    replaced = ~probed & frame["other_hyper"].isin(set(without_rows.values()) - default)
    every = pd.concat([frame[~replaced], *copies], ignore_index=True)
    return every.astype(frame.dtypes.to_dict()).sort_values("start_time", kind="stable", ignore_index=True)


def rows_of(text: object) -> int:
    """Return the number of probe examples in a JSON text of hyper-parameters; the default if the text has none."""
    return int(other_settings(text).get(ROWS, HyperParameters().probe_rows))
