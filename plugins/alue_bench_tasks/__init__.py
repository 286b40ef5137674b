"""The built-in tasks: those of ALUE, and two that Abir et al. add. One module a task; the paper's tables as studies."""

from collections.abc import Iterable
from pathlib import Path

from alue_bench import Task, hookimpl
from alue_bench_tasks import anger, diag, fid, mdd, mdd_algiers_amman, mq2q, ohsd, oold, sec, svreg, xnli


@hookimpl
def alue_bench_tasks() -> Iterable[Task]:
    modules = (mq2q, oold, ohsd, svreg, sec, fid, xnli, mdd, mdd_algiers_amman, diag, anger)
    return [module.TASK for module in modules]


@hookimpl
def alue_bench_studies() -> Iterable[Path]:
    return sorted((Path(__file__).parent / "studies").glob("*.toml"))
