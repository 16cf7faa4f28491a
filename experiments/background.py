"""Tracking beside the training: a thread that sends what the run folders have gained."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from cskd.cli import without_password
from cskd.errors import first_line

INTERVAL_SECONDS = 5.0
RETRY_SECONDS = 15.0  # after the tracking store could not be reached


class Tracking(Protocol):
    """What is kept in step with the run folders."""

    def watch(self, run_key: str) -> None:
        """From now on this run may move."""

    def update(self, whole: bool) -> None:
        """Send what is new of the runs that are watched; ``whole``: of everything."""


class BackgroundTracking:
    """Calls a tracking now and then. Trouble is kept for the summary and never reaches the training.

    make: opens the tracking; an import that fails in it means that MLflow is not installed.
    """

    def __init__(self, make: Callable[[], Tracking]):
        self.trouble: str | None = None
        self.seconds = 0.0  # of processor time that the tracking took
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="tracking", daemon=True)
        self._tracking: Tracking | None = None
        try:
            self._tracking = make()
        except ModuleNotFoundError as error:
            self.trouble = f"{error.name} is not installed"

    def __enter__(self) -> "BackgroundTracking":
        if self._tracking is not None:
            self._thread.start()
        return self

    def watch(self, run_key: str) -> None:
        if self._tracking is not None:
            self._tracking.watch(run_key)

    def __exit__(self, *exception) -> None:
        """Bring everything up to date, once more; what cannot be sent stays in the run folders."""
        self._ended.set()
        if self._tracking is not None:
            self._thread.join()
            self._attempt(whole=True)

    def _loop(self) -> None:
        while not self._ended.wait(RETRY_SECONDS if self.trouble else INTERVAL_SECONDS):
            self._attempt()

    def _attempt(self, whole: bool = False) -> None:
        started = time.thread_time()
        try:
            self._tracking.update(whole)
            self.trouble = None
        except Exception as error:
            # Whatever the store, the network or a client library throws: training goes on, the user is told.
            self.trouble = without_password(first_line(error))
        self.seconds += time.thread_time() - started
