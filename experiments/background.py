"""Tracking beside the training: a thread that sends what the run folders have gained."""

import threading
import time
from pathlib import Path

from experiments.plan import Cell, Plan

INTERVAL_SECONDS = 1.0
RETRY_SECONDS = 15.0  # after the tracking store could not be reached


class BackgroundTracking:
    """Tracks the runs it is told to watch; trouble is kept for the summary and never reaches the training."""

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
            from experiments.tracking import Tracker  # noqa: PLC0415 - training goes without MLflow
        except ModuleNotFoundError as error:
            self.trouble = f"{error.name} is not installed"
            return
        self._tracker = Tracker(uri, plan, runs_dir)
        self._cells = {key: cell for cell in plan.cells for key in cell.runs.values()}

    def __enter__(self) -> "BackgroundTracking":
        if self._tracker is not None:
            self._thread.start()
        return self

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
                self._tracker.sync_all()
            self.trouble = None
        except Exception as error:
            # Whatever the store, the network or a client library throws: training goes on, the user is told.
            self.trouble = str(error).splitlines()[0][:200] or type(error).__name__
        self.seconds += time.thread_time() - started
