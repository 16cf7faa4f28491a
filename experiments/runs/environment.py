"""What a run really ran on: recorded with it, and no part of its key."""

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from experiments.runs.energy import EnergyMeter

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "mlflow", "optuna")
MOMENT_SECONDS = 0.1  # over less a share of the processor is chance: its clock ticks a hundred times a second
ROOT = Path(__file__).resolve().parents[2]


def choose_device() -> torch.device:
    """CUDA where there is one. A launcher gives each worker its own with CUDA_VISIBLE_DEVICES."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_repeatable_kernels(precision: str) -> None:
    """Exactly repeatable before fast: nothing may choose its algorithm by a stopwatch.

    What stays in fp32 beside bf16 may use a GPU's TF32; where fp32 was asked for, it is IEEE's.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    beside = "tf32" if precision == "bf16" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = beside
    torch.backends.cudnn.conv.fp32_precision = beside


def usable_cores() -> int:
    """Those that this process may use: a scheduler, a container or taskset may leave it some, OMP_NUM_THREADS fewer.

    More threads than that wait for each other, and are many times slower than one.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    # Not all systems tell; a mistaken OMP_NUM_THREADS means nothing to OpenMP either.
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(asked), own) if asked.isdecimal() and int(asked) > 0 else own


def commit(folder: Path = ROOT) -> tuple[str, bool]:
    """(hash of the commit that a folder is at, whether there are changes beside it, measured results aside)."""
    changes = _git(folder, "status", "--porcelain", "--", ".", ":(exclude)results/measured")
    return _git(folder, "rev-parse", "HEAD") or "unknown", bool(changes)


def describe(device: torch.device, precision: str, compiled: bool = False) -> dict[str, Any]:
    """Commit, versions and hardware, as they are now."""
    git_commit, git_dirty = commit()
    return {
        "git_commit": git_commit,
        "git_dirty": git_dirty,
        "machine": f"{_cpu_name()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": precision,
        "compiled": compiled,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "started": time.time(),
    }


class SystemMetrics:
    """What this process takes of the machine, since the last reading. Names as MLflow's own system metrics."""

    def __init__(self, device: torch.device):
        self.device = device
        self.process = psutil.Process()
        self.energy = EnergyMeter(device)
        self.process.cpu_percent()  # the first reading of psutil has nothing to compare with
        self._read_at, self._cpu = time.monotonic(), None

    def read(self) -> dict[str, float]:
        """The share of the processor is that of the reading before where no time has passed since."""
        metrics = {"system/system_memory_usage_megabytes": self.process.memory_info().rss / 1e6}
        now = time.monotonic()
        if now - self._read_at >= MOMENT_SECONDS:
            self._read_at, self._cpu = now, self.process.cpu_percent()
        if self._cpu is not None:
            metrics["system/cpu_utilization_percentage"] = self._cpu
        joules = self.energy.read()
        if joules is not None:
            metrics["system/energy_joules"] = joules
        if self.device.type == "cuda":
            metrics["system/gpu_0_memory_usage_megabytes"] = torch.cuda.max_memory_allocated(self.device) / 1e6
        return metrics


def _git(folder: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine: the commit is recorded as unknown
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
