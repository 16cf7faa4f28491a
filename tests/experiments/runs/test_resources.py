"""CPU and energy metrics, on counters in the kernel's format."""

from types import SimpleNamespace

import pynvml
import pytest
import torch

from experiments.runs import resources
from experiments.runs.resources import EnergyMeter, SystemMetrics

CPU = torch.device("cpu")


@pytest.fixture
def counters(tmp_path):
    """Two packages; a part of one and the whole platform must not count twice."""
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core", "intel-rapl:2": "psys"}
    for name, kind in zones.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{kind}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    return tmp_path


def set_counters(folder, **values):
    for zone, value in values.items():
        (folder / f"intel-rapl:{zone[1:].replace('_', ':')}" / "energy_uj").write_text(f"{value}\n")


def test_energy_is_that_of_all_packages_since_the_previous_call(counters):
    set_counters(counters, p0=1_000_000, p1=2_000_000, p0_0=900_000, p2=4_000_000)
    meter = EnergyMeter(CPU, counters)
    set_counters(counters, p0=4_000_000, p1=2_500_000, p0_0=3_000_000, p2=9_000_000)
    assert meter.read() == pytest.approx(3.5)
    assert meter.read() == 0
    set_counters(counters, p0=1_000_000)  # wrapped around at 10 J
    assert meter.read() == pytest.approx(7)


def test_missing_or_unreadable_counters_give_none(counters, tmp_path):
    assert EnergyMeter(CPU, tmp_path / "nowhere").read() is None
    set_counters(counters, p0=1, p1=1)
    (counters / "intel-rapl:1" / "energy_uj").unlink()
    assert EnergyMeter(CPU, counters).read() is None


def test_gpu_that_stops_reporting_gives_none(monkeypatch):
    values = iter([5_000, 7_000, 9_000, pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)])

    def millijoules(handle):
        value = next(values)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", millijoules)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
    meter = EnergyMeter(torch.device("cuda"))
    assert (meter.read(), meter.read()) == (2.0, None)


def test_cpu_utilisation_is_not_measured_over_a_moment(monkeypatch):
    now, shares = [100.0], iter([0.0, 61.0, 64.0])
    monkeypatch.setattr(resources.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(resources.psutil.Process, "cpu_percent", lambda process: next(shares))
    system = SystemMetrics(CPU)
    assert "system/cpu_utilization_percentage" not in system.read()
    for share in (61.0, 64.0):
        now[0] += 2.0
        assert [system.read()["system/cpu_utilization_percentage"] for _ in range(2)] == [share] * 2
