"""Integrity of files: JSON that parses, archives whose CRCs match, checksums of a finished run, digests of code."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from cskd.utils.files import atomic_write

CHECKSUMS = "SHA256SUMS"  # `sha256sum -c SHA256SUMS` checks a folder by hand


class Damaged(ValueError):
    """The content of a file is not what was written."""


def write_json(
    path: Path, content: dict[str, Any], durable: bool = True, before_replace: Callable[[], None] = lambda: None
) -> None:
    """Write a JSON file atomically; the options are those of ``atomic_write``. Raises ValueError for NaN."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    with atomic_write(path, durable, before_replace) as file:
        file.write(text.encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises Damaged if it does not parse, OSError if it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged") from error
    if not isinstance(content, dict):
        raise Damaged(f"{path} is damaged")
    return content


def write_archive(
    path: Path,
    write: Callable[[BinaryIO], None],
    durable: bool = True,
    before_replace: Callable[[], None] = lambda: None,
) -> None:
    """Write a zip archive (npz, torch.save) atomically.

    Args:
        write: writes the archive to the file object that it receives.
        durable, before_replace: as in ``atomic_write``.
    """
    # In memory first: torch.save hides the cause when the disk is full.
    content = io.BytesIO()
    write(content)
    with atomic_write(path, durable, before_replace) as file:
        file.write(content.getbuffer())


def read_archive(path: Path) -> io.BytesIO:
    """Return the bytes of a zip archive whose CRCs match. Raises Damaged, or OSError if it cannot be read."""
    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            intact = archive.testzip() is None
    except Exception:  # a damaged header makes zipfile raise many kinds of exception
        intact = False
    if not intact:
        raise Damaged(f"{path} is damaged")
    content.seek(0)
    return content


def archive_checksums(path: Path) -> str:
    """Return the names, sizes and CRCs of an archive's members, which identify its content; "" for an invalid file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return " ".join(f"{part.filename}:{part.file_size}:{part.CRC:08x}" for part in archive.infolist())
    except Exception:  # zipfile raises many types for a damaged header
        return ""


def source_digest(root: Path, patterns: Iterable[str]) -> str:
    """Return a hash of the paths and contents of the files below ``root`` that match a pattern."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def write_checksums(folder: Path, names: Iterable[str], before_replace: Callable[[], None] = lambda: None) -> None:
    """Write the SHA-256 of these files of a folder into its SHA256SUMS."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names]
    with atomic_write(folder / CHECKSUMS, before_replace=before_replace) as file:
        file.write("".join(lines).encode())


def find_damage(folder: Path, removable: Iterable[str] = ()) -> str | None:
    """Return the name of a file that differs from the folder's SHA256SUMS, or None.

    Args:
        removable: names of files that a user may delete.
    """
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
        expected = dict(reversed(line.split("  ")) for line in lines)
    except ValueError:
        return CHECKSUMS
    for name, checksum in expected.items():
        file = folder / name
        if not file.exists():
            if name not in removable:
                return name
        elif _sha256(file) != checksum:
            return name
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
