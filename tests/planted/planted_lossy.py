"""A third-party writer that always encodes at quality 60."""

from PIL import Image

requires = ("PIL",)
modes = ("jpeg",)
resumes = False


def write(source, out, encoding, workers):
    for index in range(len(source)):
        folder = out / f"{source.label(index):06d}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(source.pixels(index)).save(folder / f"{index:09d}.jpg", quality=60)


def payloads(out):
    for path in sorted(out.glob("*/*"), key=lambda path: path.stem):
        yield path.read_bytes()
