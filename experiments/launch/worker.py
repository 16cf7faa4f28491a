"""Train one run in this process: ``python -m experiments worker RUN_FOLDER``.

The launchers start it, print its progress and upload its results; it needs neither MLflow nor a terminal.
Exit status: 0 done, 1 failed (the reason is in state.json, the traceback in log.txt), 3 interrupted,
4 another process holds the run, 130 stopped before it began. A run on several devices has a process for each (see
experiments.launch.torchrun).
"""

import os
import secrets
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
import torch

from cskd.evaluate.evaluate_run import evaluate
from cskd.evaluate.evaluation import save_evaluation
from cskd.evaluate.predictions import Predictions, load_predictions, save_predictions
from cskd.train.distributed import SINGLE, Replicas
from cskd.train.precision import resolve
from cskd.train.trainer import Diverged, Interrupted, Progress, Record, Trainer
from cskd.utils import cli
from cskd.utils.errors import UserError, first_line, root_cause
from cskd.utils.files import DiskFull, is_disk_full
from cskd.utils.integrity import write_archive
from cskd.utils.limits import usable_cores
from experiments.config.settings import Settings
from experiments.config.spec import RunSpec
from experiments.launch.backends.base import EXIT_DONE, EXIT_FAILED, EXIT_HELD, EXIT_INTERRUPTED
from experiments.launch.build import build_trainer, compile_step, should_compile
from experiments.launch.torchrun import ReplicaEnded, train_replicas
from experiments.runs.environment import choose_device, describe, use_repeatable_kernels
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder
from experiments.runs.lease import Lease, LeaseLost
from experiments.runs.resources import SystemMetrics

HEARTBEAT_SECONDS = 0.5
OUT_OF_CPU_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # torch raises a plain RuntimeError with this text


