"""What a user sees while runs go on: bars on a terminal, lines elsewhere."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RUNNING
from experiments.runs.plan import PlannedRun

LINE_SECONDS = 5.0  # between two lines about one run, off a terminal


class Display:
    """A bar over the whole grid, one a running run: epoch, losses, test error, images/s, time left."""

    def __init__(self, name: str, total: int, whole: float, seconds: Callable[[PlannedRun], float], console: Console):
        """name: of the whole; total: runs in it; whole and seconds: the estimates for all and for each of them."""
        self.console = console
        self.live = self.console.is_terminal
        self.total = total
        self.seconds = seconds
        self.finished = 0
        self.tasks: dict[str, TaskID] = {}
        self.said: dict[str, tuple[int, float]] = {}  # run key -> (epoch, when) of the last line
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[told]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self.console,
            disable=not self.live,
            refresh_per_second=4,
        )
        self.whole = self.progress.add_task(name, total=max(whole, 1e-9), message=self.heading())
        self.parts: dict[str, float] = {}  # run key -> its share of the grid's bar that is done

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(self, *exception) -> None:
        self.progress.stop()

    def started(self, run: PlannedRun) -> None:
        epochs = run.spec.settings.schedule.epochs
        done = run.folder.epochs_to_resume_from()
        if self.live:
            self.tasks[run.spec.run_key] = self.progress.add_task(
                run.spec.name, total=epochs, completed=done, message="starting"
            )
        else:
            self.console.print(f"{run.spec.name}: {'resumes' if done else 'starts'} at epoch {done + 1} of {epochs}")

    def moved(self, run: PlannedRun) -> None:
        state = run.folder.state()
        if "epochs" not in state or "metrics" not in state:
            return
        key, epoch, epochs = run.spec.run_key, state["epoch"], state["epochs"]
        self._whole(run, (epoch + state["fraction"]) / epochs)
        if self.live:
            self.progress.update(
                self.tasks[key], completed=epoch + state["fraction"], message=_told(state, run.spec.eval_split)
            )
            return
        before, when = self.said.get(key, (0, 0.0))
        if epoch > before and time.monotonic() - when >= LINE_SECONDS:
            self.said[key] = (epoch, time.monotonic())
            self.console.print(
                f"{run.spec.name}: {_told(state, run.spec.eval_split)}", soft_wrap=True, highlight=False, markup=False
            )

    def elsewhere(self, run: PlannedRun, state: str) -> None:
        """Of a run that another process trains (RUNNING) or has ended."""
        if state == RUNNING:
            self._say(run, state)
        else:
            self.ended(run, state)

    def ended(self, run: PlannedRun, state: str) -> None:
        key = run.spec.run_key
        if self.live and key in self.tasks:  # else another process has trained it
            self.progress.remove_task(self.tasks.pop(key))
        if state in (DONE, FAILED):
            self.finished += 1
        self._whole(run, 1.0)
        self._say(run, state)

    def _say(self, run: PlannedRun, state: str) -> None:
        message = f"{run.spec.name}: {outcome(run, state)}{', which is waited for' if state == RUNNING else ''}"
        self.console.print(message, soft_wrap=True, highlight=False, markup=False)

    def _whole(self, run: PlannedRun, fraction: float) -> None:
        self.parts[run.spec.run_key] = fraction * self.seconds(run)
        self.progress.update(self.whole, completed=sum(self.parts.values()), message=self.heading())

    def heading(self) -> str:
        """What the bar over the whole says."""
        return f"{self.finished}/{self.total} runs"


def outcome(run: PlannedRun, state: str) -> str:
    """One line on how a run ended."""
    if state == DONE:
        metrics, on = run.folder.epochs()[-1]["metrics"], run.spec.eval_split
        return f"done, {on} error {metrics[f'{on}/top1_error']:.2f} %, ECE {metrics[f'{on}/ece']:.2f} %"
    if state == FAILED:
        return f"failed: {run.folder.state().get('reason')} (log: {run.folder.log})"
    if state == RUNNING:
        return "is being trained by another process"
    reason = run.folder.state().get("reason") if state == INTERRUPTED else None
    return f"{state}: {reason}" if reason else state


def _told(state: dict[str, Any], evaluated: str) -> str:
    """Epoch, loss terms, test or validation error, and speed of a state."""
    metrics = state["metrics"]
    parts = [f"epoch {state['epoch']}/{state['epochs']}"]
    parts += [
        f"{name.removeprefix('train/')} {value:.3f}"
        for name, value in metrics.items()
        if name.startswith("train/") and name not in ("train/lr", "train/top1_error", "train/loss")
    ]
    if metrics:
        parts.append(f"{evaluated} error {metrics[f'{evaluated}/top1_error']:.1f} %")
        parts.append(f"{metrics['time/images_per_second']:.0f} images/s")
    return ", ".join(parts)
