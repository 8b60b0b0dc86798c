"""Each step processes the right bytes, and every process does a share."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from loaderbench.api import Crop, Work, random_crop
from loaderbench.certify.pixels import LEAST_DB
from loaderbench.machine import parallel_rate
from loaderbench.machine.parallel_rate import Share, StepError, rate_per_s
from loaderbench.roofline import steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaderbench.formats import Prepared
    from loaderbench.images import CanonicalImages

WORK = Work(batch_size=16, workers=2, image_size=32, dtype="uint8", passes=1, seed=0)


class TestTogether:
    def test_every_process_does_a_share(self) -> None:
        shares = parallel_rate.shares(partial(steps.output, WORK), 3, 0.1)
        assert len(shares) == 3
        assert all(share.amount > 0 for share in shares)

    def test_shares_run_in_separate_processes(self) -> None:
        pids = {share.amount for share in parallel_rate.shares(lambda _: iter([os.getpid()]), 3, 60)}
        assert len(pids - {os.getpid()}) == 3

    def test_processes_do_not_wait_for_opencvs_threads_in_this_one(self) -> None:
        script = (
            "import cv2, numpy; from loaderbench.machine.parallel_rate import parallel_rate; cv2.setNumThreads(2);"
            "cv2.resize(numpy.zeros((3000, 3000, 3), numpy.uint8), (999, 999), interpolation=cv2.INTER_AREA);"
            "print(parallel_rate(lambda _: iter([1]), 2, 0.1) > 0, cv2.getNumThreads())"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
        assert done.stdout == "True 2\n"

    def test_no_process_starts_before_all_are_ready(self, tmp_path: Path) -> None:
        def step(number: int) -> Iterator[int]:
            time.sleep(0.2 * number)
            (tmp_path / str(number)).write_text(str(time.perf_counter()))
            return iter([1])

        shares = parallel_rate.shares(step, 3, 60)
        last_ready_s = max(float(path.read_text()) for path in tmp_path.iterdir())
        assert min(share.started_s for share in shares) >= last_ready_s

    def test_rate_spans_the_time_of_all_processes(self) -> None:
        shares = [Share(100, 0.0, 2.0), Share(100, 1.0, 4.0)]
        assert rate_per_s(shares) == 50

    @pytest.mark.parametrize(
        ("end", "reason"), [(lambda: os._exit(3), "one of the processes died"), (lambda: 1 / 0, "ZeroDivisionError")]
    )
    def test_a_failing_process_is_an_error_and_ends_the_others(self, end: Any, reason: str) -> None:
        def step(number: int) -> Iterator[int]:
            while True:
                yield 1
                if number == 0:
                    end()

        with pytest.raises(StepError, match=reason):
            parallel_rate.shares(step, 3, 600)
        assert not multiprocessing.active_children()


class TestSamples:
    def test_mapped_bytes_equal_those_of_the_source(self, canonical: CanonicalImages) -> None:
        for index in range(len(canonical)):
            assert np.array_equal(canonical.mapped("pixels", index), canonical.pixels(index))
            assert canonical.mapped("jpeg", index).tobytes() == canonical.jpeg(index)

    def test_decoded_originals_are_close_to_the_canonical_pixels(self, canonical: CanonicalImages) -> None:
        order = [*range(len(canonical))]
        buffer = np.empty(1 << 20, np.uint8)
        for index, image in zip(order, steps.original(canonical, order), strict=True):
            assert image.turbo
            assert cv2.PSNR(image.decode(buffer), canonical.pixels(index)) >= LEAST_DB

    def test_canonical_jpegs_decode_to_the_same_work_as_with_pillow(self, canonical: CanonicalImages) -> None:
        order = [*range(len(canonical))]
        buffer = np.empty(1 << 20, np.uint8)
        for index, image in zip(order, steps.jpeg(canonical, order), strict=True):
            with Image.open(io.BytesIO(canonical.jpeg(index))) as expected:
                assert cv2.PSNR(image.decode(buffer), np.asarray(expected)) >= LEAST_DB
            assert np.shares_memory(image.decode(buffer), buffer)

    @pytest.mark.parametrize("metadata", [b"", b"Exif\0\0" + bytes(40_000)])
    def test_a_file_can_be_read_down_to_a_row(self, metadata: bytes) -> None:
        """Its headers stay complete, however long they are."""
        pixels = cv2.resize(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8), (320, 480))
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", exif=metadata)
        image = steps.encoded(file.getvalue())
        assert image is not None
        whole, half = (part.read(np.empty(1 << 20, np.uint8)) for part in (image, image.down_to(240)))
        assert image.down_to(480).content == image.content
        assert len(image.down_to(240).content) < len(image.content)
        assert whole.shape == half.shape == (60, 40, 3)
        assert np.array_equal(whole[:20], half[:20])
        assert not np.array_equal(whole, half)

    @pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("JPEG", "CMYK"), ("PNG", "L"), ("BMP", "RGB")])
    def test_opencv_decodes_what_libjpeg_turbo_cannot(self, kind: str, mode: str) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, kind)
        image = steps.encoded(file.getvalue())
        assert image is not None
        assert (image.height, image.width, image.turbo) == (20, 30, False)
        decoded = image.decode(np.empty(0, np.uint8))
        assert decoded.shape == pixels.shape
        if mode == "RGB":
            assert np.array_equal(decoded, pixels)

    def test_an_undecodable_file_is_skipped(self, canonical: CanonicalImages, tmp_path: Path) -> None:
        class OneBroken:
            def original(self, index: int) -> Path:
                if index:
                    return canonical.original(index)
                (tmp_path / "broken").write_bytes(b"broken")
                return tmp_path / "broken"

        assert len(steps.original(OneBroken(), [0, 1, 2])) == 2
        with pytest.raises(StepError, match="none of the files"):
            steps.original(OneBroken(), [0])

    def test_samples_are_limited_by_memory_and_number(
        self, canonical: CanonicalImages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order = [*range(len(canonical))]
        monkeypatch.setattr(steps, "POOL_BYTES", canonical.pixels(0).nbytes + 1)
        assert len(steps.raw(canonical, order)) == 2
        monkeypatch.setattr(steps, "ORIGINALS", 1)
        assert len(steps.original(canonical, order)) == 1


class TestCrop:
    @pytest.mark.parametrize("size", [(375, 500), (500, 375), (256, 256), (60, 300)])
    def test_crops_follow_torchvisions_distribution(self, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        random, image, draw = np.random.default_rng(0), torch.empty(3, *size), v2.RandomResizedCrop(8)
        ours = [random_crop(size, random.random) for _ in range(2000)]
        theirs = [draw.make_params([image]) for _ in range(2000)]
        for name in ("top", "left", "height", "width"):
            same = ks_2samp([getattr(crop, name) for crop in ours], [crop[name] for crop in theirs])
            assert same.pvalue > 0.001, name

    @pytest.mark.parametrize("size", [(190, 256), (256, 190), (50, 50), (1, 300), (300, 1), (1, 1), (7, 100)])
    def test_crops_lie_within_the_image_with_the_requested_area_and_aspect(self, size: tuple[int, int]) -> None:
        random = np.random.default_rng(0)
        crops = [random_crop(size, random.random) for _ in range(300)]
        for crop in crops:
            assert 0 <= crop.top < crop.top + crop.height <= size[0]
            assert 0 <= crop.left < crop.left + crop.width <= size[1]
        assert {crop.flipped for crop in crops} == {False, True}
        if min(size) >= 50:
            areas = [crop.height * crop.width / (size[0] * size[1]) for crop in crops]
            aspects = [crop.width / crop.height for crop in crops]
            assert 0.07 < min(areas) < 0.15
            assert 0.8 < max(areas) <= 1
            assert 0.7 < min(aspects) < 0.8
            assert 1.25 < max(aspects) < 1.4

    def test_the_requested_crop_fills_its_place_in_the_batch(self) -> None:
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[10:20, 30:50] = 200
        place = steps.Batch(WORK).put(pixels, Crop(10, 30, 10, 20, flipped=False))
        assert place.shape == (32, 32, 3)
        assert (place == 200).all()

    def test_flipping_mirrors_the_image_left_to_right(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
        batch = steps.Batch(WORK)
        plain, flipped = (batch.put(pixels, Crop(3, 4, 30, 50, flipped=flip)) for flip in (False, True))
        expected = cv2.resize(pixels[3:33, 4:54], (32, 32), interpolation=cv2.INTER_AREA)
        assert np.array_equal(plain, expected)
        assert np.array_equal(flipped, expected[:, ::-1])

    def test_batch_places_are_filled_in_turn_and_reused(self) -> None:
        batch = steps.Batch(WORK)
        for number in range(WORK.batch_size + 1):
            batch.put(np.full((40, 60, 3), number + 1, np.uint8), Crop(0, 0, 40, 60, flipped=bool(number % 2)))
        assert batch.images.shape == (16, 32, 32, 3)
        assert batch.images[:, 5, 7, 1].tolist() == [17, *range(2, 17)]

    def test_crop_steps_fill_the_whole_batch(self, canonical: CanonicalImages, monkeypatch: pytest.MonkeyPatch) -> None:
        batch = steps.Batch(WORK)
        monkeypatch.setattr(steps, "Batch", lambda _: batch)
        for step in (
            steps.crop(steps.raw(canonical, range(len(canonical))), WORK, 0),
            steps.decode_crop(steps.jpeg(canonical, range(len(canonical))), WORK, 0),
            steps.region_decode_crop(steps.jpeg(canonical, range(len(canonical))), WORK, 0),
        ):
            batch.images[:] = 0
            assert list(islice(step, 16)) == [1] * 16
            assert (batch.images.max(axis=(1, 2, 3)) > 0).all()


class TestOutput:
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_copies_have_the_dtype_of_the_delivered_batches(self, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
        monkeypatch.setattr(steps, "_repeat", lambda jobs, _: iter(jobs))
        copies: list[Any] = list(steps.output(replace(WORK, dtype=dtype), 0))
        assert len(copies) == WORK.batch_size
        assert {str(place.dtype) for copy in copies for place in copy} == {dtype}


class TestRead:
    @pytest.mark.parametrize("processes", [1, 2, 5])
    def test_processes_together_read_every_byte_once(
        self, everything: Prepared, monkeypatch: pytest.MonkeyPatch, processes: int
    ) -> None:
        monkeypatch.setattr(steps, "PART_BYTES", 5000)
        for artifact in everything.artifacts.values():
            parts = steps.parts(Path(artifact.path))
            shares = [sum(steps.read(parts, processes, number)) for number in range(processes)]
            assert sum(shares) == artifact.size_bytes
            assert min(shares) > 0

    def test_parts_of_a_file_are_contiguous(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(steps, "PART_BYTES", 4)
        (tmp_path / "file").write_bytes(b"0123456789")
        (tmp_path / "empty").write_bytes(b"")
        found = [(part.offset_bytes, part.size_bytes) for part in steps.parts(tmp_path)]
        assert found == [(0, 4), (4, 4), (8, 2)]
