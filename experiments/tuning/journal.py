"""The lock of the studies' journal file, for Optuna. It ends with the process that holds it, however that ends."""

import fcntl
import os
from pathlib import Path

from optuna.storages.journal import JournalFileBackend


def journal(path: Path) -> JournalFileBackend:
    """The journal file at ``path``, which is made if it is not there."""
    return JournalFileBackend(str(path), lock_obj=JournalLock(path))


class JournalLock:
    """Optuna's own locks are files: one that a killed process leaves stops every other process for half a minute.

    This one is the kernel's. Whoever has it first takes away half a line that a dead writer has left: the next line
    would be appended to it, and neither could be read again.
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self.descriptor = os.open(f"{self.path}.held", os.O_RDWR | os.O_CREAT)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self._drop_half_a_line()
        return True

    def release(self) -> None:
        os.close(self.descriptor)
        self.descriptor = None

    def _drop_half_a_line(self) -> None:
        with self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            end = size
            while end > 0:  # almost always once
                start = max(0, end - 2**16)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end < size:
                file.truncate(end)
