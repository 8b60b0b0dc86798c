"""Synthetic images cost what ImageNet's cost, resemble photographs, and are reproducible."""

import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from loaderbench.images import synthetic

SAMPLES, CLASSES = 256, synthetic.CLASSES


def ignored(_: int) -> None:
    """Ignore progress."""


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.jpg"))}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    synthetic.write(root, SAMPLES, 0, ignored)
    return root


@pytest.fixture(scope="module")
def images(tree):
    """BGR pixels in the order of the index."""
    return [cv2.imread(str(p)) for p in sorted(tree.rglob("*.jpg"), key=lambda p: p.name)]


@pytest.fixture(scope="module")
def canonical(images):
    """As FFCV stores them at 256 px."""
    resized = []
    for image in images:
        height, width = image.shape[:2]
        ratio = 256 / max(width, height)
        if ratio < 1:
            size = int(ratio * width), int(ratio * height)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # noqa: PLW2901
        resized.append(image)
    return resized


def test_an_image_depends_only_on_seed_and_index(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    synthetic.write(tmp_path, 40, 0, ignored)
    assert files(tmp_path) == {k: v for k, v in files(tree).items() if int(Path(k).stem) < 40}


def test_another_seed_gives_other_images(tree, tmp_path):
    synthetic.write(tmp_path, 20, 1, ignored)
    ours, theirs = files(tmp_path), files(tree)
    assert len(ours) == 20
    assert not [name for name in ours if ours[name] == theirs[name]]


def test_the_tree_is_an_image_folder_of_balanced_classes(tree):
    counts = {folder.name: len(list(folder.iterdir())) for folder in tree.iterdir()}
    assert counts == {f"c{label:03d}": SAMPLES // CLASSES for label in range(CLASSES)}


def test_files_are_rgb_jpegs_without_exif(tree):
    for path in list(tree.rglob("*.jpg"))[:32]:
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, len(image.getexif())) == ("JPEG", "RGB", 0)


def test_torchvision_decodes_synthetic_images(tree, images):
    io = pytest.importorskip("torchvision.io")
    decoded = io.decode_image(str(tree / "c000" / "0000000.jpg")).permute(1, 2, 0).numpy()
    difference = np.abs(decoded[..., ::-1].astype(int) - images[0])
    assert difference.mean() < 1


def test_bytes_per_image_match_imagenet(tree, canonical):
    raw = np.mean([image.nbytes for image in canonical])
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    jpeg = np.mean([cv2.imencode(".jpg", image, quality)[1].nbytes for image in canonical])
    source = np.mean([len(data) for data in files(tree).values()])
    assert raw == pytest.approx(142_009, rel=0.05)
    assert jpeg == pytest.approx(16_622, rel=0.05)
    assert source == pytest.approx(synthetic.MEAN_BYTES, rel=0.1)


def test_sizes_and_aspect_ratios_vary_like_imagenets(images):
    height, width = np.array([image.shape[:2] for image in images]).T
    long = np.maximum(width, height)
    assert (np.median(width), np.median(height)) == (500, 375)
    assert 0.15 < np.mean(height > width) < 0.35
    assert np.mean(height == width) > 0.03
    assert 0.03 < np.mean(long < 256) < 0.15
    assert 0.005 < np.mean(long >= 1000) < 0.06
    assert len(set(zip(width, height, strict=True))) > SAMPLES / 4


def test_quality_and_chroma_subsampling_vary(tree):
    subsampled, tables = [], set()
    for path in list(tree.rglob("*.jpg"))[:64]:
        with Image.open(path) as image:
            subsampled.append(image.layer[0][1] == 2)
            tables.add(tuple(image.quantization[0]))
    assert 0.1 < np.mean(subsampled) < 0.6
    assert len(tables) > 5


def spectrum_slope(image):
    """Return the slope of log amplitude over log frequency, from 4 cycles per image to 0.4 per pixel."""
    side = min(image.shape[:2])
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[:side, :side].astype(float)
    window = np.hanning(side)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window * window[:, None])) ** 2
    frequency = np.hypot(np.fft.fftfreq(side), np.fft.fftfreq(side)[:, None])
    edges = np.geomspace(4 / side, 0.4, 12)
    amplitude = np.sqrt(np.histogram(frequency, edges, weights=power)[0] / np.histogram(frequency, edges)[0])
    return np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(amplitude), 1)[0]


def test_amplitude_spectrum_is_natural(canonical):
    slopes = [spectrum_slope(image) for image in canonical if max(image.shape) == 256]
    assert np.mean(slopes) == pytest.approx(-1.42, abs=0.05)
    assert 0.05 < np.std(slopes) < 0.3


def test_edges_are_sharp_and_sparse(canonical):
    def kurtosis(image):
        step = np.diff(image[..., 1].astype(float), axis=1).ravel()
        return np.mean((step - step.mean()) ** 4) / step.var() ** 2

    assert np.mean([kurtosis(image) for image in canonical]) > 10  # Gaussian noise: 3


def test_channels_are_correlated_but_not_grey(images):
    pixels = np.concatenate([image.reshape(-1, 3)[::101] for image in images])
    assert 0.8 < np.corrcoef(pixels.T)[0, 2] < 0.97


def test_classes_are_learnable_by_colour(images):
    colour = np.array([image.mean((0, 1)) for image in images])
    colour -= colour.mean(1, keepdims=True)
    label = np.arange(SAMPLES) % CLASSES
    half = SAMPLES // 2
    centre = np.array([colour[:half][label[:half] == c].mean(0) for c in range(CLASSES)])
    nearest = np.argmin(np.linalg.norm(colour[half:, None] - centre, axis=2), axis=1)
    assert 3 / CLASSES < np.mean(nearest == label[half:]) < 0.95


def test_progress_counts_every_image_and_no_class_is_empty(tmp_path):
    counts = []
    synthetic.write(tmp_path, 9, 0, counts.append)
    assert counts == list(range(1, 10))
    assert [len(list(folder.iterdir())) for folder in tmp_path.iterdir()] == [1] * 9


def test_a_killed_worker_is_an_error(tmp_path):
    def kill(_: int) -> None:
        multiprocessing.active_children()[0].kill()

    with pytest.raises(RuntimeError, match=r"worker process died"):
        synthetic.write(tmp_path, 320, 0, kill)
    assert multiprocessing.active_children() == []


def test_an_exception_of_a_worker_is_raised_by_write(tmp_path):
    (tmp_path / "c000" / "0000000.jpg").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"0000000\.jpg"):
        synthetic.write(tmp_path, 20, 0, ignored)


def test_an_interrupt_leaves_no_worker_behind(tmp_path):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(tmp_path, 320, 0, interrupt)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("samples", "seed"), [(0, 0), (1, -1)])
def test_impossible_sets_are_refused(tmp_path, samples, seed):
    with pytest.raises(ValueError, match="must be at least 1"):
        synthetic.write(tmp_path, samples, seed, ignored)
    assert list(tmp_path.iterdir()) == []
