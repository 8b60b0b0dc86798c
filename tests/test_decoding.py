"""Image files of every format decode to RGB pixels; a file that does not decode has a reason."""

import fcntl
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from loaderbench.images import decoding
from loaderbench.images.decoding import Unreadable, decode
from tests import messy

UPRIGHT = [
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
]
"""How to turn an image upright, for the EXIF orientations from 2 on."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return messy.grow(tmp_path_factory.mktemp("tree") / "root")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deep/er/nested.png", messy.RGB),
        ("bitmap.bmp", messy.RGB),
        ("lossless.webp", messy.RGB),
        ("alpha.png", messy.RGB),
        ("rgb16.png", messy.RGB),
        ("animated.png", messy.RGB),
        ("palette.png", messy.RGB),
        ("grey.png", np.dstack([messy.GREY] * 3)),
        ("grey_alpha.png", np.dstack([messy.GREY] * 3)),
        ("grey16.png", np.dstack([messy.GREY] * 3)),
        ("grey16.pgm", np.dstack([messy.GREY] * 3)),
        ("one_bit.png", np.dstack([np.where(messy.GREY > 99, 255, 0)] * 3)),
    ],
)
def test_lossless_formats_decode_to_their_exact_pixels(root, name, expected):
    pixels, _ = decode(root / "cats" / name)
    tolerance = 12 if name == "palette.png" else 0  # its colours are rounded to 256
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), expected.astype(int), atol=tolerance)


@pytest.mark.parametrize("name", ["plain.jpg", "UPPER.JPG", "mixed.JpEg", "grey.jpg", "cmyk.jpg"])
def test_jpegs_decode_to_nearly_their_pixels(root, name):
    expected = np.dstack([messy.GREY] * 3) if name == "grey.jpg" else messy.RGB
    assert np.abs(decode(root / "cats" / name)[0].astype(int) - expected).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decoding_applies_the_exif_orientation(tmp_path, orientation):
    image, exif = Image.fromarray(messy.RGB), Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "tif"):
        image.save(tmp_path / f"turned.{suffix}", exif=exif)
    expected = image.transpose(UPRIGHT[orientation - 2]) if orientation > 1 else image
    assert np.array_equal(decode(tmp_path / "turned.png")[0], expected)
    assert np.array_equal(decode(tmp_path / "turned.tif")[0], expected)


def test_a_rotated_jpeg_decodes_to_the_rotated_pixels(tmp_path):
    image, exif = Image.fromarray(messy.RGB), Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right
    image.save(tmp_path / "flat.jpg")
    image.save(tmp_path / "upright.jpg", exif=exif)
    assert np.array_equal(decode(tmp_path / "upright.jpg")[0], np.rot90(decode(tmp_path / "flat.jpg")[0], -1))


def test_an_image_with_damaged_exif_is_readable(tmp_path):
    Image.fromarray(messy.RGB).save(tmp_path / "1.png", exif=b"Exif\0\0no TIFF header")
    assert np.array_equal(decode(tmp_path / "1.png")[0], messy.RGB)


def png_of_size(width, height):
    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def encoded(format_, **options):
    stream = io.BytesIO()
    Image.fromarray(messy.RGB).save(stream, format_, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image that can be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image that can be decoded"),
        (b"\xff\xd8\xff", "not an image that can be decoded"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "a pointer of Git LFS .* git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page or other text .* download it again"),
        (b"II*\0\x08\0\0\0", "a TIFF that Pillow cannot decode, such as one of many bands; convert it"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image; convert it"),
        (encoded("JPEG")[:-50], "^image file is truncated"),
        (encoded("PNG")[:-50], "^image file is truncated"),
        (encoded("WEBP")[:-50], "^could not create decoder object"),
        (encoded("TIFF")[:-50], "^image file is truncated"),
        (png_of_size(30_000, 30_000), "decompression bomb"),
    ],
    ids=["empty", "postscript", "header", "lfs", "html", "bands", "heic", "jpeg", "png", "webp", "tiff", "bomb"],
)
def test_a_decoding_error_is_one_line_and_libraries_print_nothing(tmp_path, capfd, content, reason):
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(Unreadable, match=reason) as error:
        decode(tmp_path / "bad.jpg")
    assert "\n" not in str(error.value)
    assert "bad.jpg" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_large_image_decodes_without_a_warning(tmp_path, recwarn, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", messy.GREY.size - 1)
    (tmp_path / "large.png").write_bytes(encoded("PNG"))
    assert decode(tmp_path / "large.png")[0].shape == messy.RGB.shape
    assert not recwarn.list


def test_an_image_that_needs_more_than_half_of_the_memory_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_memory_bytes", lambda: 4 << 30)
    (tmp_path / "huge.png").write_bytes(png_of_size(13_300, 13_300))
    with pytest.raises(Unreadable, match=r"^13300 x 13300 pixels need about 2.6 GiB of memory, more than half"):
        decode(tmp_path / "huge.png")


@pytest.mark.parametrize(("times", "is_alone"), [(6, False), (5, True)])
def test_an_image_above_its_share_of_the_memory_is_decoded_alone(tmp_path, monkeypatch, times, is_alone):
    (tmp_path / "1.png").write_bytes(encoded("PNG"))
    locked = []
    monkeypatch.setattr(fcntl, "flock", lambda *_: locked.append(True))
    monkeypatch.setattr(decoding, "core_count", lambda: 3)
    monkeypatch.setattr(decoding, "_memory_bytes", lambda: times * 16 * messy.GREY.size)
    decode(tmp_path / "1.png")
    assert bool(locked) == is_alone


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(Unreadable, match=r"^no such file or directory$"):
        decode(tmp_path / "gone.jpg")


@pytest.mark.parametrize("what", ["text", "icc_profile"])
def test_png_with_much_metadata_is_sound(tmp_path, what):
    text = PngImagePlugin.PngInfo()
    text.add_text("notes", "x" * (2 << 20), zip=True)
    options = {"pnginfo": text} if what == "text" else {"icc_profile": bytes(2 << 20)}
    Image.fromarray(messy.RGB).save(tmp_path / "1.png", **options)
    assert np.array_equal(decode(tmp_path / "1.png")[0], messy.RGB)
