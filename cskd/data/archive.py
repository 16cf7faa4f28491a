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
from collections.abc import Iterator
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
NOT_OFFICIAL = "it is not the official archive: delete it, then the same command downloads it"


def unpack_or_copy(path: Path, folder: Path, report: ProgressReport = no_report) -> None:
    """Unpack an archive into ``folder``, or copy any other file, such as a text list, into it."""
    if path.suffix in (".tar", ".tgz", ".gz", ".zip"):
        unpack(path, folder, report)
        return
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.name)


def unpack(path: Path, folder: Path, report: ProgressReport = no_report) -> None:
    """Unpack a tar (plain, gz, bz2, xz) or zip file into ``folder``, beside what is there.

    Raises UserError, and then leaves nothing behind, for: any member but a plain file or folder inside the folder,
    a repeated member, a damaged or truncated archive, a decompression bomb, a full disk. Links of any kind are
    refused, since no official archive has one.
    """
    with temporary_folder(folder.with_name(f"{folder.name}.{path.name}")) as new:
        try:
            with path.open("rb") as file:
                budget = _Budget(path, folder, path.stat().st_size)
                extract = _extract_zip if path.suffix == ".zip" else _extract_tar
                for done, total in extract(file, path, new, budget):
                    report(f"unpack {path.name}", done, total)
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
    return UserError(
        f"{path} cannot be unpacked ({reason}): it is damaged or truncated: "
        "delete it, then the same command downloads it"
    )


class _Budget:
    """Counts the bytes that an archive writes and stops a decompression bomb before they are written."""

    def __init__(self, path: Path, folder: Path, packed: int):
        self.path, self.folder, self.packed, self.total = path, folder, packed, 0

    def spend(self, size: int) -> None:
        self.total += size
        if self.total > MAX_RATIO * self.packed and self.total > BOMB_FROM:
            raise UserError(
                f"{self.path} unpacks to more than {gigabytes(self.total)} from {gigabytes(self.packed)}: "
                f"{NOT_OFFICIAL}"
            )
        require_free(self.folder.parent, size)


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or not parts:
        raise _refusal(path, name, "with a path outside the folder")
    # Names in other encodings than UTF-8 are accepted: old archives have some.
    if len(os.fsencode(name)) > MAX_NAME or any(character < " " or character == "\x7f" for character in name):
        raise _refusal(path, name, "with an impossible name")


def _make_folder(path: Path, name: str, folder: Path) -> None:
    """Create the folder of a member. Raises UserError if a file of the archive has its name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _refusal(path, name, "twice") from error


def _new_file(path: Path, name: str, folder: Path) -> BinaryIO:
    """A new file for a member. Raises UserError if it exists."""
    target = folder / name
    _make_folder(path, name, target.parent)
    try:
        return target.open("xb")
    except (FileExistsError, IsADirectoryError) as error:
        raise _refusal(path, name, "twice") from error


def _refusal(path: Path, name: str, reason: str) -> UserError:
    return UserError(f"{path} holds {name[:100]!r} {reason}: {NOT_OFFICIAL}")


def _extract_tar(file: BinaryIO, path: Path, folder: Path, budget: _Budget) -> Iterator[tuple[int, int]]:
    """Extract in one pass, since a second pass over a compressed tar doubles the time. Yields packed bytes read."""
    reader = _TarReader(_decompressed(file))
    with tarfile.open(fileobj=reader, mode="r:") as tar:
        for member in tar:
            if PurePosixPath(member.name) == PurePosixPath("."):
                continue  # `tar -c .` names the folder itself
            _check_name(path, member.name)
            if not member.isreg() and not member.isdir():
                raise _refusal(path, member.name, "as a link or device")
            budget.spend(member.size + tarfile.BLOCKSIZE)  # the header counts: a million empty files fill a disk, too
            # Not tar.extract, which also applies owners, permissions and links.
            if member.isdir():
                _make_folder(path, member.name, folder / member.name)
            else:
                with tar.extractfile(member) as content, _new_file(path, member.name, folder) as out:
                    shutil.copyfileobj(content, out, BLOCK)
            yield min(file.tell(), budget.packed), budget.packed
        # tarfile takes a damaged or missing header for the end. A complete tar ends with a block of zeros.
        if reader.last != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a header is damaged or missing")
        # The decompressors compare their checksum only at the very end of the file.
        while rest := reader.read(BLOCK):
            budget.spend(len(rest))


def _decompressed(file: BinaryIO) -> BinaryIO:
    """The tar file inside a compressed file of any kind; an uncompressed file itself."""
    start = file.read(max(map(len, COMPRESSIONS)))
    file.seek(0)
    return next((opener(file) for magic, opener in COMPRESSIONS.items() if start.startswith(magic)), file)


class _TarReader:
    """A tar file that is read in small pieces. Remembers the last piece."""

    def __init__(self, file: BinaryIO):
        self.file, self.last = file, b""
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if size > BLOCK:  # a header claims this size for itself; file contents are read by the block
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self.file.read(size)
        return self.last


def _extract_zip(file: BinaryIO, path: Path, folder: Path, budget: _Budget) -> Iterator[tuple[int, int]]:
    """Check all members, then extract them. Yields unpacked bytes written."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            _check_name(path, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if the zip was made without Unix modes
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(path, member.filename, "as a link or device")
            budget.spend(member.file_size)
        require_free(folder, budget.total)
        done = 0
        for member in members:
            if member.is_dir():
                _make_folder(path, member.filename, folder / member.filename)
            else:
                with archive.open(member) as content, _new_file(path, member.filename, folder) as out:
                    shutil.copyfileobj(content, out, BLOCK)
            done += member.file_size
            yield done, budget.total
