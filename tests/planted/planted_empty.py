"""A third-party writer that stores nothing."""

from planted_writer import payloads

__all__ = ["payloads"]
requires = ()
modes = ("raw",)
resumes = False


def write(source, out, encoding, workers):
    pass
