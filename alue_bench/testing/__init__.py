"""The conformance checks, with which authors of plugins check what their plugins declare.

One test for each declaration is enough, in pytest or any other runner:

    from alue_bench.testing import check_model, check_strategy, check_task
    import my_plugin

    def test_tasks() -> None:
        for task in my_plugin.alue_bench_tasks():
            check_task(task)

Each check function runs all of its checks and then raises one `ConformanceError`, an AssertionError. The error has one
sentence for each violation, which says which declaration is affected, what is wrong with it, and what to do. A
`ConformanceWarning` reports what could not be checked, such as a checkpoint that was never downloaded or a task without
a sample, and what only the author can judge. The built-in plugins pass the same checks.
"""

from alue_bench.testing.executors import check_executor
from alue_bench.testing.models import check_model
from alue_bench.testing.strategies import check_strategy
from alue_bench.testing.tasks import check_task
from alue_bench.testing.violations import ConformanceError, ConformanceWarning

__all__ = [
    "ConformanceError",
    "ConformanceWarning",
    "check_executor",
    "check_model",
    "check_strategy",
    "check_task",
]
