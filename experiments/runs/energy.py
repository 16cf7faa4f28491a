"""What the hardware tells of the energy that it takes."""

from pathlib import Path

import torch

RAPL = Path("/sys/class/powercap")  # Linux, Intel and AMD: one counter a processor package, in microjoules


class EnergyMeter:
    """The energy that the device takes: of the GPU on CUDA, else of all processor packages.

    It is the whole chip's: what other processes do on it counts as well. Many machines tell nothing: virtual ones,
    and those that keep the counters from their users.
    """

    def __init__(self, device: torch.device, counters: Path = RAPL):
        if device.type == "cuda":
            self._chips = _gpu(device)
        else:
            self._chips = [_Package(path) for path in sorted(counters.glob("*-rapl:*")) if _is_package(path)]
        self._last = self._total()

    def read(self) -> float | None:
        """Joules since the reading before, or since the meter was made; None where nothing tells."""
        total, last = self._total(), self._last
        self._last = total
        return None if total is None or last is None else total - last

    def _total(self) -> float | None:
        try:
            return sum(chip.joules() for chip in self._chips) if self._chips else None
        except OSError:  # a counter that only root may read
            return None


def _is_package(zone: Path) -> bool:
    """Not a part of a package, nor the whole platform, in which the packages count again."""
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


class _Package:
    """A processor package's counter, which begins anew at its end."""

    def __init__(self, path: Path):
        self.path, self.before, self.turns = path, 0, 0

    def joules(self) -> float:
        now = int((self.path / "energy_uj").read_text())
        if now < self.before:
            self.turns += 1
        self.before = now
        return (now + self.turns * int((self.path / "max_energy_range_uj").read_text())) / 1e6


class _Gpu:
    def __init__(self, handle: object):
        self.handle = handle

    def joules(self) -> float:
        import pynvml  # noqa: PLC0415 - only where there is a GPU

        try:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1e3
        except pynvml.NVMLError as error:  # of a driver that was updated meanwhile, say
            raise OSError(str(error)) from error


def _gpu(device: torch.device) -> list[_Gpu]:
    """The GPU of a CUDA device, or nothing where the driver does not tell its energy."""
    import pynvml  # noqa: PLC0415

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        gpu = _Gpu(handle)
        gpu.joules()
    except (pynvml.NVMLError, OSError):
        return []
    return [gpu]
