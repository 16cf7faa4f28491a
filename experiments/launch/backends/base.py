"""The interfaces of launch backends: what a job is, and how its process ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

# The exit statuses of ``python -m experiments worker``. HELD: another process trains the run. STOPPED: it was asked to
# stop before it began.
EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_HELD, EXIT_STOPPED = 0, 1, 3, 4, 130


@dataclass(frozen=True)
class Job:
    """A command that trains one run. It works from any folder, and on every machine that has the same paths."""

    command: tuple[str, ...]
    folder: Path  # of the run
    log: Path  # for the output of the command
    needs: tuple[Path, ...] = ()  # folders of the runs that must be done before this one starts
    gpus: int = 1  # that it uses, where there are GPUs
    environment: dict[str, str] = field(default_factory=dict)  # the variables that the command sets


@dataclass(frozen=True)
class Exit:
    """How a job's process ended."""

    status: int  # one of the statuses above; minus the signal's number if a signal ended it
    out_of_memory: bool = False  # the system killed it because memory ran out


class Backend(Protocol):
    """Starts jobs that live as long as the launch. The loop starts a job when the jobs that it needs are done."""

    detached: bool  # False
    capacity: int  # how many jobs run at once, at this moment

    def __init__(self, workers: int):
        """workers: how many jobs run at once, on each machine or GPU if the backend has several machines."""

    def start(self, job: Job, slot: int) -> Any:
        """Start a job and return a handle. slot: a number from 0 that no other running job has.

        Raises OSError if the job cannot be started.
        """

    def poll(self, handle: Any) -> Exit | None:
        """Return how the job ended, None while it runs."""

    def stop(self, handle: Any, number: int) -> None:
        """Send a signal to the job: SIGINT or SIGTERM ask it to stop, SIGKILL ends it."""


class DetachedBackend(Protocol):
    """Hands all jobs over to something else, such as a scheduler, which runs them after the launch has ended."""

    detached: bool  # True

    def __init__(self, workers: int):
        """workers: how many jobs run at once. Raises UserError if there is no such scheduler here."""

    def submit(self, jobs: Sequence[Job], last: Job) -> None:
        """Hand over jobs. A job comes after the jobs that it needs; a needed run without a job is done.

        last: to be run once after all the others have ended, whether or not they succeeded.
        """
