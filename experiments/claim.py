"""Who trains a run: one process at a time, on this machine or on another one that shares the folder.

On one machine a lock of the kernel's tells, which ends with its process. Another machine may not see that lock, so the
file ``holder`` names the machine and the process, is made by one alone, and is touched as long as the process lives:
one of another machine that has been silent for HEARTBEAT_LIMIT is dead, and whoever comes first takes over. A process
that finds another's name there (its machine was asleep, say) has lost the run and stops.
"""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

HEARTBEAT_LIMIT = 60.0  # seconds without one after which a process counts as dead
BEAT_SECONDS = 5.0
SETTLE_SECONDS = 2.0  # for others that take over the same run at the same time
RETRY_SECONDS = 0.2


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

    def beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # of a file system that is away for a moment; is_lost tells of more
                os.utime(self.holder)

    def end(self) -> None:
        self._ended.set()
        if not self.is_lost():
            with suppress(OSError):
                self.holder.unlink()


@contextmanager
def claimed(folder: Path, patience: float) -> Iterator[Claim | None]:
    """Hold a run's folder for this process; None when another one has it.

    The claim ends with the process, however that ends. patience: seconds to wait for a process that is about to stop.
    """
    until = time.monotonic() + patience
    with (folder / "claim").open("w") as lock:
        while not (_locks(lock) and _takes(folder, lock)):
            if time.monotonic() > until:
                yield None
                return
            fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(RETRY_SECONDS)
        claim = Claim(folder / "holder", _name())
        threading.Thread(target=claim.beat, name="claim", daemon=True).start()
        try:
            yield claim
        finally:
            claim.end()


def is_claimed(folder: Path) -> bool:
    """Whether a process holds the run's folder. Takes nothing."""
    try:
        with (folder / "claim").open("r+") as lock:
            return not _locks(lock) or _is_held_elsewhere(folder, lock)
    except FileNotFoundError:
        return False


def _locks(lock) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _takes(folder: Path, lock) -> bool:
    """Put this process's name into the folder, unless that of another machine's living process is there."""
    holder, name = folder / "holder", _name()
    try:
        with holder.open("x") as file:  # one alone succeeds, on network file systems, too
            file.write(name)
        return True
    except FileExistsError:
        pass
    if _is_held_elsewhere(folder, lock):
        return False
    # Of a process that died. On this machine the lock says so for sure; from another, several may come at once.
    elsewhere = not _is_of_this_machine(_read(holder))
    aside = folder / f"holder.{os.getpid()}.part"
    aside.write_text(name)
    aside.replace(holder)
    if elsewhere:
        time.sleep(SETTLE_SECONDS)
    return _read(holder) == name


def _is_held_elsewhere(folder: Path, lock) -> bool:
    holder = folder / "holder"
    if _is_of_this_machine(_read(holder)):
        return False
    try:
        # Both times are the file system's: the clocks of two machines need not agree.
        os.utime(lock.fileno())
        return os.fstat(lock.fileno()).st_mtime - holder.stat().st_mtime < HEARTBEAT_LIMIT
    except FileNotFoundError:
        return False


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
