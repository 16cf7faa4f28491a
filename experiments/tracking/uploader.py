"""The uploader: a thread of the launching process that sends new epochs to MLflow while runs are trained."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from cskd.utils.errors import first_line

INTERVAL_SECONDS = 5.0
RETRY_SECONDS = 15.0  # after a failed upload
END_SECONDS = 60.0  # the longest wait for MLflow at the end of a launch
STOPPED_SECONDS = 10.0  # the longest wait if the user stopped the launch
QUIET_SECONDS = 2.0  # a shorter wait is not announced


class Tracker(Protocol):
    """Copies run folders to MLflow. Every method may be called repeatedly.

    link: to the results in MLflow's UI; "" if there is none.
    """

    link: str

    def watch(self, run_key: str) -> None:
        """Include this run in every update from now on."""

    def update(self, everything: bool) -> None:
        """Upload the new epochs of the watched runs, or of all runs if ``everything`` is set."""


class Uploader:
    """Updates a tracker at intervals. Errors of MLflow are reported and never reach the training.

    problem: why the upload is incomplete, or None. cpu_seconds: processor time of the uploads.
    """

    def __init__(self, make: Callable[[], Tracker], log: Callable[[str], None] = lambda message: None):
        """make: opens the tracker and imports MLflow. log: prints a line."""
        self.problem: str | None = None
        self.cpu_seconds = 0.0
        self._log = log
        self._max_wait = END_SECONDS
        self._is_stopped = False
        self._is_abandoned = False
        self._ended = threading.Event()  # the launch has ended
        self._finished = threading.Event()  # the thread has made its last attempt
        self._thread = threading.Thread(target=self._loop, name="uploader", daemon=True)
        self._tracker: Tracker | None = None
        started = time.thread_time()
        try:
            self._tracker = make()
        except ModuleNotFoundError as error:
            self.problem = f"{error.name} is not installed"
        self.cpu_seconds += time.thread_time() - started

    def __enter__(self) -> "Uploader":
        if self._tracker is not None:
            self._thread.start()
        return self

    def watch(self, run_key: str) -> None:
        if self._tracker is not None:
            self._tracker.watch(run_key)

    @property
    def link(self) -> str:
        """The link to the results in MLflow's UI; "" if there is none."""
        return self._tracker.link if self._tracker else ""

    def launch_stopped(self) -> None:
        """Shorten the final wait because the user stopped the launch."""
        self._is_stopped, self._max_wait = True, STOPPED_SECONDS

    def summary(self) -> str:
        """Return the line that the command prints at its end."""
        if self.problem:
            return f"not all is tracked in MLflow ({self.problem}): nothing is lost, 'make sync' uploads the rest"
        seconds = f"{self.cpu_seconds:.1f} s of processor time"
        return f"All is tracked in MLflow: 'make ui' shows it. Tracking took {seconds}."

    def __exit__(self, kind, *rest) -> None:
        """Wait for the last upload, for a limited time. 'make sync' uploads what is left from the run folders."""
        self._ended.set()
        if self._tracker is None:
            return
        if kind is not None:
            self.launch_stopped()
        reason = f"the upload did not finish within {self._max_wait:.0f} s"
        try:
            # Not Thread.join: after Ctrl-C inside join, Python 3.11 reports a running thread as ended.
            if not self._finished.wait(QUIET_SECONDS):
                self._log(f"waiting for MLflow, at most {self._max_wait:.0f} s (Ctrl-C skips; run 'make sync' later)")
                self._finished.wait(self._max_wait - QUIET_SECONDS)
        except KeyboardInterrupt:
            reason = "the upload was skipped with Ctrl-C"
            if not self._is_stopped:  # on the first Ctrl-C a working server gets time to finish
                self._finished.wait(QUIET_SECONDS)
        if not self._finished.is_set():  # the thread is a daemon: it ends with the process
            self._is_abandoned, self.problem = True, reason

    def _loop(self) -> None:
        while not self._ended.wait(RETRY_SECONDS if self.problem else INTERVAL_SECONDS):
            before = self.problem
            self._attempt()
            if self.problem and not before:
                retry = f"MLflow is retried every {RETRY_SECONDS:.0f} s"
                self._log(f"MLflow: {self.problem}. Training continues; {retry}.")
            elif before and not self.problem:
                self._log("MLflow: the upload works again.")
        self._attempt(everything=True)
        self._finished.set()

    def _attempt(self, everything: bool = False) -> None:
        started = time.thread_time()
        try:
            self._tracker.update(everything)
            problem = None
        except Exception as error:
            # MLflow, its database drivers and the network raise many types; none may stop the training.
            problem = first_line(error)
        if not self._is_abandoned:
            self.problem = problem
        self.cpu_seconds += time.thread_time() - started
