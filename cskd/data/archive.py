"""Archives, unpacked without trust: no path outside the folder, no link, no decompression bomb."""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cskd.data.folders import ProgressReport, gigabytes, no_report, require_free, storage_errors, temporary_folder
from cskd.utils.errors import UserError

BLOCK = 1 << 20
MAX_RATIO = 100  # unpacked to packed bytes: image archives have 1 to 2, a decompression bomb 1,000
BOMB_FROM = 1 << 28  # bytes; a large ratio is harmless below
MAX_NAME = 255  # bytes of a path in an archive
COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}  # by the first bytes of a file
# zipfile raises RuntimeError for an encrypted member and NotImplementedError for an unknown compression.
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
DOWNLOAD_AGAIN = "delete it, then the same command downloads it"
NOT_OFFICIAL = f"it is not the official archive: {DOWNLOAD_AGAIN}"


def unpack_or_copy(path: Path, folder: Path, report: ProgressReport = no_report) -> None:
    """Unpack an archive into ``folder``, or copy any other file, such as a text list, into it."""
    if path.suffix in (".tar", ".tgz", ".gz", ".zip"):
        unpack(path, folder, report)
        return
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.name)


def unpack(path: Path, folder: Path, report: ProgressReport = no_report) -> None:
    """Unpack a tar (plain, gz, bz2, xz) or zip file into ``folder``, which may have other content.

    Raises UserError, and leaves nothing behind, for: a member that is not a plain file or folder inside the folder,
    a repeated member, a damaged or truncated archive, a decompression bomb, a full disk. All links are rejected: no
    official archive has one.
    """
    with temporary_folder(folder.with_name(f"{folder.name}.{path.name}")) as new:
        try:
            with path.open("rb") as file:
                _extract(file, path, new, report)
        except OSError as error:
            if error.errno is not None:
                raise  # an error of the disk, not of the decompressor
            raise _damaged(path, error) from error
        except DAMAGE as error:
            raise _damaged(path, error) from error
        folder.mkdir(parents=True, exist_ok=True)
        for entry in sorted(new.iterdir()):
            if (folder / entry.name).exists():
                raise UserError(f"{path} has a second {entry.name}, {folder / entry.name} exists: {NOT_OFFICIAL}")
            entry.rename(folder / entry.name)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path} cannot be unpacked ({reason}): it is damaged or truncated: {DOWNLOAD_AGAIN}")


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive. size: bytes on the disk. plain: not a link or device."""

    name: str
    size: int
    plain: bool
    is_folder: bool
    open: Callable[[], BinaryIO]


def _extract(file: BinaryIO, path: Path, folder: Path, report: ProgressReport) -> None:
    """Write the members one by one, in one pass: a second pass over a compressed tar doubles the time.

    ``extract`` of tarfile and zipfile is not used: it also applies owners, permissions and links.
    """
    packed, total = path.stat().st_size, 0

    def count_bytes(size: int) -> None:
        """Count ``size`` bytes before they are written. Raises UserError for a decompression bomb or a full disk."""
        nonlocal total
        total += size
        if total > MAX_RATIO * packed and total > BOMB_FROM:
            raise UserError(f"{path} unpacks to more than {gigabytes(total)} from {gigabytes(packed)}: {NOT_OFFICIAL}")
        require_free(folder, size)

    members = _zip_members(file, folder) if path.suffix == ".zip" else _tar_members(file, count_bytes)
    for member in members:
        problem = _problem(member)
        if problem:
            raise UserError(f"{path} holds {member.name[:100]!r} {problem}: {NOT_OFFICIAL}")
        count_bytes(member.size)
        target = folder / member.name
        try:
            (target if member.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            if not member.is_folder:
                with member.open() as content, target.open("xb") as out:
                    shutil.copyfileobj(content, out, BLOCK)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise UserError(f"{path} holds {member.name!r} twice: {NOT_OFFICIAL}") from error
        report(f"unpack {path.name}", min(file.tell(), packed), packed)


def _problem(member: _Member) -> str | None:
    """Return why a member is rejected, or None."""
    name, parts = member.name, PurePosixPath(member.name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or not parts:
        return "with a path outside the folder"
    # Names in other encodings than UTF-8 are accepted: old archives have some.
    if len(os.fsencode(name)) > MAX_NAME or any(character < " " or character == "\x7f" for character in name):
        return "with an impossible name"
    return None if member.plain else "as a link or device"


def _zip_members(file: BinaryIO, folder: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        require_free(folder, sum(member.file_size for member in archive.infolist()))
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if the zip was made without Unix modes
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            yield _Member(member.filename, member.file_size, plain, member.is_dir(), partial(archive.open, member))


def _tar_members(file: BinaryIO, count_bytes: Callable[[int], None]) -> Iterator[_Member]:
    reader = _TarReader(_decompressed(file))
    with tarfile.open(fileobj=reader, mode="r:") as tar:
        for member in tar:
            if PurePosixPath(member.name) != PurePosixPath("."):  # `tar -c .` names the folder itself
                size = member.size + tarfile.BLOCKSIZE  # the header counts: a million empty files fill a disk, too
                plain = member.isreg() or member.isdir()
                yield _Member(member.name, size, plain, member.isdir(), partial(tar.extractfile, member))
        # tarfile takes a damaged or missing header for the end. A complete tar ends with a block of zeros.
        if reader.last != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a header is damaged or missing")
        # The decompressors compare their checksum only at the very end of the file.
        while rest := reader.read(BLOCK):
            count_bytes(len(rest))


def _decompressed(file: BinaryIO) -> BinaryIO:
    """Return the tar file inside a compressed file, or the file itself if it is not compressed."""
    start = file.read(max(map(len, COMPRESSIONS)))
    file.seek(0)
    return next((opener(file) for magic, opener in COMPRESSIONS.items() if start.startswith(magic)), file)


class _TarReader:
    """A tar file that is read in small pieces. Remembers the last piece."""

    def __init__(self, file: BinaryIO):
        self.file, self.last = file, b""
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if size > BLOCK:  # only a header asks for so much; file contents are read in blocks
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self.file.read(size)
        return self.last
