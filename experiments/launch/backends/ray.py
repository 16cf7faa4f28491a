"""Runs jobs as tasks of a running Ray cluster, whose machines share our folders. Ray is an optional package.

A task runs the job's command as a process. The backend, not Ray, starts a lost task again: in the run folder it also
sees that a job has ended, or that its process is dead, where Ray learns nothing because a network is cut. A lost
machine that still trains holds the run's lease, so that no second process trains the run meanwhile.
"""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cskd.utils.cli import data_dir, runs_dir
from cskd.utils.errors import UserError, first_line
from cskd.utils.files import write_errors
from experiments.launch.backends.base import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Exit, Job
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RunFolder
from experiments.runs.source import ROOT

SETTINGS = Path(__file__).with_name("ray.env")
MAX_LOSSES = 5  # of a job in one launch
LOOK_SECONDS = 5.0  # between two looks into a run folder
COUNT_SECONDS = 10.0  # between two looks at the machines of the cluster
VISIBLE_SECONDS = 15.0  # a shared file system shows a new file on all machines within this time
ANSWER_SECONDS = 60.0  # a machine answers within this time


@dataclass(eq=False)
class Task:
    """A job, and its latest task."""

    job: Job
    heartbeat: float | None  # of the run, before this task
    reference: Any = None
    losses: int = 0
    is_stopped: bool = False
    looked: float = 0.0  # time.monotonic() of the last look into the folder
    ended: float | None = None  # the heartbeat with which that look found the run ended


