"""ImageNet's own archives become class-index folders: a synset's index is its position in sorted order."""

from __future__ import annotations

import hashlib
import io
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from loaderbench.images import SourceError
from tests.archives import contents, image, packed, read, tar

SYNSETS = ("n01440764", "n01443537", "n02119789", "n03000684")  # sorted
STORED = (2, 0, 3, 1)  # their order in the archive
ILSVRC_IDS = {"n02119789": 1, "n01443537": 2, "n03000684": 3, "n01440764": 4}  # not in sorted order, as in ImageNet
TRUTH = ("n03000684", "n01440764", "n02119789", "n01443537", "n01440764")  # of validation images 1 to 5
VALIDATION = [(f"ILSVRC2012_val_{number:08d}.JPEG", image(number)) for number in (3, 1, 2, 5, 4)]
EXPECTED = {
    f"{SYNSETS.index(synset):06d}/ILSVRC2012_val_{number:08d}.JPEG": image(number)
    for number, synset in enumerate(TRUTH, 1)
}


@pytest.fixture
def training(tmp_path):
    folder = tmp_path / "imagenet"
    folder.mkdir()
    synsets = [
        (f"{synset}.tar", packed([(f"{synset}_{n}.JPEG", image(10 * place + n)) for n in range(3)]))
        for place, synset in ((place, SYNSETS[place]) for place in STORED)
    ]
    return tar(folder / "ILSVRC2012_img_train.tar", synsets)


@pytest.fixture
def validation(tmp_path):
    return tar(tmp_path / "ILSVRC2012_img_val.tar", VALIDATION)


def ground_truth() -> bytes:
    return "".join(f"{ILSVRC_IDS[synset]}\n" for synset in TRUTH).encode()


def meta() -> bytes:
    """Return a `meta.mat` with ImageNet's fields, and after the leaves an inner node of WordNet."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    fields += [("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O")]
    leaves = [(id_, synset, "kit fox", "small fox", 0, [], 0, 1300) for synset, id_ in ILSVRC_IDS.items()]
    rows = [*leaves, (1001, "n00001740", "entity", "that which is", 2, [1, 2], 9, 0)]
    synsets = np.array([tuple(row) for row in rows], dtype=fields)[:, None]
    with io.BytesIO() as stream:
        savemat(stream, {"synsets": synsets})
        return stream.getvalue()


def kit() -> list[tuple[str, bytes]]:
    data = "ILSVRC2012_devkit_t12/data"
    return [
        ("ILSVRC2012_devkit_t12/COPYING", b""),
        (f"{data}/ILSVRC2012_validation_ground_truth.txt", ground_truth()),
        (f"{data}/meta.mat", meta()),
    ]


@pytest.mark.parametrize("name", ["the tar", "its folder"])
def test_training_images_get_the_index_of_their_synset_in_any_tar_order(training, tmp_path, name):
    tree = read(training if name == "the tar" else training.parent, tmp_path / "cache")
    assert tree.classes == tuple(sorted(SYNSETS))
    assert contents(tree) == {
        f"{label:06d}/{synset}_{n}.JPEG": image(10 * label + n)
        for label, synset in enumerate(SYNSETS)
        for n in range(3)
    }


def test_images_keep_the_bytes_of_the_archive(training, tmp_path):
    def sha256(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    tree = read(training, tmp_path / "cache")
    with tarfile.open(training) as outer:
        inner = [tarfile.open(fileobj=outer.extractfile(member)) for member in outer]  # noqa: SIM115
        stored = sorted(sha256(tar.extractfile(member).read()) for tar in inner for member in tar)
    assert sorted(map(sha256, contents(tree).values())) == stored


def test_inner_tars_are_not_written(training, tmp_path):
    tree = read(training, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.tar"))
    size_bytes = sum(path.stat().st_size for path in tree.root.rglob("*.JPEG"))
    assert size_bytes == sum(len(content) for content in contents(tree).values())


def test_a_note_counts_missing_synsets(training, tmp_path):
    assert any("holds 4 synsets instead of 1000" in note for note in read(training, tmp_path / "cache").notes)


def test_ingestion_leaves_the_users_files_unchanged(training, tmp_path):
    before = training.stat(), training.read_bytes()
    read(training.parent, tmp_path / "cache")
    assert (training.stat(), training.read_bytes()) == before
    assert list(training.parent.iterdir()) == [training]


def solution(folder):
    rows = [f"ILSVRC2012_val_{n:08d},{synset} 1 2 3 4 {synset} 5 6 7 8" for n, synset in enumerate(TRUTH, 1)]
    (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows))


def packed_kit(folder):
    tar(folder / "ILSVRC2012_devkit_t12.tar.gz", kit(), "w:gz")


def unpacked_kit(folder):
    for name, content in kit():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def loose_files(folder):
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_bytes(ground_truth())
    (folder / "meta.mat").write_bytes(meta())


@pytest.mark.parametrize("put", [solution, packed_kit, unpacked_kit, loose_files], ids=lambda put: put.__name__)
def test_validation_images_get_the_index_of_the_ground_truth(validation, tmp_path, put):
    put(validation.parent)
    assert contents(read(validation, tmp_path / "cache")) == EXPECTED
    assert contents(read(validation.parent, tmp_path.with_name("other"))) == EXPECTED


def test_error_for_missing_ground_truth_says_which_files_to_add(validation, tmp_path):
    with pytest.raises(SourceError, match=r"put LOC_val_solution.csv beside it, or ILSVRC2012_devkit_t12.tar.gz"):
        read(validation, tmp_path / "cache")


def test_a_validation_image_without_ground_truth_is_skipped(validation, tmp_path):
    solution(validation.parent)
    path = validation.parent / "LOC_val_solution.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    tree = read(validation, tmp_path / "cache")
    assert len(tree.paths) == 4
    assert [entry.reason for entry in tree.skipped] == ["no ground truth"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LOC_val_solution.csv", b"ImageId\nILSVRC2012_val_00000001\n"),
        ("meta.mat", b"no MATLAB file"),
        ("ILSVRC2012_validation_ground_truth.txt", b"77\n"),
    ],
)
def test_error_names_a_damaged_ground_truth_file(validation, tmp_path, name, content):
    loose_files(validation.parent)
    (validation.parent / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"{name}.* does not look like ImageNet's"):
        read(validation, tmp_path / "cache")
