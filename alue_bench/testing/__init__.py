"""The conformance checks, with which authors of plugins check the tasks, models and strategies that they declare.

One test for each kind of declaration is enough, in pytest or any other test runner:

    from alue_bench.testing import check_model, check_strategy, check_task
    import my_plugin

    def test_tasks() -> None:
        for task in my_plugin.alue_bench_tasks():
            check_task(task)

Each function runs all of its checks. If there are violations, it then raises one `ConformanceError` (an AssertionError)
with a sentence for each violation: which declaration is wrong, what is wrong with it, and what to do. A
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
