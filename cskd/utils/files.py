"""Atomic writes, exclusive sections, and write errors that name the path."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from cskd.utils.errors import UserError


class DiskFull(UserError):
    """The disk or the user's quota is full. The command can be repeated when there is space."""


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a UserError that names the path, or into DiskFull."""
    try:
        yield
    except OSError as error:
        kind = DiskFull if is_disk_full(error) else UserError
        raise kind(f"{path} cannot be written ({error.strerror}): make room, or choose another folder") from error


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Run the block in one process (and thread) at a time per path; the others wait. The file at ``path`` stays empty.

    on_wait: called once if another process holds the lock. Raises UserError if the file cannot be created or locked.
    """
    lock = FileLock(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            on_wait()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_write(
    path: Path, durable: bool = True, before_replace: Callable[[], None] = lambda: None
) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces ``path`` at the end of the block; an exception leaves ``path`` unchanged.

    Args:
        durable: flush the file to the disk before the replacement. Pass False for files that are quickly made again:
            after a power failure the file may be damaged, but the write is faster.
        before_replace: called directly before the replacement; an exception from it cancels the replacement.

    Raises:
        UserError: the file cannot be written; DiskFull if there is no space.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with write_errors(path):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            before_replace()
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
