"""The portable FFCV wheel works without OpenCV and libturbojpeg of the system."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")
TIME_LIMIT_S = 900  # FFCV can hang for ever
SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/opt")
# What a wheel that was not repaired loads from the system.
SYSTEM_LIBRARIES = ("libopencv*.so*", "libturbojpeg*.so*", "libjpeg*.so*", "libtbb*.so*")

ROUND_TRIP = """
import sys
from pathlib import Path

import cv2
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter

SIDE, QUALITY = 32, 90
folder, forbidden = Path(sys.argv[1]), set(sys.argv[2:])
# Smooth, so that decoders that round differently stay close.
ramp = np.arange(64, dtype=np.uint8) * 3
pixels = [np.stack(np.broadcast_arrays(ramp + k, ramp[:, None], 255 - ramp), -1) for k in range(4)]


def jpeg(image):
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def read(mode):
    path = str(folder / f"{mode}.beton")
    fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=QUALITY), "label": IntField()}
    data = [(image, label) for label, image in enumerate(pixels)]
    DatasetWriter(path, fields, num_workers=1).from_indexed_dataset(data)
    pipelines = {
        "image": [CenterCropRGBImageDecoder((SIDE, SIDE), ratio=1), ToTensor()],
        "label": [IntDecoder(), ToTensor()],
    }
    loader = Loader(path, batch_size=2, num_workers=1, order=OrderOption.SEQUENTIAL,
                    pipelines=pipelines, drop_last=False)
    batches = [(images.numpy().copy(), labels.numpy().copy()) for images, labels in loader]
    images, labels = (np.concatenate(part) for part in zip(*batches))
    assert labels.ravel().tolist() == [0, 1, 2, 3], labels
    return images


