"""The one exception for what a user can cause and can mend."""

import re


class UserError(Exception):
    """Something the user can mend: the message is one line that says what, where and what to do.

    Every command prints it as ``error: ...`` without a traceback and exits with status 2.
    """


def one_line(text: object) -> str:
    """A text as one line that a terminal only shows: line ends and other control characters are written out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def first_line(error: BaseException, width: int = 200) -> str:
    """What an exception says, cut to one line of at most ``width`` characters; its type if it says nothing.

    Without passwords: what libraries throw often names the address that they were given.
    """
    lines = without_password(str(error)).strip().splitlines()
    return lines[0][:width] if lines else type(error).__name__


def without_password(text: str) -> str:
    """A text with addresses, as it may be shown."""
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", re.sub(r"//[^/\s]*@", "//***@", text))
