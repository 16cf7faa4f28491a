"""The environment of a run: device, cores, commit, versions. It is recorded, but not part of the run key."""

import os
import platform
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from experiments.runs.source import source_at_start

# cuBLAS reads its variable when it starts, Triton reads its own when it compiles; Triton 3.10 has another default.
REPEATABLE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TRITON_DEFAULT_FP_FUSION": "1"}
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "mlflow", "optuna")


def choose_device() -> torch.device:
    """Return CUDA if there is a GPU, else the CPU. Launchers assign GPUs with CUDA_VISIBLE_DEVICES."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_repeatable_kernels(precision: str, device: torch.device) -> None:
    """Make a GPU's kernels deterministic and independent of timing. Call it before the first product on the GPU.

    With bf16, the operations that stay in fp32 may use TF32; with fp32 they use IEEE arithmetic. An operation without
    a deterministic kernel, perhaps in a network of another library, warns.
    """
    if device.type != "cuda":
        return
    os.environ.update(REPEATABLE)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a kernel for each new tensor, for nothing
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # With the newer switches, ``fp32_precision``, the getters raise that torch.compile and other libraries use.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "bf16"


def describe(device: torch.device, precision: str, compiled: bool = False) -> dict[str, Any]:
    """Return the code's version, the packages' versions and the hardware of this process."""
    return {
        **source_at_start(),
        "machine": f"{_cpu_name()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "compiled": compiled,
        "python": platform.python_version(),
        "packages": _versions(),
        "started": time.time(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    """Return the versions of the installed packages among PACKAGES."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
