"""Folders that are written completely or not at all, and one-line errors about the disk."""

import errno
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cskd.utils.errors import UserError

# report(stage, done, total): bytes during download, check and unpack; images otherwise.
# total is None if it is unknown.
ProgressReport = Callable[[str, int, int | None], None]


def no_report(stage: str, done: int, total: int | None) -> None:
    """A progress report that prints nothing."""


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError in the block into a one-line UserError. folder: named if the error names no file."""
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
            message = f"{path}: {error.strerror or error}: set DATA_DIR to another folder"
        raise UserError(message) from error


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Yield a new empty folder next to ``beside``; remove it with its content on exit."""
    folder = beside.with_name(f".{beside.name}.{os.getpid()}.part")
    with storage_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process that had the same process id
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces ``folder`` on exit. After an exception ``folder`` is unchanged.

    Processes that have mapped files of the old folder can still read them.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: move the file away")
    with temporary_folder(folder) as new:
        yield new
        for path in [*new.rglob("*"), new]:
            flush(path)
        old = new.with_suffix(".old")
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
        flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until the disk has the content of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leftovers(folder: Path, name: str) -> list[Path]:
    """Return the temporary folders of ``name`` from running or killed processes."""
    return [path for path in folder.glob(f".{glob.escape(name)}.*") if path.suffix in (".part", ".old")]


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove the temporary folders of ``name`` from killed processes. Call it only while holding the lock.

    If a process was killed between the two renames of ``replaced_folder``, the old content is restored.
    """
    for path in leftovers(folder, name):
        if path.suffix == ".old" and not (folder / name).exists():
            path.rename(folder / name)
        else:
            shutil.rmtree(path, ignore_errors=True)


def require_free(folder: Path, needed: int) -> None:
    """Raise UserError unless the disk of ``folder``, which need not exist yet, has ``needed`` bytes free."""
    free = free_bytes(folder)
    if free < needed:
        raise UserError(
            f"no space in {folder}: {gigabytes(needed)} are needed, {gigabytes(free)} are free: "
            "free some, or set DATA_DIR to a folder on a larger disk"
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
