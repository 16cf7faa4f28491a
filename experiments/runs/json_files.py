"""JSON that carries a digest of itself, so that a changed number is noticed; without one it is taken as it is."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cskd.utils.files import atomic_write, write_errors
from cskd.utils.integrity import Damaged

DIGEST = "sha256"
LENGTH = 16  # hexadecimal digits
HEAD = f'{{"{DIGEST}": "'.encode()  # how a line with a digest begins


def write_checked(
    path: Path, content: dict[str, Any], durable: bool = True, before_replace: Callable[[], None] = lambda: None
) -> None:
    """Write JSON so that a reader sees the old or the new content; ``durable`` also survives a power cut.

    before_replace: as that of atomic_write.
    """
    text = _text(content)
    if durable:
        with atomic_write(path, before_replace=before_replace) as file:
            file.write(text)
    else:
        aside = path.with_name(path.name + ".part")
        with write_errors(path):
            before_replace()
            aside.write_bytes(text)
            aside.replace(path)


def overwrite_checked(path: Path, content: dict[str, Any]) -> None:
    """Over the old content, which takes no room on a full disk. Cut short by a crash it is damaged, and noticed."""
    with write_errors(path), path.open("r+b") as file:
        file.write(_text(content))
        file.truncate()


def read_checked(path: Path) -> dict[str, Any]:
    """What ``write_checked`` wrote. Raises Damaged, or OSError where there is nothing."""
    try:
        content = json.loads(path.read_bytes())
        digest = content.pop(DIGEST, None)
    except (ValueError, AttributeError, TypeError) as error:
        raise Damaged(f"{path} is damaged") from error
    if digest not in (None, _digest(_canonical(content))):
        raise Damaged(f"{path} is damaged")
    return content


def checked_line(content: dict[str, Any]) -> bytes:
    """A line of JSON whose first entry is the digest of all that follows it. Refuses NaN."""
    rest = b'", ' + json.dumps(content, allow_nan=False).encode()[1:]
    return HEAD + _digest(rest).encode() + rest + b"\n"


def parse_line(line: bytes) -> dict[str, Any] | None:
    """What ``checked_line`` was given; None for a damaged line."""
    start = len(HEAD)
    if line.startswith(HEAD) and line[start : start + LENGTH] != _digest(line[start + LENGTH :]).encode():
        return None
    try:
        content = json.loads(line)
        content.pop(DIGEST, None)
    except (ValueError, AttributeError, TypeError):
        return None
    return content


def _text(content: dict[str, Any]) -> bytes:
    """With its digest."""
    return json.dumps(content | {DIGEST: _digest(_canonical(content))}, indent=1, sort_keys=True).encode()


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:LENGTH]
