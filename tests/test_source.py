import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loaderbench.images import SourceError
from loaderbench.images.decoding import Unreadable, decode
from loaderbench.images.tree import scan
from loaderbench.machine.text import printable
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


@pytest.fixture(scope="module")
def tree(root):
    return scan(root)


def plant(root, *names, content=b"x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def reasons(tree):
    return {entry.path: entry.reason for entry in tree.skipped}


def noted(tree, text):
    return any(text in note for note in tree.notes)


def test_classes_are_the_sorted_first_level_folders_that_hold_images(tree):
    assert tree.classes == ("cats", "dogs")
    assert noted(tree, "1 class folders without images are skipped: birds")


def test_files_at_any_depth_have_the_class_of_their_first_level_folder(tree):
    label = tree.labels[tree.paths.index("cats/deep/er/nested.png")]
    assert tree.classes[label] == "cats"


def test_extensions_count_in_any_case(tree):
    assert {"cats/UPPER.JPG", "cats/mixed.JpEg"} <= set(tree.paths)


def test_links_to_files_and_folders_are_followed(tree):
    assert {"dogs/linked.jpg", "dogs/linked_folder/far.jpg"} <= set(tree.paths)


def test_entries_that_are_no_readable_file_are_listed_with_their_reason(tree):
    assert reasons(tree) == {
        "dogs/dangling.jpg": "dangling link",
        "dogs/empty.jpg": "empty file",
        "dogs/loop": "link loop",
        "dogs/pipe.jpg": "not a regular file",
        "dogs/self.jpg": "link loop",
    }


def test_a_link_to_a_folder_above_the_tree_is_a_loop(tmp_path):
    root = plant(tmp_path / "root", "a/1.jpg")
    (root / "a" / "up").symlink_to(tmp_path.parent)
    assert reasons(scan(root)) == {"a/up": "link loop"}


def test_links_between_classes_end(tmp_path):
    root = plant(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    (root / "a" / "b").symlink_to("../b")
    (root / "b" / "a").symlink_to("../a")
    tree = scan(root)
    assert tree.paths == ("a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg")
    assert list(reasons(tree)) == ["a/b/a", "b/a/b"]


def test_hidden_entries_are_ignored(tree, tmp_path):
    assert not any("/." in path for path in tree.paths)
    assert scan(plant(tmp_path, "a/1.jpg", ".cache/2.jpg")).classes == ("a",)


def test_files_that_are_no_images_by_name_are_counted(tree):
    assert noted(tree, "2 files that are not images by name (.json 1, .txt 1) are ignored")


def test_names_that_are_not_utf_8_survive_and_can_be_printed(tree, root):
    path = f"dogs/{messy.LATIN1_NAME}"
    assert path in tree.paths
    assert decode(root / path).shape == messy.RGB.shape
    assert printable(path) == r"dogs/caf\xe9.jpg"
    assert printable("new\nline") == r"new\nline"


def test_order_is_torchvisions(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    plant(tmp_path, "b/1.JPG", "a/b/3.jpg", "a/b.jpg", "a/a-b/2.jpg", "a/B/1.png", "a/é.jpg", "c/x")
    plant(tmp_path, "a-b/1.jpg", "a!/z.jpg", "a/10.jpg", "a/9.jpg")
    tree = scan(tmp_path)
    expected = datasets.ImageFolder(tmp_path, allow_empty=True).samples
    assert [str(tmp_path / path) for path in tree.paths] == [path for path, _ in expected]


def test_order_does_not_depend_on_the_directorys(tmp_path):
    names = [f"{folder}/{i}.jpg" for folder in "cab" for i in (3, 1, 2)]
    one, other = plant(tmp_path / "one", *names), plant(tmp_path / "other", *names[::-1])
    assert scan(one).paths == scan(other).paths == tuple(sorted(names))


def test_sizes_and_times_belong_to_their_paths(tree, root):
    for path, size, mtime in zip(tree.paths, tree.sizes_bytes, tree.mtimes_ns, strict=True):
        status = (root / path).stat()
        assert (status.st_size, status.st_mtime_ns) == (size, mtime)


def test_images_in_no_class_folder_are_of_one_class(tmp_path):
    tree = scan(plant(tmp_path / "holiday", "2.jpg", "1.jpg"))
    assert (tree.classes, tree.paths, list(tree.labels)) == (
        ("holiday",),
        ("1.jpg", "2.jpg"),
        [0, 0],
    )
    assert noted(tree, "all are of one class")


def test_images_beside_class_folders_are_skipped_and_noted(tmp_path):
    tree = scan(plant(tmp_path, "a/1.jpg", "stray.jpg"))
    assert tree.paths == ("a/1.jpg",)
    assert noted(tree, "1 images beside the class folders")


def test_one_class_is_noted(tmp_path):
    assert noted(scan(plant(tmp_path, "only/1.jpg")), "one class only: only")


def test_splits_are_taken_for_what_they_are(tmp_path):
    tree = scan(plant(tmp_path, "train/a/1.jpg", "val/a/2.jpg"))
    assert noted(tree, f"did you mean DATA={tmp_path}/train?")


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ((), "it holds nothing"),
        (
            ("a/1.npy", "a/2.npy", "b"),
            "3 files that are not images by name (.npy 2, no extension 1)",
        ),
    ],
)
def test_a_folder_without_images_says_what_it_holds(tmp_path, names, seen):
    with pytest.raises(SourceError, match=r"no images in .*make bench DATA=") as error:
        scan(plant(tmp_path, *names))
    assert seen in str(error.value)


def test_a_folder_of_unreadable_entries_names_one(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    with pytest.raises(SourceError, match=r"1 unreadable entries \(a/1.jpg: empty file"):
        scan(tmp_path)


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere does not exist; .*make bench DATA="):
        scan(tmp_path / "nowhere")


def test_a_file_names_its_folder(tmp_path):
    plant(tmp_path, "1.jpg")
    with pytest.raises(SourceError, match=f"is a file; .*DATA={tmp_path}$"):
        scan(tmp_path / "1.jpg")


def test_a_forbidden_folder_names_the_command_that_opens_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "scandir", lambda _: (_ for _ in ()).throw(PermissionError(13, "")))
    with pytest.raises(SourceError, match=r"may not be read .*chmod -R u\+rX"):
        scan(tmp_path)


def test_a_forbidden_class_folder_is_listed(tmp_path, monkeypatch):
    plant(tmp_path, "a/1.jpg", "b/2.jpg")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "b":
            raise PermissionError(13, "")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert reasons(scan(tmp_path)) == {"b": "permission denied"}


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
def test_lossless_formats_decode_to_their_rgb(root, name, expected):
    pixels = decode(root / "cats" / name)
    tolerance = 12 if name == "palette.png" else 0  # its colours are rounded to 256
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), expected.astype(int), atol=tolerance)


