"""Archives that carry a digest of themselves, so that damage is noticed wherever they have been copied to.

What ``torch.save`` and ``np.savez`` write is a zip archive, and its comment is free: it takes the SHA-256 of all that
stands before it. The checksums that the format has leave out its headers.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cskd.utils.files import atomic_write

MARK = b"sha256:"
LENGTH = len(MARK) + 64
END_RECORD = 22  # bytes at the end of a zip archive; the last two are the length of the comment after them


class Damaged(ValueError):
    """A file that is not as it was written."""


def write_sealed(
    path: Path,
    write: Callable[[BinaryIO], None],
    durable: bool = True,
    before_replace: Callable[[], None] = lambda: None,
) -> None:
    """Whole or not at all. write: writes the archive into the file that it is given. The rest as atomic_write."""
    # By way of memory: torch.save would turn a full disk into an error of its own that names no cause.
    content = io.BytesIO()
    write(content)
    content.seek(-2, io.SEEK_END)
    content.write(LENGTH.to_bytes(2, "little"))  # of the comment
    content.write(MARK + hashlib.sha256(content.getbuffer()).hexdigest().encode())
    with atomic_write(path, durable, before_replace) as file:
        file.write(content.getbuffer())


def read_sealed(path: Path) -> io.BytesIO:
    """The archive's content, to be loaded from. Raises Damaged, or OSError where there is none.

    Archives without a seal, as earlier versions wrote them, are held against their own checksums.
    """
    content = path.read_bytes()
    body, seal = memoryview(content)[:-LENGTH], content[-LENGTH:]
    if seal.startswith(MARK):
        whole = hashlib.sha256(body).hexdigest().encode() == seal.removeprefix(MARK)
    else:
        whole = _passes_its_checksums(content)
    if not whole:
        raise Damaged(f"{path} is damaged")
    return io.BytesIO(content)


def is_whole(path: Path) -> bool:
    """Whether the file is there and not damaged."""
    try:
        read_sealed(path)
    except (FileNotFoundError, NotADirectoryError, Damaged):
        return False
    return True


def _passes_its_checksums(content: bytes) -> bool:
    # Python opens an archive whose comment is cut short, or is no seal any more: that one is damaged, if only there.
    if not (content[-END_RECORD:].startswith(b"PK\5\6") and content.endswith(b"\0\0")):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged header makes zipfile raise whatever it leads to
        return False
