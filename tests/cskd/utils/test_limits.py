"""Usable cores and free memory: of the machine, of control groups, and by the user's and the scheduler's limits."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cskd.utils import limits
from cskd.utils.limits import CORE_LIMITS, free_memory, usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a machine with eight cores and 10^15 free bytes, and control groups with these files."""
    monkeypatch.setattr(limits.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**15))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(limits, "CGROUP", tmp_path)
    monkeypatch.setattr(limits, "OWN_GROUPS", tmp_path / "own groups")
    for name in CORE_LIMITS:
        monkeypatch.delenv(name, raising=False)

    def make(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own groups").write_text(own)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return make


V1 = "5:devices:/\n4:cpu,cpuacct:/docker/12ab\n3:cpuset:/\n0::/\n"
NO_QUOTA = {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "350000 100000\n"}, 3),
        ("0::/slurm/job7/step\n", {"slurm/job7/cpu.max": "200000 100000", "slurm/job7/step/cpu.max": "max 100000"}, 2),
        (V1, NO_QUOTA, 8),
        (V1, NO_QUOTA | {"cpu,cpuacct/cpu.cfs_quota_us": "150000\n"}, 1),  # in the container, its group is the top
        ("1:cpu:/job\n", {"cpu/job/cpu.cfs_quota_us": "4", "cpu/job/cpu.cfs_period_us": "2"}, 2),
    ],
)
def test_quotas_of_containers_and_of_groups_around_them_limit_the_cores(machine, own, files, expected):
    machine(own, files)
    assert usable_cores() == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "3,2"}, 3),
        ({"OMP_NUM_THREADS": "16"}, 8),
        ({"OMP_NUM_THREADS": "many", "SLURM_CPUS_PER_TASK": "0"}, 8),
        ({"OMP_NUM_THREADS": "4", "SLURM_CPUS_PER_TASK": "2"}, 2),
    ],
)
def test_user_and_scheduler_limit_the_cores(machine, monkeypatch, environment, expected):
    machine("", {})
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert usable_cores() == expected


STAT = "file 9999\ninactive_file 400\nactive_file 800\ntotal_inactive_file 5000\n"
UNLIMITED = {"memory/memory.limit_in_bytes": f"{2**63 - 4096}", "memory/memory.usage_in_bytes": "5"}
JOB = {f"memory/job/memory.{name}": text for name, text in {"limit_in_bytes": "3000", "usage_in_bytes": "3000"}.items()}


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 10**15),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 10**15),
        ("0::/\n", {"memory.max": "3000\n", "memory.current": "1000\n"}, 2000),
        ("0::/\n", {"memory.max": "3000\n", "memory.current": "4000\n"}, 0),
        ("0::/job/step\n", {"job/memory.max": "3000", "job/memory.current": "3000", "job/memory.stat": STAT}, 1200),
        ("4:memory:/job\n", UNLIMITED, 10**15),
        ("4:memory:/job\n", UNLIMITED | JOB | {"memory/job/memory.stat": STAT}, 1200),
    ],
)
def test_free_memory_is_limited_by_the_control_groups(machine, own, files, expected):
    machine(own, files)
    assert free_memory() == expected


def test_every_command_computes_with_the_usable_cores(tmp_path):
    """The launching process, too, which measures training steps and prepares data."""
    commands = tmp_path / "package" / "commands"
    commands.mkdir(parents=True)
    (commands / "show.py").write_text("import torch\ndef main():\n    print(torch.get_num_threads())")
    code = (
        "import sys; from cskd.utils import cli; cli.usable_cores = lambda: 1; sys.argv = ['', 'show']; "
        "cli.dispatch('package', {'show': ''})"
    )
    root = Path(limits.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{tmp_path}", "OMP_NUM_THREADS": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
