"""A run on several devices: torchrun's agent, inside the worker, starts a process for each replica and watches them.

The worker holds the run's lease and records how the run ends. The first replica writes everything else; before each
write it checks that the worker still holds the lease. See experiments.launch.replica for the processes.
"""

import json
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import psutil
import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cskd.train.trainer import Interrupted
from cskd.utils.errors import UserError
from experiments.launch.backends.base import EXIT_HELD, EXIT_INTERRUPTED
from experiments.runs.folder import FAILED, INTERRUPTED, RunFolder
from experiments.runs.lease import Lease, LeaseLost

POLL_SECONDS = 0.1
STOP_SECONDS = 10  # replicas that do not stop in time after another has ended are killed
LOCALHOST = "127.0.0.1"


class ReplicaEnded(Exception):
    """A replica failed or was killed, and torchrun has stopped the others."""

    def __init__(self, state: str, reason: str):
        super().__init__(reason)
        self.state, self.reason = state, reason


def check_devices(replicas: int) -> None:
    """Raise UserError if this machine has GPUs, but not one for each replica. Without any, the CPU is used."""
    gpus = torch.cuda.device_count()
    if 0 < gpus < replicas:
        raise UserError(f"replicas {replicas}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}: use another one")


def train_replicas(folder: RunFolder, lease: Lease, replicas: int, should_stop: Callable[[], bool]) -> None:
    """Train the run in as many processes, which share the CPU threads of this one.

    Raises:
        Interrupted: ``should_stop()`` was true, or a replica got a signal to stop.
        LeaseLost: another process has taken over the run.
        ReplicaEnded: for every other end of a replica.
    """
    check_devices(replicas)
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "ended.json"
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=replicas,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{LOCALHOST}:0",
            local_addr=LOCALHOST,
            logs_specs=DefaultLogsSpecs(log_dir=temporary),
            max_restarts=0,  # the next launch resumes the run
            monitor_interval=POLL_SECONDS,
            shutdown_timeout=STOP_SECONDS,
            signals_to_handle="SIGHUP",  # the worker handles the others
        )
        threads = max(1, torch.get_num_threads() // replicas)
        options = (f"--lease={lease.token}", f"--report={report}", f"--threads={threads}")
        launch = elastic_launch(config, sys.executable)
        try:
            with stops_passed_on(should_stop):
                launch("-m", "experiments.launch.replica", str(folder.path), *options)
        except ChildFailedError as error:
            statuses = {rank: failure.exitcode for rank, failure in error.failures.items()}
            if should_stop():
                raise Interrupted from error
            raise how_they_ended(statuses, report) from error


def how_they_ended(statuses: dict[int, int], report: Path) -> Exception:
    """Return the exception that says why a run ended.

    Args:
        statuses: the exit statuses of the replicas by rank, in the order in which torchrun noticed that they had ended,
            including those that it has stopped or killed itself.
        report: the file in which a replica has written its state and reason, if it ended by itself before the others.
    """
    if report.exists() and (text := report.read_text()):  # a full disk leaves it empty
        return ReplicaEnded(**json.loads(text))
    if EXIT_HELD in statuses.values():
        return LeaseLost()
    # Without a report, one was killed. That makes others fail, and torchrun notices these at the same time.
    rank = next((rank for rank, status in statuses.items() if status < 0), next(iter(statuses)))
    status = statuses[rank]
    if status in (-signal.SIGKILL, -signal.SIGTERM):
        hint = "; if memory ran out, use a smaller batch" if status == -signal.SIGKILL else ""
        return ReplicaEnded(INTERRUPTED, f"replica {rank} was killed ({signal.Signals(-status).name}){hint}")
    if status == EXIT_INTERRUPTED:
        return ReplicaEnded(INTERRUPTED, f"replica {rank} was stopped")
    cause = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return ReplicaEnded(FAILED, f"replica {rank} ended {cause}")


@contextmanager
def stops_passed_on(should_stop: Callable[[], bool]) -> Iterator[None]:
    """Send SIGTERM to the worker's child processes, once each, as soon as the worker should stop."""
    ended = Event()

    def watch() -> None:
        stopped = set()
        while not ended.wait(POLL_SECONDS):
            if should_stop():
                for process in {*psutil.Process().children()} - stopped:  # torchrun may still be starting some
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGTERM)
                    stopped.add(process)

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
