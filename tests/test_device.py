"""Device and number format are chosen by what the hardware can do; a stand-in says what that is."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import simulated_cuda as simulation
import torch

from alue_bench.contract.errors import UsageError
from alue_bench.contract.executor import Resources
from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import FreezePlan
from alue_bench.cost.memory import PROCESS_BYTES, activation_bytes, training_bytes
from alue_bench.data.batches import Batch
from alue_bench.deployment import kept_model
from alue_bench.executors import ray_cluster
from alue_bench.executors.placement import GIB, GpuSharing, gpu_sharing
from alue_bench.executors.processes import start
from alue_bench.measure import peak
from alue_bench.measure.empty_models import EmptyModel
from alue_bench.measure.energy import Energy
from alue_bench.measure.environment import RUNS_PER_GPU, environment, hardware_fingerprint
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.training.architecture.encoder_stack import view_as_stack
from alue_bench.training.device import precision
from alue_bench.training.device.errors import is_out_of_memory
from alue_bench.training.device.hardware import Hardware
from alue_bench.training.device.precision import Device, computes_tf32, number_format, resolve_graphs
from alue_bench.training.device.selection import device_remarks, gpu_number, resolve_device, resolve_precision
from alue_bench.training.forward import choose_forward
from alue_bench.training.freezing import apply_plan, training_mode
from alue_bench.training.pretrained.loading import empty_model

VISIBILITY = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


@dataclass
class Machine:
    """The accelerators that torch finds on a machine."""

    cuda: int = 0
    """The number of CUDA or ROCm devices."""
    name: str = "NVIDIA H200"
    capability: tuple[int, int] = (9, 0)
    arch: str = ""
    """The name of AMD's architecture; empty for NVIDIA."""
    gib: int = 80
    free_gib: float = 80
    mps: bool = False
    xpu: bool = False
    current: int = 0
    last_gib: int | None = None
    """The memory of the GPU of the highest number, if it differs."""

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> Machine:
        def set_device(number: int) -> None:
            self.current = number

        def properties(number: int) -> SimpleNamespace:
            gib = self.last_gib if self.last_gib and number == self.cuda - 1 else self.gib
            return SimpleNamespace(name=self.name, total_memory=gib * GIB, gcnArchName=self.arch, uuid="5ab3-0001")

        for name, value in {
            "is_available": lambda: self.cuda > 0,
            "device_count": lambda: self.cuda,
            "current_device": lambda: self.current,
            "set_device": set_device,
            "get_device_name": lambda: self.name,
            "get_device_capability": lambda: self.capability,
            "get_device_properties": properties,
            "mem_get_info": lambda: (int(self.free_gib * GIB), self.gib * GIB),
            "max_memory_allocated": lambda: 3 * GIB,
            "reset_peak_memory_stats": lambda: None,
        }.items():
            monkeypatch.setattr(f"torch.cuda.{name}", value)
        monkeypatch.setattr("torch.version.hip", "7.0" if self.arch else None)
        monkeypatch.setattr("torch.version.cuda", "13.0" if self.cuda and not self.arch else None)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: self.mps)
        monkeypatch.setattr("torch.xpu.is_available", lambda: self.xpu)
        for name in VISIBILITY:
            monkeypatch.delenv(name, raising=False)
        return self


NONE, ONE, TWO = Machine(), Machine(1), Machine(2)
APPLE, INTEL = Machine(mps=True), Machine(xpu=True)
H200 = Machine(1)
T4, V100 = Machine(1, "Tesla T4", (7, 5)), Machine(1, "Tesla V100", (7, 0))
PASCAL = Machine(1, "Tesla P100", (6, 0))
MI300 = Machine(1, "AMD Instinct MI300X", (9, 4), "gfx942:sramecc+:xnack-")
MI50 = Machine(1, "AMD Instinct MI50", (9, 0), "gfx906:sramecc+")


