"""Who trains a run: one process at a time, on this machine or on another one that shares the folder.

On one machine a lock of the kernel's tells, which ends with its process. Another machine may not see that lock, so
there is a file ``holder.<number>`` that names the machine and the process and is touched as long as the process lives:
one of another machine that has been silent for HEARTBEAT_LIMIT is dead. Whoever comes makes the file of the next
number, which one alone can do, on network file systems as well, and removes the earlier ones. The last is never
removed: a number that was seen stands for one process for good, however long ago it was seen. A process whose file is
gone (its machine was asleep, say) has lost the run and stops.
"""

import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from cskd.utils.errors import UserError
from cskd.utils.files import write_errors

HEARTBEAT_LIMIT = 60.0  # seconds without one after which a process counts as dead
BEAT_SECONDS = 5.0
RETRY_SECONDS = 0.2
MOMENT_SECONDS = 60.0  # that a moment's work of others is waited for


class ClaimLost(Exception):
    """Another process has taken the run over."""


@dataclass
class Claim:
    """A run that this process holds."""

    holder: Path
    name: str
    _ended: threading.Event = field(default_factory=threading.Event)

    def is_lost(self) -> bool:
        """Whether another process has taken the run over."""
        return _read(self.holder) != self.name

    def check(self) -> None:
        """Raises ClaimLost: to be asked right before anything is written."""
        if self.is_lost():
            raise ClaimLost

    def beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # of a file system that is away for a moment; is_lost tells of more
                os.utime(self.holder)

    def end(self, beating: threading.Thread) -> None:
        """Leave the run to others at once: the last sign of life becomes one of long ago."""
        self._ended.set()
        beating.join(BEAT_SECONDS)  # in vain where the file system hangs
        with suppress(OSError):
            os.utime(self.holder, (0, 0))


@contextmanager
def claimed(folder: Path, patience: float) -> Iterator[Claim | None]:
    """Hold a run's folder for this process; None when another one has it.

    The claim ends with the process, however that ends. patience: seconds to wait for a process that is about to stop.
    """
    until = time.monotonic() + patience
    with write_errors(folder):
        lock = (folder / "claim").open("w")
    with lock, _not_in_children(lock):
        while not (_locks(lock) and (holder := _take(folder, lock))):
            if time.monotonic() > until:
                yield None
                return
            fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(RETRY_SECONDS)
        claim = Claim(holder, _name())
        beating = threading.Thread(target=claim.beat, name="claim", daemon=True)
        beating.start()
        try:
            yield claim
        finally:
            claim.end(beating)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time is past this, for the same folder: for a moment's work, which the others wait for."""
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder, MOMENT_SECONDS) as mine:
        if not mine:
            raise UserError(f"another process has held {folder} for {MOMENT_SECONDS:.0f} s: try again")
        yield


def is_claimed(folder: Path) -> bool:
    """Whether a process holds the run's folder. Takes nothing."""
    try:
        with (folder / "claim").open() as lock:
            # Shared, so that those who only ask do not take each other for a holder.
            return not _locks(lock, fcntl.LOCK_SH) or _is_held_elsewhere(_latest(folder), lock)
    except FileNotFoundError:
        return False


_own: set[TextIO] = set()  # the locks that this process has or wants


@contextmanager
def _not_in_children(lock: TextIO) -> Iterator[None]:
    """A process that is forked, such as one that makes images, has the lock as well, and would keep it from others when
    this one is gone.
    """
    _own.add(lock)
    try:
        yield
    finally:
        _own.remove(lock)


def _close_own() -> None:
    for lock in _own:
        lock.close()


os.register_at_fork(after_in_child=_close_own)


def _locks(lock, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take(folder: Path, lock) -> Path | None:
    """Make this process the holder; None where another one is, or is faster."""
    latest = _latest(folder)
    if _is_held_elsewhere(latest, lock):
        return None
    holder = folder / f"holder.{_number(latest) + 1}"
    with write_errors(holder):
        try:
            file = holder.open("x")
        except FileExistsError:
            return None
        try:
            with file:
                file.write(_name())
        except OSError:  # a full disk: a holder without a name would count as one of another machine
            holder.unlink()
            raise
    if _latest(folder) != holder:  # this process was asleep meanwhile, and others have come and gone
        holder.unlink(missing_ok=True)
        return None
    for other in _holders(folder):
        if _number(other) < _number(holder):  # a later one has come while this process was asleep
            other.unlink(missing_ok=True)
    return holder


def _holders(folder: Path) -> list[Path]:
    """The first kind of name is that of earlier versions, which had no numbers."""
    return [*folder.glob("holder"), *folder.glob("holder.*[0-9]")]


def _latest(folder: Path) -> Path | None:
    return max(_holders(folder), key=_number, default=None)


def _number(holder: Path | None) -> int:
    return int(holder.suffix[1:] or 0) if holder else 0


def _is_held_elsewhere(holder: Path | None, lock) -> bool:
    """Whether it is of a living process of another machine. ``lock`` is held: on this machine there is none."""
    if holder is None or _is_of_this_machine(_read(holder)):
        return False
    now = _file_systems_time(lock)
    try:
        return now - holder.stat().st_mtime < HEARTBEAT_LIMIT
    except FileNotFoundError:  # there is a later one
        return True


def _file_systems_time(lock) -> float:
    """The clock that heartbeats are of: those of two machines need not agree."""
    try:
        os.utime(lock.fileno())
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return time.time()  # who may only read takes nothing over
    return os.fstat(lock.fileno()).st_mtime


def _read(holder: Path) -> str:
    try:
        return holder.read_text()
    except FileNotFoundError:
        return ""


def _machine() -> str:
    """Distinct from that of every other machine, and of a container with locks of its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        boot = ""
    return f"{socket.gethostname()} {boot}"


def _name() -> str:
    return f"{_machine()} {os.getpid()}"


def _is_of_this_machine(name: str) -> bool:
    return name.startswith(f"{_machine()} ")
