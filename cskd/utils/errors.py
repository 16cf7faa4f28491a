"""The exception for errors that the user can fix, and helpers that shorten messages."""

import re


class UserError(Exception):
    """An error that the user can fix. The message is one line: what is wrong, where, what to do.

    Every command prints it as ``error: ...`` without a traceback and exits with status 2.
    """


def one_line(text: object) -> str:
    """Return the text as one line: line breaks and other control characters are escaped."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def first_line(error: BaseException, width: int = 200) -> str:
    """Return the first line of an exception's message, at most ``width`` characters; its type if the message is empty.

    Passwords are hidden: messages of database libraries often contain the URL.
    """
    lines = without_password(str(error)).strip().splitlines()
    return lines[0][:width] if lines else type(error).__name__


def without_password(text: str) -> str:
    """Return the text with the passwords of all URLs replaced by ``***``."""
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", re.sub(r"//[^/\s]*@", "//***@", text))
