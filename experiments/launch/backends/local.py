"""Runs jobs on this machine, each in its own process and on its own GPU or GPUs."""

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cskd.utils.limits import usable_cores
from experiments.launch.backends.base import Exit, Job
from experiments.launch.fork_server import ForkRequest, ForkServer, fork_server
from experiments.runs.lease import is_alive


@dataclass(frozen=True)
class Handle:
    """A worker. kills: what ``out_of_memory_kills`` returned when it was started."""

    server: ForkServer
    pid: int
    kills: int


class LocalBackend:
    detached = False

    def __init__(self, workers: int):
        self.capacity = workers
        self.threads = max(1, usable_cores() // workers)  # of a run whose recipe does not set them
        self.devices = visible_gpus()
        fork_server()  # it imports torch while the launcher opens the tracking store

    def start(self, job: Job, slot: int) -> Handle:
        kills, server = out_of_memory_kills(), fork_server()
        environment = os.environ | job.environment
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._devices_of(slot, job.gpus))
        job.log.open("ab").close()  # an OSError is raised here, not in the worker
        arguments = (str(job.folder), "--threads", str(self.threads))
        return Handle(server, server.fork(ForkRequest(arguments, environment, job.log)), kills)

    def _devices_of(self, slot: int, gpus: int) -> list[str]:
        """Return the GPUs of a job. Jobs share GPUs if there are not enough for all slots."""
        first = slot % max(1, len(self.devices) // gpus) * gpus
        return self.devices[first : first + gpus]

    def poll(self, handle: Handle) -> Exit | None:
        try:
            status = handle.server.poll(handle.pid)
        except OSError:  # the server was killed: the worker notices it, and stops
            status = None if is_alive(handle.pid) else -signal.SIGKILL
        if status is None:
            return None
        return Exit(status, out_of_memory=status == -signal.SIGKILL and out_of_memory_kills() > handle.kills)

    def stop(self, handle: Handle, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(handle.pid, number)


def visible_gpus() -> list[str]:
    """Return the GPUs that a launch may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # noqa: PLC0415 - 'status' imports this package, and needs no GPU

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    return [str(number) for number in range(torch.cuda.device_count())]


def out_of_memory_kills() -> int:
    """Return how many processes this machine has killed because memory ran out; 0 if it does not report it."""
    try:
        counters = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    match = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(match[1]) if match else 0