for mode, stored, tolerance in (("raw", pixels, 0), ("jpg", map(jpeg, pixels), 8)):
    wanted = np.stack(
        [cv2.resize(i, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for i in stored]
    ).astype(int)
    difference = np.abs(read(mode) - wanted).max()
    assert difference <= tolerance, (mode, difference)

mapped = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/" in line}
assert not mapped & forbidden, mapped & forbidden
print("round trip done")
"""


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The cached wheel, as set-up installed it."""
    command = [sys.executable, ROOT / "scripts" / "ffcv_wheel.py", "find"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert found, "no portable wheel in the cache; run: make ffcv-wheel"
    return Path(found)


@pytest.fixture(scope="module")
def system_libraries() -> list[str]:
    """Every system file that the wheel must do without."""
    return sorted(
        {
            str(path.resolve())
            for folder in SYSTEM_FOLDERS
            for pattern in SYSTEM_LIBRARIES
            for path in Path(folder).rglob(pattern)
            if path.is_file() and not path.resolve().is_relative_to(sys.prefix)
        }
    )


def clean_environment(folder: Path, wheel: Path) -> Path:
    """Make an environment with FFCV from `wheel` and what it requires from this one; return it."""
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    install = [UV, "pip", "install", "-q", "--no-deps", "--python", python]
    # A copy, because links into uv's cache would carry `unrepair` there.
    subprocess.run([*install, "--link-mode", "copy", wheel], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # Behind the environment's own packages, so `ffcv` is the wheel's.
    theirs = sysconfig.get_path("purelib")
    (site / "requirements.pth").write_text(f"import site; site.addsitedir({theirs!r})\n")
    return folder


def round_trip(environment: Path, hidden: list[str]) -> subprocess.CompletedProcess[str]:
    """Write and read data sets with the `hidden` files empty, where this user may do that."""
    probe = environment / "round_trip.py"
    probe.write_text(ROUND_TRIP)
    empty = environment / "empty"
    empty.touch()
    # Of these, numba itself looks for TBB, so that one may be mapped where it cannot be hidden.
    forbidden = [path for path in hidden if "libtbb" not in path]
    command = [environment / "bin" / "python", "-P", probe, environment, *forbidden]
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0:
        hide = 'n=$1; empty=$2; shift 2; for f in "${@:1:n}"; do mount --bind "$empty" "$f"; done'
        script = f'set -e; {hide}; shift "$n"; exec "$@"'
        command = [
            *("unshare", "-rm", "bash", "-c", script, "hide", str(len(hidden)), empty),
            *hidden,
            *command,
        ]
    return subprocess.run(
        command,
        cwd=environment,
        env={name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )


def unrepair(environment: Path) -> None:
    """Make the environment's FFCV load the system's libraries, as before `auditwheel repair`."""
    (site,) = environment.glob("lib/python*/site-packages")
    patchelf = shutil.which("patchelf", path=Path(sys.executable).parent)
    assert patchelf
    extension = site / "ffcv" / "_libffcv.abi3.so"
    for vendored in (site / "ffcv.libs").iterdir():
        name = re.sub(r"-[0-9a-f]{8}(\.so\.\d+).*", r"\1", vendored.name)
        subprocess.run([patchelf, "--replace-needed", vendored.name, name, extension], check=True)
    shutil.rmtree(site / "ffcv.libs")


@pytest.mark.slow
def test_wheel_reads_and_writes_without_system_libraries(tmp_path, wheel, system_libraries):
    done = round_trip(clean_environment(tmp_path / "env", wheel), system_libraries)
    assert done.stdout.endswith("round trip done\n"), done.stderr


@pytest.mark.slow
def test_an_unrepaired_wheel_fails_without_system_libraries(tmp_path, wheel, system_libraries):
    environment = clean_environment(tmp_path / "env", wheel)
    unrepair(environment)
    done = round_trip(environment, system_libraries)
    assert done.returncode != 0
    assert re.search(r"libturbojpeg|libtbb", done.stderr), done.stderr


def test_wheel_supports_python_3_9_and_newer_and_declares_its_imports(wheel):
    assert "-cp39-abi3-manylinux" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    required = set(re.findall(r"(?m)^Requires-Dist: ([\w-]+)", metadata))
    assert required >= {"numba", "numpy", "opencv-python-headless", "torch"}
    assert "opencv-python" not in required


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount")
@pytest.mark.skipif(not Path("/usr/include/turbojpeg.h").exists(), reason="needs what FFCV is compiled with")
def test_the_wheel_is_built_where_no_program_may_run_in_the_temporary_folder(tmp_path: Path) -> None:
    build = f"TMPDIR={tmp_path} XDG_CACHE_HOME={tmp_path} {sys.executable} {ROOT / 'scripts' / 'ffcv_wheel.py'} build"
    command = ["unshare", "--mount", "sh", "-ec", f"mount -t tmpfs -o noexec none {tmp_path}\n{build}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT_S)
    assert done.stdout.startswith(f"{tmp_path}/loaderbench/wheels/ffcv-"), done.stderr


def found(wheel: Path | None, cache: Path) -> subprocess.CompletedProcess[str]:
    """Let set-up look for the wheel, which is given by the user unless it is None, in a cache of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "FFCV_WHEEL": str(wheel or "")}
    command = [sys.executable, ROOT / "scripts" / "ffcv_wheel.py", "find"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_file_that_is_no_wheel_is_not_kept(wheel: Path, tmp_path: Path) -> None:
    false = tmp_path / wheel.name
    false.write_text("no wheel")
    done = found(false, tmp_path / "cache")
    assert done.returncode == 1
    assert "does not work here and is not kept: File is not a zip file" in done.stderr
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_kept_wheel_that_changes_is_refused(wheel: Path, tmp_path: Path) -> None:
    first = found(wheel, tmp_path)
    assert first.returncode == 0, first.stderr
    kept = Path(first.stdout.strip())
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert kept.with_name(f"{kept.name}.sha256").read_text() == f"{digest}\n"
    assert found(None, tmp_path).stdout == first.stdout
    kept.write_bytes(kept.read_bytes() + b"x")
    changed = found(None, tmp_path)
    assert changed.returncode == 1
    assert "has changed since it was kept" in changed.stderr
