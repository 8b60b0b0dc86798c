"""A third-party writer that stores pixels at half the resolution."""

from planted_writer import payloads

__all__ = ["payloads"]
requires = ()
modes = ("raw",)
resumes = False


def write(source, out, encoding, workers):
    for index in range(len(source)):
        (out / f"{index:09d}.raw").write_bytes(source.pixels(index)[::2, ::2].tobytes())
