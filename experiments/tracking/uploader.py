"""Tracking beside the training: a thread that sends what the run folders have gained."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from cskd.utils.errors import first_line

INTERVAL_SECONDS = 5.0
RETRY_SECONDS = 15.0  # after the tracking store could not be reached
END_SECONDS = 60.0  # that the end of a launch waits at most for the store to take the rest
STOPPED_SECONDS = 10.0  # the same, after a launch that was stopped
SILENT_SECONDS = 2.0  # of waiting that need no word


class Tracking(Protocol):
    """What is kept in step with the run folders."""

    def watch(self, run_key: str) -> None:
        """From now on this run may move."""

    def update(self, whole: bool) -> None:
        """Send what is new of the runs that are watched; ``whole``: of everything."""


class BackgroundTracking:
    """Calls a tracking now and then. Trouble is told, kept for the summary, and never reaches the training.

    make: opens the tracking; an import that fails in it means that MLflow is not installed.
    say: what a line of news is told to.
    """

    def __init__(self, make: Callable[[], Tracking], say: Callable[[str], None] = lambda message: None):
        self.trouble: str | None = None
        self.seconds = 0.0  # of processor time that the tracking took, its imports included
        self.say = say
        self.patience = END_SECONDS
        self._is_stopped = False
        self._ended = threading.Event()
        self._done = threading.Event()
        self._given_up = False
        self._thread = threading.Thread(target=self._loop, name="tracking", daemon=True)
        self._tracking: Tracking | None = None
        started = time.thread_time()
        try:
            self._tracking = make()
        except ModuleNotFoundError as error:
            self.trouble = f"{error.name} is not installed"
        self.seconds += time.thread_time() - started

    def __enter__(self) -> "BackgroundTracking":
        if self._tracking is not None:
            self._thread.start()
        return self

    def watch(self, run_key: str) -> None:
        if self._tracking is not None:
            self._tracking.watch(run_key)

    def stopped(self) -> None:
        """The launch was stopped: its end is not to be kept waiting."""
        self._is_stopped, self.patience = True, STOPPED_SECONDS

    def __exit__(self, kind, *rest) -> None:
        """Bring everything up to date, once more; what cannot be sent in time stays in the run folders."""
        self._ended.set()
        if self._tracking is None:
            return
        if kind is not None:
            self.stopped()
        late = f"it did not take everything within {self.patience:.0f} s"
        try:
            # Not by join and is_alive: a Ctrl-C in join makes Python 3.11 take the thread for ended.
            if not self._done.wait(SILENT_SECONDS):
                self.say(
                    f"waiting for MLflow, at most {self.patience:.0f} s (Ctrl-C ends it, 'make sync' does the rest)"
                )
                self._done.wait(self.patience - SILENT_SECONDS)
        except KeyboardInterrupt:
            late = "it was not waited for"
            if not self._is_stopped:  # the first Ctrl-C: a store that answers has taken the rest in a moment
                self._done.wait(SILENT_SECONDS)
        if not self._done.is_set():  # the thread ends with the process
            self._given_up, self.trouble = True, late

    def _loop(self) -> None:
        while not self._ended.wait(RETRY_SECONDS if self.trouble else INTERVAL_SECONDS):
            before = self.trouble
            self._attempt()
            if self.trouble and not before:
                self.say(f"MLflow: {self.trouble}: training goes on, MLflow is tried again every {RETRY_SECONDS:.0f} s")
            elif before and not self.trouble:
                self.say("MLflow: it takes what it is sent again")
        self._attempt(whole=True)
        self._done.set()

    def _attempt(self, whole: bool = False) -> None:
        started = time.thread_time()
        try:
            self._tracking.update(whole)
            trouble = None
        except Exception as error:
            # Whatever the store, the network or a client library throws: training goes on, the user is told.
            trouble = first_line(error)
        if not self._given_up:
            self.trouble = trouble
        self.seconds += time.thread_time() - started
