"""The resources that a training process uses: CPU, memory, energy."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pynvml
import torch

RAPL = Path("/sys/class/powercap")  # Linux on Intel and AMD: one counter for each processor package, in microjoules
MIN_CPU_SECONDS = 0.1  # CPU utilisation over a shorter time is noise: the kernel counts in hundredths of a second
Counter = Callable[[], float]  # returns the joules since some moment


class SystemMetrics:
    """The ``system/...`` metrics of this process, named as MLflow names its own. The energy is of all replicas."""

    def __init__(self, device: torch.device, replicas: int = 1):
        self.device = device
        self.process = psutil.Process()
        self.energy = EnergyMeter(device, replicas=replicas)
        self.process.cpu_percent()  # starts psutil's measurement
        self._read_at, self._cpu = time.monotonic(), None

    def read(self) -> dict[str, float]:
        """Return the metrics since the previous call."""
        metrics = {"system/system_memory_usage_megabytes": self.process.memory_info().rss / 1e6}
        now = time.monotonic()
        if now - self._read_at >= MIN_CPU_SECONDS:
            self._read_at, self._cpu = now, self.process.cpu_percent()
        if self._cpu is not None:
            metrics["system/cpu_utilization_percentage"] = self._cpu
        joules = self.energy.read()
        if joules is not None:
            metrics["system/energy_joules"] = joules
        if self.device.type == "cuda":
            metrics["system/gpu_0_memory_usage_megabytes"] = torch.cuda.max_memory_allocated(self.device) / 1e6
        return metrics


class EnergyMeter:
    """The energy used by the GPU of each replica, or by all processor packages on a CPU, including other processes.

    Virtual machines have no counters, and some machines let only root read them.
    """

    def __init__(self, device: torch.device, counters: Path = RAPL, replicas: int = 1):
        if device.type == "cuda":
            devices = [device] if replicas == 1 else [torch.device("cuda", number) for number in range(replicas)]
            self._counters = [counter for device in devices for counter in _gpu_counters(device)]
        else:
            self._counters = [_PackageCounter(path) for path in sorted(counters.glob("*-rapl:*")) if _is_package(path)]
        self._previous = self._total()

    def read(self) -> float | None:
        """Return the joules since the previous call, or None if there is no counter."""
        total, previous = self._total(), self._previous
        self._previous = total
        return None if total is None or previous is None else total - previous

    def _total(self) -> float | None:
        try:
            return sum(counter() for counter in self._counters) if self._counters else None
        except (OSError, pynvml.NVMLError):
            return None


def _is_package(zone: Path) -> bool:
    """Return False for parts of a package and for the whole platform, which would count energy twice."""
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


class _PackageCounter:
    """Returns the joules of a processor package, whose counter wraps around."""

    def __init__(self, path: Path):
        self.path, self.previous, self.wraps = path, 0, 0

    def __call__(self) -> float:
        value = int((self.path / "energy_uj").read_text())
        if value < self.previous:
            self.wraps += 1
        self.previous = value
        return (value + self.wraps * int((self.path / "max_energy_range_uj").read_text())) / 1e6


def _gpu_counters(device: torch.device) -> list[Counter]:
    """Return the counter of a GPU, or nothing if its driver does not report energy."""
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except (pynvml.NVMLError, OSError):
        return []
    return [lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3]  # it counts in millijoules
