"""The base of all errors that the user can fix."""


class FixableError(Exception):
    """An error that the user can fix. Its message says what is wrong, where, and what to do.

    The command line prints the message without a traceback.
    """
