"""A real Slurm with one node: this machine, with two cores and a partition whose jobs pre-empt those of the other."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clusters.packages import require_commands

PACKAGES = "slurm-wlm slurmctld slurmd slurm-client munge"
WAIT_SECONDS = 600  # so that a defect does not make the tests hang

# Without cred_expire, a requeued job waits for two minutes.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
JobRequeue=1
KillWait=5
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} CPUs=2 Sockets=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=high Nodes={host} MaxTime=INFINITE PriorityTier=10 State=UP
"""
CGROUPS = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint={folder}/no-cgroup\n"


class Slurm:
    """The daemons. ``environment`` lets Slurm's commands find them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._started_munge = False

    def __enter__(self) -> "Slurm":
        require_commands("slurmctld slurmd sbatch munged", PACKAGES)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        names = {"host": socket.gethostname(), "folder": self.folder}
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**names))
        (self.folder / "cgroup.conf").write_text(CGROUPS.format(**names))
        if subprocess.run(["munge", "--no-input"], capture_output=True, check=False).returncode:
            subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "/run/munge"], check=True)
            subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "/usr/sbin/munged"], check=True)
            self._started_munge = True
        for daemon in ("slurmctld", "slurmd"):
            self.call(daemon)
        self.wait_for(lambda: "idle" in self.call("sinfo", "--noheader"))
        return self

    def __exit__(self, *exception: object) -> None:
        files = [self.folder / "slurmd.pid", self.folder / "slurmctld.pid"]
        files += [Path("/run/munge/munged.pid")] if self._started_munge else []
        for file in files:
            with suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGTERM)

    def call(self, *command: str) -> str:
        """Return the output of a command of Slurm."""
        environment = os.environ | self.environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_for(self, happened: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while not happened():
            assert time.monotonic() < until, self.call("squeue", "--array", "--long")
            time.sleep(0.2)

    def wait_until_empty(self) -> None:
        """Wait until no job is in the queue."""
        self.wait_for(lambda: not self.call("squeue", "--noheader"))
