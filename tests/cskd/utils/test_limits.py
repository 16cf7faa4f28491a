"""Usable cores and free memory: of the machine, of control groups, and by the user's and the scheduler's limits."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from cskd.utils import cli, limits
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


V1 = "5:devices:/\n4:cpu,cpuacct,memory:/job\n3:cpuset:/\n0::/\n"
TOP = "cpu,cpuacct,memory/"
NO_QUOTA = {f"{TOP}cpu.cfs_quota_us": "-1\n", f"{TOP}cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("own", "files", "environment", "expected"),
    [
        ("0::/\n", {}, {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, {}, 8),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, {}, 1),
        ("0::/job/step\n", {"job/cpu.max": "350000 100000", "job/step/cpu.max": "max 100000"}, {}, 3),
        (V1, NO_QUOTA, {}, 8),
        (V1, NO_QUOTA | {f"{TOP}cpu.cfs_quota_us": "250000\n"}, {}, 2),  # in a container, its group is the top
        ("0::/\n", {}, {"OMP_NUM_THREADS": "3,2"}, 3),
        ("0::/\n", {}, {"OMP_NUM_THREADS": "many", "SLURM_CPUS_PER_TASK": "0"}, 8),
        ("0::/\n", {}, {"OMP_NUM_THREADS": "16", "SLURM_CPUS_PER_TASK": "2"}, 2),
    ],
)
def test_usable_cores_are_limited_by_quotas_the_user_and_the_scheduler(
    machine, monkeypatch, own, files, environment, expected
):
    machine(own, files)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert usable_cores() == expected


V2_JOB = {"job/memory.max": "3000", "job/memory.current": "3000"}
STAT = "file 9999\ninactive_file 400\nactive_file 800\ntotal_inactive_file 5000\n"
UNLIMITED = {f"{TOP}memory.limit_in_bytes": f"{2**63 - 4096}", f"{TOP}memory.usage_in_bytes": "5"}
V1_JOB = {f"{TOP}job/memory.limit_in_bytes": "3000", f"{TOP}job/memory.usage_in_bytes": "3000"}


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 10**15),
        ("0::/\n", {"memory.max": "3000\n", "memory.current": "4000\n"}, 0),
        ("0::/job/step\n", V2_JOB | {"job/memory.stat": STAT}, 1200),
        (V1, UNLIMITED, 10**15),
        (V1, UNLIMITED | V1_JOB | {f"{TOP}job/memory.stat": STAT}, 1200),
    ],
)
def test_free_memory_is_limited_by_the_control_groups(machine, own, files, expected):
    machine(own, files)
    assert free_memory() == expected


def test_every_command_computes_with_the_usable_cores(machine, monkeypatch):
    machine("0::/\n", {"cpu.max": "300000 100000\n"})
    command = ModuleType("package.commands.show")
    command.main = lambda: int(os.environ["OMP_NUM_THREADS"])
    monkeypatch.setitem(sys.modules, "package.commands.show", command)
    monkeypatch.setattr(sys, "argv", ["", "show"])
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    with pytest.raises(SystemExit) as ended:
        cli.dispatch("package", {"show": ""})
    assert ended.value.code == 3
