"""Archives: downloaded with resumption, verified, unpacked without trust."""

import bz2
import gzip
import hashlib
import http.client
import lzma
import os
import shutil
import stat
import struct
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cskd.data.workspace import (
    Report,
    gigabytes,
    require_free,
    silent,
    storage_errors,
    temporary_folder,
)
from cskd.utils.errors import UserError

BLOCK = 1 << 20
TIMEOUT_S = 30
ATTEMPTS = 4
BACKOFF_S = 0.5  # before the second attempt; doubled before each further one
MAX_RATIO = 100  # unpacked to packed bytes: image archives have 1 to 2, a decompression bomb 1,000
BOMB_FROM = 1 << 28  # bytes: below, a large ratio does no harm
MAX_NAME = 255  # bytes of a path within an archive
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}  # by how such a file begins
# RuntimeError is what zipfile says of an encrypted member, NotImplementedError of an unknown compression
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
)
TRANSIENT_STATUS = (408, 416, 429)  # and every 5xx; 416 once the useless part is gone


@dataclass(frozen=True)
class Archive:
    """One official file.

    checksum: ``md5:...``, ``sha1:...`` or ``sha256:...``, in hexadecimal; None where nobody publishes one.
    """

    url: str
    filename: str
    checksum: str | None = None

    @property
    def algorithm(self) -> str | None:
        return self.checksum and self.checksum.partition(":")[0]

    def by_hand(self, folder: Path) -> str:
        """What a user without a connection does."""
        check = f" ({self.checksum.replace(':', ' ')})" if self.checksum else ""
        return f"get {self.url} by other means and put it in {folder} as {self.filename}{check}"


class _FailedAttemptError(Exception):
    """A download stopped for a reason that may pass."""


def download(archive: Archive, folder: Path, report: Report | None = None) -> Path:
    """Get an archive into ``folder``; an interrupted download goes on from its ``.part`` file.

    Raises UserError with the address, file name, folder and checksum when it cannot be had.
    """
    report = report or silent
    part = folder / f"{archive.filename}.part"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))
        resumed = part.exists()
        try:
            _fetch(archive, part, report)
        except _FailedAttemptError as error:
            reason = str(error)
            continue
        found = _checksum(part, archive, report)
        if found == archive.checksum:
            with storage_errors(folder):
                return part.replace(folder / archive.filename)
        part.unlink()
        reason = f"it has {(found or '').replace(':', ' ')}"
        if not resumed:  # the old part may have been at fault; a whole new copy is as the server has it
            break
    raise UserError(f"{archive.filename} could not be downloaded ({reason}): {archive.by_hand(folder)}")


def _fetch(archive: Archive, part: Path, report: Report) -> None:
    """Bring the ``.part`` file to its full length, from where it ends."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(archive.url, headers={"User-Agent": "cskd"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            # 206 sends the rest, from where it was asked for; a server without ranges sends all, with 200
            resumes = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
            if response.status != http.HTTPStatus.PARTIAL_CONTENT or not resumes:
                done = 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length and length.isdigit() else None
            require_free(part.parent, (total or done) - done)
            for reached in _append(response, part, done):
                done = reached
                report(f"download {archive.filename}", done, total)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            if error.headers.get("Content-Range") == f"bytes */{done}":
                return  # nothing is left to send: the part is whole
            part.unlink()
        reason = f"HTTP {error.code} {error.reason}"
        if error.code in TRANSIENT_STATUS or error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _FailedAttemptError(reason) from error
        raise UserError(
            f"{archive.filename} could not be downloaded ({reason}): {archive.by_hand(part.parent)}"
        ) from error
    except (OSError, http.client.HTTPException) as error:  # URLError and every socket error are OSErrors
        raise _FailedAttemptError(" ".join(str(getattr(error, "reason", error)).split())) from error
    # a connection that closes early is an ordinary end of file to http.client
    if total is not None and done != total:
        raise _FailedAttemptError(f"the connection closed after {done:,} of {total:,} bytes")


def _append(response: http.client.HTTPResponse, part: Path, done: int) -> Iterator[int]:
    """Write what comes to the part, after its first ``done`` bytes; yields the length reached."""
    with storage_errors(part.parent):
        file = part.open("r+b" if done else "wb")
    with file:
        file.seek(done)
        yield done
        while block := response.read(BLOCK):
            with storage_errors(part.parent):
                file.write(block)
                file.flush()
            done += len(block)
            yield done


def verify(path: Path, archive: Archive, report: Report | None = None) -> None:
    """Raise UserError unless the file has the archive's checksum; without a published one all is well."""
    found = _checksum(path, archive, report or silent)
    if found != archive.checksum:
        expected = archive.checksum.replace(":", " ")
        raise UserError(
            f"{path} has {found.replace(':', ' ')}, not {expected}: it is damaged or another file; "
            f"delete it to have {archive.url} downloaded"
        )


def _checksum(path: Path, archive: Archive, report: Report) -> str | None:
    """The file's checksum, in the form and by the algorithm of the archive's."""
    if archive.checksum is None:
        return None
    digest = hashlib.new(archive.algorithm, usedforsecurity=False)
    with storage_errors(path), path.open("rb") as file:
        total, done = path.stat().st_size, 0
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            report(f"check {archive.filename}", done, total)
    return f"{archive.algorithm}:{digest.hexdigest()}"


