"""Launchers: what is done with a list of planned runs. A cluster's would be one more function here."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cskd.utils.errors import UserError, first_line
from experiments.launch.queue import RunQueue
from experiments.launch.worker import EXIT_CLAIMED, EXIT_INTERRUPTED
from experiments.runs.environment import ROOT, usable_cores
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.plan import PlannedRun

POLL_SECONDS = 0.2
# For a run that has been asked to stop. A step, or an evaluation's last measures, may take longer; whoever stops keeps
# no more than the last epoch's checkpoint anyway, and a process that is ended keeps it as well.
PATIENCE_SECONDS = 3.0
END = object()


@dataclass
class LaunchCallbacks:
    """Whom a launcher tells how its runs stand. All calls come from the launcher's own thread."""

    started: Callable[[PlannedRun], None] = lambda run: None
    moved: Callable[[PlannedRun], None] = lambda run: None
    unwanted: Callable[[PlannedRun], bool] = lambda run: False  # a running one that is to stop
    ended: Callable[[PlannedRun, str], None] = lambda run, state: None


@dataclass
class Worker:
    """One run's process."""

    run: PlannedRun
    slot: int
    process: subprocess.Popen
    before: float | None  # the heartbeat that the run had when its process was started
    memory_kills: int  # of the machine, when it was started
    asked_at: float | None = None  # when it was asked to stop


@dataclass
class Stop:
    """Turns Ctrl-C and SIGTERM into a wish to stop: the first asks the runs to end, the second ends them."""

    asked: int = 0
    _before: dict = field(default_factory=dict)

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame) -> None:
        self.asked += 1


def command(folder: Path) -> list[str]:
    """What trains one run: a line that a user could type."""
    return [sys.executable, "-m", "experiments", "worker", str(folder)]


def launch_print(waiting: RunQueue, workers: int, watcher: LaunchCallbacks) -> None:
    """Print what trains each run, for somebody else to run; 'make sync' tracks it afterwards.

    A run that teaches others comes before them, and must be done when they start.
    """
    for run in waiting.runs:
        print(shlex.join(command(run.folder.path)))


def launch_here(waiting: RunQueue, workers: int, watcher: LaunchCallbacks) -> bool:
    """Train the runs on this machine, those that are taught after their teachers."""
    return launch_local(waiting.ready(), workers, watcher)


def launch_local(runs: Iterable[PlannedRun | None], workers: int, watcher: LaunchCallbacks) -> bool:
    """Train the runs on this machine, ``workers`` at once, each in a process and on a GPU of its own.

    A run that fails does not stop the others. runs: drawn one by one as places become free; a None among
    them means that there is none just now, and that there may be one later.
    """
    waiting, more, active = iter(runs), True, []
    threads = max(1, usable_cores() // workers)
    with Stop() as stop:
        while active or (more and not stop.asked):
            while more and len(active) < workers and not stop.asked:
                run = next(waiting, END)
                if run is END:
                    more = False
                if run is END or run is None:
                    break
                slot = min(set(range(workers)) - {worker.slot for worker in active})
                watcher.started(run)
                try:
                    active.append(_start(run, slot, threads))
                except OSError as error:
                    watcher.ended(run, _ended(run.folder, FAILED, f"its process cannot be started: {error}"))
            time.sleep(POLL_SECONDS)
            _pass_on(stop, active)
            for worker in active:
                if worker.asked_at is None and watcher.unwanted(worker.run):
                    _ask_to_stop(worker)
            for worker in list(active):
                if worker.process.poll() is None:
                    watcher.moved(worker.run)
                else:
                    active.remove(worker)
                    watcher.ended(worker.run, _outcome(worker))
    return not stop.asked


# Each returns whether all runs have had their turn (False: a stop was asked for), None if they run elsewhere.
LAUNCHERS: dict[str, Callable[[RunQueue, int, LaunchCallbacks], bool | None]] = {
    "local": launch_here,
    "print": launch_print,
}


def _start(run: PlannedRun, slot: int, threads: int) -> Worker:
    memory_kills = out_of_memory_kills()
    environment = dict(os.environ)
    devices = _visible_devices()
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    before = run.folder.state().get("heartbeat")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    with run.folder.log.open("ab") as log:
        # In a process group of its own: a Ctrl-C in the terminal reaches this process alone, which passes it on.
        process = subprocess.Popen(
            [*command(run.folder.path), "--threads", str(threads), "--launcher", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    return Worker(run, slot, process, before, memory_kills)


def _visible_devices() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [device for device in given.split(",") if device]
    return [str(number) for number in range(torch.cuda.device_count())]


def _pass_on(stop: Stop, active: list[Worker]) -> None:
    """Ask the workers to stop, once; from the second request on, or out of patience, end them."""
    if not stop.asked:
        return
    now = time.monotonic()
    for worker in active:
        if worker.asked_at is None:
            _ask_to_stop(worker)
        elif stop.asked > 1 or now - worker.asked_at > PATIENCE_SECONDS:
            worker.process.kill()


def _ask_to_stop(worker: Worker) -> None:
    worker.asked_at = time.monotonic()
    worker.process.terminate()


def _outcome(worker: Worker) -> str:
    """The state that the run ended in; one whose process died without a word has failed, and why is said."""
    folder: RunFolder = worker.run.folder
    status = worker.process.returncode
    if status == EXIT_CLAIMED:
        return RUNNING
    state = folder.state()
    # A failure or an interruption that an earlier start has left there does not count. Done is done.
    # By comparison, not by the clock, which may have been set back meanwhile.
    fresh = state.get("heartbeat") != worker.before
    if state["state"] == DONE or (state["state"] in (FAILED, INTERRUPTED) and fresh):
        return state["state"]
    return _ended(folder, *_death(worker))


def _death(worker: Worker) -> tuple[str, str]:
    """(state, reason) of a run whose process died without a word. Who was killed goes on; who crashed would again."""
    status = worker.process.returncode
    if status == EXIT_INTERRUPTED:
        return INTERRUPTED, "the disk is full: make room"
    if worker.asked_at is not None:
        return INTERRUPTED, "it was ended before it could stop by itself"
    if status == -signal.SIGKILL:
        if out_of_memory_kills() > worker.memory_kills:
            message = "the process was killed by the system, which was out of memory: fewer WORKERS, or a smaller batch"
            return FAILED, message
        return INTERRUPTED, "the process was killed (SIGKILL), perhaps since memory ran out: then fewer WORKERS"
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    asked = status in (-signal.SIGTERM, -signal.SIGINT)
    return INTERRUPTED if asked else FAILED, f"the process ended {how}"


def out_of_memory_kills() -> int:
    """How many processes this machine has killed since its start for want of memory; 0 where it is not told."""
    try:
        counters = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(found[1]) if found else 0


def _ended(folder: RunFolder, state: str, reason: str) -> str:
    try:
        with folder.claimed(patience=1.0) as mine:
            if mine:  # else another process has it, and its state is that one's
                folder.write_state(state, reason=reason, epoch=len(folder.intact_epochs()))
    except (OSError, UserError) as error:
        # A full disk, most likely the reason itself. The other runs go on, and this one is tried again next time.
        print(f"{folder.path}: {reason}; its state cannot be written: {first_line(error)}", file=sys.stderr)
    return state
