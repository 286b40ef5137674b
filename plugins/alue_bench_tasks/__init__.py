"""The built-in tasks: the nine of ALUE, two more from Betka et al., and others that run only if the user names them.

The last group contains a task of named entity recognition, one of reading comprehension, one on the intents of
questions to a bank, and tasks on which models of other tasks can be tested out of domain. The folder `studies` has
study files, which describe runs that repeat experiments of Betka et al.:
`paper-tables` for tables 1 to 7, `paper-figure1` for figure 1, and a small version of each for the bundled model.
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
    """Return the study files, which describe the runs for the tables and for figure 1 of Betka et al."""
    return sorted((Path(__file__).parent / "studies").glob("*.toml"))
