"""The stored content of a format is described by reading it back."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import pytest
from PIL import Image

from loaderbench.api import Encoding, Mode
from loaderbench.formats import Prepared, deviation, payloads, prepare
from loaderbench.formats.payloads import StoredError, read_back
from loaderbench.images import CanonicalImages
from loaderbench.machine.progress import Display
from tests.campaigns import campaign

pytestmark = pytest.mark.usefixtures("forked")


def encoded(source: CanonicalImages, index: int, kind: str = "JPEG", **options: object) -> bytes:
    """An image of the source as Pillow encodes it."""
    file = io.BytesIO()
    Image.fromarray(source.pixels(index)).save(file, kind, **options)
    return file.getvalue()


def said(source: CanonicalImages, payloads: list[bytes]) -> str:
    return str(read_back(lambda: payloads, source)["stored"])


def all_of(source: CanonicalImages, **options: object) -> list[bytes]:
    return [encoded(source, index, **options) for index in range(len(source))]  # type: ignore[arg-type]


def test_libraries_store_canonical_images_unless_they_reencode(everything: Prepared) -> None:
    texts = {record.format: record.stored for record in everything.records}
    assert texts.pop("original") == "original files"
    assert texts.pop("ffcv-raw") == texts.pop("litdata-raw") == "canonical pixels"
    assert texts.pop("jpeg-files") == texts.pop("ffcv-jpeg") == texts.pop("litdata-jpeg") == "canonical JPEG bytes"
    again = texts.pop("litdata-again")
    assert again.startswith("JPEG of quality about 75, 4:2:0, full resolution, ")
    assert deviation(Encoding("jpeg-reencoded"), again) == "stores JPEG of quality about 75 where 90 was requested"
    shares = {record.format: round(100 * (record.stored_raw or 0) / 96) for record in everything.records}
    for name, text in texts.items():
        assert text == f"canonical pixels ({shares[name]} %) and canonical JPEG bytes ({100 - shares[name]} %)"


@pytest.mark.usefixtures("planted")
def test_writers_that_store_other_images_are_detected_and_measured(tree: Path, tmp_path: Path) -> None:
    formats = {
        "dark": {"writer": "planted-writer", "mode": "raw"},
        "small": {"writer": "planted-small", "mode": "raw"},
        "lossy": {"writer": "planted-lossy", "mode": "jpeg"},
    }
    chosen = campaign({"a": {"loader": "planted"}}, formats)
    prepared = prepare(chosen, tree, tmp_path, Display(), strict=True)
    assert {record.format: record.status for record in prepared.records} == dict.fromkeys(formats, "ok")
    assert set(prepared.artifacts) == set(formats)
    texts = {record.format: record.stored.split(", ") for record in prepared.records}
    assert texts["dark"][:2] == ["pixels", "full resolution"]
    assert 4 < float(texts["dark"][2].removesuffix(" dB from the canonical pixels")) < 12
    assert texts["small"][:2] == ["pixels", "50 % of the width and height"]
    assert texts["lossy"][:3] == ["JPEG of quality about 60", "4:2:0", "full resolution"]
    reasons = {f.name: deviation(f.encoding, ", ".join(texts[f.name])) for f in chosen.formats}
    assert reasons["dark"].startswith("stores pixels, full resolution, ")
    assert reasons["dark"].endswith(" where canonical pixels were requested")
    assert "50 % of the width and height" in reasons["small"]
    assert reasons["lossy"] == "stores JPEG of quality about 60 where 90 was requested"


@pytest.mark.parametrize("quality", [1, 25, 50, 75, 90, 95, 100])
def test_jpeg_quality_is_recognised_for_each_encoder(canonical: CanonicalImages, quality: int) -> None:
    bgr = [cv2.cvtColor(canonical.pixels(index), cv2.COLOR_RGB2BGR) for index in range(len(canonical))]
    by_opencv = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes() for image in bgr]
    by_pillow = all_of(canonical, quality=quality)
    expected = "canonical JPEG bytes" if quality == 90 else f"JPEG of quality about {quality}, "
    assert said(canonical, by_pillow).startswith(expected)
    assert said(canonical, by_opencv).startswith(expected)


def test_chroma_subsampling_and_sizes_are_described(canonical: CanonicalImages) -> None:
    payloads = all_of(canonical, quality=60, subsampling="4:4:4")
    measured = range(0, 96, 2)  # of 96 images at most 64: every other one
    mean = sum(len(payloads[index]) for index in measured) / len(measured)
    instead = sum(len(canonical.jpeg(index)) for index in measured) / len(measured)
    parts = said(canonical, payloads).split(", ")
    assert parts[1] == "4:4:4"
    assert parts[-1] == f"{mean:,.0f} bytes per image instead of {instead:,.0f}"


def test_lossless_storage_is_described_as_exact(canonical: CanonicalImages) -> None:
    assert said(canonical, all_of(canonical, kind="PNG")).startswith(
        "PNG, full resolution, exactly the canonical pixels, "
    )


def test_a_single_deviating_image_is_described(canonical: CanonicalImages) -> None:
    payloads = [canonical.jpeg(index) for index in range(len(canonical))]
    payloads[40] = encoded(canonical, 40, quality=30)
    text = said(canonical, payloads)
    assert text.startswith("canonical JPEG bytes (99 %) and JPEG of quality about 30, 4:2:0, full resolution, ")
    assert text.endswith(" (1 %)")
    assert deviation(Encoding("jpeg"), text) == "stores JPEG of quality about 30 where 90 was requested"


def test_a_limited_number_of_deviating_images_is_measured(
    canonical: CanonicalImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    measure = payloads._squared_error
    monkeypatch.setattr(payloads, "_squared_error", lambda *args: calls.append(1) or measure(*args))  # type: ignore[func-returns-value]
    said(canonical, all_of(canonical, quality=60))
    assert 0 < len(calls) <= payloads.MEASURED < len(canonical)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda payloads: payloads[:-1], "95 images are stored instead of 96"),
        (lambda payloads: [*payloads, payloads[0]], "more than 96 images are stored"),
        (lambda payloads: [*payloads[:9], payloads[9][:-40], *payloads[10:]], "of image 10 cannot be read"),
        (lambda payloads: [b"?", *payloads[1:]], "of image 1 cannot be read: neither an image file nor the pixels"),
    ],
    ids=["missing", "more", "truncated", "nothing"],
)
def test_missing_surplus_and_damaged_images_are_refused(canonical: CanonicalImages, change, reason: str) -> None:
    payloads = [canonical.jpeg(index) for index in range(len(canonical))]
    with pytest.raises(StoredError, match=reason):
        read_back(lambda: change(payloads), canonical)


@pytest.mark.parametrize(
    ("mode", "text", "reason"),
    [
        ("original", "original files", ""),
        ("raw", "canonical pixels", ""),
        ("raw", "canonical JPEG bytes", "stores canonical JPEG bytes where canonical pixels were requested"),
        ("jpeg", "canonical JPEG bytes", ""),
        ("smart", "canonical pixels (51 %) and canonical JPEG bytes (49 %)", ""),
        (
            "jpeg",
            "canonical pixels (51 %) and canonical JPEG bytes (49 %)",
            "stores canonical pixels where canonical JPEG bytes were requested",
        ),
        ("proportion", "PNG (5 %)", "stores PNG where canonical pixels or canonical JPEG bytes were requested"),
    ],
)
def test_deviation_names_stored_and_requested_content(mode: Mode, text: str, reason: str) -> None:
    assert deviation(Encoding(mode), text) == reason