class TestDevice:
    @pytest.mark.parametrize(
        ("machine", "wanted", "device"),
        [
            (NONE, "auto", "cpu"),
            (ONE, "auto", "cuda"),
            (MI300, "auto", "cuda"),
            (APPLE, "auto", "cpu"),
            (INTEL, "auto", "cpu"),
            (ONE, "cpu", "cpu"),
            (ONE, "gpu", "cuda"),
            (APPLE, "gpu", "mps"),
            (INTEL, "gpu", "xpu"),
            (ONE, "cuda", "cuda"),
            (TWO, "cuda:1", "cuda"),
            (APPLE, "mps", "mps"),
            (INTEL, "xpu", "xpu"),
        ],
    )
    def test_is_the_one_that_is_there(
        self, machine: Machine, wanted: str, device: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine = Machine(**vars(machine)).stand_in(monkeypatch)
        assert resolve_device(wanted) == device
        assert machine.current == (gpu_number(wanted) or 0)

    @pytest.mark.parametrize(
        ("machine", "wanted", "said", "instead"),
        [
            (NONE, "cuda", "torch finds no CUDA device (torch", ["cpu"]),
            (NONE, "gpu", "torch finds no GPU (torch", ["cpu"]),
            (NONE, "cuda:0", "torch finds no CUDA device (torch", ["cpu"]),
            (APPLE, "cuda", "is built without CUDA) here", ["cpu", "mps"]),
            (ONE, "mps", "torch finds no Apple GPU (MPS) here; use", ["cpu", "cuda"]),
            (ONE, "xpu", "torch finds no Intel GPU (XPU) here; use", ["cpu", "cuda"]),
            (TWO, "cuda:2", "this process sees 2 CUDA devices; use cuda:0 to cuda:1", []),
            (ONE, "cuda:1", "this process sees 1 CUDA device; use cuda:0 ", []),
            (ONE, "cuda:N", "is not one of auto, cpu, gpu, cuda, cuda:N, mps, xpu", []),
            (ONE, "tpu", "is not one of auto, cpu, gpu, cuda, cuda:N, mps, xpu", []),
        ],
    )
    def test_that_is_missing_is_refused_with_what_there_is_instead(
        self, machine: Machine, wanted: str, said: str, instead: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Machine(**vars(machine)).stand_in(monkeypatch)
        with pytest.raises(UsageError) as refusal:
            resolve_device(wanted)
        assert said in str(refusal.value)
        offered = [name for name in ("cpu", "cuda", "mps", "xpu") if f"--device {name}" in str(refusal.value)[16:]]
        assert offered == instead
        assert [resolve_device(name) for name in offered] == instead

    def test_a_kind_that_was_never_seen_to_work_is_named_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patches:
            Machine(mps=True).stand_in(patches)
            (remark,) = device_remarks("gpu", "mps")
            assert remark.startswith("--device mps is experimental")
            (remark,) = device_remarks("auto", "cpu")
            assert "--device mps" in remark
            assert device_remarks("cpu", "cpu") == []
        assert device_remarks("auto", "cuda") == device_remarks("cuda", "cuda") == []

    def test_a_plan_says_so_once(self, registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        Machine(mps=True).stand_in(monkeypatch)
        request = PlanRequest(
            tasks=("anger",), models=("mini",), strategies=("full", "bottom2"), sample=True, precision="fp32",
            device="mps",
        )  # fmt: skip
        plan = build_plan(request, registry)
        assert [note for note in plan.notes if "experimental" in note] == device_remarks("mps", "mps")
        assert {run.spec.device for run in plan.runs} == {"mps"}

    def test_its_number_is_no_part_of_a_run(self, registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = Machine(2).stand_in(monkeypatch)
        fingerprints = set()
        for device in ("cuda", "gpu", "cuda:1"):
            request = PlanRequest(
                tasks=("anger",), models=("mini",), strategies=("full",), sample=True, precision="fp32", device=device
            )
            (run,) = build_plan(request, registry).runs
            assert run.spec.device == "cuda"
            fingerprints.add(run.spec.fingerprint)
        assert (len(fingerprints), machine.current) == (1, 1)

    def test_of_intel_may_not_tell_its_free_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An integrated GPU does not; torch's own count of reserved memory is the next best."""

        def refuse() -> None:
            raise RuntimeError("The device doesn't support querying the available free memory")

        properties = SimpleNamespace(total_memory=16 * GIB)
        for name, value in {
            "current_device": lambda: 0,
            "device_count": lambda: 1,
            "get_device_properties": lambda number: properties,
            "mem_get_info": refuse,
            "memory_reserved": lambda: 3 * GIB,
        }.items():
            monkeypatch.setattr(f"torch.xpu.{name}", value, raising=False)
        monkeypatch.setattr("torch.cuda.mem_get_info", refuse)
        assert (Hardware("xpu").free_bytes(), Hardware("xpu").smallest_bytes()) == (13 * GIB, 16 * GIB)
        with pytest.raises(RuntimeError, match="querying"):
            Hardware("cuda").free_bytes()

    @pytest.mark.parametrize(
        ("value", "valid"), [("cuda:0", True), ("cuda:12", True), ("cuda:", False), ("cuda:x", False), ("gpu:1", False)]
    )
    def test_options_accept_the_number_of_a_gpu(self, value: str, valid: bool) -> None:
        if valid:
            assert PlanRequest(device=value).device == value
        else:
            with pytest.raises(UsageError, match="it must be auto, cpu, gpu, cuda, cuda:N, mps or xpu"):
                PlanRequest(device=value)


class TestPrecision:
    @pytest.mark.parametrize(
        ("machine", "device", "chosen"),
        [
            (H200, "cuda", "bf16"),
            (Machine(1, "NVIDIA A100", (8, 0)), "cuda", "bf16"),
            (T4, "cuda", "fp16"),
            (V100, "cuda", "fp16"),
            (PASCAL, "cuda", "fp32"),
            (MI300, "cuda", "bf16"),
            (MI50, "cuda", "fp32"),
            (APPLE, "mps", "fp32"),
            (INTEL, "xpu", "fp32"),
        ],
        ids=lambda value: value.name if isinstance(value, Machine) else None,
    )
    def test_auto_takes_what_is_fast(
        self, machine: Machine, device: str, chosen: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Machine(**vars(machine)).stand_in(monkeypatch)
        assert resolve_precision("auto", device) == chosen
        assert Hardware(device).is_fast_in(resolve_precision("auto", device))

    @pytest.mark.parametrize(
        ("machine", "device", "wanted", "said"),
        [
            (NONE, "cpu", "fp16", "needs a CUDA device or an Intel GPU; on the CPU use bf16 or fp32"),
            (APPLE, "mps", "fp16", "needs a CUDA device or an Intel GPU; on mps use bf16 or fp32"),
            (NONE, "cpu", "tf32", "needs an NVIDIA GPU of compute capability 8.0 or higher; on the CPU use bf16 or"),
            (T4, "cuda", "tf32", "Tesla T4 has none; use fp16 or fp32"),
            (MI300, "cuda", "tf32", "AMD Instinct MI300X has none; use bf16 or fp32"),
            (H200, "cuda", "fp8", "is not one of auto, fp32, tf32, bf16, fp16"),
        ],
    )
    def test_that_the_device_does_not_support_is_refused(
        self, machine: Machine, device: str, wanted: str, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Machine(**vars(machine)).stand_in(monkeypatch)
        with pytest.raises(UsageError) as refusal:
            resolve_precision(wanted, device)
        assert said in str(refusal.value)

    def test_tf32_is_set_for_the_run_alone_and_recorded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Machine(1).stand_in(monkeypatch)
        products: Any = torch.backends.cuda.matmul
        before = (computes_tf32(), getattr(products, "fp32_precision", None), torch.get_float32_matmul_precision())
        device = Device("cuda", resolve_precision("tf32", "cuda"))
        for inside, expected in ((device, True), (Device("cuda", "fp32"), False), (Device("cuda", "bf16"), False)):
            with number_format(inside):
                assert products.allow_tf32 is expected
                assert environment("cuda")["tf32_matrix_products"] is expected
        with number_format(device), number_format(device), pytest.raises(ZeroDivisionError), number_format(device):
            raise ZeroDivisionError
        after = (computes_tf32(), getattr(products, "fp32_precision", None), torch.get_float32_matmul_precision())
        assert after == before
        assert (device.compute, device.is_16_bit) == (torch.float32, False)
        assert "tf32_matrix_products" not in environment("cpu")

    @pytest.mark.parametrize(("machine", "device"), [(H200, "cuda"), (MI300, "cuda"), (NONE, "cpu")])
    @pytest.mark.parametrize("before", [True, False])
    def test_nvidia_gpus_compute_attention_without_cudnn_during_a_run(
        self, machine: Machine, device: str, before: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Machine(**vars(machine)).stand_in(monkeypatch)
        settings = torch.backends.cuda
        users = settings.cudnn_sdp_enabled()
        try:
            settings.enable_cudnn_sdp(before)
            for format in ("bf16", "tf32"):
                with suppress(ZeroDivisionError), number_format(Device(device, format)):  # type: ignore[arg-type]
                    assert settings.cudnn_sdp_enabled() is (before and machine is not H200)
                    raise ZeroDivisionError
                assert settings.cudnn_sdp_enabled() is before
        finally:
            settings.enable_cudnn_sdp(users)

    def test_tf32_makes_another_run(self, registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        Machine(1).stand_in(monkeypatch)
        runs = [
            build_plan(
                PlanRequest(tasks=("anger",), models=("mini",), strategies=("full",), sample=True, precision=format),
                registry,
            ).runs[0]
            for format in ("fp32", "tf32")
        ]
        assert [run.spec.precision for run in runs] == ["fp32", "tf32"]
        assert runs[0].spec.fingerprint != runs[1].spec.fingerprint

    @pytest.mark.parametrize(
        ("machine", "trained_on", "trained_in", "used"),
        [
            (H200, "cuda", "bf16", "bf16"),
            (H200, "cuda", "tf32", "tf32"),
            (T4, "cuda", "bf16", "fp32"),
            (T4, "cuda", "fp16", "fp16"),
            (T4, "cuda", "tf32", "fp32"),
            (H200, "cpu", "bf16", "fp32"),
        ],
    )
    def test_a_kept_model_predicts_in_its_own_format_where_that_is_fast(
        self, machine: Machine, trained_on: str, trained_in: str, used: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Machine(**vars(machine)).stand_in(monkeypatch)
        description: Any = SimpleNamespace(device=trained_on, precision=trained_in)
        assert kept_model._precision(description, "cuda", None) == used

    @pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
    def test_graphs_need_cuda(self, device: str) -> None:
        with pytest.raises(UsageError, match="needs a CUDA device; leave it out on"):
            resolve_graphs("on", device)


class TestEnvironment:
    def test_a_gpus_name_is_the_same_with_any_number_of_cpu_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Machine(1).stand_in(monkeypatch)
        names, on_cpu = set(), set()
        for threads in (1, 7):
            monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
            names.add(hardware_fingerprint("cuda"))
            on_cpu.add(hardware_fingerprint("cpu"))
            assert environment("cuda")["hardware"]["threads"] == threads
        assert len(on_cpu) == 2
        (name,) = names
        assert name.startswith("NVIDIA H200 · ")
        assert "thread" not in name

    @pytest.mark.parametrize(
        ("machine", "expected"),
        [
            (H200, {"accelerator": "NVIDIA H200", "accelerator_memory_gib": 80, "cuda": "13.0"}),
            (MI300, {"accelerator": "AMD Instinct MI300X", "accelerator_memory_gib": 80, "rocm": "7.0"}),
        ],
    )
    def test_names_the_accelerator_and_its_toolkit(
        self, machine: Machine, expected: dict[str, object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Machine(**vars(machine)).stand_in(monkeypatch)
        described = environment("cuda")["hardware"]
        assert {name: described.get(name) for name in ("accelerator", "accelerator_memory_gib", *expected)} == expected
        assert {"cuda", "rocm"} & set(described) == {"cuda", "rocm"} & set(expected)


class TestEnergyCounter:
    """The package `pynvml`, replaced by counters that fail as real drivers do."""

    class Failed(Exception):
        pass

    @pytest.fixture
    def nvml(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        Machine(1).stand_in(monkeypatch)
        monkeypatch.delenv(RUNS_PER_GPU, raising=False)
        readings = iter(range(0, 10**6, 2000))
        module = SimpleNamespace(
            NVMLError=self.Failed,
            NVML_DEVICE_MIG_ENABLE=1,
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
            nvmlDeviceGetMigMode=lambda handle: [0, 0],
            nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings),
        )
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return module

    def fail(self, *_: Any) -> Any:
        raise self.Failed("GPU is lost")

    def test_counts_between_start_and_end(self, nvml: SimpleNamespace, tmp_path: Any) -> None:
        with Energy("cuda", tmp_path) as energy:
            pass
        assert (energy.joules, energy.problems) == ({"gpu": 2.0}, [])

    @pytest.mark.parametrize("when", ["start", "end"])
    def test_that_fails_neither_fails_the_run_nor_replaces_its_error(
        self, nvml: SimpleNamespace, when: str, tmp_path: Any
    ) -> None:
        def work(error: type[BaseException] | None) -> Energy:
            energy = Energy("cuda", tmp_path)
            if when == "start":
                nvml.nvmlDeviceGetTotalEnergyConsumption = self.fail
            with energy:
                nvml.nvmlDeviceGetTotalEnergyConsumption = self.fail
                if error is not None:
                    raise error
            return energy

        reads = nvml.nvmlDeviceGetTotalEnergyConsumption
        energy = work(None)
        assert (energy.joules, energy.problems) == ({}, ["no energy/gpu_j: Failed: GPU is lost"])
        nvml.nvmlDeviceGetTotalEnergyConsumption = reads
        for error in (ZeroDivisionError, KeyboardInterrupt):
            nvml.nvmlDeviceGetTotalEnergyConsumption = reads
            with pytest.raises(error):
                work(error)

    def test_of_a_divided_or_shared_gpu_is_not_read(
        self, nvml: SimpleNamespace, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nvml.nvmlDeviceGetMigMode = lambda handle: [1, 1]
        with Energy("cuda", tmp_path) as sliced:
            pass
        nvml.nvmlDeviceGetMigMode = self.fail  # as on GPUs that cannot be divided
        with Energy("cuda", tmp_path) as whole:
            pass
        monkeypatch.setenv(RUNS_PER_GPU, "2")
        with Energy("cuda", tmp_path) as shared:
            pass
        assert [list(one.joules) for one in (sliced, whole, shared)] == [[], ["gpu"], []]


class TestWorkers:
    def gpus(self, jobs: int, **resources: Any) -> list[dict[str, str]]:
        pool = start(Resources(jobs=jobs, **{"device": "cuda", **resources}))
        return [{name: given[name] for name in VISIBILITY if name in given} for given in pool.environments]

    @pytest.mark.parametrize(
        ("machine", "user", "only", "given"),
        [
            (TWO, {}, None, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
            (TWO, {}, 1, [{"CUDA_VISIBLE_DEVICES": "1"}] * 2),
            (
                TWO,
                {"CUDA_VISIBLE_DEVICES": "GPU-5ab3, GPU-77c0"},
                None,
                [{"CUDA_VISIBLE_DEVICES": "GPU-5ab3"}, {"CUDA_VISIBLE_DEVICES": "GPU-77c0"}],
            ),
            (TWO, {"CUDA_VISIBLE_DEVICES": "4,6"}, 1, [{"CUDA_VISIBLE_DEVICES": "6"}] * 2),
            (
                ONE,  # a process sees one slice, however many the list has
                {"CUDA_VISIBLE_DEVICES": "MIG-1c4e,MIG-9d2f"},
                None,
                [{"CUDA_VISIBLE_DEVICES": "MIG-1c4e"}, {"CUDA_VISIBLE_DEVICES": "MIG-9d2f"}],
            ),
            (
                Machine(2, arch="gfx942"),
                {},
                None,
                [{"HIP_VISIBLE_DEVICES": "0"}, {"HIP_VISIBLE_DEVICES": "1"}],
            ),
            (
                Machine(2, arch="gfx942"),
                {"ROCR_VISIBLE_DEVICES": "4,6"},  # HIP counts those that are left
                None,
                [{"HIP_VISIBLE_DEVICES": "0"}, {"HIP_VISIBLE_DEVICES": "1"}],
            ),
            (
                Machine(2, arch="gfx942"),
                {"HIP_VISIBLE_DEVICES": "3,5", "CUDA_VISIBLE_DEVICES": "3,5"},
                None,
                [
                    {"CUDA_VISIBLE_DEVICES": "3", "HIP_VISIBLE_DEVICES": "3"},
                    {"CUDA_VISIBLE_DEVICES": "5", "HIP_VISIBLE_DEVICES": "5"},
                ],
            ),
        ],
    )
    def test_each_sees_its_gpu_alone(
        self, machine: Machine, user: dict[str, str], only: int | None, given: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Machine(**vars(machine)).stand_in(monkeypatch)
        for name, value in user.items():
            monkeypatch.setenv(name, value)
        assert self.gpus(2, gpu=only) == given

    def test_all_share_an_apple_gpu_and_none_is_given_to_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Machine(2, mps=True).stand_in(monkeypatch)
        assert self.gpus(3, device="mps") == self.gpus(3, device="cpu") == [{}] * 3
        assert {given[RUNS_PER_GPU] for given in start(Resources(device="mps", jobs=3)).environments} == {"3"}

    def test_ray_chooses_gpus_itself(self) -> None:
        with pytest.raises(
            UsageError, match="--device cuda:1 names a GPU, but Ray chooses the GPUs; use --device cuda"
        ):
            ray_cluster.start(Resources(device="cuda", gpu=1))


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried", True),
        ("CUDA error: out of memory", True),
        ("CUDA driver error: out of memory", True),
        ("CUDA out of memory. Tried to allocate 20.00 MiB", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED", True),
        ("HIP error: out of memory", True),
        ("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`", True),
        ("MPS backend out of memory (MPS allocated: 17.77 GB, other allocations: 1 GB)", True),
        ("XPU out of memory. Tried to allocate 4.66 GiB", True),
        ("Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("CUDA error: device-side assert triggered", False),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", False),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", False),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`", False),
        ("HIP error: invalid device function", False),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", False),
    ],
)
def test_exhausted_memory_is_recognised_by_its_text(text: str, short: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) is short


def bert(layers: int = 4, **options: Any) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    size = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": layers}
    return BertForSequenceClassification(BertConfig(vocab_size=100, num_labels=2, **size, **options))


class TestMemoryEstimate:
    @pytest.mark.parametrize("format", ["fp32", "bf16"])
    @pytest.mark.parametrize("frozen", [(), (0, 1), (0, 1, 3)], ids=["full", "bottom2", "bottom2top1"])
    @pytest.mark.parametrize("tokens", [16, 96])
    def test_activations_are_those_that_torch_keeps(self, format: Any, frozen: tuple[int, ...], tokens: int) -> None:
        """Counted by torch's hooks on saved tensors, each memory once, without parameters and their copies."""
        torch.manual_seed(0)
        stack, device = view_as_stack(bert()), Device("cpu", format)
        plan = FreezePlan(stack.shape, frozenset(frozen), embeddings=bool(frozen))
        apply_plan(stack, plan)
        forward = choose_forward(stack, device.compute)
        training_mode(stack, plan)
        ids = torch.randint(5, 100, (8, tokens))
        batch = Batch(ids, torch.ones_like(ids), None, torch.zeros(8, dtype=torch.long), torch.arange(8), ids.numel())
        weights = {parameter.untyped_storage().data_ptr() for parameter in stack.model.parameters()}
        shapes = {parameter.shape for parameter in stack.model.parameters() if parameter.ndim > 1}  # copies in bf16
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights and tensor.shape not in shapes:
                kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), precision.autocast(device):
            logits = forward.logits(batch)
        counted = sum(kept.values())
        assert logits.requires_grad
        estimate = activation_bytes(EmptyModel(stack, plan, 0, forward.last_layer), 8, tokens, device)
        assert 0.95 * counted <= estimate <= 1.3 * counted, (counted, estimate)

    def test_weights_and_the_optimisers_state_are_counted_by_what_trains(self) -> None:
        stack = view_as_stack(bert())
        total = sum(parameter.numel() for parameter in stack.model.parameters())
        layers = frozenset(range(4))
        full, head = FreezePlan(stack.shape), FreezePlan(stack.shape, layers, embeddings=True, pooler=True)
        hyper, device = HyperParameters(batch_size=1), Device("cuda", "fp32")
        needs = [training_bytes(EmptyModel(stack, plan, 0, False), hyper, 8, device) for plan in (full, head)]
        head_only = 2 * 64 + 2
        assert needs[0] - needs[1] == pytest.approx(1.1 * 16 * (total - head_only), rel=0.2)
        assert all(need > PROCESS_BYTES + 4 * total for need in needs)

    def test_bert_base_takes_gibibytes(self) -> None:
        from transformers import BertConfig

        stack = view_as_stack(empty_model(BertConfig()))
        model, hyper = EmptyModel(stack, FreezePlan(stack.shape), 0, True), HyperParameters(batch_size=32)
        eager, off, on, auto, cpu = (
            training_bytes(model, hyper, 128, device)
            for device in (Device("cuda", "bf16"), *(Device("cuda", "bf16", g) for g in ("off", "on", "auto")),
                           Device("cpu", "bf16", "auto"))
        )  # fmt: skip
        assert 4 * GIB < eager == off < 8 * GIB
        total = sum(parameter.numel() for parameter in stack.model.parameters())
        assert on == auto > eager + 1.1 * 4 * total, "graphs have gradients and activations of their own"
        assert on < 2 * eager
        assert cpu <= off, "a CPU records no graphs"

    @pytest.mark.parametrize(
        ("jobs", "gpus", "need", "room", "on_one", "at_once", "waits"),
        [
            (8, 2, 10, 80, 4, 8, False),
            (8, 2, 24, 80, 3, 6, True),
            (8, 1, 90, 80, 1, 1, True),
            (3, 2, 10, 80, 2, 3, False),
        ],
    )
    def test_as_many_runs_share_a_gpu_as_fit(
        self, jobs: int, gpus: int, need: int, room: int, on_one: int, at_once: int, waits: bool
    ) -> None:
        placement = GpuSharing(jobs, gpus, need * GIB, room * GIB)
        assert (placement.max_runs_per_gpu, placement.concurrent_runs) == (on_one, at_once)
        assert placement.describe().endswith("wait") is waits
        assert f"{need}.0 GiB of {room}.0 GiB" in placement.describe()

    def test_only_where_the_gpus_are_fewer(self, registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        Machine(2, gib=80, free_gib=4, last_gib=16).stand_in(monkeypatch)
        request = PlanRequest(
            tasks=("anger",), models=("mini",), strategies=("full", "head-only"), sample=True, precision="fp32",
            device="cuda",
        )  # fmt: skip
        runs = build_plan(request, registry).runs
        assert gpu_sharing(runs, 2) is None
        shared = gpu_sharing(runs, 4)
        alone = gpu_sharing(runs, 4, only=1)
        assert shared is not None
        assert alone is not None
        assert (shared.gpus, shared.available_bytes, alone.gpus, alone.available_bytes) == (2, 16 * GIB, 1, 4 * GIB)
        assert PROCESS_BYTES < shared.need_bytes < 3 * GIB


class TestRun:
    """A whole run on a simulated GPU."""

    @pytest.mark.parametrize(
        ("gpu", "wanted", "used"), [(simulation.T4, "auto", "fp16"), (simulation.H200, "tf32", "tf32")]
    )
    def test_computes_in_the_format_and_records_it(
        self, gpu: Any, wanted: Any, used: str, registry: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(peak.SIZE, "cuda", 64)
        request = PlanRequest(
            tasks=("anger",), models=(str(tiny("bert")),), strategies=("bottom2",), sample=True, limit_train=16,
            limit_eval=8, overrides=(("test", {"epochs": 1}),), device="cpu", cache_size="0",
        )  # fmt: skip
        build_plan(request, registry)  # transformers must be imported outside of the simulation
        with simulation.simulated(gpu):
            (run,) = build_plan(replace(request, device="gpu", precision=wanted), registry).runs
            result, trained = execute(run.spec, run.inputs)
        assert (run.spec.device, run.spec.precision, trained.device.precision) == ("cuda", used, used)
        assert result.environment["engine"]["precision"] == used
        assert result.environment["hardware"]["accelerator"] == gpu.name
        assert result.environment.get("tf32_matrix_products", False) is (used == "tf32")
        assert result.metrics["memory/device_peak_mib"] > 0
        assert not computes_tf32()
