"""The built-in tasks: those of ALUE, and two that Abir et al. add. One module a task."""

from collections.abc import Iterable

from alue_bench import Task, hookimpl
from alue_bench_tasks import anger, diag, fid, mdd, mdd_algiers_amman, mq2q, ohsd, oold, sec, svreg, xnli


@hookimpl
def alue_bench_tasks() -> Iterable[Task]:
    modules = (mq2q, oold, ohsd, svreg, sec, fid, xnli, mdd, mdd_algiers_amman, diag, anger)
    return [module.TASK for module in modules]
