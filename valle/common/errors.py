"""The one exception for mistakes that the user can correct, and what to do where a package is missing."""


class UserError(Exception):
    """Something the user gave is wrong.

    The message is one line: what was wrong, in which file or option, and what to do.
    The command line prints it and exits with code 2; a library caller may catch it.
    """


def install_advice(extra: str) -> str:
    """How to install one of the extras of setup.cfg. valle is on no package index: what works is its own folder."""
    return f"in the folder that valle was cloned to: pip install '.[{extra}]'"
