"""A third-party writer that stores darker pixels."""

requires = ()
modes = ("raw",)
resumes = False


def write(source, out, encoding, workers):
    for index in range(len(source)):
        (out / f"{index:09d}.raw").write_bytes((source.pixels(index) // 2).tobytes())


def payloads(out):
    for path in sorted(out.iterdir()):
        yield path.read_bytes()
