"""A loader whose library nobody has."""

requires = ("no_such_library",)
reads = ("imagefolder",)
streams = False


def stream(artifact, work):
    raise NotImplementedError
