"""The one exception for mistakes that the user can correct."""


class UserError(Exception):
    """Something the user gave is wrong.

    The message is one line: what was wrong, in which file or option, and what to do.
    The command line prints it and exits with code 2; a library caller may catch it.
    """
