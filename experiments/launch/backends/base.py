"""The interface of launch backends."""

from dataclasses import dataclass
from typing import Any, Protocol

from experiments.launch.job import Job


@dataclass(frozen=True)
class Exit:
    """How a job's process ended."""

    status: int  # the exit status of experiments.launch.worker; minus the signal's number if a signal ended it
    out_of_memory: bool = False  # the system killed it because memory ran out


class Backend(Protocol):
    """Starts jobs on one kind of machine.

    detached: True if the jobs run elsewhere and outlive the launch. The loop then hands over all jobs at once, and
    the backend must respect ``Job.needs``; otherwise it starts a job only when the jobs that it needs are done.
    """

    detached: bool

    def __init__(self, workers: int):
        """workers: how many jobs run at once."""

    def start(self, job: Job, slot: int) -> Any:
        """Start a job and return a handle. slot: a number below ``workers`` that no other running job has.

        Raises OSError if the job cannot be started.
        """

    def poll(self, handle: Any) -> Exit | None:
        """Return how the job ended, None while it runs."""

    def stop(self, handle: Any, number: int) -> None:
        """Send a signal to the job: SIGINT or SIGTERM ask it to stop, SIGKILL ends it."""
