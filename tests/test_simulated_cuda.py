"""The training engine on a simulated CUDA device: the CPU's weights, no host waits, no copies of unpinned memory.

Each training is made on the CPU and on the simulated device (`simulated_cuda/`), without dropout, whose random numbers
differ between the two. The planted faults at the end show that the checks tell a faulty engine.
"""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SHORT, CommandLine
from device_trainings import Case, Trained, check, check_graphs, check_resumption, train
from simulated_cuda import H200, T4, Machine, simulated
from tiny_models import save_tiny_model

from alue_bench.measure import peak
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.training.bert.forward import LeanForward
from alue_bench.training.device.selection import resolve_device, resolve_precision
from alue_bench.training.optimizer import LearningRates
from alue_bench.training.update import Updater

KERNELS = {"full": 500, "bottom3top4": 350, "head-only": 60}
"""The most kernels that a step of BERT-base's structure may launch in bf16, by strategy, with cached prefixes."""

Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Trained]:
    """The same training on the CPU, once for all tests that ask for it."""
    known: dict[str, Trained] = {}

    def of(case: Case) -> Trained:
        case = replace(case, graphs=False)
        if str(case) not in known:
            known[str(case)] = train(case, tmp_path_factory.mktemp("cpu"))
        return known[str(case)]

    return of


COVERING = [
    Case(),
    Case("pair", graphs=True),
    Case("several", "bottom1top1"),
    Case("number", "bottom1top1", graphs=True),
    Case("single", "bottom1top1", "bf16", graphs=True, cached=False, class_weights=(0.5, 1.0, 2.0)),
    Case("pair", "head-only", graphs=True, hyper={"clip": 0.01, "clip_by": "component"}),
    Case("several", "bottom1top1", "fp16", graphs=True),
    Case("number", "full", "fp16", architecture="roberta"),
    Case("pair", "bitfit", "bf16", hyper={"clip": 0.0}),
    Case("single", "bottom1top1", library=True),
    Case("pair", "full", "bf16", library=True, cached=False),
    Case("several", "bottom1top1", architecture="distilbert"),
    Case("number", "full", "fp16", architecture="modernbert"),
    Case("single", "lora"),
    Case("single", "full", graphs=True, adaptive=True),
    Case("pair", "full", adaptive=True, library=True, cached=False),
    Case("words", "bottom1top1", graphs=True),
    Case("words", "head-only", "bf16", class_weights=(0.5, 1.0, 2.0)),
    Case("spans", "bottom1top1", graphs=True),
    Case("spans", "head-only", "bf16"),
]
"""Each value of each feature at least once, together with the values of others that may interfere with it."""


class TestATraining:
    @pytest.mark.parametrize("case", COVERING, ids=str)
    def test_ends_with_the_weights_of_the_cpu_and_never_waits(
        self, case: Case, on_cpu: Callable[[Case], Trained], tmp_path: Path, simulated_cuda: Machine
    ) -> None:
        check(case, on_cpu(case), tmp_path, simulated_cuda)

    @pytest.mark.parametrize(
        "case", [Case(dropout=0.1), Case("pair", "bottom1top1", "bf16", graphs=True, dropout=0.1)], ids=str
    )
    def test_goes_on_from_a_checkpoint_as_if_never_interrupted(
        self, case: Case, tmp_path: Path, simulated_cuda: Machine
    ) -> None:
        check_resumption(case, tmp_path, simulated_cuda)

    def test_draws_the_same_dropout_masks_with_and_without_graphs(
        self, tmp_path: Path, simulated_cuda: Machine
    ) -> None:
        check_graphs(Case(graphs=True, dropout=0.1), tmp_path, simulated_cuda)

    def test_divides_a_batch_that_does_not_fit_into_memory(
        self, on_cpu: Callable[[Case], Trained], tmp_path: Path, simulated_cuda: Machine
    ) -> None:
        memory, sizes = simulated_cuda.memory, []
        case = Case("pair", "bitfit")  # gradients are small: the memory holds activations above all
        expected = on_cpu(case)
        gc.freeze()  # else each collection would take half a second
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats()
            trained = train(case, tmp_path, simulated_cuda)
            sizes.append(trained.result.micro_batch)
            weights = trained.weights
            assert memory.peak <= memory.limit
            memory.limit = trained.training_peak - (1 << 14)
            del trained
            gc.collect()  # the model
        assert sizes[0] == 4 > sizes[1]
        for name, weight in expected.weights.items():
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("plan", KERNELS)
def test_a_step_launches_few_kernels(plan: str, tmp_path: Path, simulated_cuda: Machine) -> None:
    case = Case("pair", plan, "bf16", dropout=0.1, layers=12, hyper={"epochs": 1})
    trained = train(case, tmp_path, simulated_cuda)
    launches = statistics.median(step.launches for step in trained.steps)
    most = statistics.mode(str(dict(step.kernels.most_common(8))) for step in trained.steps)
    print(f"\n{plan}: {launches:.0f} kernels a step, at most {KERNELS[plan]}; {most}")
    assert launches <= KERNELS[plan]


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hardware's speed is measured with a matrix product that the CPU can do."""
    monkeypatch.setitem(peak.SIZE, "cuda", 64)


