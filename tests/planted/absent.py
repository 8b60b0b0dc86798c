"""A third-party loader whose library does not exist."""

requires = ("no_such_library",)
reads = ("imagefolder",)
streams = False


def stream(artifact, work):
    raise NotImplementedError
