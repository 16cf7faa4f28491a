"""The progress of a launch: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from cskd.utils.numbers import duration_text
from experiments.runs.folder import DONE, FAILED, RUNNING

if TYPE_CHECKING:  # 'status' prints lines too, and need not import torch
    from experiments.runs.plan import PlannedRun

LINE_SECONDS = 5.0  # between two lines about one run, if the output is not a terminal
NARROW = 100  # columns of a terminal; below, the bars are shorter
OTHER_COLUMNS = 45  # of the terminal: bar, count and time left


def line_printer(console: Console) -> Callable[[str], None]:
    """Return a function that prints a line without markup, above the progress bars."""
    return partial(console.print, soft_wrap=True, highlight=False, markup=False)


class TimeColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(time_text(task))


class MessageColumn(TextColumn):
    """A text in one line. If the terminal is narrow, rich shortens a column that may wrap before any other."""

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


def time_text(task: Task) -> str:
    """Return the time left, how long a finished task took, or "" while nothing is known: "12 min left", "took 3 h"."""
    if task.finished:
        return f"took {duration_text(task.finished_time)}"
    return "" if task.time_remaining is None else f"{duration_text(task.time_remaining)} left"


class Display:
    """One bar for all runs and one for each running run: epoch, time left, test error, images/s, losses.

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
        self.name_width = max(10, console.width - OTHER_COLUMNS)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(20 if console.width >= NARROW else 10, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[count]}"),
            TimeColumn(Column(no_wrap=True)),
            MessageColumn("{task.fields[message]}", markup=False, table_column=Column()),
            console=console,
            disable=not self.live,
            refresh_per_second=4,
        )
        # A little less than the sum of the runs, whose rounding must not leave the bar unfinished.
        total_seconds = max(total_seconds * (1 - 1e-9), 1e-9)
        self.overall = self.progress.add_task(name, total=total_seconds, count=self.count(), message=self.best())

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def count(self) -> str:
        """Return the number of finished runs, for the overall bar."""
        return f"{self.finished}/{self.total} runs"

    def best(self) -> str:
        """Return a further text of the overall bar."""
        return ""

    def started(self, run: PlannedRun) -> None:
        epochs = run.spec.settings.schedule.epochs
        done = run.folder.epochs_to_resume_from()
        if self.live:
            name = run.spec.name
            name = name if len(name) <= self.name_width else f"…{name[1 - self.name_width :]}"
            count = f"{done}/{epochs} epochs"
            task = self.progress.add_task(name, total=epochs, completed=done, count=count, message="starting")
            self.tasks[run.spec.run_key] = task
        else:
            self.print_line(f"{run.spec.name}: {'resumes' if done else 'starts'} at epoch {done + 1} of {epochs}")

    def progressed(self, run: PlannedRun) -> None:
        state = run.folder.state()
        if "fraction" not in state:
            return
        key, epoch = run.spec.run_key, state["epoch"]
        self._update_overall(run, (epoch + state["fraction"]) / state["epochs"])
        count, message = f"{epoch}/{state['epochs']} epochs", _progress_message(state, run.spec.eval_split)
        if self.live:
            self.progress.update(self.tasks[key], completed=epoch + state["fraction"], count=count, message=message)
            return
        last_epoch, last_time = self.last_lines.get(key, (0, 0.0))
        if epoch > last_epoch and time.monotonic() - last_time >= LINE_SECONDS:
            self.last_lines[key] = (epoch, time.monotonic())
            self.print_line(f"{run.spec.name}: {count}, {message}{self._overall_text()}")

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
        waiting = ": waiting for it" if state == RUNNING else ""
        overall = "" if self.live else self._overall_text()
        self.print_line(f"{run.spec.name}: {outcome(run, state)}{waiting}{overall}")

    def _overall_text(self) -> str:
        """Return the end of a line: the finished runs, and the estimated time until all are done."""
        return "; " + ", ".join(filter(None, [self.count(), time_text(self.progress.tasks[0]), self.best()]))

    def _update_overall(self, run: PlannedRun, fraction: float) -> None:
        self.seconds_done[run.spec.run_key] = fraction * self.seconds_of(run)
        completed = sum(self.seconds_done.values())
        self.progress.update(self.overall, completed=completed, count=self.count(), message=self.best())


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
    """Return test or validation error, speed, and then the loss terms."""
    metrics = state["metrics"]
    if not metrics:
        return "first epoch"
    losses = [
        f"{name.removeprefix('train/')} {value:.3f}"
        for name, value in metrics.items()
        if name.startswith("train/") and name not in ("train/lr", "train/top1_error", "train/loss")
    ]
    error, speed = metrics[f"{split}/top1_error"], metrics["time/images_per_second"]
    return ", ".join([f"{split} error {error:.1f} %", f"{speed:.0f} images/s", *losses])
