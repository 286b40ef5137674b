"""The built-in tasks, one module each: the tasks of ALUE, two tasks that Betka et al. add, and entity recognition.

The folder `studies` has a study file for each table of Betka et al.; a study file describes the runs of a table.
"""

from collections.abc import Iterable
from pathlib import Path

from alue_bench import Task, hookimpl
from alue_bench_tasks import anger, arabicner, diag, fid, mdd, mdd_algiers_amman, mq2q, ohsd, oold, sec, svreg, xnli


@hookimpl
def alue_bench_tasks() -> Iterable[Task]:
    """Return the built-in tasks."""
    modules = (mq2q, oold, ohsd, svreg, sec, fid, xnli, mdd, mdd_algiers_amman, diag, anger, arabicner)
    return [module.TASK for module in modules]


@hookimpl
def alue_bench_studies() -> Iterable[Path]:
    """Return the study files, which describe the runs of the tables of Betka et al."""
    return sorted((Path(__file__).parent / "studies").glob("*.toml"))
