"""Tracking beside the training: a thread that sends what the run folders have gained."""

import threading
import time
from pathlib import Path

from cskd.cli import without_password
from cskd.errors import first_line
from experiments.plan import Cell, Plan, load_plan

INTERVAL_SECONDS = 5.0
RETRY_SECONDS = 15.0  # after the tracking store could not be reached


class BackgroundTracking:
    """Tracks the runs that it is told to watch. Trouble is kept for the summary and never reaches the training.

    The plan must have been saved by the time this is entered.
    """

    def __init__(self, uri: str, plan: Plan, runs_dir: Path):
        self.trouble: str | None = None
        self.seconds = 0.0  # of processor time that the tracking took
        self._open = False
        self._watched: dict[str, Cell] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="tracking", daemon=True)
        self._tracker = None
        try:
            from experiments.tracking.grids import Tracker  # noqa: PLC0415 - training goes without MLflow
        except ModuleNotFoundError as error:
            self.trouble = f"{error.name} is not installed"
            return
        self._tracker = Tracker(uri, plan, runs_dir)

    def __enter__(self) -> "BackgroundTracking":
        if self._tracker is not None:
            self._follow_plan()
            self._thread.start()
        return self

    def _follow_plan(self) -> None:
        """Take the plan as it is kept: with the cells and seeds of all launches into the experiment."""
        self._tracker.plan = load_plan(Plan.path(self._tracker.plan.experiment, self._tracker.runs_dir))
        self._cells = {key: cell for cell in self._tracker.plan.cells for key in cell.runs.values()}

    def watch(self, run_key: str) -> None:
        with self._lock:
            if self._tracker is not None:
                self._watched[run_key] = self._cells[run_key]

    def __exit__(self, *exception) -> None:
        """Bring everything up to date, once more; what cannot be sent stays in the run folders."""
        self._ended.set()
        if self._tracker is not None:
            self._thread.join()
            self._attempt(whole=True)

    def _loop(self) -> None:
        while not self._ended.wait(RETRY_SECONDS if self.trouble else INTERVAL_SECONDS):
            self._attempt()

    def _attempt(self, whole: bool = False) -> None:
        started = time.thread_time()
        try:
            if not self._open:
                self._tracker.open()
                self._open = True
            with self._lock:
                watched = dict(self._watched)
            for run_key, cell in watched.items():
                self._tracker.sync(cell, run_key)
            if whole:
                self._follow_plan()  # with what another launch may have added meanwhile
                self._tracker.open()
                self._tracker.sync_all()
            self.trouble = None
        except Exception as error:
            # Whatever the store, the network or a client library throws: training goes on, the user is told.
            self.trouble = without_password(first_line(error))
        self.seconds += time.thread_time() - started