@pytest.mark.usefixtures("small_products")
class TestAWholeRun:
    def test_has_the_result_of_the_cpu(
        self, registry: Any, folders_of_its_own: None, tmp_path: Path, simulated_cuda: Machine
    ) -> None:
        results = {}
        for device in ("cpu", "cuda"):
            request = PlanRequest(
                tasks=("anger",), models=(str(without_dropout(tmp_path)),), strategies=("bottom1top1",), sample=True,
                device=device, precision="fp32", limit_train=32, limit_eval=24,
                overrides=(("test", {"epochs": 1, "batch_size": 8, "max_length": 24, "lr": 1e-3}),),
            )  # fmt: skip
            (planned,) = build_plan(request, registry).runs
            results[device], _ = execute(planned.spec, planned.inputs)
        cpu, cuda = results["cpu"], results["cuda"]
        assert cuda.problems == ()
        assert cuda.environment["hardware"]["accelerator"] == H200.name
        np.testing.assert_allclose(cuda.predictions.scores, cpu.predictions.scores, atol=1e-4)
        np.testing.assert_allclose(cuda.dev_predictions.scores, cpu.dev_predictions.scores, atol=1e-4)
        assert cuda.metrics["test/score"] == cpu.metrics["test/score"]
        assert cuda.metrics["memory/device_peak_mib"] > 0

    def test_may_be_a_short_one_of_a_search(
        self,
        alue_bench: CommandLine,
        store: str,
        experiment: str,
        easy: tuple[str, str],
        tiny: Callable[..., Path],
        simulated_cuda: Machine,
    ) -> None:
        """A search runs on the device that is found; its first runs are of low fidelity."""
        done = alue_bench(
            *("search", "--task", easy[0], "--model", tiny("bert", 2)),
            *("--tracking-uri", store, "--experiment", experiment, *SHORT),
            *("--epochs", "2", "--tolerance", "0.7", "--margin", "0.9", "--budget", "400%", "--grid", "bottom=0..2/2"),
            *("--cuda-graphs", "on", "--json"),
        )
        assert done.code == 0, done.err
        assert simulated_cuda.activity.replays > 0
        (searched,) = json.loads(done.out)["searches"]
        assert {step["short"] for step in searched["steps"]} == {True, False}


