"""One run, in a process of its own: ``python -m experiments worker RUN_FOLDER``.

Launched by experiments.grid, which shows its progress and tracks it; it needs neither MLflow nor a terminal.
Exit status: 0 done, 1 failed (the reason is in state.json, the traceback in the log), 3 interrupted,
4 another process has the run.
"""

import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from cskd.evaluate.predictions import save_predictions
from cskd.train.precision import resolve
from cskd.train.trainer import Diverged, Interrupted, Progress, Trainer
from cskd.utils import cli
from cskd.utils.errors import UserError, first_line
from cskd.utils.files import DiskFull, is_disk_full
from cskd.utils.integrity import write_sealed
from experiments.config.recipe import Settings
from experiments.config.spec import RunSpec
from experiments.launch.build import build_trainer
from experiments.runs.environment import SystemMetrics, choose_device, describe, usable_cores, use_repeatable_kernels
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.lease import ClaimLost

STATE_SECONDS = 0.5  # between two heartbeats
OUT_OF_CPU_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # a RuntimeError like any other
EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_CLAIMED = 0, 1, 3, 4


def main() -> int:
    parser = cli.Parser(prog="python -m experiments worker", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a run folder that holds a spec.json")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="CPU threads of this run")
    parser.add_argument("--launcher", type=int, metavar="PID", help="stop when this is no longer the parent process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = RunFolder(arguments.folder)
    before = folder.state()
    try:
        with folder.claimed() as mine:
            if not mine:
                return EXIT_CLAIMED
            now = folder.state()
            if now["state"] == DONE:  # by another launch, since this run was planned
                return EXIT_DONE
            if now["state"] == FAILED and now != before:  # the same, while this process waited
                return EXIT_FAILED
            return trained(folder, StopSignal(arguments.launcher))
    except ClaimLost:
        return EXIT_CLAIMED
    except DiskFull as error:  # not even for a claim, or for how the run ended
        say(str(error))
        return EXIT_INTERRUPTED


def trained(folder: RunFolder, should_stop: "StopSignal") -> int:
    """Train the run and leave in its folder how that ended; the exit status.

    Raises ClaimLost as ``work``, and DiskFull where how it ended cannot be written.
    """
    try:
        work(folder, should_stop)
    except ClaimLost:
        raise
    except Interrupted:
        epochs = folder.spec().settings.schedule.epochs
        folder.write_state(INTERRUPTED, epoch=len(folder.intact_epochs()), epochs=epochs)
        return EXIT_INTERRUPTED
    except Exception as error:
        # Whatever went wrong is this run's result, for the grid's summary; the log has the whole of it. A full
        # disk alone passes: the run goes on when there is room.
        state = INTERRUPTED if is_disk_full(error) else FAILED
        folder.write_state(state, reason=reason_of(error), epoch=len(folder.intact_epochs()))
        say(traceback.format_exc())
        return EXIT_INTERRUPTED if state == INTERRUPTED else EXIT_FAILED
    return EXIT_DONE


def say(text: str) -> None:
    """Into the log, for which a full disk has no room either."""
    try:
        print(text, file=sys.stderr)
    except OSError:
        # What could not be written would be tried again at the end of the process, and change its exit status.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def reason_of(error: Exception) -> str:
    """Why a run has failed, in one line."""
    message = first_line(error, width=500)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or OUT_OF_CPU_MEMORY in str(error):
        return (
            f"out of memory ({message}): fewer WORKERS, or a smaller batch (SET=batch_size=..., which is another run)"
        )
    return message if isinstance(error, (UserError, Diverged)) else f"{type(error).__name__}: {message}"


class StopSignal:
    """Whether the run has been asked to stop: by SIGTERM or SIGINT, or because its launcher is gone.

    The training asks before every step and every batch of an evaluation. A launcher ends what takes longer than its
    patience.

    launcher: the process that must stay this one's parent; None for a run that stands on its own.
    """

    def __init__(self, launcher: int | None = None):
        self.asked = False
        self.launcher = launcher
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number, frame) -> None:
        self.asked = True

    def __call__(self) -> bool:
        return self.asked or (self.launcher is not None and os.getppid() != self.launcher)


def work(folder: RunFolder, should_stop: StopSignal) -> None:
    """Train the run of this folder to its end and leave its results there.

    Raises ClaimLost when another process has taken the run over, this one having been silent for too long.
    """
    spec = folder.spec()
    device = choose_device()
    folder.remove_leftovers()
    earlier, damage = take_up(folder)
    if earlier and folder.is_complete():  # its state alone is damaged
        finish(folder, spec)
        return
    precision, compiled = arithmetic(earlier, spec.settings, device)
    known_epochs = len(folder.epochs())
    folder.write_state(RUNNING, epoch=known_epochs, epochs=spec.settings.schedule.epochs)
    start = Start(folder, earlier, describe(device, precision, compiled))
    start.note()
    use_repeatable_kernels(precision)
    trainer = build_trainer(spec, folder, device, precision, known_epochs)
    if trainer.damage or damage:
        message = f"{', '.join(damage + trainer.damage)}: goes on after epoch {trainer.next_epoch}"
        say(message)
        start.note(damage=message)
    if compiled and not compile_step(trainer, required=spec.settings.compile is True):
        start.note(compiled=False)
    folder.keep_epochs(trainer.next_epoch)
    train(trainer, folder, spec, start, should_stop)
    finish(folder, spec)


@dataclass
class Start:
    """What is recorded of this start of a run, after those before it."""

    folder: RunFolder
    earlier: list[dict[str, Any]]
    details: dict[str, Any]

    def note(self, **details: Any) -> None:
        self.details |= details
        self.folder.write_starts([*self.earlier, self.details])


def arithmetic(earlier: list[dict[str, Any]], settings: Settings, device: torch.device) -> tuple[str, bool]:
    """(precision, whether to compile), after earlier starts of the run; the number of threads is set.

    A run that is taken up again keeps all three, also where others would be chosen now: the number of threads changes
    the order of additions.
    """
    if not earlier:
        return resolve(settings.precision, device), wants_compiling(settings, device)
    first = earlier[0]
    torch.set_num_threads(first["threads"])
    return first["precision"], first.get("compiled", False)


def train(trainer: Trainer, folder: RunFolder, spec: RunSpec, start: Start, should_stop: StopSignal) -> None:
    """From where the trainer stands to the run's results."""
    system, heartbeat, begun = SystemMetrics(trainer.device), Heartbeat(folder, spec), time.time()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        folder.add_epoch(epoch, metrics | system.read())
        heartbeat.epoch_done(epoch, metrics)

    def on_step(progress: Progress) -> None:
        if "first_step_seconds" not in start.details:
            start.note(
                set_up_seconds=round(begun - psutil.Process().create_time(), 3),
                first_step_started=begun,
                first_step_seconds=round(time.time() - begun, 3),
            )
        heartbeat.step_done(progress)

    predictions = trainer.run(on_epoch=on_epoch, on_step=on_step, should_stop=should_stop)
    training = trainer.predict_training(should_stop=should_stop)
    save_predictions(folder.predictions, predictions, training, before_replace=folder.before_replace)
    write_sealed(
        folder.weights, lambda file: torch.save(trainer.model.state_dict(), file), before_replace=folder.before_replace
    )


def take_up(folder: RunFolder) -> tuple[list[dict[str, Any]], list[str]]:
    """(earlier starts, what was damaged of what they left). Afterwards what is there is whole, checkpoints apart."""
    damaged = folder.keep_epochs(len(folder.intact_epochs()))
    try:
        return folder.starts(), [damaged] if damaged else []
    except UserError:
        # With what precision and how many threads it was begun is lost: only from its start is it one and the same run.
        folder.remove_checkpoints()
        folder.keep_epochs(0)
        return [], [f"{folder.environment.name} is damaged"]


def finish(folder: RunFolder, spec: RunSpec) -> None:
    # In this order: whoever dies between the two has the run finished by the next; what is done is not looked at again.
    folder.remove_checkpoints()
    folder.write_state(DONE, epoch=spec.settings.schedule.epochs, epochs=spec.settings.schedule.epochs)


def wants_compiling(settings: Settings, device: torch.device) -> bool:
    """Whether a run that begins on this device is to be compiled: ``auto`` gains from it on a GPU alone."""
    return device.type == "cuda" if settings.compile == "auto" else settings.compile


def compile_step(trainer: Trainer, required: bool) -> bool:
    """Compile the training step; False, and a line in the log, where that cannot be done here.

    Raises UserError instead where the run was asked for as ``required`` to be compiled: its key says so.
    """
    try:
        trainer.compile()
    except Exception as error:
        # A compiler, a driver or a header may be missing, each with an error of its own kind.
        message = f"torch.compile does not work here ({first_line(error)})"
        if required:
            raise UserError(f"{message}: run with SET=compile=auto, or mend it") from error
        say(f"{message}: the run goes on without it")
        return False
    return True


class Heartbeat:
    """Writes where the run stands into its folder, at most every half second."""

    def __init__(self, folder: RunFolder, spec: RunSpec):
        self.folder, self.epochs = folder, spec.settings.schedule.epochs
        self.details = {"epochs": self.epochs, "epoch": len(folder.epochs()), "metrics": {}}
        self.written = 0.0

    def epoch_done(self, epoch: int, metrics: dict[str, float]) -> None:
        self.details |= {"epoch": epoch + 1, "metrics": metrics}
        self._write(fraction=0.0)

    def step_done(self, progress: Progress) -> None:
        # Counted from the last epoch that is recorded, behind which the training may be some epochs ahead.
        self._write(fraction=progress.epoch - self.details["epoch"] + progress.step / progress.steps)

    def _write(self, fraction: float) -> None:
        now = time.monotonic()
        if now - self.written >= STATE_SECONDS:
            self.written = now
            try:
                self.folder.write_state(RUNNING, fraction=fraction, **self.details)
            except UserError as error:
                # A full disk: not the heartbeat's to end the run for. The checkpoint tells, if it lasts.
                say(str(error))


if __name__ == "__main__":
    sys.exit(main())
