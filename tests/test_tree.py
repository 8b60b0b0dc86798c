"""`scan` lists the images of a folder in torchvision's order, and what it skips or refuses."""

import os
import shlex
from pathlib import Path

import pytest

from loaderbench.images import SourceError
from loaderbench.images.class_folders import scan
from loaderbench.images.decoding import decode
from loaderbench.images.tree import changed_ns
from loaderbench.machine.text import printable
from tests import messy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return messy.grow(tmp_path_factory.mktemp("tree") / "root")


@pytest.fixture(scope="module")
def tree(root):
    return scan(root)


def plant(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def reasons(tree):
    return {entry.path: entry.reason for entry in tree.skipped}


def noted(tree, text):
    return any(text in note for note in tree.notes)


def test_classes_are_the_sorted_top_folders(tree):
    assert tree.classes == ("birds", "cats", "dogs")
    assert noted(tree, "1 class folders hold no image, and keep their labels: birds")


def test_nested_files_get_the_class_of_their_top_folder(tree):
    label = tree.labels[tree.paths.index("cats/deep/er/nested.png")]
    assert tree.classes[label] == "cats"


def test_scan_ignores_the_case_of_extensions(tree):
    assert {"cats/UPPER.JPG", "cats/mixed.JpEg"} <= set(tree.paths)


def test_scan_follows_links_to_files_and_folders(tree):
    assert {"dogs/linked.jpg", "dogs/linked_folder/far.jpg"} <= set(tree.paths)


def test_scan_lists_unreadable_entries_with_their_reason(tree):
    assert reasons(tree) == {
        "dogs/dangling.jpg": "dangling link",
        "dogs/empty.jpg": "empty file",
        "dogs/loop": "link loop",
        "dogs/pipe.jpg": "not a regular file",
        "dogs/self.jpg": "link loop",
    }


def test_scan_reports_a_link_to_a_parent_folder_as_a_loop(tmp_path):
    root = plant(tmp_path / "root", "a/1.jpg")
    (root / "a" / "up").symlink_to(tmp_path.parent)
    assert reasons(scan(root)) == {"a/up": "link loop"}


def test_links_that_fan_out_are_followed_so_many_times_only(tmp_path):
    root, levels = tmp_path / "root", 14  # 2 ** 14 paths lead to the image
    for level in range(levels):
        folder = root if level == 0 else tmp_path / f"level{level}"
        folder.mkdir()
        for name in "ab":
            (folder / name).symlink_to(tmp_path / f"level{level + 1}")
    plant(tmp_path / f"level{levels}", "1.jpg")
    tree = scan(root)
    assert 0 < len(tree.paths) <= 64
    assert "a link to a folder that is read 64 times already" in reasons(tree).values()


def test_scan_stops_at_links_between_classes(tmp_path):
    root = plant(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    (root / "a" / "b").symlink_to("../b")
    (root / "b" / "a").symlink_to("../a")
    tree = scan(root)
    assert tree.paths == ("a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg")
    assert list(reasons(tree)) == ["a/b/a", "b/a/b"]


def test_scan_ignores_hidden_entries(tree, tmp_path):
    assert not any("/." in path for path in tree.paths)
    assert scan(plant(tmp_path, "a/1.jpg", ".cache/2.jpg")).classes == ("a",)


def test_scan_counts_files_without_an_image_extension(tree):
    assert noted(tree, "2 files that are not images by name (.json 1, .txt 1) are ignored")


def test_names_that_are_not_utf_8_are_kept_and_printable(tree, root):
    path = f"dogs/{messy.LATIN1_NAME}"
    assert path in tree.paths
    assert decode(root / path)[0].shape == messy.RGB.shape
    assert printable(path) == r"dogs/caf\xe9.jpg"
    assert printable("new\nline") == r"new\nline"


def test_scan_lists_files_in_torchvisions_order(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    plant(tmp_path, "b/1.JPG", "a/b/3.jpg", "a/b.jpg", "a/a-b/2.jpg", "a/B/1.png", "a/é.jpg", "c/x")
    plant(tmp_path, "a-b/1.jpg", "a!/z.jpg", "a/10.jpg", "a/9.jpg")
    tree = scan(tmp_path)
    expected = datasets.ImageFolder(tmp_path, allow_empty=True).samples
    assert [str(tmp_path / path) for path in tree.paths] == [path for path, _ in expected]


def test_scan_order_does_not_depend_on_creation_order(tmp_path):
    names = [f"{folder}/{i}.jpg" for folder in "cab" for i in (3, 1, 2)]
    one, other = plant(tmp_path / "one", *names), plant(tmp_path / "other", *names[::-1])
    assert scan(one).paths == scan(other).paths == tuple(sorted(names))


def test_scan_records_the_size_and_time_of_each_file(tree, root):
    for path, size, mtime in zip(tree.paths, tree.sizes_bytes, tree.times_ns, strict=True):
        status = (root / path).stat()
        assert (status.st_size, changed_ns(status)) == (size, mtime)


def test_images_without_class_folders_form_one_class(tmp_path):
    tree = scan(plant(tmp_path / "holiday", "2.jpg", "1.jpg"))
    assert (tree.classes, tree.paths, list(tree.labels)) == (
        ("holiday",),
        ("1.jpg", "2.jpg"),
        [0, 0],
    )
    assert noted(tree, "all are of one class")


def test_scan_skips_and_notes_images_beside_class_folders(tmp_path):
    tree = scan(plant(tmp_path, "a/1.jpg", "stray.jpg"))
    assert tree.paths == ("a/1.jpg",)
    assert noted(tree, "1 images beside the class folders")


def test_scan_notes_a_single_class(tmp_path):
    assert noted(scan(plant(tmp_path, "only/1.jpg")), "one class only: only")


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ((), "it holds nothing"),
        (
            ("a/1.xyz", "a/2.xyz", "b"),
            "3 files that are not images by name (.xyz 2, no extension 1)",
        ),
    ],
)
def test_error_for_a_folder_without_images_says_what_it_holds(tmp_path, names, seen):
    with pytest.raises(SourceError, match=r"no images in .*make bench DATA=") as error:
        scan(plant(tmp_path, *names))
    assert seen in str(error.value)


def test_error_for_a_folder_of_unreadable_entries_names_one(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    with pytest.raises(SourceError, match=r"1 unreadable entries \(a/1.jpg: empty file"):
        scan(tmp_path)


def test_scan_reports_a_missing_folder(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere does not exist; .*make bench DATA="):
        scan(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["images", "it's $5; touch made"])
def test_error_for_a_file_names_its_folder_as_a_shell_reads_it(tmp_path, name):
    plant(tmp_path / name, "1.jpg")
    with pytest.raises(SourceError, match="is a file; name its folder: make bench DATA=") as raised:
        scan(tmp_path / name / "1.jpg")
    assert shlex.split(str(raised.value).rpartition(": ")[2]) == ["make", "bench", f"DATA={tmp_path / name}"]


@pytest.mark.parametrize("name", ["images", "it's $5; touch made"])
def test_error_for_a_forbidden_folder_names_the_command_that_opens_it(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.setattr(os, "scandir", lambda _: (_ for _ in ()).throw(PermissionError(13, "")))
    with pytest.raises(SourceError, match=r"may not be read ") as raised:
        scan(tmp_path / name)
    assert shlex.split(str(raised.value).rpartition(": ")[2]) == ["chmod", "-R", "u+rX", str(tmp_path / name)]


def test_scan_lists_a_forbidden_class_folder(tmp_path, monkeypatch):
    plant(tmp_path, "a/1.jpg", "b/2.jpg")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "b":
            raise PermissionError(13, "")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert reasons(scan(tmp_path)) == {"b": "permission denied"}


def test_hidden_and_system_folders_are_noted_and_no_classes(tmp_path):
    tree = scan(plant(tmp_path, "a/1.jpg", "a/@eaDir/1.jpg/thumb.jpg", "@eaDir/2.jpg", ".old/3.jpg"))
    assert tree.paths == ("a/1.jpg",)
    assert noted(tree, "2 hidden or system folders are skipped: .old, @eaDir")


def test_an_image_changed_with_its_size_and_time_put_back_changes_the_state(tmp_path):
    image = plant(tmp_path / "set", "a/1.jpg", "a/2.jpg") / "a" / "1.jpg"
    before, status = scan(tmp_path / "set").state, image.stat()
    assert scan(tmp_path / "set").state == before
    image.write_bytes(bytes(reversed(image.read_bytes())) if image.stat().st_size else b"")
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert scan(tmp_path / "set").state != before
