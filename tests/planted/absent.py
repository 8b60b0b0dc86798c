"""A loader whose library nobody has."""

requires = ("no_such_library",)
reads = ("imagefolder",)


def stream(artifact, work):
    raise NotImplementedError