@pytest.mark.parametrize("name", ["plain.jpg", "UPPER.JPG", "mixed.JpEg", "grey.jpg", "cmyk.jpg"])
def test_jpegs_decode_to_nearly_their_rgb(root, name):
    expected = np.dstack([messy.GREY] * 3) if name == "grey.jpg" else messy.RGB
    assert np.abs(decode(root / "cats" / name).astype(int) - expected).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    image, exif = Image.fromarray(messy.RGB), Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "tif"):
        image.save(tmp_path / f"turned.{suffix}", exif=exif)
    expected = image.transpose(UPRIGHT[orientation - 2]) if orientation > 1 else image
    assert np.array_equal(decode(tmp_path / "turned.png"), expected)
    assert np.array_equal(decode(tmp_path / "turned.tif"), expected)


def test_a_jpeg_held_upright_decodes_to_the_transposed_pixels(tmp_path):
    image, exif = Image.fromarray(messy.RGB), Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right
    image.save(tmp_path / "flat.jpg")
    image.save(tmp_path / "upright.jpg", exif=exif)
    assert np.array_equal(decode(tmp_path / "upright.jpg"), np.rot90(decode(tmp_path / "flat.jpg"), -1))


def test_damaged_exif_leaves_the_image_readable(tmp_path):
    Image.fromarray(messy.RGB).save(tmp_path / "1.png", exif=b"Exif\0\0no TIFF header")
    assert np.array_equal(decode(tmp_path / "1.png"), messy.RGB)


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
        (encoded("JPEG")[:-50], "^image file is truncated"),
        (encoded("PNG")[:-50], "^image file is truncated"),
        (encoded("WEBP")[:-50], "^could not create decoder object"),
        (encoded("TIFF")[:-50], "^image file is truncated"),
        (png_of_size(30_000, 30_000), "decompression bomb"),
    ],
    ids=["empty", "postscript", "header", "jpeg", "png", "webp", "tiff", "bomb"],
)
def test_what_cannot_be_decoded_has_a_reason_in_one_line_and_prints_nothing(tmp_path, capfd, content, reason):
    plant(tmp_path, "bad.jpg", content=content)
    with pytest.raises(Unreadable, match=reason) as error:
        decode(tmp_path / "bad.jpg")
    assert "\n" not in str(error.value)
    assert "bad.jpg" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_large_image_decodes_without_a_warning(tmp_path, recwarn, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", messy.GREY.size - 1)
    plant(tmp_path, "large.png", content=encoded("PNG"))
    assert decode(tmp_path / "large.png").shape == messy.RGB.shape
    assert not recwarn.list


def test_a_file_that_is_gone_is_unreadable(tmp_path):
    with pytest.raises(Unreadable, match=r"^no such file or directory$"):
        decode(tmp_path / "gone.jpg")
