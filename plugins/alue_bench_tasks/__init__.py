"""The built-in tasks, one module each: those of ALUE, and two that Betka et al. add.

The paper's tables are study files in `studies`.
"""

from collections.abc import Iterable
from pathlib import Path

from alue_bench import Task, hookimpl
from alue_bench_tasks import anger, diag, fid, mdd, mdd_algiers_amman, mq2q, ohsd, oold, sec, svreg, xnli


@hookimpl
def alue_bench_tasks() -> Iterable[Task]:
    """Return the built-in tasks."""
    modules = (mq2q, oold, ohsd, svreg, sec, fid, xnli, mdd, mdd_algiers_amman, diag, anger)
    return [module.TASK for module in modules]


@hookimpl
def alue_bench_studies() -> Iterable[Path]:
    """Return the study files of the paper's tables."""
    return sorted((Path(__file__).parent / "studies").glob("*.toml"))
