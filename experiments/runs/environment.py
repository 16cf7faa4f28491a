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

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "mlflow", "optuna")


def choose_device() -> torch.device:
    """Return CUDA if there is a GPU, else the CPU. Launchers assign GPUs with CUDA_VISIBLE_DEVICES."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_repeatable_kernels(precision: str) -> None:
    """Make GPU kernels deterministic and independent of timing.

    With bf16, the operations that stay in fp32 may use TF32; with fp32 they use IEEE arithmetic.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    fp32_precision = "tf32" if precision == "bf16" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = fp32_precision
    torch.backends.cudnn.conv.fp32_precision = fp32_precision


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
