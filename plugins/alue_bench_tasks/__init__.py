"""The built-in tasks: those of ALUE, two that Betka et al. add, and others that run only by name.

The others are entity recognition, reading comprehension, and tasks to score out of domain. The folder `studies` has a
study file for each table of Betka et al.; a study file describes the runs of a table.
"""

from collections.abc import Iterable
from pathlib import Path

from alue_bench import Task, hookimpl
from alue_bench_tasks import (
    anger,
    arabicner,
    arbanking77,
    arcd,
    arsarcasm,
    diag,
    fid,
    mdd,
    mdd_algiers_amman,
    mlma_hateful,
    mlma_offensive,
    mq2q,
    ohsd,
    oold,
    qadi,
    sec,
    svreg,
    xnli,
)


@hookimpl
def alue_bench_tasks() -> Iterable[Task]:
    """Return the built-in tasks."""
    modules = (mq2q, oold, ohsd, svreg, sec, fid, xnli, mdd, mdd_algiers_amman, diag, anger, arabicner, arcd)
    out_of_domain = (mlma_offensive, mlma_hateful, arsarcasm, qadi, arbanking77)
    return [*(module.TASK for module in (*modules, *out_of_domain)), *arbanking77.IN_DIALECTS]


@hookimpl
def alue_bench_studies() -> Iterable[Path]:
    """Return the study files, which describe the runs of the tables of Betka et al."""
    return sorted((Path(__file__).parent / "studies").glob("*.toml"))
