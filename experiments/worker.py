"""One run, in a process of its own: ``python -m experiments.worker RUN_FOLDER``.

Launched by experiments.grid, which shows its progress and tracks it; it needs neither MLflow nor a terminal.
Exit status: 0 done, 1 failed (the reason is in state.json, the traceback in the log), 3 interrupted,
4 another process has the run.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from cskd import cli
from cskd.errors import UserError, first_line
from cskd.files import written_aside
from cskd.precision import resolve
from cskd.predictions import save_predictions
from cskd.training import Diverged, Interrupted, Progress, Trainer
from experiments.assemble import build_trainer
from experiments.environment import SystemMetrics, choose_device, describe, use_repeatable_kernels
from experiments.run_folder import DONE, FAILED, INTERRUPTED, RUNNING, RunFolder, write_json
from experiments.spec import RunSpec

STATE_SECONDS = 0.5  # between two heartbeats
EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_CLAIMED = 0, 1, 3, 4


def main() -> int:
    parser = cli.Parser(prog="python -m experiments.worker", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a run folder that holds a spec.json")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of this run")
    parser.add_argument("--launcher", type=int, metavar="PID", help="stop when this is no longer the parent process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = RunFolder(arguments.folder)
    with folder.claimed() as mine:
        if not mine:
            return EXIT_CLAIMED
        if folder.state()["state"] == DONE:  # by another grid, since this run was planned
            return EXIT_DONE
        try:
            work(folder, StopSignal(arguments.launcher))
        except Interrupted:
            folder.write_state(INTERRUPTED, epoch=len(folder.epochs()), epochs=folder.spec().settings.schedule.epochs)
            return EXIT_INTERRUPTED
        except Exception as error:
            # Whatever went wrong is this run's result, for the grid's summary; the log has the whole of it.
            traceback.print_exc()
            kind = "" if isinstance(error, (UserError, Diverged)) else f"{type(error).__name__}: "
            folder.write_state(FAILED, reason=kind + first_line(error, width=500), epoch=len(folder.epochs()))
            return EXIT_FAILED
    return EXIT_DONE


class StopSignal:
    """Whether the run has been asked to stop: by SIGTERM or SIGINT, or because its launcher is gone.

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
    """Train the run of this folder to its end and leave its results there."""
    spec = folder.spec()
    device = choose_device()
    earlier = folder.starts()
    # A run that is taken up again keeps its arithmetic, also where another would be chosen now: the precision,
    # whether it is compiled, and the threads, whose number changes the order of additions.
    if earlier:
        precision, compiled = earlier[0]["precision"], earlier[0].get("compiled", False)
        torch.set_num_threads(earlier[0]["threads"])
    else:
        precision = resolve(spec.settings.precision, device)
        compiled = device.type == "cuda" if spec.settings.compile == "auto" else spec.settings.compile
    folder.write_state(RUNNING, epoch=len(folder.epochs()), epochs=spec.settings.schedule.epochs)
    start = describe(device, precision, compiled)
    write_json(folder.environment, {"starts": [*earlier, start]})
    use_repeatable_kernels(precision)
    trainer = build_trainer(spec, folder, device, precision)
    if compiled and not compile_step(trainer, required=spec.settings.compile is True):
        write_json(folder.environment, {"starts": [*earlier, start | {"compiled": False}]})
    folder.keep_epochs(trainer.next_epoch)
    system = SystemMetrics(device)
    heartbeat = Heartbeat(folder, spec)

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        folder.add_epoch(epoch, metrics | system.read())
        heartbeat.epoch_done(epoch, metrics)

    predictions = trainer.run(on_epoch=on_epoch, on_step=heartbeat.step_done, should_stop=should_stop)
    save_predictions(folder.predictions, predictions, trainer.predict_training())
    with written_aside(folder.weights) as file:
        torch.save(trainer.model.state_dict(), file)
    folder.write_state(DONE, epoch=spec.settings.schedule.epochs, epochs=spec.settings.schedule.epochs)
    folder.checkpoint.unlink(missing_ok=True)


def compile_step(trainer: Trainer, required: bool) -> bool:
    """Compile the training step; False, and a line in the log, where that cannot be done here.

    Raises UserError instead where the run was asked for as ``required`` to be compiled: its key says so.
    """
    try:
        trainer.compile()
    except Exception as error:
        # A compiler, a driver or a header may be missing, each with an error of its own kind.
        told = f"torch.compile does not work here ({first_line(error)})"
        if required:
            raise UserError(f"{told}: run with SET=compile=auto, or mend it") from error
        print(f"{told}: the run goes on without it", file=sys.stderr)
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
        self._write(fraction=progress.step / progress.steps)

    def _write(self, fraction: float) -> None:
        now = time.monotonic()
        if now - self.written >= STATE_SECONDS:
            self.written = now
            try:
                self.folder.write_state(RUNNING, fraction=fraction, **self.details)
            except UserError as error:
                # A full disk: not the heartbeat's to end the run for. The checkpoint tells, if it lasts.
                print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
