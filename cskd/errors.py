"""The one exception for what a user can cause and can mend."""


class UserError(Exception):
    """Something the user can mend: the message is one line that says what, where and what to do.

    Every command prints it as ``error: ...`` without a traceback and exits with status 2.
    """


def first_line(error: BaseException, width: int = 200) -> str:
    """What an exception says, cut to one line of at most ``width`` characters; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:width] if lines else type(error).__name__
