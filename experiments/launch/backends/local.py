"""Runs jobs on this machine, each in its own process and on its own GPU or GPUs."""

import os
import re
import signal
import subprocess
from pathlib import Path

import torch

from cskd.utils.limits import usable_cores
from experiments.launch.backends.base import Exit, Job


class LocalBackend:
    detached = False

    def __init__(self, workers: int):
        self.threads = max(1, usable_cores() // workers)
        self.devices = _visible_devices()

    def start(self, job: Job, slot: int) -> tuple[subprocess.Popen, int]:
        kills = out_of_memory_kills()
        environment = dict(os.environ)
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._devices_of(slot, job.gpus))
        with job.log.open("ab") as log:
            # A new process group: Ctrl-C in the terminal reaches only the launcher, which then stops its jobs.
            process = subprocess.Popen(
                [*job.command, "--threads", str(self.threads), "--launcher", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return process, kills

    def _devices_of(self, slot: int, gpus: int) -> list[str]:
        """Return the GPUs of a job. Jobs share GPUs if there are not enough for all slots."""
        first = slot % max(1, len(self.devices) // gpus) * gpus
        return self.devices[first : first + gpus]

    def poll(self, handle: tuple[subprocess.Popen, int]) -> Exit | None:
        process, kills = handle
        status = process.poll()
        if status is None:
            return None
        return Exit(status, out_of_memory=status == -signal.SIGKILL and out_of_memory_kills() > kills)

    def stop(self, handle: tuple[subprocess.Popen, int], number: int) -> None:
        handle[0].send_signal(number)


def _visible_devices() -> list[str]:
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