def main() -> int:
    parser = cli.Parser(prog="python -m experiments worker", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a run folder with a spec.json")
    threads = "CPU threads, if the recipe does not set them (default: one for each usable core)"
    parser.add_argument("--threads", type=cli.positive, default=usable_cores(), help=threads)
    parser.add_argument("--launcher", type=int, metavar="PID", help="stop when this process is no longer the parent")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = RunFolder(arguments.folder)
    before = folder.state()
    try:
        with folder.leased() as lease:
            if not lease:
                return EXIT_HELD
            now = folder.state()
            if now["state"] == DONE:  # by another launch, since this run was planned
                return EXIT_DONE
            if now["state"] == FAILED and now != before:  # by another launch, while this process waited
                return EXIT_FAILED
            return train_to_end(folder, lease, StopRequest(arguments.launcher))
    except LeaseLost:
        return EXIT_HELD
    except DiskFull as error:  # no space even for the lease or the state
        log(str(error))
        return EXIT_INTERRUPTED


def train_to_end(folder: RunFolder, lease: Lease, should_stop: "StopRequest") -> int:
    """Train the run, record how it ended, and return the exit status.

    Raises LeaseLost if another process took over, and DiskFull if the end cannot be recorded.
    """
    try:
        work(folder, lease, should_stop)
    except LeaseLost:
        raise
    except Exception as error:
        # Any error is a result of this run: the other runs of the grid continue.
        if not isinstance(error, (Interrupted, ReplicaEnded)):
            log(traceback.format_exc())
        state, reason = how_it_ended(error, should_stop)
        folder.end(state, f"{state}: {reason}")
        return EXIT_INTERRUPTED if state == INTERRUPTED else EXIT_FAILED
    return EXIT_DONE


def how_it_ended(error: Exception, should_stop: "StopRequest") -> tuple[str, str]:
    """Return the state of a run that an exception has ended, and the reason. A full disk is not permanent."""
    if isinstance(error, ReplicaEnded):
        return error.state, error.reason
    if isinstance(error, Interrupted):
        return INTERRUPTED, should_stop.reason
    return INTERRUPTED if is_disk_full(error) else FAILED, failure_reason(error)


def work(folder: RunFolder, lease: Lease, should_stop: "StopRequest") -> None:
    """Train the run of this folder to its last epoch and write its results."""
    folder.remove_partial_files()
    settings = folder.spec().settings
    if settings.threads is not None:
        torch.set_num_threads(min(settings.threads, usable_cores()))
    if folder.is_complete():  # only its state is missing
        pass
    elif settings.replicas > 1:
        train_replicas(folder, lease, settings.replicas, should_stop)
    else:
        train_run(folder, choose_device(), should_stop)
    folder.finish()


def train_run(folder: RunFolder, device: torch.device, should_stop: "StopRequest", replicas: Replicas = SINGLE) -> None:
    """Train the run in this process; ``replicas`` of it train beside this one, the first."""
    spec = folder.spec()
    start = Start(folder)
    precision, compiled = start.arithmetic(spec.settings, device)
    replicas.share((precision, compiled, torch.get_num_threads()))
    had_epochs = folder.has_epochs()
    folder.begin(epoch=folder.count_epochs(), epochs=spec.settings.schedule.epochs)
    start.write(describe(device, precision, compiled))
    use_repeatable_kernels(precision, device)
    trainer = build_trainer(spec, folder, device, precision, replicas)
    damage = start.damage + trainer.checkpoints.damage
    if had_epochs and trainer.next_epoch == 0:
        start.begin_new_training()
    if damage:
        message = f"{', '.join(damage)}: resumes after epoch {trainer.next_epoch}"
        log(message)
        start.write({"damage": message})
    if compiled and (problem := compile_step(trainer, spec.settings)):
        log(f"{problem}: the run continues without it")
        start.write({"compiled": False})
    train(trainer, folder, spec, start, should_stop)


def train(trainer: Trainer, folder: RunFolder, spec: RunSpec, start: "Start", should_stop: "StopRequest") -> None:
    """Train from the trainer's epoch to the last and write predictions and weights."""
    system = SystemMetrics(trainer.device, trainer.replicas.count)
    heartbeat, begun = Heartbeat(folder, spec), time.time()

    def on_checkpoint(records: list[Record]) -> None:
        folder.write_epochs(records)
        heartbeat.epochs_recorded(records)

    def on_step(progress: Progress) -> None:
        if "first_step_seconds" not in start.details:
            start.write(
                {
                    "set_up_seconds": round(begun - psutil.Process().create_time(), 3),
                    "first_step_started": begun,
                    "first_step_seconds": round(time.time() - begun, 3),
                }
            )
        heartbeat.step_done(progress)

    predictions = trainer.run(
        on_checkpoint=on_checkpoint, on_step=on_step, should_stop=should_stop, extra_metrics=system.read
    )
    further = further_predictions(trainer, should_stop)
    save_predictions(folder.predictions, predictions, *further, before_replace=folder.before_replace)
    if spec.validation is None:
        store_evaluation(folder)
    weights = trainer.model.state_dict()
    write_archive(folder.weights, lambda file: torch.save(weights, file), before_replace=folder.before_replace)


def store_evaluation(folder: RunFolder) -> None:
    """Evaluate the run's predictions, so that tables and reports need not. Without an evaluation, they do it."""
    torch.set_num_threads(1)  # of an otherwise finished process: the same result for any number of threads
    try:
        evaluation = evaluate(load_predictions(folder.predictions))
    except (ValueError, MemoryError) as error:  # such as a test set of one image
        log(f"not evaluated: {error}")
    else:
        save_evaluation(folder.evaluation, evaluation, folder.predictions, before_replace=folder.before_replace)


def further_predictions(trainer: Trainer, should_stop: "StopRequest") -> tuple[Predictions | None, ...]:
    """Return the predictions that are stored beside those of the test set. All replicas must compute them."""
    return (
        trainer.predict_training(should_stop=should_stop),
        trainer.predict_unused(should_stop),
        trainer.predict_near_ood(should_stop),
    )


FIXED = ("threads", "precision", "compiled")  # a resumed run keeps those of its first start


class Start:
    """The environment.json of a run, with this start after the earlier ones of the same training."""

    def __init__(self, folder: RunFolder):
        self.folder, self.damage = folder, []
        self.details: dict[str, Any] = {"folder_inode": folder.path.stat().st_ino}
        try:
            self.training_id, self.earlier = folder.training_id() or secrets.token_hex(8), folder.starts()
            self.first = {name: start[name] for start in self.earlier[:1] for name in FIXED}
        except (UserError, KeyError):
            # The precision and threads of the checkpoints are unknown, so they cannot be resumed exactly.
            folder.remove_checkpoints()
            self.damage.append(f"{folder.environment.name} is damaged")
            self.training_id, self.earlier, self.first = secrets.token_hex(8), [], {}
        if self.earlier and self.earlier[-1]["folder_inode"] != self.details["folder_inode"]:
            # The folder is a copy, and the original may be resumed as well: from here on they are two trainings.
            self.training_id = secrets.token_hex(8)

    def arithmetic(self, settings: Settings, device: torch.device) -> tuple[str, bool]:
        """Return (precision, whether to compile); a resumed run keeps both and its number of threads.

        The number of threads changes the order of additions, and so the results.
        """
        if not self.first:
            return resolve(settings.precision, device), should_compile(settings, device)
        torch.set_num_threads(self.first["threads"])
        return self.first["precision"], self.first["compiled"]

    def write(self, details: dict[str, Any]) -> None:
        self.details |= details
        self.folder.write_environment(self.training_id, [*self.earlier, self.details])

    def begin_new_training(self) -> None:
        """Discard the earlier starts and epochs: no intact checkpoint of them remains."""
        self.folder.write_epochs([])
        self.training_id, self.earlier = secrets.token_hex(8), []
        self.write({})


def failure_reason(error: Exception) -> str:
    """Return why a run failed, in one line."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or OUT_OF_CPU_MEMORY in str(error):
        remedy = "fewer WORKERS, or a smaller batch (SET=batch_size=..., which is another run)"
        return f"out of memory ({first_line(error, width=500)}): {remedy}"
    return first_line(error, width=500) if isinstance(error, Diverged) else root_cause(error)


class StopRequest:
    """Returns True once the run should stop: after SIGTERM or SIGINT, or when its launcher has died.

    Args:
        launcher: the process that must remain this process's parent; None for a run without a launcher.
    """

    def __init__(self, launcher: int | None = None):
        self.reason = ""
        self.launcher = launcher
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self.reason = "Ctrl-C" if number == signal.SIGINT else "stopped by SIGTERM"

    def __call__(self) -> bool:
        if not self.reason and self.launcher is not None and os.getppid() != self.launcher:
            self.reason = "its launcher has died"
        return bool(self.reason)


class Heartbeat:
    """Writes the run's progress into its folder, at most every HEARTBEAT_SECONDS."""

    def __init__(self, folder: RunFolder, spec: RunSpec):
        self.folder, self.written = folder, 0.0
        self.details = {"reason": "training", "epochs": spec.settings.schedule.epochs, "epoch": 0, "metrics": {}}

    def epochs_recorded(self, records: list[Record]) -> None:
        self.details |= {"epoch": len(records), "metrics": records[-1]["metrics"] if records else {}}
        self._write(fraction=0.0)

    def step_done(self, progress: Progress) -> None:
        # Relative to the last recorded epoch; between two checkpoints, training is some epochs ahead of it.
        self._write(fraction=progress.epoch - self.details["epoch"] + progress.step / progress.steps)

    def _write(self, fraction: float) -> None:
        now = time.monotonic()
        if now - self.written >= HEARTBEAT_SECONDS:
            self.written = now
            try:
                self.folder.write_state(RUNNING, fraction=fraction, **self.details)
            except UserError as error:  # a full disk: the next checkpoint decides whether the run can continue
                log(str(error))


def log(text: str) -> None:
    """Print to the log, if the disk has space for it."""
    try:
        print(text, file=sys.stderr)
    except OSError:
        # Python would write the text again at exit, fail, and change the exit status.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
