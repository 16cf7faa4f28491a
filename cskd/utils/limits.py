"""The cores and the memory that this process may use: on this machine, in its container, under its scheduler."""

import os
import re
from pathlib import Path

import psutil

CORE_LIMITS = ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")  # environment variables
CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return how many cores this process may use, limited by affinity, by CPU quotas, and by CORE_LIMITS.

    Computing with more threads than cores is many times slower.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # OMP_NUM_THREADS may list a number for each level of nesting.
    values = [os.environ.get(name, "").partition(",")[0] for name in CORE_LIMITS]
    limits = [int(value) for value in values if value.isdecimal() and int(value) > 0]
    quotas = []
    for group in _own_groups("cpu"):
        text = _read(group, "cpu.max") or _read(group, "cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = text.split() or ("max", "1")
        if quota not in ("max", "-1"):
            quotas.append(int(quota) / int(period))
    return max(1, int(min([cores, *limits, *quotas])))


def free_memory() -> int:
    """Return the bytes that this process may still use of the main memory."""
    free = psutil.virtual_memory().available
    for group in _own_groups("memory"):
        limits = _read(group, "memory.max", "memory.current")
        limits = limits or _read(group, "memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = limits.split() or ("max", "0")
        if limit != "max":
            # The page cache counts as used, but is released on demand; a prepared dataset is in it.
            cached = re.findall(r"^(?:in)?active_file (\d+)$", _read(group, "memory.stat"), re.MULTILINE)
            free = min(free, max(0, int(limit) - int(used) + sum(map(int, cached))))
    return free


def _own_groups(controller: str) -> list[Path]:
    """Return the folders of this process's control group (of version 1 or 2) and of all groups around it."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = CGROUP / controllers  # version 2 has no controllers here
        group = top / path.lstrip("/")  # in a container this may be a path of the host; then only ``top`` exists
        groups += [folder for folder in (group, *group.parents) if folder.is_relative_to(top)]
    return groups


def _read(group: Path, *names: str) -> str:
    """Return the joined content of a group's files; "" if one is missing: each version has its own files."""
    try:
        return " ".join((group / name).read_text() for name in names)
    except OSError:
        return ""