class RayBackend:
    """WORKERS jobs run at once on each GPU, or on each machine if the cluster has no GPU."""

    detached = False

    def __init__(self, workers: int):
        self.workers = workers
        self.ray = connect()
        self._check_machines()
        self._run = self.ray.remote(max_retries=0)(_make_run())
        self._counted, self._capacity = time.monotonic(), self._count()

    @property
    def capacity(self) -> int:
        if time.monotonic() - self._counted > COUNT_SECONDS:
            self._counted, self._capacity = time.monotonic(), self._count()
        return self._capacity

    def _count(self) -> int:
        """Return how many jobs the machines run at once, and set the cores that a job has for each of its GPUs."""
        resources = [machine["Resources"] for machine in self._machines()]
        with_gpus = [one for one in resources if one.get("GPU")]
        machines = [(one["CPU"], self.workers * int(one.get("GPU", 1))) for one in with_gpus or resources]
        self._cores, self._has_gpus = min((count / jobs for count, jobs in machines), default=1.0), bool(with_gpus)
        self._threads = max(1, int(self._cores))
        return max(1, sum(jobs for _, jobs in machines))  # 1: the job waits until a machine joins

    def start(self, job: Job, slot: int) -> Task:
        task = Task(job, RunFolder(job.folder).state().get("heartbeat"))
        self._submit(task)
        return task

    def _submit(self, task: Task) -> None:
        gpus = task.job.gpus
        command = [*task.job.command, "--threads", str(gpus * self._threads)]
        options = {"num_cpus": gpus * min(self._cores, self._threads), "name": task.job.folder.name}
        if self._has_gpus:  # a run on several GPUs does not share them
            options["num_gpus"] = gpus if gpus > 1 else 1 / self.workers
        task.reference = self._run.options(**options).remote(command, str(task.job.log))

    def poll(self, handle: Task) -> Exit | None:
        if not self.ray.wait([handle.reference], timeout=0)[0]:
            return self._look(handle)
        errors = self.ray.exceptions
        try:
            return Exit(self.ray.get(handle.reference))
        except errors.TaskCancelledError:
            return Exit(EXIT_INTERRUPTED)
        except errors.OutOfMemoryError:
            return Exit(-signal.SIGKILL, out_of_memory=True)
        except errors.RayTaskError as error:  # the process cannot be started there
            with write_errors(handle.job.log), handle.job.log.open("a") as log:
                log.write(f"{error}\n")
            return Exit(EXIT_FAILED)
        except errors.RayError as error:
            return self._lost(handle, first_line(error))

    def _look(self, task: Task) -> Exit | None:
        """Return the end that two looks into the run folder show, although Ray does not know it."""
        if time.monotonic() - task.looked < LOOK_SECONDS:
            return None
        task.looked = time.monotonic()
        folder = RunFolder(task.job.folder)
        state = folder.state()
        heartbeat = state.get("heartbeat")
        if state["state"] not in (DONE, FAILED, INTERRUPTED) or heartbeat == task.heartbeat or folder.is_held():
            return None
        if task.ended != heartbeat:
            task.ended = heartbeat
            return None
        self.ray.cancel(task.reference, force=True)
        if state["state"] == INTERRUPTED:
            return self._lost(task, state["reason"])
        return Exit(EXIT_DONE if state["state"] == DONE else EXIT_FAILED)

    def _lost(self, task: Task, reason: str) -> Exit | None:
        """Start a lost task again, unless it was stopped or was lost too often."""
        task.losses += 1
        if task.is_stopped or task.losses > MAX_LOSSES:
            return Exit(-signal.SIGKILL)
        print(f"{task.job.folder}: lost ({reason}), starts again", file=sys.stderr, flush=True)
        task.heartbeat = RunFolder(task.job.folder).state().get("heartbeat")
        self._submit(task)
        return None

    def stop(self, handle: Task, number: int) -> None:
        handle.is_stopped = True
        self.ray.cancel(handle.reference, force=number == signal.SIGKILL)

    def _machines(self) -> list[dict[str, Any]]:
        """Return Ray's description of each live machine that takes jobs."""
        return [machine for machine in self.ray.nodes() if machine["Alive"] and machine["Resources"].get("CPU")]

    def _check_machines(self) -> None:
        """Raise UserError unless every machine sees our folders. Warn of machines without our settings."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On  # noqa: PLC0415

        look = self.ray.remote(num_cpus=0, max_retries=0)(_make_look())
        file = runs_dir() / f"ray.{secrets.token_hex(4)}"
        paths = [str(path) for path in (file, data_dir(), ROOT, sys.executable) if path == file or Path(path).exists()]
        with write_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        try:
            answers = [
                (machine, look.options(scheduling_strategy=On(machine["NodeID"], soft=False)).remote(paths))
                for machine in self._machines()
            ]
            for machine, answer in answers:
                self._check_answer(machine["NodeManagerHostname"], answer)
        finally:
            file.unlink()

    def _check_answer(self, name: str, answer: Any) -> None:
        try:
            missing, environment = self.ray.get(answer, timeout=ANSWER_SECONDS)
        except self.ray.exceptions.RayError as error:
            raise UserError(f"the Ray machine {name} does not answer ({first_line(error)}): restart it") from error
        if missing:
            raise UserError(
                f"the Ray machine {name} does not see {missing[0]} of this machine: put RUNS_DIR, DATA_DIR, the "
                "sources and .venv on a file system that all machines share, at the same paths"
            )
        if any(environment.get(variable) != value for variable, value in read_settings().items()):
            message = f"warning: the Ray machine {name} was not started with the settings of {SETTINGS}"
            print(f"{message}: a cut network may be noticed late", file=sys.stderr)


def connect() -> ModuleType:
    """Connect to the cluster of RAY_ADDRESS, and return the module ray. Raises UserError."""
    for name, value in read_settings().items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415 - an optional package, slow to import
    except ImportError as error:
        raise UserError("LAUNCHER=ray: Ray is not installed: run make setup-clusters") from error
    address, handler = os.environ.get("RAY_ADDRESS") or "auto", signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        message = f"RAY_ADDRESS={address}: no Ray cluster can be used ({first_line(error)})"
        raise UserError(f"{message}: start one as docs/clusters.md says") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray replaces it
    return ray


def read_settings() -> dict[str, str]:
    """Return the variables that every Ray process must have."""
    lines = [line for line in SETTINGS.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=") for line in lines)


# Ray sends nested functions to the machines as code, so that these need not import this project.


def _make_run() -> Callable[[list[str], str], int]:
    def run(command: list[str], log: str) -> int:
        """Run a worker's command on a machine of the cluster, and return its exit status."""
        import os  # noqa: PLC0415
        import subprocess  # noqa: PLC0415

        with open(log, "ab") as file:  # noqa: PTH123
            process = subprocess.Popen(
                [*command, "--launcher", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            return process.wait()
        except KeyboardInterrupt:  # ray.cancel
            process.terminate()
            return process.wait()

    return run


def _make_look() -> Callable[[list[str]], tuple[list[str], dict[str, str]]]:
    seconds = VISIBLE_SECONDS

    def look(paths: list[str]) -> tuple[list[str], dict[str, str]]:
        """Return which of the paths a machine does not see, and its environment."""
        import os  # noqa: PLC0415
        import time  # noqa: PLC0415

        until = time.monotonic() + seconds
        while (missing := [path for path in paths if not os.path.exists(path)]) and time.monotonic() < until:  # noqa: PTH110
            time.sleep(0.5)
        return missing, {name: value for name, value in os.environ.items() if name.startswith("RAY_")}

    return look
