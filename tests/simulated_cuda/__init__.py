"""A simulated CUDA device: a GPU's rules over values that the CPU computes, in pure Python.

    def test_something(simulated_cuda):              # the fixture in conftest.py; an H200
        model.to("cuda")
        with simulated_cuda.watch() as seen:
            ...                                      # a step
        assert not seen.waits and not seen.unpinned  # each with the place in the code
        print(seen.launches, seen.replays)

    @pytest.mark.parametrize("simulated_cuda", [T4], indirect=True)  # another GPU

Simulated are: tensors that say `cuda:0`; errors where tensors of two devices meet; the host's waits for the device;
copies from memory that is not pinned; asynchronous copies, whose result is garbage until the host has waited; the
number of kernels launched; random generators of the device; allocated memory with a limit; CUDA graphs, which are
replayed without Python, which do no work while they are captured, and which refuse what a capture forbids.

Not simulated are: time, the order of work on several streams (all work is done at once, in the order of the calls), the
rounding of a GPU's kernels, and the choice of operations that CUDA's autocast makes (the CPU's autocast is used).

- `gpu.py`: the properties of some GPUs
- `tensors.py`: tensors and random generators of the device
- `operations.py`: the effects of torch's operations: launched kernels, waits, random numbers, written arguments
- `memory.py`: allocated memory of the device, pinned memory of the host
- `active.py`: the machine that is simulated now
- `machine.py`: the device, through which all operations go, and what it has counted
- `graphs.py`: CUDA graphs, streams and events
- `gpu_only.py`: operations that are one kernel on a GPU and several operations on a CPU
- `names.py`: torch's own names, which lead to the simulation
"""

from simulated_cuda.gpu import H200, T4, Gpu
from simulated_cuda.machine import Activity, Machine
from simulated_cuda.names import simulated
from simulated_cuda.tensors import DeviceTensor

__all__ = ["H200", "T4", "Activity", "DeviceTensor", "Gpu", "Machine", "simulated"]
