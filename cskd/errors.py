"""The one exception for what a user can cause and can mend."""


class UserError(Exception):
    """Something the user can mend: the message is one line that says what, where and what to do.

    Every command prints it as ``error: ...`` without a traceback and exits with status 2.
    """
