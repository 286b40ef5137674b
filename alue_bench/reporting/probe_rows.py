"""Comparisons of strategies that choose their layers by probes of different sizes with those that do not choose.

`--probe-rows` is recorded as a setting of the runs whose strategy chooses its layers; those of all other strategies
have the default, whatever was given. Settings are conditions of a comparison: runs with different settings are never
averaged or compared. A run that makes no use of the setting is comparable with runs of any value, and appears beside
each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alue_bench.contract.spec import HyperParameters
from alue_bench.tracking.reproduction import other_settings, without_setting

if TYPE_CHECKING:
    import pandas as pd

ROWS = "probe_rows"


def beside_each_probe(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame of runs, with a copy of each run without a probe for every other probe size.

    A copy has the settings of the runs with this probe size, which else equal its own. A run that is beside no run with
    the default size is replaced by its copies.

    Args:
        frame: The finished runs, as in `tracking.reading.Results.frame`.
    """
    import pandas as pd

    texts = frame["other_hyper"].dropna().unique()
    sized = {text: other for text in texts if (other := without_setting(text, ROWS)) != text}
    if not sized:
        return frame
    probed = frame["flops/probe"].notna() if "flops/probe" in frame else pd.Series(False, frame.index)
    default = set(frame.loc[probed, "other_hyper"].dropna())
    copies = [
        frame[~probed & (frame["other_hyper"] == other).fillna(False)].assign(other_hyper=text)
        for text, other in sized.items()
    ]
    replaced = ~probed & frame["other_hyper"].isin(set(sized.values()) - default)
    every = pd.concat([frame[~replaced], *copies], ignore_index=True)
    return every.astype(frame.dtypes.to_dict()).sort_values("start_time", kind="stable", ignore_index=True)


def rows_of(text: object) -> int:
    """Return the number of examples of a probe in the JSON text of settings, or the default."""
    return int(other_settings(text).get(ROWS, HyperParameters().probe_rows))
