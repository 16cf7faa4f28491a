"""The launch loop of grids and studies: it starts runs on a backend, watches them, and stops them."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cskd.utils.cli import data_dir, results_dir, runs_dir
from cskd.utils.errors import UserError, first_line
from experiments.launch.allocation import allocation
from experiments.launch.backends import Backend, DetachedBackend, Exit, Job
from experiments.launch.backends.base import EXIT_HELD, EXIT_INTERRUPTED, EXIT_STOPPED
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun
from experiments.runs.source import ROOT

POLL_SECONDS = 0.2
# A run that does not stop in time is killed; in both cases it resumes from its last checkpoint.
STOP_SECONDS = 3.0
END = object()


@dataclass
class LaunchCallbacks:
    """Functions that the loop calls, from its own thread."""

    started: Callable[[PlannedRun], None] = lambda run: None
    progressed: Callable[[PlannedRun], None] = lambda run: None  # at each poll
    should_stop: Callable[[PlannedRun], bool] = lambda run: False  # True: stop this run
    ended: Callable[[PlannedRun, str], None] = lambda run, state: None  # RUNNING: another process trains it


@dataclass
class Active:
    """A job that was started."""

    run: PlannedRun
    slot: int
    handle: Any
    heartbeat: float | None  # of the run, before it was started
    stopped_at: float | None = None  # when it was asked to stop


@dataclass
class StopSignals:
    """Counts Ctrl-C and SIGTERM: the first asks the runs to stop, the second kills them."""

    count: int = 0
    number: int = 0  # of the latest signal
    _before: dict = field(default_factory=dict)

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self.count += 1
        self.number = number


def make_job(run: PlannedRun) -> Job:
    """Return the job that trains a run. Its command is complete: it needs no environment and no working directory."""
    command, needs = make_command("worker", str(run.folder.path)), (run.teacher.path,) if run.teacher else ()
    log, environment = run.folder.log, make_environment()
    return Job(command, run.folder.path, log, needs, gpus=run.spec.settings.replicas, environment=environment)


def make_command(*arguments: str, **environment: str) -> tuple[str, ...]:
    """Return a command of this package with absolute paths, and with further variables in its environment."""
    settings = [f"{name}={value}" for name, value in (make_environment() | environment).items()]
    return ("env", *settings, sys.executable, "-m", "experiments", *arguments)


def make_environment() -> dict[str, str]:
    """Return the variables that a worker needs, with absolute paths."""
    inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    path = os.pathsep.join(str(Path(folder).absolute()) for folder in (ROOT, *inherited))
    return {"PYTHONPATH": path, "DATA_DIR": str(data_dir())} | allocation()


def submit(runs: Iterable[PlannedRun], backend: DetachedBackend) -> None:
    """Hand all runs to a detached backend, teachers first, except students whose teacher will not be trained."""
    jobs: dict[Path, Job] = {}  # by folder
    for run in runs:
        if run.teacher is None or run.teacher.path in jobs or run.teacher.state()["state"] == DONE:
            jobs[run.folder.path] = make_job(run)
        else:
            teacher = f"its teacher, {run.spec.teacher.name}, {run.teacher.state()['reason']}"
            print(f"{run.spec.name}: not started: {teacher}: RETRY=1 trains it again")
    backend.submit(list(jobs.values()), make_sync_job())


def make_sync_job() -> Job:
    """Return the job that uploads all results. The address of the store may have a password: it is inherited."""
    command = make_command("sync", RUNS_DIR=str(runs_dir()), RESULTS_DIR=str(results_dir()))
    return Job(command, runs_dir(), runs_dir() / "sync.log")


def launch(runs: Iterable[PlannedRun | None], backend: Backend, callbacks: LaunchCallbacks) -> bool:
    """Train the runs; return False if a signal stopped the launch. A failed run stops no others.

    Args:
        runs: yields the next run whenever the backend has room; None if no run can start yet.
    """
    queue, exhausted, active = iter(runs), False, []
    with StopSignals() as stop:
        while active or not (exhausted or stop.count):
            while not (exhausted or stop.count) and len(active) < backend.capacity:
                run = next(queue, END)
                exhausted = run is END
                if exhausted or run is None:
                    break
                slot = min(set(range(len(active) + 1)) - {job.slot for job in active})
                callbacks.started(run)
                try:
                    heartbeat = run.folder.state().get("heartbeat")
                    active.append(Active(run, slot, backend.start(make_job(run), slot), heartbeat))
                except OSError as error:
                    callbacks.ended(run, _record_end(run.folder, FAILED, f"its process cannot be started: {error}"))
            time.sleep(POLL_SECONDS)
            _stop_jobs(active, stop, backend, callbacks)
            for job in list(active):
                ended = backend.poll(job.handle)
                if ended is None:
                    callbacks.progressed(job.run)
                else:
                    active.remove(job)
                    callbacks.ended(job.run, _final_state(job, ended))
    return not stop.count


def _stop_jobs(active: list[Active], stop: StopSignals, backend: Backend, callbacks: LaunchCallbacks) -> None:
    """Pass a signal on to the jobs, kill those that ignore it, and stop the runs that are no longer wanted."""
    for job in active:
        if job.stopped_at is None:
            if stop.count or callbacks.should_stop(job.run):
                job.stopped_at = time.monotonic()
                backend.stop(job.handle, stop.number or signal.SIGTERM)
        elif stop.count > 1 or (stop.count and time.monotonic() - job.stopped_at > STOP_SECONDS):
            backend.stop(job.handle, signal.SIGKILL)


def _final_state(job: Active, ended: Exit) -> str:
    """Return the state that a run ended in; record it if the process died without recording it."""
    if ended.status == EXIT_HELD:
        return RUNNING
    state = job.run.folder.recorded_state()
    # A state with the old heartbeat comes from an earlier process.
    recorded = state["state"] in (FAILED, INTERRUPTED) and state.get("heartbeat") != job.heartbeat
    if state["state"] == DONE or recorded:
        return state["state"]
    return _record_end(job.run.folder, *_cause_of_death(job, ended))


def _cause_of_death(job: Active, ended: Exit) -> tuple[str, str]:
    """Return (state, reason) for a process that died without recording them: killed is INTERRUPTED, crashed FAILED."""
    if ended.status == EXIT_STOPPED or (ended.status == EXIT_INTERRUPTED and job.stopped_at is not None):
        return INTERRUPTED, "stopped before it began"
    if job.stopped_at is not None:
        return INTERRUPTED, "killed before it stopped by itself"
    if ended.status == EXIT_INTERRUPTED:
        return INTERRUPTED, "the disk is full: make room"
    if ended.out_of_memory:
        return FAILED, "killed by the system, which was out of memory: use fewer WORKERS or a smaller batch"
    if ended.status == -signal.SIGKILL:
        return INTERRUPTED, "killed (SIGKILL); if memory ran out, use fewer WORKERS"
    cause = signal.Signals(-ended.status).name if ended.status < 0 else f"with status {ended.status}"
    stopped = ended.status in (-signal.SIGTERM, -signal.SIGINT)
    return INTERRUPTED if stopped else FAILED, f"the process ended {'by ' if ended.status < 0 else ''}{cause}"


def _record_end(folder: RunFolder, state: str, reason: str) -> str:
    try:
        with folder.leased(patience=1.0) as lease:
            if lease:  # otherwise another process trains the run, and records its state
                folder.end(state, f"{state}: {reason}")
                return folder.state()["state"]
    except (OSError, UserError) as error:
        # Probably a full disk. The other runs continue, and the next launch tries this one again.
        print(f"{folder.path}: {reason}; its state cannot be written: {first_line(error)}", file=sys.stderr)
    return state