def unpack(path: Path, into: Path, report: Report | None = None) -> None:
    """Unpack a tar (plain, gz, bz2, xz) or zip file; its top-level entries come to lie in ``into``.

    Raises UserError for anything but plain files and folders with paths inside, each once, for an archive that
    is damaged, truncated or grows beyond reason, and for a disk without space; then nothing is left behind.
    No link of any kind is taken: no official archive has one.
    """
    report = report or silent
    with temporary_folder(into.with_name(f"{into.name}.{path.name}")) as aside:
        try:
            with path.open("rb") as file:
                budget = _Budget(path, into, path.stat().st_size)
                extract = _extract_zip if path.suffix == ".zip" else _extract_tar
                for done, total in extract(file, path, aside, budget):
                    report(f"unpack {path.name}", done, total)
        except OSError as error:
            if error.errno is not None:
                raise  # the disk's, not the decompressor's
            raise _damaged(path, error) from error
        except DAMAGE as error:
            raise _damaged(path, error) from error
        into.mkdir(parents=True, exist_ok=True)
        for entry in sorted(aside.iterdir()):
            if (into / entry.name).exists():
                raise UserError(f"{path} has a second {entry.name}: {into / entry.name} is there already")
            entry.rename(into / entry.name)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path} cannot be unpacked ({reason}): it is damaged or truncated; get it again")


class _Budget:
    """Adds up what an archive wants to write, and refuses a decompression bomb before it is written."""

    def __init__(self, path: Path, into: Path, packed: int):
        self.path, self.into, self.packed, self.total = path, into, packed, 0

    def spend(self, size: int) -> None:
        self.total += size
        if self.total > MAX_RATIO * self.packed and self.total > BOMB_FROM:
            raise UserError(
                f"{self.path} unpacks to more than {gigabytes(self.total)} from {gigabytes(self.packed)}: "
                "it is not the official archive"
            )
        require_free(self.into.parent, size)


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or not parts:
        raise UserError(f"{path} holds {name!r}, a path outside the folder: it is not the official archive")
    # names in another encoding than UTF-8 are taken: old archives have some
    if len(os.fsencode(name)) > MAX_NAME or any(character < " " or character == "\x7f" for character in name):
        raise UserError(f"{path} holds {name[:100]!r}, no name of an image: it is not the official archive")


def _make_folder(path: Path, name: str, folder: Path) -> None:
    """Make the folder of a member, unless one of the archive's files has that name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _twice(path, name) from error


def _new_file(path: Path, name: str, into: Path) -> BinaryIO:
    """A file of an archive, to be written; UserError for one that is there already."""
    target = into / name
    _make_folder(path, name, target.parent)
    try:
        return target.open("xb")
    except (FileExistsError, IsADirectoryError) as error:
        raise _twice(path, name) from error


def _twice(path: Path, name: str) -> UserError:
    return UserError(f"{path} holds {name!r} twice: it is not the official archive")


def _refuse(path: Path, name: str) -> UserError:
    return UserError(f"{path} holds {name!r}, a link or device: it is not the official archive")


def _extract_tar(file, path: Path, into: Path, budget: _Budget) -> Iterator[tuple[int, int]]:
    """One pass, as reading a compressed tar twice would take twice the time. Yields packed bytes read."""
    reader = _Reader(_decompressed(file))
    with tarfile.open(fileobj=reader, mode="r:") as tar:
        for member in tar:
            if PurePosixPath(member.name) == PurePosixPath("."):
                continue  # `tar -c .` names the folder itself
            _check_name(path, member.name)
            if not member.isreg() and not member.isdir():
                raise _refuse(path, member.name)
            budget.spend(member.size + tarfile.BLOCKSIZE)  # a million empty files fill a disk, too
            # by hand: links do not exist here, and owners and permissions are not taken
            if member.isdir():
                _make_folder(path, member.name, into / member.name)
            else:
                with tar.extractfile(member) as content, _new_file(path, member.name, into) as out:
                    shutil.copyfileobj(content, out, BLOCK)
            yield min(file.tell(), budget.packed), budget.packed
        # tarfile takes a damaged or missing header for the end, and compares a compressed file's own checksum
        # only at its very end
        if reader.last != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a header is damaged or missing")
        while rest := reader.read(BLOCK):
            budget.spend(len(rest))


def _decompressed(file: BinaryIO) -> BinaryIO:
    """The tar in a file, whatever it is compressed with."""
    start = file.read(max(map(len, COMPRESSED)))
    file.seek(0)
    return next((opened(file) for magic, opened in COMPRESSED.items() if start.startswith(magic)), file)


class _Reader:
    """A tar file that is read in small pieces, and remembers the last one."""

    def __init__(self, file: BinaryIO):
        self.file, self.last = file, b""
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if size > BLOCK:  # what a header says of itself; a file's content is read by the block
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self.file.read(size)
        return self.last


def _extract_zip(file, path: Path, into: Path, budget: _Budget) -> Iterator[tuple[int, int]]:
    """Yields unpacked bytes written."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            _check_name(path, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the zip was made without Unix modes
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refuse(path, member.filename)
            budget.spend(member.file_size)
        require_free(into, budget.total)
        done = 0
        for member in members:
            if member.is_dir():
                _make_folder(path, member.filename, into / member.filename)
            else:
                with archive.open(member) as content, _new_file(path, member.filename, into) as out:
                    shutil.copyfileobj(content, out, BLOCK)
            done += member.file_size
            yield done, budget.total


def place(path: Path, into: Path, report: Report | None = None) -> None:
    """Unpack an archive into ``into``; a file of another kind, such as a list, is copied there."""
    if path.suffix in (".tar", ".tgz", ".gz", ".zip"):
        unpack(path, into, report)
        return
    with storage_errors(into):
        into.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, into / path.name)
