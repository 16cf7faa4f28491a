"""The number of usable cores: affinity, quotas of control groups, and the user's and the scheduler's limits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cskd.utils import cores
from cskd.utils.cores import LIMITS, usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a machine with eight cores, and control groups with these files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(cores, "OWN_GROUPS", tmp_path / "own groups")
    for name in LIMITS:
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


def test_every_command_computes_with_the_usable_cores(tmp_path):
    """The launching process, too, which measures training steps and prepares data."""
    commands = tmp_path / "package" / "commands"
    commands.mkdir(parents=True)
    (commands / "show.py").write_text("import torch\ndef main():\n    print(torch.get_num_threads())")
    code = (
        "import sys; from cskd.utils import cli; cli.usable_cores = lambda: 1; sys.argv = ['', 'show']; "
        "cli.dispatch('package', {'show': ''})"
    )
    root = Path(cores.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{tmp_path}", "OMP_NUM_THREADS": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
