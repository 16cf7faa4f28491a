"""Helpers of the readers: text lists, and errors that name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cskd.utils.errors import UserError

UNPACK_AGAIN = "unpack the official archive again"


@contextmanager
def reading_errors(path: Path, remedy: str = UNPACK_AGAIN) -> Iterator[None]:
    """Turn every exception while this file is read into a one-line UserError: it is missing, unreadable or damaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {remedy}") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    except Exception as error:  # a damaged pickle or .mat file makes its reader raise many kinds of exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): {remedy}") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, stripped, without empty ones. Raises UserError if it cannot be read."""
    with reading_errors(path):
        # Python reads file names with surrogateescape, so a name in any encoding finds its file.
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_table(path: Path, separator: str | None = None) -> dict[str, str]:
    """Return a text file of two columns as a mapping from the first to the second.

    separator: the text between the columns; None for any blanks. The second column includes further columns.
    Raises UserError, with the line, for a line of one column and for a repeated key.
    """
    table = {}
    for line in read_lines(path):
        key, *rest = line.split(separator, maxsplit=1)
        if not rest:
            raise UserError(f"{path}: {line!r} has one column, not two: {UNPACK_AGAIN}")
        if key in table:
            raise UserError(f"{path}: {key!r} is listed twice: {UNPACK_AGAIN}")
        table[key] = rest[0].strip()
    return table
