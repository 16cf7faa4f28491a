"""The energy of a CPU, on counters in the kernel's format."""

import pytest
import torch

from experiments.runs.resources import EnergyMeter

CPU = torch.device("cpu")


def test_energy_is_that_of_all_packages_since_the_previous_call(tmp_path):
    """A part of a package and the whole platform must not count twice."""
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core", "intel-rapl:2": "psys"}
    for name, kind in zones.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{kind}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")

    def set_counters(*microjoules: int) -> None:
        for name, value in zip(zones, microjoules, strict=True):
            (tmp_path / name / "energy_uj").write_text(f"{value}\n")

    set_counters(1_000_000, 2_000_000, 900_000, 4_000_000)
    meter = EnergyMeter(CPU, tmp_path)
    set_counters(4_000_000, 2_500_000, 3_000_000, 9_000_000)
    assert (meter.read(), meter.read()) == (pytest.approx(3.5), 0)
    set_counters(1_000_000, 2_500_000, 3_000_000, 9_000_000)  # wrapped around at 10 J
    assert meter.read() == pytest.approx(7)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.read() is None
    assert EnergyMeter(CPU, tmp_path / "nowhere").read() is None
