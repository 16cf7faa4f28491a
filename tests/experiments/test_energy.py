"""The energy meter, on made-up counters in the kernel's form."""

from types import SimpleNamespace

import pynvml
import pytest
import torch
from experiments.runs.energy import EnergyMeter

CPU = torch.device("cpu")


@pytest.fixture
def counters(tmp_path):
    """Two packages; a part of one and the platform as a whole must not count twice."""
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core", "intel-rapl:2": "psys"}
    for name, kind in zones.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{kind}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    return tmp_path


def put(counters, **values):
    for package, value in values.items():
        (counters / f"intel-rapl:{package[1:].replace('_', ':')}" / "energy_uj").write_text(f"{value}\n")


def test_joules_of_all_packages_since_the_reading_before(counters):
    put(counters, p0=1_000_000, p1=2_000_000, p0_0=900_000, p2=4_000_000)
    meter = EnergyMeter(CPU, counters)
    put(counters, p0=4_000_000, p1=2_500_000, p0_0=3_000_000, p2=9_000_000)
    assert meter.read() == pytest.approx(3.5)
    assert meter.read() == 0


def test_a_counter_that_begins_anew_goes_on(counters):
    put(counters, p0=9_000_000, p1=0, p0_0=0)
    meter = EnergyMeter(CPU, counters)
    put(counters, p0=2_000_000)
    assert meter.read() == pytest.approx(3)
    put(counters, p0=1_000_000)
    assert meter.read() == pytest.approx(9)


def test_a_machine_that_tells_nothing_gives_none(tmp_path):
    assert EnergyMeter(CPU, tmp_path).read() is None


def test_counters_that_may_not_be_read_give_none(counters):
    put(counters, p0=1, p1=1)
    (counters / "intel-rapl:1" / "energy_uj").unlink()
    (counters / "intel-rapl:1" / "energy_uj").mkdir()  # as unreadable as one of root's, for root as well
    assert EnergyMeter(CPU, counters).read() is None


def test_a_gpu_that_tells_no_more_gives_none_and_does_not_end_the_run(monkeypatch):
    joules = iter([5_000, 7_000, 9_000, pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)])

    def message(handle):
        value = next(joules)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", message)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
    meter = EnergyMeter(torch.device("cuda"))
    assert meter.read() == 2.0
    assert meter.read() is None
