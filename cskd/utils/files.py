"""Files that are whole or not there."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cskd.utils.errors import UserError


class NoRoom(UserError):
    """The disk is full, or the user's share of it: what failed goes on when there is room."""


def is_no_room(error: BaseException) -> bool:
    return isinstance(error, NoRoom) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What a disk or a folder refuses becomes a UserError that names the path."""
    try:
        yield
    except OSError as error:
        kind = NoRoom if is_no_room(error) else UserError
        raise kind(f"{path} cannot be written ({error.strerror}): make room, or choose another folder") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time is past this, for the same path; the file itself stays empty."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def written_aside(
    path: Path, durable: bool = True, before_replace: Callable[[], None] = lambda: None
) -> Iterator[BinaryIO]:
    """``with written_aside(path) as file``: afterwards the path has the whole new content, or still the old.

    Written beside the path, flushed to the disk, then renamed. An exception leaves nothing behind.
    durable: False leaves the flushing to the system: after a power cut the file may be damaged. For what can be made
    again in a moment, since a flush may take longer than making it.
    before_replace: called right before the new content takes the place of the old; what it raises keeps the old.
    Raises UserError for a full disk and the like.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            with aside.open("wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            before_replace()
            aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
