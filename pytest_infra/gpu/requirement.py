"""What the machine must have for GPU tests."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.requirement import Absent, Present, PythonModule, Requirement

__all__ = ["CUDA", "GPU", "NVML", "OPENCL", "NvidiaGpu", "OpenClDevice"]

_NO_DEVICE = "install a GPU's driver, or PoCL for the CPU: pytest-infra doctor --install opencl, or: apt-get install {}"


@dataclass(frozen=True)
class NvidiaGpu(Requirement):
    """A GPU of NVIDIA's whose driver answers."""

    def probe(self) -> Present | Absent:
        """Ask NVML."""
        if not (module := NVML.probe()):
            return module
        from ..core.errors import Unavailable
        from .nvml import find_cuda

        try:
            devices = find_cuda()
        except Unavailable as error:
            return Absent(error.why, error.remedy)
        if not devices:
            return Absent("NVML finds no GPU", "run it on a machine with one")
        return Present(", ".join(device.name for device in devices))


@dataclass(frozen=True)
class OpenClDevice(Requirement):
    """A device that OpenCL can use: a GPU, or a CPU through PoCL."""

    def probe(self) -> Present | Absent:
        """Ask OpenCL's loader."""
        module = PythonModule("pyopencl", extra="opencl").probe()
        if not module:
            return module
        from .opencl import find_opencl, find_unusable

        devices = find_opencl()
        if not devices:
            unusable = "; ".join(f"cannot compile for {name}: {said}" for name, said in find_unusable().items())
            return Absent(f"OpenCL {unusable or 'finds no device'}", _NO_DEVICE.format(self.packages["apt"]))
        return Present(", ".join(device.name + " (a CPU)" * (device.kind == "cpu") for device in devices))


NVML = PythonModule("nvidia-ml-py", purpose="finding NVIDIA's GPUs", module="pynvml", extra="gpu")
CUDA = PythonModule("cuda-bindings", purpose="computing on NVIDIA's GPUs", module="cuda.bindings", extra="gpu")
GPU = NvidiaGpu("gpu", purpose="GPU tests on NVIDIA's GPUs")
OPENCL = OpenClDevice(
    "opencl",
    purpose="GPU tests on any device, a CPU too",
    packages={"apt": "pocl-opencl-icd", "dnf": "pocl", "pacman": "pocl"},
)