def without_dropout(folder: Path) -> Path:
    model = folder / "model"
    if not model.exists():
        save_tiny_model("bert", model, layers=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return model


@pytest.mark.parametrize(
    ("simulated_cuda", "precision"), [(T4, "fp16"), (H200, "bf16")], indirect=["simulated_cuda"], ids=["T4", "H200"]
)
def test_the_device_is_found_by_its_capability(simulated_cuda: Machine, precision: str) -> None:
    assert resolve_device("auto") == "cuda"
    assert resolve_precision("auto", "cuda") == precision


# -- the simulation itself


class TestTheSimulation:
    def test_leaves_nothing_behind(self) -> None:
        before = (torch.cuda.is_available(), torch.Tensor.to, torch.Generator, torch.cuda.CUDAGraph)
        with simulated(T4):
            x = torch.ones(2, device="cuda")
            assert torch.cuda.get_device_name() == T4.name
        assert (torch.cuda.is_available(), torch.Tensor.to, torch.Generator, torch.cuda.CUDAGraph) == before
        with pytest.raises(RuntimeError, match="outside of the simulation"):
            x + x

    def test_refuses_tensors_of_two_devices(self, simulated_cuda: Machine) -> None:
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        with pytest.raises(RuntimeError, match="same device, but found at least two devices, cuda:0 and cpu"):
            here + there
        with pytest.raises(RuntimeError, match="same device"):
            here[0].add_(there[0])
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            there.numpy()
        assert (there * torch.tensor(2.0)).device == torch.device("cuda", 0)

    @pytest.mark.parametrize(
        "work",
        [
            lambda x: float(x[0]),
            lambda x: x.tolist(),
            lambda x: x.cpu(),
            lambda x: bool((x > 0).all()),
            lambda x: x.nonzero(),
            lambda x: x[x > 0],
            lambda x: x.unique(),
            lambda x: torch.empty(3).copy_(x),
            lambda x: torch.ones(3).pin_memory().to("cuda"),
            lambda x: torch.cuda.synchronize(),
        ],
    )
    def test_counts_a_wait_and_refuses_it_within_a_capture(
        self, work: Callable[[torch.Tensor], Any], simulated_cuda: Machine
    ) -> None:
        x = torch.arange(3.0, device="cuda")
        with simulated_cuda.watch() as seen:
            work(x)
        assert seen.waits.total() == 1
        assert "tests/test_simulated_cuda.py:" in next(iter(seen.waits))
        graph = torch.cuda.CUDAGraph()
        with (
            pytest.raises(RuntimeError, match="due to a previous error during capture") as error,
            torch.cuda.graph(graph),
        ):
            work(x)
        assert "not permitted when stream is capturing" in str(error.value.__context__)
        assert simulated_cuda.capture is None

    def test_counts_copies_of_unpinned_memory_and_kernels(self, simulated_cuda: Machine) -> None:
        x = torch.arange(6.0)
        with simulated_cuda.watch() as seen:
            x.to("cuda")
            torch.tensor(1.0, device="cuda")
        assert (seen.unpinned.total(), seen.copies, seen.waits.total()) == (2, 2, 0)
        with simulated_cuda.watch() as seen:
            on_device = x.pin_memory().to("cuda", non_blocking=True)
            torch.empty(6, pin_memory=True).copy_(on_device, non_blocking=True)
            on_device.view(2, 3).t()[0].expand(4, -1)
            torch.empty(5, device="cuda")
        assert (seen.unpinned.total(), seen.copies, seen.waits.total(), seen.launches) == (0, 2, 0, 0)
        with simulated_cuda.watch() as seen:
            torch._foreach_mul_([on_device, on_device.clone()], 2.0)
            on_device.view(2, 3).t().contiguous()
        assert seen.kernels == {"clone": 2, "_foreach_mul_": 1}

    def test_shows_no_result_of_a_copy_before_the_host_has_waited(self, simulated_cuda: Machine) -> None:
        copied = torch.ones(3, device="cuda").to("cpu", non_blocking=True)
        assert copied.isnan().all()
        torch.cuda.synchronize()
        assert copied.tolist() == [1, 1, 1]
        source = torch.zeros(3).pin_memory()
        source.to("cuda", non_blocking=True)
        source.fill_(1)
        with pytest.raises(RuntimeError, match="pinned memory was written to"):
            torch.cuda.synchronize()

    def test_records_work_without_doing_it_and_replays_it_without_python(self, simulated_cuda: Machine) -> None:
        x, total, calls = torch.ones(3, device="cuda"), torch.zeros((), device="cuda"), []
        generator = torch.Generator("cuda")
        generator.manual_seed(5)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            calls.append("python")
            total.add_((x * 2).sum())
            drawn = torch.rand(3, device="cuda"), torch.empty(3, device="cuda").uniform_(generator=generator)
        assert float(total) == 0
        assert drawn[0].isnan().all()
        draws = []
        for value in (1.0, 2.0):
            x.fill_(value)
            with simulated_cuda.watch() as seen:
                graph.replay()
            assert (seen.replays, seen.launches, seen.waits.total()) == (1, 0, 0)
            draws += [tensor.tolist() for tensor in drawn]
        assert (float(total), calls, len(set(map(tuple, draws)))) == (18, ["python"], 4)
        generator.manual_seed(5)
        assert torch.empty(3, device="cuda").uniform_(generator=generator).tolist() == draws[1]
        del x
        with pytest.raises(RuntimeError, match="inputs have been freed"):
            graph.replay()

    def test_refuses_a_capture_that_cuda_would_refuse(self, simulated_cuda: Machine) -> None:
        unknown = torch.Generator("cuda")
        for work, said in (
            (lambda: torch.rand(3, device="cuda", generator=unknown), "generator not in capture mode"),
            (lambda: unknown.manual_seed(1), "not permitted when stream is capturing"),
            (lambda: torch.cuda.manual_seed(1), "not permitted when stream is capturing"),
            (lambda: torch.ones(3).to("cuda"), "not permitted when stream is capturing"),
        ):
            with pytest.raises(RuntimeError, match="previous error") as error, torch.cuda.graph(torch.cuda.CUDAGraph()):
                work()
            assert said in str(error.value.__context__)
        with pytest.raises(RuntimeError, match="non-default stream"):
            torch.cuda.CUDAGraph().capture_begin()

    def test_accounts_for_memory(self, simulated_cuda: Machine) -> None:
        before = torch.cuda.memory_allocated()
        x = torch.zeros(1 << 10, device="cuda")
        part = x[:10]
        y = x + 1
        assert torch.cuda.memory_allocated() == before + 8192
        del x, y
        assert torch.cuda.memory_allocated() == before + 4096 == torch.cuda.max_memory_allocated() - 4096
        simulated_cuda.memory.limit = before + 4096
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            part.clone()
        del part
        assert torch.cuda.memory_allocated() == before

    @pytest.mark.parametrize("simulated_cuda", [replace(T4, count=2)], indirect=True)
    def test_has_several_devices_with_random_states_of_their_own(self, simulated_cuda: Machine) -> None:
        assert torch.accelerator.device_count() == torch.cuda.device_count() == 2
        host = torch.get_rng_state()
        torch.cuda.manual_seed_all(1)
        drawn = [torch.rand(2, device=device).tolist() for device in ("cuda:0", "cuda:1", "cuda:0")]
        assert drawn[0] == drawn[1] != drawn[2]
        assert torch.equal(torch.get_rng_state(), host)
        with torch.cuda.device(1):
            other = torch.ones(2, device="cuda")
        assert other.device == torch.device("cuda:1")
        with pytest.raises(RuntimeError, match="cuda:0 and cuda:1"):
            torch.ones(2, device="cuda") + other
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            torch.ones(2).to("cuda:2")

    def test_moves_a_parameter_that_two_modules_share_once(self, simulated_cuda: Machine) -> None:
        one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        two.weight = one.weight
        torch.nn.Sequential(one, two).to("cuda")
        assert one.weight is two.weight
        assert (one.weight.is_cuda, isinstance(one.weight, torch.nn.Parameter)) == (True, True)

    def test_steps_a_capturable_optimiser_with_a_rate_on_the_device_within_a_graph(
        self, simulated_cuda: Machine
    ) -> None:
        weights = {}
        for device in ("cpu", "cuda"):
            torch.manual_seed(0)
            layer, rate = torch.nn.Linear(3, 1).to(device), torch.tensor(0.0, device=device)
            layer.weight.grad, layer.bias.grad = torch.ones_like(layer.weight), torch.ones_like(layer.bias)
            optimiser = torch.optim.AdamW(layer.parameters(), rate, fused=True, capturable=device == "cuda")
            scaler = torch.amp.GradScaler(device, init_scale=1.0)
            optimiser.step()

            def step(layer: Any = layer, optimiser: Any = optimiser, scaler: Any = scaler) -> None:
                scaler.scale(layer.weight.sum()).backward()
                scaler.unscale_(optimiser)
                torch._foreach_div_([p.grad for p in layer.parameters()], 2.0)
                optimiser.step()

            replay = step
            if device == "cuda":
                scaler.scale(torch.zeros((), device=device))  # makes the scale
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    step()
                replay = graph.replay
            for value in (0.1, 0.2):
                rate.fill_(value)
                scaler._per_optimizer_states.clear()
                replay()
            weights[device] = [p.detach().cpu() for p in layer.parameters()]
        for cpu, cuda in zip(weights["cpu"], weights["cuda"], strict=True):
            torch.testing.assert_close(cuda, cpu, rtol=0, atol=1e-6)


# -- planted faults


PLAIN, GRAPHS = Case(), Case(graphs=True)


@dataclass(frozen=True)
class Fault:
    """An error in the engine, and the check that tells it."""

    plant: Callable[[Patch, Callable[[], None]], None]
    """Puts the fault into the engine; the second argument is to be called where the fault takes effect."""
    said: str
    """A pattern of the check's message."""
    case: Case = PLAIN
    check: Callable[[Case, Path, Machine], object] | None = None
    """None for `check`."""


def around(patch: Patch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replace a function by one that gets it as its first argument."""
    whole = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: change(whole, *args, **kwargs))


def in_each_loss(change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Any:
    def plant(patch: Patch, reached: Callable[[], None]) -> None:
        def loss(whole: Any, logits: torch.Tensor, targets: torch.Tensor, **options: Any) -> Any:
            if logits.is_cuda:
                reached()
                logits, targets = change(logits, targets)
            return whole(logits, targets, **options)

        around(patch, torch.nn.functional, "cross_entropy", loss)

    return plant


def after_each_step(work: Callable[[Any], object]) -> Any:
    def plant(patch: Patch, reached: Callable[[], None]) -> None:
        def step(whole: Any, updater: Any, *args: Any) -> Any:
            loss, norm = whole(updater, *args)
            reached()
            updater.last_norm = norm
            work(updater)
            return loss, norm

        around(patch, Updater, "update", step)

    return plant


def renew(states: Mapping[Any, dict[str, torch.Tensor]]) -> None:
    for state in states.values():
        state.update({name: value.clone() for name, value in state.items()})


def reads_the_loss(logits: torch.Tensor, targets: torch.Tensor) -> Any:
    assert torch.isfinite(logits).all()
    return logits, targets


def nothing_is_pinned(patch: Patch, reached: Callable[[], None]) -> None:
    def pin(whole: Any, tensor: torch.Tensor, *args: Any) -> torch.Tensor:
        reached()
        return tensor

    around(patch, torch.Tensor, "pin_memory", pin)


def one_pinned_buffer_for_all(patch: Patch, reached: Callable[[], None]) -> None:
    buffers: dict[Any, torch.Tensor] = {}

    def pin(whole: Any, tensor: torch.Tensor, *args: Any) -> torch.Tensor:
        reached()
        if tensor.dtype not in buffers:
            buffers[tensor.dtype] = whole(torch.empty(1 << 16, dtype=tensor.dtype))
        return buffers[tensor.dtype][: tensor.numel()].view(tensor.shape).copy_(tensor)

    around(patch, torch.Tensor, "pin_memory", pin)


def copies_block(patch: Patch, reached: Callable[[], None]) -> None:
    def to(whole: Any, tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if options.pop("non_blocking", False):
            reached()
        return whole(tensor, *args, **options)

    around(patch, torch.Tensor, "to", to)


def results_are_read_before_they_are_there(patch: Patch, reached: Callable[[], None]) -> None:
    def cpu(whole: Any, tensor: torch.Tensor) -> torch.Tensor:
        reached()
        return tensor.to("cpu", non_blocking=True)

    around(patch, torch.Tensor, "cpu", cpu)


def the_mask_stays_on_the_host(patch: Patch, reached: Callable[[], None]) -> None:
    def logits(whole: Any, forward: Any, batch: Any, *args: Any) -> Any:
        reached()
        return whole(forward, replace(batch, attention_mask=torch.ones(batch.attention_mask.shape)), *args)

    around(patch, LeanForward, "logits", logits)


def the_generator_is_the_hosts(patch: Patch, reached: Callable[[], None]) -> None:
    around(patch, torch, "Generator", lambda whole, device="cpu": (reached(), whole("cpu"))[1])


def the_graph_does_not_know_the_generator(patch: Patch, reached: Callable[[], None]) -> None:
    around(patch, LeanForward, "generators", lambda whole, forward: (reached(), [])[1])


def the_graph_reads_the_first_batch_for_ever(patch: Patch, reached: Callable[[], None]) -> None:
    def copy(whole: Any, target: torch.Tensor, source: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if target.is_cuda and target.dtype == torch.int64:
            reached()
            return target
        return whole(target, source, *args, **options)

    around(patch, torch.Tensor, "copy_", copy)


def narrow_weights_are_not_refreshed(patch: Patch, reached: Callable[[], None]) -> None:
    def copy(whole: Any, targets: Any, *args: Any, **options: Any) -> None:
        if targets and targets[0].dtype == torch.bfloat16:
            reached()
        else:
            whole(targets, *args, **options)

    around(patch, torch, "_foreach_copy_", copy)


def the_rate_is_that_of_the_first_step(patch: Patch, reached: Callable[[], None]) -> None:
    rates: list[float] = []

    def set_rate(whole: Any, all_rates: Any, lr: float) -> None:
        if lr:
            reached()
            rates.append(lr)
            lr = rates[0]
        whole(all_rates, lr)

    around(patch, LearningRates, "set", set_rate)


def the_scale_is_read_each_step(patch: Patch, reached: Callable[[], None]) -> None:
    def scaled(whole: Any, scaler: Any, *args: Any) -> None:
        whole(scaler, *args)
        reached()
        scaler.get_scale()

    around(patch, torch.amp.GradScaler, "update", scaled)


def the_devices_random_state_is_not_restored(patch: Patch, reached: Callable[[], None]) -> None:
    patch.setattr(torch.cuda, "set_rng_state", lambda state, device="cuda": reached())


FAULTS = {
    "targets on the host": Fault(
        in_each_loss(lambda logits, targets: (logits, torch.zeros(len(targets), dtype=torch.int64))), "same device"
    ),
    "a loss that indexes by a mask": Fault(
        in_each_loss(lambda logits, targets: (logits[targets >= 0], targets)), "indexing by a mask"
    ),
    "the loss is looked at": Fault(in_each_loss(reads_the_loss), "_local_scalar_dense"),
    "the loss is looked at within a capture": Fault(in_each_loss(reads_the_loss), "capturing", GRAPHS),
    "the norm is looked at": Fault(after_each_step(lambda updater: float(updater.last_norm)), "_local_scalar_dense"),
    "a number is copied to the device": Fault(
        after_each_step(lambda updater: torch.tensor(1.0, device="cuda")), "copy to the device"
    ),
    "the device is waited for": Fault(after_each_step(lambda updater: torch.cuda.synchronize()), "synchronize"),
    "the optimiser's state is replaced between replays": Fault(
        after_each_step(lambda updater: renew(updater.optimiser.state)), "inputs have been freed", GRAPHS
    ),
    "nothing is pinned": Fault(nothing_is_pinned, "copy to the device"),
    "nothing is pinned, with stored outputs": Fault(
        nothing_is_pinned, "copy to the device", Case(plan="bottom1top1", graphs=True)
    ),
    "one pinned buffer for all batches": Fault(one_pinned_buffer_for_all, "pinned memory was written to"),
    "copies block": Fault(copies_block, "blocking copy"),
    "results are read before they are there": Fault(results_are_read_before_they_are_there, "not finite|nan"),
    "the mask stays on the host": Fault(the_mask_stays_on_the_host, "same device"),
    "the generator is the host's": Fault(the_generator_is_the_hosts, "device type for generator", Case(dropout=0.1)),
    "the graph does not know the generator": Fault(
        the_graph_does_not_know_the_generator, "generator", Case(graphs=True, dropout=0.1)
    ),
    "the graph reads the first batch for ever": Fault(the_graph_reads_the_first_batch_for_ever, "close", GRAPHS),
    "narrow weights are not refreshed": Fault(narrow_weights_are_not_refreshed, "close", Case(precision="bf16")),
    "the rate is that of the first step": Fault(the_rate_is_that_of_the_first_step, "close", GRAPHS),
    "the scale is read each step": Fault(the_scale_is_read_each_step, "_local_scalar_dense", Case(precision="fp16")),
    "the device's random state is not restored": Fault(
        the_devices_random_state_is_not_restored, "not equal", Case(dropout=0.1), check_resumption
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_told(
    name: str, on_cpu: Callable[[Case], Trained], tmp_path: Path, simulated_cuda: Machine
) -> None:
    fault = FAULTS[name]
    reached: list[str] = []
    checked = fault.check or partial(check, expected=on_cpu(fault.case))
    with Patch.context() as patch:
        fault.plant(patch, lambda: reached.append(name))
        with pytest.raises(Exception, match=f"(?s){fault.said}"):
            checked(fault.case, folder=tmp_path, machine=simulated_cuda)
    assert reached, "the fault took no effect: the engine no longer goes through the place where it was planted"
