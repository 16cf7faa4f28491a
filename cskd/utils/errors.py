"""The exception for errors that the user can fix, and helpers that shorten messages."""

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix. The message is one line: what is wrong, where, what to do.

    Every command prints it as ``error: ...`` without a traceback and exits with status 2.
    """


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "did you mean <the nearest name>? ", or "" if no name is near."""
    nearest = difflib.get_close_matches(name, list(names), 1)
    return f"did you mean {nearest[0]}? " if nearest else ""


def check_choice(kind: str, name: str, names) -> str:
    """Return ``name`` if it is one of ``names``; otherwise raise a UserError that lists them."""
    if name not in names:
        raise UserError(f"unknown {kind} {name!r}: {did_you_mean(name, names)}choose from {', '.join(sorted(names))}")
    return name


def one_line(text: object) -> str:
    """Return the text as one line: line breaks and other control characters are escaped."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def first_line(error: BaseException, width: int = 200) -> str:
    """Return the first line of an exception's message, at most ``width`` characters; its type if the message is empty.

    Passwords are hidden: messages of database libraries often contain the URL.
    """
    lines = without_password(str(error)).strip().splitlines()
    return lines[0][:width] if lines else type(error).__name__


def root_cause(error: BaseException, width: int = 500) -> str:
    """Return one line about the exception that ``error`` was made from: its type, and the first line of its message.

    The original is the first cause of a chain, or stands in a traceback inside the message: processes of a pool send
    their exceptions as text. Of a UserError, the message alone is returned, since it explains the cause.
    """
    while error.__cause__ is not None and not isinstance(error, UserError):
        error = error.__cause__
    if isinstance(error, UserError):
        return first_line(error, width)
    # The first line of a traceback that is not indented is its exception.
    trace = str(error).partition("Traceback (most recent call last):\n")[2]
    original = next((line for line in trace.splitlines() if line and not line.startswith(" ")), "")
    return without_password(original)[:width] or f"{type(error).__name__}: {first_line(error, width)}"


def is_s3_error(error: Exception) -> bool:
    """Return whether S3 cannot be used: its client is not installed, or raised the exception. They have no base."""
    return isinstance(error, ImportError) or type(error).__module__.partition(".")[0] in ("boto3", "botocore")


def without_password(text: str) -> str:
    """Return the text with the passwords of all URLs replaced by ``***``."""
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", re.sub(r"//[^/\s]*@", "//***@", text))
