"""The lease of a run: one process at a time trains it, on this machine or on another one that shares the folder.

The lease is a file that its owner touches every few seconds. A dead owner on this machine is replaced at once; on
another machine, after LEASE_SECONDS without a touch. An owner that was suspended for longer learns on waking that it
lost the lease, so ``Lease.check`` must be called before each write.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil
from filelock import SoftFileLease, Timeout

from cskd.utils.files import write_errors

LEASE_SECONDS = 15.0  # all machines must use the same value
PATIENCE = LEASE_SECONDS + 5.0
RETRY_SECONDS = 0.2
UNFINISHED_SECONDS = 2.0  # an owner writes its name within this time after it has made the file


class LeaseLost(Exception):
    """Another process has taken over the run."""


class Lease:
    """The lease that this process holds, or one of its parents. token: of its owner; another owner has another one."""

    def __init__(self, lock: SoftFileLease, token: str):
        self._lock, self.token = lock, token

    def check(self) -> None:
        """Raise LeaseLost if another process has taken over. Call it directly before each write."""
        if not self._is_owner():
            time.sleep(RETRY_SECONDS)  # filelock moves the file aside for a moment while another process inspects it
            if not self._is_owner():
                raise LeaseLost

    def _is_owner(self) -> bool:
        owner = self._lock.owner
        return owner is not None and owner.token == self.token


class LeasedFolder:
    """A folder into which one process at a time writes. It calls ``before_replace`` directly before each write."""

    def __init__(self, path: Path):
        self.path = path
        self._lease: Lease | None = None  # while this process holds it

    @contextmanager
    def leased(self, patience: float = PATIENCE) -> Iterator[Lease | None]:
        """Hold the lease of the folder; yield None if another process still holds it after ``patience`` seconds."""
        lock = self._lock()
        try:
            with write_errors(self.path), suppress(Timeout):
                _remove_unfinished(Path(lock.lock_file))
                lock.acquire(timeout=patience, poll_interval=RETRY_SECONDS)
            self._lease = Lease(lock, lock.token) if lock.is_locked else None
            yield self._lease
        finally:
            self._lease = None
            lock.release()

    @contextmanager
    def leased_by(self, token: str) -> Iterator[None]:
        """Write into the folder for the process with this token, as long as it holds the lease."""
        self._lease = Lease(self._lock(), token)
        try:
            yield
        finally:
            self._lease = None

    def before_replace(self) -> None:
        """Raise LeaseLost if this process held the lease and another process has taken it over."""
        if self._lease is not None:
            self._lease.check()

    def is_held(self) -> bool:
        """Return True if a live process holds the lease. Writes nothing."""
        lock = self._lock()
        owner = lock.owner
        if owner is None or (owner.hostname == _this_host() and not is_alive(owner.pid)):
            return False
        try:
            age = time.time() - Path(lock.lock_file).stat().st_mtime
        except FileNotFoundError:
            return False
        return abs(age) < LEASE_SECONDS

    def _lock(self) -> SoftFileLease:
        return SoftFileLease(self.path / "lease", lease_duration=LEASE_SECONDS, heartbeat_interval=LEASE_SECONDS / 3)


def _remove_unfinished(file: Path) -> None:
    """Remove a lease that names no owner: its process was killed while it made the file. filelock never removes it."""
    with suppress(FileNotFoundError):
        status = file.stat()
        if not status.st_size and abs(time.time() - status.st_mtime) > UNFINISHED_SECONDS:
            file.unlink()


@cache
def _this_host() -> str:
    """Return this machine's name as filelock writes it into a lease."""
    with tempfile.TemporaryDirectory() as folder, SoftFileLease(Path(folder) / "lease") as lock:
        return lock.owner.hostname


def is_alive(pid: int) -> bool:
    """Return whether a process exists and has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
