"""Folders that are whole or not there, and one line for what a disk refuses."""

import errno
import fcntl
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cskd.utils.errors import UserError

# report(stage, done, total): bytes while downloading, checking and unpacking, images otherwise.
# total is None when it is not known.
Report = Callable[[str, int, int | None], None]


def silent(stage: str, done: int, total: int | None) -> None:
    """A report to nobody."""


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError about ``folder`` into a UserError of one line."""
    try:
        yield
    except OSError as error:
        path = error.filename or folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"no space left in {folder}: free some, or set DATA_DIR to a folder on a larger disk"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"no permission for {path}: make it writable, or set DATA_DIR to another folder"
        elif error.errno in (errno.EEXIST, errno.ENOTDIR):
            message = f"{path} is not a folder: move the file away, or set DATA_DIR to another folder"
        else:
            message = f"{path}: {error.strerror or error}: set DATA_DIR to a folder that works"
        raise UserError(message) from error


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """A fresh folder next to ``beside``, removed at the end with what is still in it."""
    folder = beside.with_name(f".{beside.name}.{os.getpid()}.part")
    with storage_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed and had the same number
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill; afterwards ``folder`` has the whole new content, or still the old.

    An exception leaves nothing behind. Who has files of the old folder mapped keeps them.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: move the file away")
    with temporary_folder(folder) as aside:
        yield aside
        for path in [*aside.rglob("*"), aside]:
            _sync(path)
        old = aside.with_suffix(".old")
        if folder.exists():
            folder.rename(old)
        try:
            aside.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have the disk hold a file's or a folder's content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove the temporary folders of ``name`` that killed processes left. Only under ``exclusive``.

    An old content that a process was killed over, between the two renames, is put back.
    """
    pattern = f".{glob.escape(name)}.*"
    for path in folder.glob(f"{pattern}.old"):
        if not (folder / name).exists():
            path.rename(folder / name)
    for suffix in ("part", "old"):
        for path in folder.glob(f"{pattern}.{suffix}"):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def exclusive(folder: Path, report: Report) -> Iterator[None]:
    """Let one process at a time work in ``folder``; the others wait. Nothing is left on the disk."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"wait for another process in {folder}", 0, None)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            # some network file systems have no locks: there, the user sees to it
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL):
                raise
        yield
    finally:
        os.close(descriptor)


def require_free(folder: Path, needed: int) -> None:
    """Raise UserError unless the disk of ``folder``, which need not exist yet, has ``needed`` bytes free."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"no space in {folder}: {gigabytes(needed)} are needed, {gigabytes(free)} are free: "
            "free some, or set DATA_DIR to a folder on a larger disk"
        )


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
