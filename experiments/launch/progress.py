"""The progress of a launch: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cskd.utils.numbers import duration_text
from experiments.runs.folder import DONE, FAILED, RUNNING

if TYPE_CHECKING:  # 'status' prints lines too, and need not import torch
    from experiments.runs.plan import PlannedRun

LINE_SECONDS = 5.0  # between two lines about one run, if the output is not a terminal


def line_printer(console: Console) -> Callable[[str], None]:
    """Return a function that prints a line without markup, above the progress bars."""
    return partial(console.print, soft_wrap=True, highlight=False, markup=False)


class Display:
    """One bar for all runs and one for each running run: epoch, losses, test error, images/s, time left.

    Args:
        name: the label of the overall bar.
        total: number of runs.
        total_seconds: estimate for all runs, one at a time.
        seconds_of: estimate for one run.
    """

    def __init__(
        self, name: str, total: int, total_seconds: float, seconds_of: Callable[[PlannedRun], float], console: Console
    ):
        self.print_line = line_printer(console)
        self.live = console.is_terminal and not console.is_dumb_terminal
        self.total, self.finished = total, 0
        self.seconds_of = seconds_of
        self.tasks: dict[str, TaskID] = {}  # by run key
        self.last_lines: dict[str, tuple[int, float]] = {}  # run key -> (epoch, time) of its last line
        self.seconds_done: dict[str, float] = {}  # by run key
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[message]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            disable=not self.live,
            refresh_per_second=4,
        )
        self.overall = self.progress.add_task(name, total=max(total_seconds, 1e-9), message=self.heading())

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def heading(self) -> str:
        """Return the text of the overall bar."""
        return f"{self.finished}/{self.total} runs"

    def started(self, run: PlannedRun) -> None:
        epochs = run.spec.settings.schedule.epochs
        done = run.folder.epochs_to_resume_from()
        if self.live:
            task = self.progress.add_task(run.spec.name, total=epochs, completed=done, message="starting")
            self.tasks[run.spec.run_key] = task
        else:
            self.print_line(f"{run.spec.name}: {'resumes' if done else 'starts'} at epoch {done + 1} of {epochs}")

    def progressed(self, run: PlannedRun) -> None:
        state = run.folder.state()
        if "fraction" not in state:
            return
        key, epoch = run.spec.run_key, state["epoch"]
        self._update_overall(run, (epoch + state["fraction"]) / state["epochs"])
        message = _progress_message(state, run.spec.eval_split)
        if self.live:
            self.progress.update(self.tasks[key], completed=epoch + state["fraction"], message=message)
            return
        last_epoch, last_time = self.last_lines.get(key, (0, 0.0))
        if epoch > last_epoch and time.monotonic() - last_time >= LINE_SECONDS:
            self.last_lines[key] = (epoch, time.monotonic())
            self.print_line(f"{run.spec.name}: {message}; {self.heading()}, {self._time_left()} left")

    def on_other_launch(self, run: PlannedRun, state: str) -> None:
        """Show that another launch trains a run (RUNNING), or how it ended there."""
        if state == RUNNING:
            self._print_outcome(run, state)
        else:
            self.ended(run, state)

    def ended(self, run: PlannedRun, state: str) -> None:
        key = run.spec.run_key
        if self.live and key in self.tasks:  # not there if another launch trained it
            self.progress.remove_task(self.tasks.pop(key))
        if state in (DONE, FAILED):
            self.finished += 1
        self._update_overall(run, 1.0)
        self._print_outcome(run, state)

    def _print_outcome(self, run: PlannedRun, state: str) -> None:
        self.print_line(f"{run.spec.name}: {outcome(run, state)}{': waiting for it' if state == RUNNING else ''}")

    def _time_left(self) -> str:
        """Return the estimated time until all runs are done, such as "12 min"."""
        remaining = self.progress.tasks[0].time_remaining
        return "-" if remaining is None else duration_text(remaining)

    def _update_overall(self, run: PlannedRun, fraction: float) -> None:
        self.seconds_done[run.spec.run_key] = fraction * self.seconds_of(run)
        self.progress.update(self.overall, completed=sum(self.seconds_done.values()), message=self.heading())


def outcome(run: PlannedRun, state: str) -> str:
    """Return one line about how a run ended."""
    if state == DONE:
        metrics, split = run.folder.epochs()[-1]["metrics"], run.spec.eval_split
        return f"done, {split} error {metrics[f'{split}/top1_error']:.2f} %, ECE {metrics[f'{split}/ece']:.2f} %"
    if state == RUNNING:
        return "another process trains it"
    reason = run.folder.state()["reason"]
    return f"{reason} (log: {run.folder.log})" if state == FAILED else reason


def _progress_message(state: dict[str, Any], split: str) -> str:
    """Return epoch, loss terms, test or validation error, and speed."""
    metrics = state["metrics"]
    parts = [f"epoch {state['epoch']}/{state['epochs']}"]
    parts += [
        f"{name.removeprefix('train/')} {value:.3f}"
        for name, value in metrics.items()
        if name.startswith("train/") and name not in ("train/lr", "train/top1_error", "train/loss")
    ]
    if metrics:
        parts.append(f"{split} error {metrics[f'{split}/top1_error']:.1f} %")
        parts.append(f"{metrics['time/images_per_second']:.0f} images/s")
    return ", ".join(parts)
