"""The number of cores that this process may use."""

import os
from pathlib import Path

LIMITS = ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")  # environment variables
CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return how many cores this process may use, limited by affinity, by CPU quotas of its groups, and by LIMITS.

    Computing with more threads than cores is many times slower.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # OMP_NUM_THREADS may list a number for each level of nesting.
    values = [os.environ.get(name, "").partition(",")[0] for name in LIMITS]
    limits = [int(value) for value in values if value.isdecimal() and int(value) > 0]
    return max(1, int(min([cores, *limits, *_quotas()])))


def _quotas() -> list[float]:
    """Return the CPU quotas, in cores, of this process's control groups (of version 1 or 2) and all groups around."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return []
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = CGROUP / controllers  # version 2 has no controllers here
        group = top / path.lstrip("/")  # in a container it may be the host's path: then only the top is there
        quotas += [
            quota for folder in (group, *group.parents) if folder.is_relative_to(top) for quota in _quota(folder)
        ]
    return quotas


def _quota(group: Path) -> list[float]:
    """Return the quota of a control group in a list, which is empty without a quota."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
        except (OSError, ValueError):  # the file of the other version
            continue
        return [] if quota in ("max", "-1") else [int(quota) / int(period)]
    return []
