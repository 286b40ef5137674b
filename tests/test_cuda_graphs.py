"""The option for CUDA graphs, and graphs on a real GPU where there is one, else on a simulated one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import CommandLine
from test_whole_step import CACHED, FULL, gap, train

from alue_bench.contract.errors import UsageError
from alue_bench.training.device.precision import Device, resolve_graphs

__all__ = ["train"]  # a fixture


def test_a_cpu_has_none(run: CommandLine) -> None:
    assert [resolve_graphs(wanted, "cpu") for wanted in ("auto", "off")] == ["off", "off"]
    with pytest.raises(UsageError, match="needs a CUDA device"):
        resolve_graphs("on", "cpu")
    done = run("--cuda-graphs", "on", "--device", "cpu", "--dry-run")
    assert (done.code, "--cuda-graphs on needs a CUDA device" in done.err) == (2, True)


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> str:
    """A GPU: a real one, or a simulated one where there is none. Returns "real" or "simulated"."""
    if torch.cuda.is_available():
        return "real"
    request.getfixturevalue("simulated_cuda")
    return "simulated"


class TestOnAGpu:
    @pytest.mark.parametrize("plan", [FULL, CACHED], ids=["full", "bottom3top4"])
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_a_recorded_training_ends_where_the_eager_one_does(
        self, train: Any, gpu: str, plan: Any, precision: Any
    ) -> None:
        """Twice in one process. Random numbers are the same; sums within one kernel may take another order."""
        options = {"layers": 12, "dropout": 0.1}
        if gpu == "simulated":  # a layer of which the input is stored, and one that trains
            options["layers"] = 2
            plan = (plan[0] & {0}, plan[1])
        eager = train(Device("cuda", precision, "off"), plan, **options)
        for _ in range(2):
            recorded = train(Device("cuda", precision, "on"), plan, **options)
            assert recorded.result.recorded_shapes > 0
            assert gap(recorded, eager) < (1e-3 if precision == "fp32" else 3e-2)
